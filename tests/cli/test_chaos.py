"""``seatkeeper chaos``: what there is to do, how it is refused, and a short run that is real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.cli.commands import address_of, in_process, serving
from tests.cli.conftest import Cluster
from tests.client.certificates import Authority

from seatkeeper.chaos import target, trial
from seatkeeper.chaos.faults import Network, Users, described
from seatkeeper.chaos.library import read_folder
from seatkeeper.cli.exits import Exit
from seatkeeper.cli.processes import chaos
from seatkeeper.client.sync import SeatClient
from seatkeeper.devcluster.etcd_process import EtcdCluster

FEW_USERS = ("--workers", "1", "--users", "3", "--rate-min", "0.5")
"""As many as a machine bears on which other tests run."""
TWO_FAULTS = """\
Connections break, and answers are late.

promises: I1 I5

Network.connections_break
calm for 0.5 s
Network.answers_stall for 0.2 s
"""

Write = Callable[[str, str], Path]


def pools_of_ours(client: SeatClient) -> list[str]:
    return [
        pool.spec.name for pool in client.pools.list() if pool.spec.name.startswith("chaos-")
    ]


# What there is -----------------------------------------------------------------------------


def test_for_people_scenarios_and_faults_are_listed_with_what_they_do() -> None:
    out = in_process("chaos", "list").check().out
    scenarios, faults = out.split("\n\n")
    assert scenarios.splitlines()[0].split() == ["SCENARIO", "TAKES", "WHAT", "HAPPENS"]
    for name, scenario in read_folder().items():
        (line,) = [line for line in scenarios.splitlines() if line.startswith(f"{name} ")]
        assert f" {scenario.seconds:.0f} s " in line
        assert line.endswith(scenario.sentence)
    for name, sentence in described(Network, Users).items():
        (line,) = [line for line in faults.splitlines() if line.startswith(f"{name} ")]
        assert line.endswith(sentence)


def test_for_programs_the_list_is_one_object() -> None:
    reported = in_process("chaos", "list", "--json").check().json
    assert reported == {
        "scenarios": {name: each.sentence for name, each in read_folder().items()},
        "faults": described(Network, Users),
    }


# How it is refused -------------------------------------------------------------------------


def refused(*options: str, code: Exit = Exit.USAGE) -> str:
    """Return why a run is refused; no service is there to run it against."""
    return in_process("chaos", "run", "--target", "127.0.0.1:1", *options).refused(code)


def test_a_scenario_that_there_is_not_is_answered_with_those_there_are() -> None:
    said = refused("--scenario", "users-die", "--scenario", "users-dye")
    assert "--scenario: no scenario is called users-dye" in said
    for name in read_folder():
        assert name in said


def test_a_fault_that_cannot_be_injected_from_outside_is_named_and_what_can_be(
    write: Write,
) -> None:
    mine = write("mine.txt", "A node dies.\n\nKillNode.owner for 1 s\ncalm for 1 s\n")
    said = refused("--scenario", str(mine))
    assert "mine, line 3: KillNode.owner cannot be done here" in said
    assert "Network.slow" in said


def test_a_scenario_that_cannot_be_read_is_reported_with_its_line(write: Write) -> None:
    mine = write("mine.txt", "About this.\n\ncalm for 1 s\ncalm forever\n")
    assert "mine, line 4: not understood: 'calm forever'" in refused("--scenario", str(mine))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("--tls-cert absent.pem", "--tls-cert and --tls-key go together"),
        ("--tls-key absent.pem", "--tls-cert and --tls-key go together"),
        ("--tls-ca absent.pem", "--tls-ca or SEATKEEPER_TLS_CA must be a readable file"),
        ("--target nonsense", "--target or SEATKEEPER_NODES: 'nonsense' is not host:port"),
        ("--target ,", "--target or SEATKEEPER_NODES: give from 1 to"),
        ("--etcd-endpoints nonsense", "--etcd-endpoints: 'nonsense' is not host:port"),
        ("--etcd-endpoints 127.0.0.1:1,,b:2", "--etcd-endpoints: an address is empty"),
        ("--etcd-username root", "--etcd-endpoints: say where the etcd is"),
        (
            "--etcd-endpoints 127.0.0.1:1 --etcd-password-file absent",
            "--etcd-password-file must be a readable file: absent",
        ),
        (
            "--etcd-endpoints 127.0.0.1:1 --etcd-ca-file absent.pem",
            "--etcd-ca-file must be a readable file: absent.pem",
        ),
        (
            "--etcd-endpoints 127.0.0.1:1 --etcd-cert-file absent.pem",
            "--etcd-cert-file and --etcd-key-file go together",
        ),
        ("--report /dev/null", "--report /dev/null: "),
        ("--workers 0", "'--workers'"),
        ("--users 0", "'--users'"),
        ("--seats 0", "'--seats'"),
        ("--rate-min -1", "'--rate-min'"),
    ],
)
def test_an_option_that_is_wrong_is_named(options: str, why: str) -> None:
    assert why in refused(*options.split())


def test_a_file_with_a_password_must_be_text(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xd0\xff")
    said = refused("--etcd-endpoints", "127.0.0.1:1", "--etcd-password-file", str(binary))
    assert f"--etcd-password-file {binary}: it is no text" in said


def test_without_a_service_nothing_is_tried() -> None:
    said = refused("--scenario", "copies", code=Exit.UNAVAILABLE)
    assert "127.0.0.1:1: no node answered" in said


def test_where_no_etcd_is_nothing_is_tried_and_nothing_is_left(cluster: Cluster) -> None:
    options = ("--scenario", "copies", "--etcd-endpoints", "127.0.0.1:1")
    said = cluster.here("chaos", "run", *options).refused(Exit.UNAVAILABLE)
    assert "etcd at 127.0.0.1:1: no member of etcd can be reached" in said
    assert pools_of_ours(cluster.client) == []


def test_an_etcd_in_which_the_deployment_is_not_is_refused(
    cluster: Cluster, etcd: EtcdCluster
) -> None:
    """Its history would say that nothing of what users observe is so."""
    options = ("--scenario", "copies", "--etcd-endpoints", etcd.endpoints[0])
    said = cluster.here("chaos", "run", *options).refused(Exit.USAGE)
    assert "our pools are not below seatkeeper/: is it the deployment's etcd" in said
    assert pools_of_ours(cluster.client) == []


def test_what_the_service_refuses_is_a_mistake_of_the_caller(cluster: Cluster) -> None:
    options = ("--scenario", "copies", "--seats", "1000000")
    said = cluster.here("chaos", "run", *options).refused(Exit.USAGE)
    assert "1000000 is not from" in said
    assert pools_of_ours(cluster.client) == []


# What it does ------------------------------------------------------------------------------


def test_a_short_run_is_kept_and_reported_and_leaves_nothing(
    cluster: Cluster, write: Write, tmp_path: Path
) -> None:
    mine, folder = write("mine.txt", TWO_FAULTS), tmp_path / "a" / "folder"
    options = ("--scenario", str(mine), "--report", str(folder), "--json")
    reported = cluster("chaos", "run", *FEW_USERS, *options).check().json

    assert (reported["violations"], reported["void"], reported["faults"]) == (0, 0, 2)
    assert reported["acknowledged"] > 0
    assert reported["requests"] > 0
    (only,) = reported["chapters"]
    assert only == {"name": "mine", "violations": [], "void": "", "seen": {}}
    assert cluster.address in reported["target"]
    assert "etcd's history was not given" in reported["judged_by"]

    report = (folder / chaos.REPORT).read_text()
    assert "| mine |  | I1 I5 |" in report
    assert "| Network.answers_stall | all nodes |" in report
    assert f"({chaos.PICTURE})" in report
    assert ElementTree.parse(folder / chaos.PICTURE).getroot().tag.endswith("svg")
    assert pools_of_ours(cluster.client) == []


def test_for_people_it_prints_each_scenario_and_the_total(
    cluster: Cluster, write: Write
) -> None:
    first = write("first.txt", "All is calm.\n\ncalm for 0.1 s\n")
    second = write("second.txt", TWO_FAULTS)
    options = ("--scenario", str(first), "--scenario", str(second))
    lines = cluster.here("chaos", "run", *FEW_USERS, *options).check().out.splitlines()
    assert lines[0] == "first: All is calm."
    assert lines[1].startswith("  0 faults, ")
    assert lines[2] == "second: Connections break, and answers are late."
    assert lines[3].startswith("  2 faults, ")
    assert lines[3].endswith("kept")
    assert ", 2 faults, 0 violations; checked against what users observed" in lines[4]


def test_a_target_that_wants_certificates_is_tried_through_relays(
    write: Write, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    (cert, key), (our_cert, our_key) = authority.issue("node"), authority.issue("alice")
    flags = ["--tls-cert-file", str(cert), "--tls-key-file", str(key)]
    flags += ["--administrators", "dns:alice"]  # a run makes pools of its own
    mine = write("mine.txt", TWO_FAULTS)
    with serving(tmp_path / "node", *flags, "--tls-client-ca-file", str(authority.ca)) as node:
        at = ("--target", address_of(node), "--tls-ca", str(authority.ca))
        ours = ("--tls-cert", str(our_cert), "--tls-key", str(our_key), "--tls-name", "node")
        run = ("chaos", "run", *FEW_USERS, "--scenario", str(mine), *at, *ours, "--json")
        reported = in_process(*run).check().json

    assert (reported["violations"], reported["void"], reported["faults"]) == (0, 0, 2)
    assert reported["acknowledged"] > 0


def test_a_run_that_proves_nothing_is_no_success(
    cluster: Cluster, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "TRAFFIC_SECONDS_MAX", 0.5)
    options = (*FEW_USERS, "--rate-min", "1e9", "--scenario", str(write("m.txt", TWO_FAULTS)))
    reported = cluster.here("chaos", "run", *options, "--json").check(Exit.FAILED).json
    assert (reported["void"], reported["faults"], reported["violations"]) == (1, 0, 0)
    (scenario_result,) = reported["chapters"]
    assert scenario_result["void"].endswith(" answers a second before a fault, 1e+09 needed")
    assert pools_of_ours(cluster.client) == []


def test_without_matplotlib_the_report_has_no_picture_and_json_is_still_json(
    cluster: Cluster, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chaos, "installed", lambda *modules: "matplotlib" not in modules)
    calm = write("calm.txt", "All is calm.\n\ncalm for 0.1 s\n")
    options = (*FEW_USERS, "--scenario", str(calm), "--report", str(tmp_path))
    cluster.here("chaos", "run", *options, "--json").check()
    lines = cluster.here("chaos", "run", *options).check().out.splitlines()
    assert lines[0].startswith("the report will have no picture: it needs ")
    assert "pip install '.[chaos]'" in lines[0]


def test_the_history_of_etcd_is_checked_where_it_is_given(
    etcd: EtcdCluster, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What is held by the dead is waited for at the end, for as long as leases last.
    monkeypatch.setattr(target, "HABITS", replace(target.HABITS, ttls=(2.0,)))
    prefix = f"chaos-{tmp_path.name}".replace("_", "-")
    at = ("--etcd-endpoints", etcd.endpoints[0])
    with serving(tmp_path, "--store", "etcd", *at, "--prefix", prefix) as node:
        options = (*FEW_USERS, *at, "--etcd-prefix", prefix, "--target", address_of(node))
        mine = str(write("mine.txt", TWO_FAULTS))
        reported = (
            in_process("chaos", "run", *options, "--scenario", mine, "--json").check().json
        )
    assert reported["judged_by"] == "etcd's whole history, and what users observed"
    assert (reported["violations"], reported["faults"]) == (0, 2)
    assert reported["acknowledged"] > 0
