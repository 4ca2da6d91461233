"""What ``seatkeeper dev`` says of each event and each failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from seatkeeper.cli.processes import dev
from seatkeeper.cli.processes.dev_report import explain, report
from seatkeeper.devcluster import cluster, plan

STATE = Path("some/state")
READY = cluster.Ready(
    nodes=["127.0.0.1:7420"],
    etcd=["127.0.0.1:7450"],
    agent=None,
    pool="tensorrt",
    seats=2,
    pids={"etcd-1": 1, "dev-1": 2},
)
ENDED = cluster.Ended(name="dev-1", pid=7, exit_code=-9, log=Path("a.log"))
# Each with what people see of it, and the name of the event that programs see.
EVENTS: list[tuple[cluster.Event, str, str | None]] = [
    (cluster.EtcdServing("3.5.33", ["a:1", "b:2"]), "etcd 3.5.33 on a:1, b:2", None),
    (cluster.NodeServing("dev-1", "a:1"), "node dev-1 on a:1", None),
    (cluster.PoolPresent("tensorrt", 1), "pool tensorrt has 1 seat\n", None),
    (cluster.AgentDelayed(), "its session ends in some seconds", None),
    (cluster.AgentServing("dev-agent", "a:1"), "agent dev-agent on a:1", None),
    (cluster.AgentNotReady(Path("a.log")), "is not ready yet; its log: a.log", None),
    (cluster.AgentAbsent("no onnx"), "no build agent: no onnx", None),
    (READY, "export SEATKEEPER_NODES=127.0.0.1:7420", "ready"),
    (cluster.Reloaded(), "read their settings again", None),
    (ENDED, "dev-1 (pid 7) ended with exit code -9; its log: a.log", "ended"),
    (cluster.Stopped(had_nodes=True), "`seatkeeper dev --state some/state` goes on", "stopped"),
]


def test_every_event_is_tried_here() -> None:
    assert {type(event) for event, *_ in EVENTS} == set(get_args(cluster.Event))


@pytest.mark.parametrize(
    ("event", "words", "name"), EVENTS, ids=lambda value: type(value).__name__
)
def test_people_see_every_event_and_programs_those_that_matter_to_them(
    event: cluster.Event, words: str, name: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    report(event, STATE, as_json=False)
    assert words in capsys.readouterr().out
    report(event, STATE, as_json=True)
    said = capsys.readouterr().out
    assert (json.loads(said)["event"] if said else None) == name


def test_a_cluster_that_had_no_node_is_not_said_to_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report(cluster.Stopped(had_nodes=False), STATE, as_json=False)
    assert capsys.readouterr().out == ""


def test_an_agent_that_runs_adds_a_build_to_the_first_steps(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_agent = cluster.Ready(**{**vars(READY), "agent": "127.0.0.1:7440"})
    report(READY, STATE, as_json=False)
    assert "seatkeeper build" not in capsys.readouterr().out
    report(with_agent, STATE, as_json=False)
    assert "seatkeeper build" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (plan.FolderUnusable(STATE, "read-only"), "--state some/state: read-only"),
        (plan.FolderInUse(STATE, "77"), "another `seatkeeper dev` (pid 77) runs on some/state"),
        (plan.PlanChanged("port", 7420), "leave --port out"),
        (plan.PlanChanged("etcd_members", 3), "made with --etcd-members 3"),
        (plan.PortTaken(7421, "in use"), "port 7421: in use; choose other ports with --port"),
        (plan.EtcdMissing("no etcd runs here"), "no etcd runs here; or name one with --etcd"),
        (plan.StateDamaged("dev.json is damaged"), "dev.json is damaged"),
        (plan.ServiceFailed("node dev-1 ended"), "node dev-1 ended"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_failure_says_what_to_do_with_which_option(
    error: plan.ClusterFailed, advice: str
) -> None:
    assert advice in explain(error, STATE)


def test_the_help_names_the_ports_that_are_used() -> None:
    ours = (dev.PORT_DEFAULT, dev.AGENT_OFFSET, dev.ETCD_OFFSET)
    assert ours == (plan.PORT_DEFAULT, plan.AGENT_OFFSET, plan.ETCD_OFFSET)
    most = plan.Plan(nodes=dev.NODES_MAX, members=dev.ETCD_MEMBERS_MAX, seats=1)
    assert len(set(most.ports)) == len(most.ports)
