"""``seatkeeper status``, once and for as long as one looks."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import pytest
from tests.cli.commands import address_of, serving, started
from tests.cli.conftest import Cluster
from tests.cli.terminal import TallTerminal

from seatkeeper.cli.exits import Exit


def test_everything_for_programs(cluster: Cluster, pool: str) -> None:
    status = cluster("status", "--json").check().json
    store = status["store"]
    assert (store["kind"], store["warnings"], store["alarms"]) == ("memory", [], [])
    assert store["leases"] >= 1
    (node,) = status["nodes"]
    assert (node["address"], node["failure"], node["silent"]) == (cluster.address, None, [])
    assert {"commits", "commit_p50_ms", "conflicts", "forwarded", "relists"} <= node.keys()
    assert pool in {each["name"] for each in status["pools"]}


def test_everything_for_people(cluster: Cluster, pool: str) -> None:
    text = cluster.here("status").check().out
    for word in (cluster.address, "store: memory", pool, "UP FOR", "CONFLICTS"):
        assert word in text


def test_one_pool_shows_who_holds_and_who_waits(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    look = "seatkeeper status $SEATKEEPER_POOL"
    script = f"{look} --json; {look}"
    options = ("--pool", pool, "--holder", "alice", "--project", "cv")
    result = cluster("run", *options, "--", "sh", "-c", script).check()
    line, _, text = result.out.partition("\n")
    state = json.loads(line)
    (grant,) = state["grants"]
    assert (grant["holder"], grant["project"], grant["seats"]) == ("alice", "cv", 1)
    assert (grant["fence"], grant["agent_id"]) == (state["fence"], None)
    assert "alice" in text
    assert "HELD FOR" in text


def test_holders_are_distinguished_by_what_their_programs_say(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    options = ("--pool", pool, "--holder", "ci-runner", "--priority", "3")
    script = f"seatkeeper status --json; seatkeeper status {pool}"
    result = cluster("run", *options, "--", "sh", "-c", script, "hunter2").check()
    line, _, text = result.out.partition("\n")
    (of_pool,) = (each for each in json.loads(line)["pools"] if each["name"] == pool)
    (held,) = of_pool["holders"]
    assert (held["holder"], held["seats"], held["priority"]) == ("ci-runner", 1, 3)
    assert held["project"] == "default"
    assert held["fence"] == of_pool["fence"]
    assert held["granted_at"] < held["expires_at"]
    says = held["client_says"]
    assert (says["host"], says["command"]) == (socket.gethostname(), "sh")
    assert says["pid"] > 1
    assert f"sh, pid {says['pid']} on {says['host']}" in text
    assert "CLIENT SAYS" in text
    assert "hunter2" not in result.out


def test_labels_are_shown_where_there_are_any(cluster: Cluster, pool: str) -> None:
    script = f"seatkeeper status {pool} --json; seatkeeper status {pool}"
    labels = ("--label", "team=cv", "--label", "ci/job=a-b:7")
    result = cluster("run", "--pool", pool, *labels, "--", "sh", "-c", script).check()
    line, _, text = result.out.partition("\n")
    (held,) = json.loads(line)["grants"]
    assert held["labels"] == {"team": "cv", "ci/job": "a-b:7"}
    assert "LABELS" in text
    assert "ci/job=a-b:7 team=cv" in text
    plain = cluster("run", "--pool", pool, "--", "sh", "-c", script).check()
    line, _, text = plain.out.partition("\n")
    assert json.loads(line)["grants"][0]["labels"] == {}
    assert "LABELS" not in text


@pytest.mark.parametrize("label", ["team", "team=a", "=", "Team=cv", "team=c v"])
def test_a_label_that_is_none_runs_nothing(cluster: Cluster, pool: str, label: str) -> None:
    given = ("--label", "team=b", "--label", label)
    refused = cluster("run", "--pool", pool, *given, "--", "echo", "ran")
    assert refused.code in {Exit.USAGE, Exit.REFUSED}
    assert "label" in refused.err
    assert "ran" not in refused.out


def test_what_a_program_says_of_itself_can_be_chosen_or_left_out(
    cluster: Cluster, pool: str
) -> None:
    look = ("--", "sh", "-c", f"seatkeeper status {pool} --json")
    named = cluster("run", "--pool", pool, "--program", "nightly", *look).check()
    assert named.json["holders"][0]["client_says"]["command"] == "nightly"
    silent = cluster("run", "--pool", pool, *look, SEATKEEPER_PROGRAM="-").check()
    assert silent.json["holders"][0]["client_says"] is None


def test_watching_without_a_terminal_writes_a_line_for_each_change(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    with started(
        "status", pool, "--watch", folder=tmp_path, SEATKEEPER_NODES=cluster.address
    ) as watch:
        watch.says("held=0 free=1 queued=0 holders=- waiting=-")
        cluster.client.pools.update(pool, seats=5)
        watch.says("seats=5 held=0 free=5")
        watch.send(signal.SIGINT)
        assert watch.ends().check(Exit.INTERRUPTED).err == ""


def test_watching_for_programs_ends_when_the_pool_is_gone(
    cluster: Cluster, tmp_path: Path
) -> None:
    pool = cluster.pool()
    with started(
        "status", pool, "--watch", "--json", folder=tmp_path, SEATKEEPER_NODES=cluster.address
    ) as watch:
        watch.says('"held": 0')
        cluster.client.pools.delete(pool)
        result = watch.ends().check(Exit.NOT_FOUND)
    assert all(json.loads(line)["name"] == pool for line in result.out.splitlines())


def test_watching_everything_sees_new_pools(cluster: Cluster, tmp_path: Path) -> None:
    with started(
        "status", "--watch", folder=tmp_path, SEATKEEPER_NODES=cluster.address
    ) as watch:
        watch.says("nodes=1")
        watch.says(cluster.pool(seats=9))
        watch.send(signal.SIGTERM)
        watch.ends().check(128 + signal.SIGTERM)


def test_watching_goes_on_while_no_node_answers(tmp_path: Path) -> None:
    with serving(tmp_path / "node") as node:
        nodes = address_of(node)
        options = ("--timeout", "1", "--nodes", nodes)
        with started("status", "--watch", *options, folder=tmp_path) as watching:
            watching.says("nodes=1")
            node.send(signal.SIGKILL)
            watching.says("unavailable")
            assert watching.process.poll() is None


@pytest.mark.parametrize("words", [["status"], ["status", "{pool}"]], ids=["all", "one"])
def test_watching_on_a_terminal_is_live(cluster: Cluster, pool: str, words: list[str]) -> None:
    arguments = [word.format(pool=pool) for word in words]
    with TallTerminal(*arguments, "--watch", SEATKEEPER_NODES=cluster.address) as terminal:
        terminal.shows(pool)
        cluster.client.pools.update(pool, seats=77)
        terminal.shows("77")
        terminal.type("\x03")
        assert terminal.ends() == Exit.INTERRUPTED
