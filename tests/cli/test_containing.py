"""``run --contain``: nothing that the command starts outlives it, ``run`` or the watchdog."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.cli.commands import SCRIPT, Result, Running, environment, eventually, started
from tests.cli.conftest import Cluster
from tests.cli.processes import FAMILY, all_end, ending, family_of, parent_of, short_leases
from tests.cli.terminal import Terminal
from tests.cli.test_signals_of_run import COUNTER, FORWARDED

from seatkeeper.cli.exits import Exit
from seatkeeper.hold.init import INIT, why_not_contain

WHY_NOT = why_not_contain()
pytestmark = pytest.mark.skipif(
    WHY_NOT is not None, reason=f"needs root (CAP_SYS_ADMIN) for PID namespaces: {WHY_NOT}"
)


def namespace_of(pid: int) -> str:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/pid")
    return ""


def children_of(parent: int) -> list[int]:
    found = []
    for entry in os.listdir("/proc"):
        with suppress(OSError):
            if entry.isdigit() and parent_of(int(entry)) == parent:
                found.append(int(entry))
    return found


def contained_in(run: Running) -> tuple[int, list[int]]:
    """The watchdog, and all that is in the namespace, its init first."""
    (watchdog,) = children_of(run.process.pid)
    (first,) = children_of(watchdog)
    inside = namespace_of(first)
    assert inside != namespace_of(os.getpid())
    numbers = [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]
    return watchdog, [first, *(n for n in numbers if n != first and namespace_of(n) == inside)]


@contextmanager
def family(address: str, pool: str, folder: Path) -> Iterator[tuple[Running, int, list[int]]]:
    """A `FAMILY`, its watchdog, and all that is contained."""
    command = ("run", "--contain", "--pool", pool, "--grace", "0.5", "--", "sh", "-c", FAMILY)
    with started(*command, folder=folder, SEATKEEPER_NODES=address) as run:
        family_of(run)
        watchdog, pids = contained_in(run)
        # The init, the command, its two children and the daemon.
        assert len(pids) >= 5
        with ending([watchdog, *pids]):
            yield run, watchdog, pids


def contained(cluster: Cluster, pool: str, *words: str) -> Result:
    return cluster("run", "--contain", "--pool", pool, "--", *words)


# It, and what is around it, is killed ----------------------------------------------------------


def test_when_watchdog_and_run_are_killed_together_nothing_is_left(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    with family(cluster.address, pool, tmp_path) as (run, watchdog, pids):
        # Stopped first, so that neither sees the other's end.
        os.kill(watchdog, signal.SIGSTOP)
        run.send(signal.SIGSTOP)
        os.kill(watchdog, signal.SIGKILL)
        run.send(signal.SIGKILL)
        all_end([watchdog, *pids])


def test_when_run_is_killed_nothing_is_left(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    with family(cluster.address, pool, tmp_path) as (run, watchdog, pids):
        run.send(signal.SIGKILL)
        all_end([watchdog, *pids])


def test_when_the_watchdog_is_killed_nothing_is_left_and_the_seat_is_given_back(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    with family(cluster.address, pool, tmp_path) as (run, watchdog, pids):
        os.kill(watchdog, signal.SIGKILL)
        assert "watchdog" in run.ends().check(128 + signal.SIGKILL).err
        all_end(pids)
    assert cluster.look(pool).held == 0


def test_when_the_init_is_killed_all_is_and_the_seat_is_given_back(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    with family(cluster.address, pool, tmp_path) as (run, watchdog, pids):
        os.kill(pids[0], signal.SIGKILL)
        run.ends().check(128 + signal.SIGKILL)
        all_end([watchdog, *pids])
    assert cluster.look(pool).held == 0


def test_an_init_that_is_stopped_or_signalled_goes_on(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    with family(cluster.address, pool, tmp_path) as (run, watchdog, pids):
        for number in signal.valid_signals() - {signal.SIGKILL}:
            os.kill(pids[0], number)
        run.send(signal.SIGTERM)
        run.ends().check(128 + signal.SIGTERM)
        all_end([watchdog, *pids])


def test_when_the_seat_is_lost_all_is_stopped(tmp_path: Path) -> None:
    with (
        short_leases(tmp_path) as (node, address),
        family(address, "p", tmp_path) as (run, _, pids),
    ):
        node.send(signal.SIGKILL)
        run.ends().check(Exit.SEAT_LOST)
        all_end(pids)


# It ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("ulimit -c 0; kill -SEGV $$", 139),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
    ],
)
def test_the_exit_code_is_the_commands_own(
    cluster: Cluster, pool: str, script: str, code: int
) -> None:
    contained(cluster, pool, "sh", "-c", script).check(code)
    assert cluster.look(pool).held == 0


def test_what_cannot_be_executed_is_reported_as_usual(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    assert "not found" in contained(cluster, pool, "no-such").refused(Exit.NO_COMMAND)
    job = tmp_path / "job"
    job.write_text("#!/bin/sh\n")
    job.chmod(0o755)
    grant = cluster.client.acquire(pool)
    command = ("run", "--contain", "--pool", pool, "--", str(job))
    with started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as run:
        run.says("place 1")
        job.unlink()
        grant.release()
        run.ends().check(Exit.NO_COMMAND)
    assert cluster.look(pool).held == 0


def test_background_jobs_and_daemons_end_with_the_command(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    script = f"sleep 300 & setsid sh -c 'sleep 300 & echo ready'; read x <{fifo}; exit 6"
    command = ("run", "--contain", "--pool", pool, "--", "sh", "-c", script)
    with started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as run:
        run.says("ready")
        watchdog, pids = contained_in(run)
        with ending(pids):
            fifo.write_text("go\n")
            assert "ended with it" in run.ends().check(6).err
            all_end([watchdog, *pids])


def test_what_it_leaves_of_its_group_has_the_grace(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    """As without: a signal that ends a shell is forwarded to what it ran, which may clean up."""
    child = (
        "trap 'sleep 0.2; echo cleaned; exit' TERM; echo ready; while :; do sleep 0.05; done"
    )
    script = f'sh -c "{child}" & wait'
    command = ("run", "--contain", "--pool", pool, "--", "sh", "-c", script)
    with started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as run:
        run.says("ready")
        run.send(signal.SIGTERM)
        assert "cleaned" in run.ends().check(128 + signal.SIGTERM).out


# Signals, terminal, surroundings ----------------------------------------------------------------


def test_every_signal_that_can_be_caught_reaches_the_command(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    command = ("run", "--contain", "--pool", pool, "--", sys.executable, "-c", COUNTER)
    with started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as run:
        run.says("ready")
        for number in FORWARDED:
            os.kill(run.process.pid, number)
            run.says(f"got {int(number)}\n")
        run.send(signal.SIGTERM)
        result = run.ends().check(9)
    assert result.out.count("got") == len(FORWARDED) + 1


def test_ctrl_z_and_ctrl_c_work(cluster: Cluster, pool: str) -> None:
    count = (
        "import itertools, time\nfor i in itertools.count():\n print('tick', i, flush=True); "
    )
    prompt = {"PS1": "$ ", "ENV": "", "SEATKEEPER_NODES": cluster.address}
    with Terminal("-i", program="sh", **prompt) as shell:
        shell.shows("$ ")
        run = f"seatkeeper run --contain --pool {pool}"
        shell.type(f'{run} -- python3 -c "{count}time.sleep(0.02)" | cat\n')
        shell.shows("tick 5")
        shell.type("\x1a")
        shell.shows("Stopped")
        assert cluster.look(pool).held == 1
        shell.type("fg\n")
        ticks = shell.seen.count("tick")
        shell.shows("tick", times=ticks + 5)
        shell.type("\x03")
        eventually(lambda: cluster.look(pool).held == 0, "the seat is given back")
        shell.type("exit\n")
        shell.ends()


def test_an_interactive_shell_has_its_job_control(cluster: Cluster, pool: str) -> None:
    """Of bash: dash gives the terminal back to a group that it cannot see, and fails when it ends."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    prompt = {"PS1": "$ ", "SEATKEEPER_NODES": cluster.address}
    command = ("run", "--contain", "--pool", pool, "--", "bash", "--norc", "--noprofile", "-i")
    with Terminal(*command, **prompt) as shell:
        shell.shows("$ ")
        shell.type("sh -c 'echo up $((20 + 1)); exec sleep 300'\n")
        shell.shows("up 21")
        shell.type("\x1a")
        shell.shows("Stopped")
        shell.type("kill %1; exit 4\n")
        shell.type("exit 4\n")
        assert shell.ends() == 4, shell.seen


def test_the_command_sees_its_namespace_alone(cluster: Cluster, pool: str) -> None:
    script = "echo $$; ls /proc | grep -c '^[0-9]'; cat /proc/self/status | grep -c PPid"
    pid, processes, _ = contained(cluster, pool, "sh", "-c", script).check().out.split()
    assert int(pid) == INIT + 1
    assert int(processes) <= 4


def test_mounts_of_the_command_are_its_own(cluster: Cluster, pool: str, tmp_path: Path) -> None:
    script = f"mount -t tmpfs none {tmp_path} && echo x >{tmp_path}/inside"
    contained(cluster, pool, "sh", "-c", script).check()
    assert not (tmp_path / "inside").exists()
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


def test_where_no_namespace_may_be_made_it_is_refused_before_a_seat_is_asked_for(
    cluster: Cluster, pool: str
) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv, of util-linux")
    run = ["setpriv", "--bounding-set", "-sys_admin", str(SCRIPT), "run", "--pool", pool]
    mine = environment(SEATKEEPER_NODES=cluster.address)
    for words, code in ((["--contain", "--", "true"], Exit.FAILED), (["--", "true"], 0)):
        done = subprocess.run([*run, *words], env=mine, capture_output=True, text=True)
        result = Result(done.returncode, done.stdout, done.stderr).check(code)
        if code:
            assert "CAP_SYS_ADMIN" in result.refused(Exit.FAILED)
            assert cluster.look(pool).fence == 0
