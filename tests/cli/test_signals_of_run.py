"""Signals and ``seatkeeper run``: every one that can be caught is forwarded; and how commands die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.commands import SCRIPT, SECONDS_MAX, environment, eventually, is_running, started
from tests.cli.conftest import Cluster
from tests.cli.processes import stat_of
from tests.cli.terminal import Terminal
from tests.processes import PAUSE

# Counts every signal that can be caught, and ends on TERM.
COUNTER = (
    PAUSE
    + """
import sys
def report(number, frame):
    os.write(1, b"got %d\\n" % number)
    if number == signal.SIGTERM:
        sys.exit(9)
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    signal.signal(number, report)
print("ready", os.getpid(), flush=True)
while True:
    pause()
"""
)
FORWARDED = sorted(
    signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTERM}
)


def held(cluster: Cluster, pool: str) -> int:
    return cluster.look(pool).held


def test_every_signal_that_can_be_caught_is_forwarded(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    command = ("run", "--pool", pool, "--", sys.executable, "-c", COUNTER)
    with started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as run:
        run.says("ready")
        for number in FORWARDED:
            os.kill(run.process.pid, number)
            run.says(f"got {int(number)}\n")
        assert held(cluster, pool) == 1
        run.send(signal.SIGTERM)
        result = run.ends().check(9)
    assert result.out.count("got") == len(FORWARDED) + 1
    assert held(cluster, pool) == 0


@pytest.mark.parametrize(
    "number",
    [signal.SIGXCPU, signal.SIGALRM, signal.SIGABRT, signal.SIGSEGV, signal.SIGPIPE, 34, 64],
)
def test_a_signal_that_the_command_does_not_expect_ends_it_with_what_it_started(
    cluster: Cluster, pool: str, tmp_path: Path, number: int
) -> None:
    script = "ulimit -c 0; sleep 300 & echo ready $!; wait"
    command = ("run", "--pool", pool, "--", "sh", "-c", script)
    with started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as run:
        run.says("ready")
        eventually(lambda: run.out.endswith("\n"), "its number")
        child = int(run.out.split()[1])
        os.kill(run.process.pid, number)
        run.ends().check(128 + number)
        assert not is_running(child)
    assert held(cluster, pool) == 0


def test_a_batch_system_may_suspend_the_command_and_the_seat_is_kept(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    command = ("run", "--pool", pool, "--", "sh", "-c", "echo ready $$; exec sleep 300")
    with started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as run:
        run.says("ready")
        eventually(lambda: run.out.endswith("\n"), "its number")
        pid = int(run.out.split()[1])
        run.send(signal.SIGTSTP)
        eventually(lambda: stat_of(pid)[0] == "T", "it is stopped")
        assert stat_of(run.process.pid)[0] != "T"
        assert held(cluster, pool) == 1
        run.send(signal.SIGCONT)
        eventually(lambda: stat_of(pid)[0] != "T", "it goes on")
        run.send(signal.SIGTERM)
        run.ends().check(128 + signal.SIGTERM)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]
)
def test_when_the_command_dies_of_it_run_dies_of_it(
    cluster: Cluster, pool: str, tmp_path: Path, number: signal.Signals
) -> None:
    command = (
        "run",
        "--pool",
        pool,
        "--",
        "sh",
        "-c",
        "ulimit -c 0; echo ready; exec sleep 300",
    )
    with started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as run:
        run.says("ready")
        run.send(number)
        assert run.process.wait(SECONDS_MAX) == -number
    assert f"ended after {number.name}; the seat of {pool} is given back" in run.err
    assert held(cluster, pool) == 0


def test_the_command_finds_signals_as_they_were(cluster: Cluster, pool: str) -> None:
    """Ignored stays ignored, blocked stays blocked; what Python changes is changed back."""
    ask = "grep -E '^Sig(Blk|Ign)' /proc/self/status"
    change = (
        "import ctypes, os, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGUSR2, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
        # `posix_spawn` ignores these two in what it starts, such as `make`; `run` undoes that.
        "set_handler = ctypes.CDLL(None).syscall\n"
        "set_handler.restype = ctypes.c_long\n"
        "for hidden in (32, 33):\n"
        "    number = {'x86_64': 13, 'aarch64': 134}[os.uname().machine]\n"
        "    set_handler(number, hidden, ctypes.create_string_buffer(64), None, 8)\n"
        "signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGUSR1, 40})\n"
        "os.execvp(sys.argv[1], sys.argv[1:])\n"
    )
    plain = [sys.executable, "-c", change, "sh", "-c", ask]
    wrapped = [*plain[:3], str(SCRIPT), "run", "--pool", pool, "--", "sh", "-c", ask]
    environ = environment(SEATKEEPER_NODES=cluster.address)
    found = [
        subprocess.run(words, env=environ, capture_output=True, check=True, text=True).stdout
        for words in (plain, wrapped)
    ]
    assert found[0] == found[1] != ""


@pytest.mark.parametrize(
    "words",
    ["run --pool {pool} -- sh -c 'echo item; exec sleep 300'", "status {pool} --watch --json"],
    ids=("run", "watch"),
)
def test_ctrl_c_ends_a_loop_of_the_shell(cluster: Cluster, pool: str, words: str) -> None:
    shown = "item" if "item" in words else '"name"'
    loop = (
        f"for i in 1 2 3; do seatkeeper {words.format(pool=pool)}; done; echo whole list done"
    )
    with Terminal(
        "--norc", "-c", loop, program="bash", SEATKEEPER_NODES=cluster.address
    ) as terminal:
        terminal.shows(shown)
        terminal.type("\x03")
        assert terminal.ends() == 128 + signal.SIGINT
        assert terminal.seen.count(shown) == 1
        assert "whole list done" not in terminal.seen
    eventually(lambda: held(cluster, pool) == 0, "the seat is given back")


def test_a_command_that_takes_ctrl_c_well_does_not_end_the_loop(
    cluster: Cluster, pool: str
) -> None:
    # What says `item` is what Ctrl-C ends. A shell that says it and then starts `sleep` may get the
    # signal in between: `sleep` does not get it, and the shell obeys its trap 300 seconds later.
    script = 'trap "exit 0" INT; sh -c "echo item; exec sleep 300"'
    loop = f"seatkeeper run --pool {pool} -- sh -c '{script}'; echo went on"
    with Terminal(
        "--norc", "-c", loop, program="bash", SEATKEEPER_NODES=cluster.address
    ) as terminal:
        terminal.shows("item")
        terminal.type("\x03")
        terminal.shows("went on")
        assert terminal.ends() == 0


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]
)
def test_a_command_that_watches_dies_of_what_ends_it(
    cluster: Cluster, pool: str, tmp_path: Path, number: signal.Signals
) -> None:
    watch = ("status", pool, "--watch")
    with started(*watch, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as running:
        running.says(pool)
        running.send(number)
        assert running.process.wait(SECONDS_MAX) == -number
    assert running.err == ""


@pytest.mark.parametrize("words", ["run --pool {pool} -- sleep 300", "status {pool} --watch"])
def test_what_was_ignored_at_the_start_stays_ignored(
    cluster: Cluster, pool: str, tmp_path: Path, words: str
) -> None:
    """As in a background job of sh, and under nohup."""
    out = tmp_path / "out"
    script = f"trap '' INT HUP QUIT; exec seatkeeper {words.format(pool=pool)} > {out} 2>&1"
    process = subprocess.Popen(
        ["sh", "-c", script],
        env=environment(SEATKEEPER_NODES=cluster.address),
        start_new_session=True,
    )
    try:
        if words.startswith("run"):
            eventually(lambda: held(cluster, pool) == 1, "it holds the seat")
        else:
            eventually(lambda: out.exists() and out.read_text(), "it watches")
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            process.send_signal(number)
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS_MAX) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()
    assert held(cluster, pool) == 0
