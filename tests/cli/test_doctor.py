"""``seatkeeper doctor`` on services that are well, and on some that are not."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tests.cli.commands import Result, address_of, in_process, serving
from tests.cli.conftest import Cluster

from seatkeeper.cli.exits import Exit
from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdOptions


def findings(result: Result, level: str) -> list[str]:
    return [
        f"{each['about']}: {each['what']}"
        for each in result.json["findings"]
        if each["level"] == level
    ]


def test_for_people_each_finding_says_what_to_do(cluster: Cluster, pool: str) -> None:
    result = cluster("doctor").check()
    text = result.out
    assert result.err == ""
    assert "it is memory: all is lost with the node" in text
    assert "→ use etcd for whatever should outlive a process" in text
    assert "0 problems" in text


def test_for_programs_it_is_one_object(cluster: Cluster, pool: str) -> None:
    reported = cluster.here("doctor", "--json").check().json
    assert reported["problems"] == 0
    assert reported["warnings"] == len(findings(cluster.here("doctor", "--json"), "warning"))
    assert {frozenset(each) for each in reported["findings"]} == {
        frozenset({"level", "about", "what", "advice"})
    }


def test_no_service_is_reported_as_by_every_command() -> None:
    no_client = in_process("doctor", environ={"SEATKEEPER_NODES": "127.0.0.1:1"})
    assert "no node answered" in no_client.refused(Exit.UNAVAILABLE)


def test_a_member_of_etcd_that_is_down_and_then_the_quorum(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path: Path
) -> None:
    etcd = EtcdCluster(etcd_program, tmp_path / "etcd", members=3, options=etcd_options)
    asyncio.run(etcd.start())
    try:
        settings = (
            *("--store", "etcd", "--etcd-endpoints", ",".join(etcd.endpoints)),
            *("--etcd-timeout", "2"),
        )
        with serving(tmp_path, *settings) as node:
            nodes = {"SEATKEEPER_NODES": address_of(node)}
            well = in_process("doctor", "--json", environ=nodes).check()
            assert findings(well, "problem") == []

            etcd.members[0].kill()
            one_down = in_process("doctor", "--json", environ=nodes).check(Exit.FAILED)
            (problem,) = findings(one_down, "problem")
            assert etcd.endpoints[0] in problem

            etcd.members[1].kill()
            no_quorum = in_process("doctor", "--json", environ=nodes).check(Exit.FAILED)
            said = " ".join(findings(no_quorum, "problem"))
            assert "it has no quorum" in said
            assert "pools: they cannot be read" in said
    finally:
        etcd.kill()


def test_a_node_that_is_gone_without_a_word(tmp_path: Path, etcd: EtcdCluster) -> None:
    """It is registered until its lease runs out."""
    prefix = f"doctor-{tmp_path.name}".replace("_", "-")
    settings = ("--store", "etcd", "--etcd-endpoints", etcd.endpoints[0], "--prefix", prefix)
    with (
        serving(tmp_path / "stays", *settings, "--node-id", "stays") as stays,
        serving(tmp_path / "goes", *settings, "--node-id", "goes") as goes,
    ):
        nodes = {"SEATKEEPER_NODES": address_of(stays)}
        both = in_process("doctor", "--json", environ=nodes).check()
        assert any(each.startswith("nodes: 2,") for each in findings(both, "ok"))
        goes.send(signal.SIGKILL)
        goes.process.wait()
        gone = in_process("doctor", "--json", environ=nodes).check(Exit.FAILED)
        (problem,) = findings(gone, "problem")
        assert "nodes: goes at" in problem
