"""``seatkeeper dev``: a whole cluster, started, found again, and stopped without a trace."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cli.commands import Running, eventually, in_process, is_running, seatkeeper, started
from tests.cli.terminal import Terminal

from seatkeeper.cli.exits import Exit

FLAGS = ("--nodes", "2", "--no-agent", "--json")


@pytest.fixture
def base() -> int:
    """The first of a row of ports that are free now."""
    for base in range(20_000, 60_000, 50):
        if all(_is_free(base + offset) for offset in (0, 1, 20, 30, 31, 32)):
            return base
    raise AssertionError("no free ports")


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def dev(folder: Path, etcd: Path, *flags: str) -> Iterator[Running]:
    state = str(folder / "state")
    flags = ("--state", state, "--etcd", str(etcd), *FLAGS, *flags)
    with started("dev", *flags, folder=folder) as running:
        yield running


def ready(running: Running) -> dict[str, Any]:
    """What it says when everything runs."""
    running.says('"ready"', seconds_max=60)
    event: dict[str, Any] = json.loads(running.out.splitlines()[-1])
    return event


def test_a_cluster_starts_survives_a_node_stops_and_is_found_again(
    tmp_path: Path, etcd_program: Path, base: int
) -> None:
    with dev(tmp_path, etcd_program, "--port", str(base), "--seats", "3") as running:
        event = ready(running)
        pids = event["pids"]
        assert event["nodes"] == [f"127.0.0.1:{base}", f"127.0.0.1:{base + 1}"]
        assert (event["pool"], event["seats"], event["agent"]) == ("tensorrt", 3, None)
        assert pids.keys() == {"etcd-1", "dev-1", "dev-2"}
        nodes = {"SEATKEEPER_NODES": ",".join(event["nodes"])}
        status = in_process("status", "--json", environ=nodes).check().json
        assert (status["store"]["kind"], len(status["nodes"])) == ("etcd", 2)
        in_process("pool", "update", "tensorrt", "--seats", "5", environ=nodes).check()

        second = seatkeeper("dev", "--state", event["state"], *FLAGS)
        said = json.loads(second.check(Exit.CONFIG).err)
        assert "another `seatkeeper dev` (pid" in said["error"]

        os.kill(pids["dev-1"], signal.SIGKILL)
        running.says('"ended"')
        ended = json.loads(running.out.splitlines()[-1])
        assert (ended["name"], ended["exit_code"]) == ("dev-1", -signal.SIGKILL)
        seatkeeper("run", "--", "true", environ=nodes).check()

        running.send(signal.SIGHUP)
        log = Path(event["state"]) / "logs" / "dev-2.log"
        eventually(lambda: '"reloaded"' in log.read_text(), "settings read again")
        assert is_running(pids["dev-2"])
        assert "stopped" not in running.out

        running.send(signal.SIGTERM)
        assert running.ends().check().out.splitlines()[-1] == '{"event": "stopped"}'
    assert not any(is_running(pid) for pid in pids.values())

    moved = ("--state", event["state"], "--port", str(base + 100))
    said = json.loads(seatkeeper("dev", *moved, *FLAGS).check(Exit.CONFIG).err)
    assert "--port" in said["error"]
    with dev(tmp_path, etcd_program) as running:
        again = ready(running)
        assert (again["nodes"], again["seats"]) == (event["nodes"], 5)
        # Even the worst end leaves nothing running.
        running.send(signal.SIGKILL)
        eventually(
            lambda: not any(is_running(pid) for pid in again["pids"].values()), "its death"
        )


def test_ctrl_c_stops_everything_in_order(
    tmp_path: Path, etcd_program: Path, base: int
) -> None:
    state = str(tmp_path / "state")
    flags = ("--nodes", "1", "--no-agent", "--state", state, "--port", str(base))
    with Terminal("dev", *flags, "--etcd", str(etcd_program)) as terminal:
        terminal.shows("Ctrl-C stops everything")
        assert f"export SEATKEEPER_NODES=127.0.0.1:{base}" in terminal.seen
        terminal.type("\x03")
        terminal.shows("goes on from here")
        assert terminal.ends() == 0
    log = (tmp_path / "state" / "logs" / "dev-1.log").read_text()
    said = [json.loads(line) for line in log.splitlines()]
    events = [line["event"] for line in said]
    assert events[-1] == "stopped"
    # A node that found no etcd to say goodbye to would have complained.
    last = said[events.index("stopping") :]
    assert {line.get("level", "info") for line in last} <= {"info", "debug"}, last


def test_an_agent_that_was_killed_is_there_again_at_the_next_start(
    tmp_path: Path, etcd_program: Path, base: int
) -> None:
    """Its session keeps its name until the lease runs out, and etcd keeps the lease."""
    where = ("--state", str(tmp_path / "state"), "--port", str(base))
    flags = ("--nodes", "1", "--json", *where, "--etcd", str(etcd_program))
    with started("dev", *flags, folder=tmp_path) as running:
        event = ready(running)
        os.kill(event["pids"]["agent"], signal.SIGKILL)
        running.says('"ended"')
        running.send(signal.SIGTERM)
        running.ends().check()
    with started("dev", *flags, folder=tmp_path) as running:
        running.says('"ready"', seconds_max=60)
        pid = json.loads(running.out.splitlines()[-1])["pids"]["agent"]
        assert is_running(pid)
        assert "ended" not in running.out
        log = (tmp_path / "state" / "logs" / "agent.log").read_text()
        assert '"serving"' in log.rpartition("registration_waiting")[2]
        running.send(signal.SIGTERM)
        # One stop may arrive twice: from the parent, and through the process group.
        running.send(signal.SIGINT)
        running.ends().check()
    log = (tmp_path / "state" / "logs" / "agent.log").read_text()
    assert json.loads(log.splitlines()[-1])["event"] == "stopped"


def test_ports_in_use_are_named(tmp_path: Path, etcd_program: Path, base: int) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", base + 1))
        other.listen()
        flags = ("--state", str(tmp_path / "state"), "--port", str(base), *FLAGS)
        said = seatkeeper("dev", *flags, "--etcd", str(etcd_program))
    assert f"port {base + 1}" in said.check(Exit.CONFIG).err
    assert "--port" in said.err


def test_an_etcd_that_is_none_is_named(tmp_path: Path, base: int) -> None:
    flags = ("--state", str(tmp_path / "state"), "--port", str(base), *FLAGS)
    said = seatkeeper("dev", *flags, "--etcd", "/bin/false").check(Exit.CONFIG)
    assert "/bin/false is not an etcd" in said.err
