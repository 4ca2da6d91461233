"""The ways in which ``seatkeeper run`` may end: what becomes of the command, the seat, the exit code.

Each row of the table in docs/how-to/take-a-seat.md names a test, most of them here.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cli.commands import (
    SCRIPT,
    SECONDS_MAX,
    Running,
    as_shells_say,
    environment,
    eventually,
    is_running,
    started,
)
from tests.cli.conftest import Cluster
from tests.cli.processes import (
    FAMILY,
    TTL_SECONDS,
    all_end,
    ending,
    family_of,
    parent_of,
    short_leases,
    stat_of,
)
from tests.cli.terminal import Terminal

from seatkeeper.cli.exits import Exit

FAMILY_QUOTED = FAMILY.replace("'", "'\\''")


def held(cluster: Cluster, pool: str) -> int:
    return cluster.look(pool).held


@contextmanager
def family(cluster: Cluster, pool: str, folder: Path) -> Iterator[tuple[Running, list[int]]]:
    command = ("run", "--pool", pool, "--grace", "1", "--", "sh", "-c", FAMILY)
    with started(*command, folder=folder, SEATKEEPER_NODES=cluster.address) as run:
        pids = family_of(run)
        with ending(pids):
            yield run, pids


# The seat is lost ------------------------------------------------------------------------------


@contextmanager
def stderr_whose_reader_is(what: str, folder: Path) -> Iterator[int]:
    """Return a descriptor to be standard error: it has no reader, in one way or another."""
    if what == "full":
        descriptor = os.open("/dev/full", os.O_WRONLY)
        yield descriptor
        os.close(descriptor)
        return
    reader, writer = os.pipe()
    if what == "gone":
        os.close(reader)
    else:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        os.write(writer, b"x" * 4096)
    yield writer
    os.close(writer)
    if what != "gone":
        os.close(reader)


@pytest.mark.parametrize("reader", ["gone", "full", "stopped"])
@pytest.mark.parametrize("options", [(), ("--json",)], ids=("text", "json"))
def test_a_lost_seat_stops_the_command_whatever_reads_its_output(
    tmp_path: Path, reader: str, options: tuple[str, ...]
) -> None:
    """Protection does not depend on output."""
    out = tmp_path / "out.txt"
    run_ = [
        str(SCRIPT),
        "run",
        "--pool",
        "p",
        "--grace",
        "0.5",
        *options,
        "--",
        "sh",
        "-c",
        FAMILY,
    ]
    with (
        short_leases(tmp_path) as (node, address),
        stderr_whose_reader_is(reader, tmp_path) as err,
        out.open("ab") as out_file,
    ):
        process = subprocess.Popen(
            run_,
            stdin=subprocess.DEVNULL,
            stdout=out_file,
            stderr=err,
            env=environment(SEATKEEPER_NODES=address),
            start_new_session=True,
        )
        try:
            pids = family_of(Running(process, out, out))
            with ending(pids):
                node.send(signal.SIGSTOP)
                stopped_at = time.monotonic()
                all_end(pids)
                took = time.monotonic() - stopped_at
                assert process.wait(SECONDS_MAX) == Exit.SEAT_LOST
        finally:
            node.send(signal.SIGCONT)
            process.kill()
            process.wait()
    assert took < TTL_SECONDS


def test_a_seat_that_the_service_takes_back_stops_the_command(tmp_path: Path) -> None:
    """A node in memory that starts again knows no sessions."""
    with short_leases(tmp_path) as (node, address):
        command = ("run", "--json", "--pool", "p", "--nodes", address, "--", "sh", "-c", FAMILY)
        with started(*command, folder=tmp_path) as run:
            pids = family_of(run)
            with ending(pids):
                node.send(signal.SIGKILL)
                node.process.wait()
                serve = ("serve", "--store", "memory", "--listen", address)
                (tmp_path / "again").mkdir()
                with started(*serve, folder=tmp_path / "again"):
                    result = run.ends().check(Exit.SEAT_LOST)
                all_end(pids)
    assert json.loads(result.err.splitlines()[-1])["event"] == "lost"


def test_a_command_that_is_stopped_is_ended_when_its_seat_is_lost(tmp_path: Path) -> None:
    with short_leases(tmp_path) as (node, address):
        command = ("run", "--pool", "p", "--nodes", address, "--", "sh", "-c", FAMILY)
        with started(*command, folder=tmp_path) as run:
            pids = family_of(run)
            with ending(pids):
                for pid in pids:
                    os.kill(pid, signal.SIGSTOP)
                node.send(signal.SIGKILL)
                run.ends().check(Exit.SEAT_LOST)
                assert not any(is_running(pid) for pid in pids)


# `run` is killed, stopped, or its parent is ----------------------------------------------------


def test_when_run_is_killed_the_watchdog_stops_all_that_it_started(tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    folder.mkdir()
    with short_leases(tmp_path) as (_, address):
        command = ("run", "--pool", "p", "--nodes", address, "--grace", "0.5", "--")
        words = (*command, "sh", "-c", FAMILY)
        with started(*words, folder=tmp_path, TMPDIR=str(folder)) as run:
            pids = family_of(run)
            watchdog = parent_of(pids[0])
            assert os.listdir(folder) != []
            with ending([*pids, watchdog]):
                killed_at = time.monotonic()
                run.send(signal.SIGKILL)
                all_end([*pids, watchdog])
                assert time.monotonic() - killed_at < TTL_SECONDS
        assert os.listdir(folder) == []
        # The seat is not released: it is free when the lease ends.
        again = ("run", "--pool", "p", "--nodes", address, "--wait", "20", "--", "true")
        with started(*again, folder=tmp_path) as run:
            run.ends().check()


def test_the_watchdog_asks_before_it_kills(cluster: Cluster, pool: str, tmp_path: Path) -> None:
    script = "trap 'echo asked to end; exit 0' TERM; echo ready $$; while :; do sleep 0.1; done"
    command = ("run", "--pool", pool, "--", "sh", "-c", script)
    with started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as run:
        run.says("ready")
        run.send(signal.SIGKILL)
        run.says("asked to end")


def test_when_run_is_killed_with_its_whole_group_nothing_is_left(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    with family(cluster, pool, tmp_path) as (run, pids):
        os.killpg(os.getpgid(run.process.pid), signal.SIGKILL)
        all_end(pids)


def test_when_run_is_stopped_the_command_ends_before_another_may_have_its_seat(
    tmp_path: Path,
) -> None:
    with short_leases(tmp_path) as (_, address):
        command = ("run", "--pool", "p", "--nodes", address, "--grace", "0.5", "--")
        with started(*command, "sh", "-c", FAMILY, folder=tmp_path) as run:
            pids = family_of(run)
            with ending(pids):
                run.send(signal.SIGSTOP)
                stopped_at = time.monotonic()
                all_end(pids)
                assert time.monotonic() - stopped_at < TTL_SECONDS
                run.send(signal.SIGCONT)
                run.ends().check(Exit.SEAT_LOST)


def test_when_runs_parent_dies_run_goes_on(cluster: Cluster, pool: str, tmp_path: Path) -> None:
    script = f"{SCRIPT} run --pool {pool} -- sh -c '{FAMILY_QUOTED}' & echo run $!; wait"
    out = tmp_path / "out.txt"
    with out.open("ab") as out_file:
        shell = subprocess.Popen(
            ["sh", "-c", script],
            stdout=out_file,
            env=environment(SEATKEEPER_NODES=cluster.address),
            start_new_session=True,
        )
    pids = family_of(Running(shell, out, out))
    run = int(next(line for line in out.read_text().splitlines() if "run" in line).split()[1])
    with ending([*pids, run]):
        shell.kill()
        shell.wait()
        assert held(cluster, pool) == 1
        assert all(is_running(pid) for pid in (*pids, run))
        os.kill(run, signal.SIGTERM)
        all_end([run, pids[0]])
        eventually(lambda: held(cluster, pool) == 0, "the seat is given back")


# The watchdog --------------------------------------------------------------------------------


def test_when_the_watchdog_is_killed_all_is_stopped_and_the_seat_given_back(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    with family(cluster, pool, tmp_path) as (run, pids):
        os.kill(parent_of(pids[0]), signal.SIGKILL)
        result = run.ends().check(128 + signal.SIGKILL)
        assert not any(is_running(pid) for pid in pids)
    assert "watchdog" in result.err
    assert held(cluster, pool) == 0


def test_a_watchdog_that_is_killed_while_run_waits_is_replaced(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    grant = cluster.client.acquire(pool)
    command = ("run", "--pool", pool, "--", "sh", "-c", "echo ran; exit 4")
    with started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as run:
        run.says("place 1")
        (watchdog,) = subprocess.check_output(["pgrep", "-P", str(run.process.pid)]).split()
        os.kill(int(watchdog), signal.SIGKILL)
        eventually(lambda: not is_running(int(watchdog)), "the watchdog's death")
        grant.release()
        assert run.ends().check(4).out == "ran\n"
    assert held(cluster, pool) == 0


def test_a_watchdog_that_is_stopped_goes_on(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    with family(cluster, pool, tmp_path) as (run, pids):
        watchdog = parent_of(pids[0])
        os.kill(watchdog, signal.SIGSTOP)
        eventually(lambda: stat_of(watchdog)[0] != "T", "it is continued")
        run.send(signal.SIGTERM)
        run.ends().check(128 + signal.SIGTERM)
        all_end([pids[0], pids[1], watchdog])
    assert held(cluster, pool) == 0


def test_when_watchdog_and_run_are_killed_together_the_command_itself_is(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    """What it started is beyond everybody then: documented as not protected."""
    with family(cluster, pool, tmp_path) as (run, pids):
        watchdog = parent_of(pids[0])
        # Stopped first, so that neither sees the other's end.
        os.kill(watchdog, signal.SIGSTOP)
        run.send(signal.SIGKILL)
        os.kill(watchdog, signal.SIGKILL)
        all_end([watchdog, pids[0]])


def test_the_watchdog_is_no_victim_of_the_machines_out_of_memory_killer(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    with family(cluster, pool, tmp_path) as (_, pids):
        watchdog = parent_of(pids[0])
        own = Path(f"/proc/{os.getpid()}/oom_score_adj").read_text()
        try_it = ["sh", "-c", "echo -1000 > /proc/self/oom_score_adj"]
        may = subprocess.run(try_it, check=False, stderr=subprocess.DEVNULL).returncode == 0
        expected = "-1000\n" if may else own
        assert Path(f"/proc/{watchdog}/oom_score_adj").read_text() == expected
        assert Path(f"/proc/{pids[0]}/oom_score_adj").read_text() == own


def test_no_signal_that_can_be_caught_ends_the_watchdog(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    with family(cluster, pool, tmp_path) as (run, pids):
        watchdog = parent_of(pids[0])
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            os.kill(watchdog, number)
        run.send(signal.SIGTERM)
        run.ends().check(128 + signal.SIGTERM)


# The command ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    ["sleep 300 & echo child $!; exit 6", "setsid sh -c 'sleep 300 & echo child $!'; exit 6"],
    ids=("child", "daemon"),
)
def test_what_a_command_leaves_behind_goes_on_and_is_said(
    cluster: Cluster, pool: str, tmp_path: Path, script: str
) -> None:
    command = ("run", "--pool", pool, "--", "sh", "-c", script)
    with started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as run:
        result = run.ends().check(6)
        child = int(result.out.split()[1])
        with ending([child]):
            assert is_running(child)
            assert "without the seat" in result.err
            assert held(cluster, pool) == 0


def test_a_signal_that_the_command_survived_does_not_end_what_it_leaves_behind(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    script = (
        "trap 'received=yes; echo received' USR1; echo ready; "
        'while [ -z "$received" ]; do sleep 0.2; done; '
        "trap '' USR1; sleep 300 & echo child $!; exit 6"
    )
    command = ("run", "--pool", pool, "--grace", "0", "--", "sh", "-c", script)
    with started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as run:
        run.says("ready")
        run.send(signal.SIGUSR1)
        result = run.ends().check(6)
        child = int(result.out.split()[-1])
        with ending([child]):
            assert is_running(child)
            assert "without the seat" in result.err


# The terminal --------------------------------------------------------------------------------


def test_a_terminal_that_closes_ends_the_command(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    received = tmp_path / "received"
    script = (
        f"trap 'echo HUP >> {received}; exit 0' HUP; echo ready; while :; do sleep 0.1; done"
    )
    command = ("run", "--pool", pool, "--", "sh", "-c", script)
    with Terminal(*command, SEATKEEPER_NODES=cluster.address) as terminal:
        terminal.shows("ready")
    eventually(lambda: held(cluster, pool) == 0, "the seat is given back")
    assert received.read_text() == "HUP\n"


def test_a_job_that_is_stopped_for_too_long_loses_its_seat_and_is_ended(
    tmp_path: Path,
) -> None:
    with short_leases(tmp_path) as (_, address):
        prompt = {"PS1": "$ ", "ENV": "", "SEATKEEPER_NODES": address}
        with Terminal("-i", program="sh", **prompt) as shell:
            shell.shows("$ ")
            shell.type("seatkeeper run --pool p -- sh -c 'echo pid=$$; sleep 300'\n")
            shell.shows("pid=", times=2)
            number = re.compile(r"pid=(\d+)\r")
            eventually(lambda: number.search(shell.seen), "its number")
            pid = int(number.findall(shell.seen)[0])
            shell.type("\x1a")
            shell.shows("Stopped")
            all_end([pid])
            shell.type("fg; echo code=$?\n")
            shell.shows(f"code={Exit.SEAT_LOST.value}")
            shell.type("exit\n")
            shell.ends()


# While it waits ------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGXCPU, signal.SIGALRM, 40])
def test_any_signal_while_waiting_leaves_the_queue(
    cluster: Cluster, pool: str, tmp_path: Path, number: int
) -> None:
    command = ("run", "--pool", pool, "--", "echo", "ran")
    with (
        cluster.client.seat(pool),
        started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as run,
    ):
        run.says("place 1")
        os.kill(run.process.pid, number)
        code = run.process.wait(SECONDS_MAX)
        assert cluster.look(pool).queued == 0
    assert code == -number
    assert as_shells_say(code) == 128 + number
    assert run.err.splitlines()[-1].endswith(f"no seat of {pool} is held or waited for")


def test_a_signal_while_run_starts_leaves_nothing(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    """At ten moments of the start: whenever it comes, it ends `run`, and nothing is left."""
    for moment in range(10):
        folder = tmp_path / str(moment)
        folder.mkdir()
        command = ("run", "--pool", pool, "--", "sh", "-c", "echo pid $$; exec sleep 300")
        with started(*command, folder=folder, SEATKEEPER_NODES=cluster.address) as run:
            time.sleep(moment * 0.08)
            run.send(signal.SIGTERM)
            result = run.ends().check(128 + signal.SIGTERM)
            assert not any(is_running(int(word)) for word in result.out.split()[1:2])
            assert (held(cluster, pool), cluster.look(pool).queued) == (0, 0)
