"""``seatkeeper run`` in bare and odd surroundings: containers, batch systems, full disks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.commands import SCRIPT, Running, environment, started
from tests.cli.conftest import Cluster
from tests.cli.processes import FAMILY, all_end, ending, family_of, short_leases

from seatkeeper.cli.exits import Exit

NAMESPACE = ["unshare", "--map-root-user", "--mount"] if os.getuid() else ["unshare", "--mount"]


def run_in(
    cluster: Cluster,
    script: str,
    *,
    own_mounts: bool = False,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a line of shell; ``$SK`` is the command."""
    before = NAMESPACE if own_mounts else []
    if own_mounts and subprocess.run([*before, "true"], check=False).returncode:
        pytest.skip("no mount namespaces here")
    mine = {"SK": str(SCRIPT), "SEATKEEPER_NODES": cluster.address}
    done = subprocess.run(
        [*before, "bash", "-c", script],
        env=(environment() if env is None else env) | mine,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert b"Traceback" not in done.stderr, done.stderr
    return done


def test_a_script_without_an_interpreter_runs_as_a_shell_runs_it(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    job = tmp_path / "job"
    job.write_text('echo "$0: $1"\n')
    job.chmod(0o755)
    done = run_in(cluster, f"$SK run --pool {pool} -- {job} 'a b'")
    assert (done.returncode, done.stdout.decode()) == (0, f"{job}: a b\n")
    by_name = run_in(cluster, f"PATH={tmp_path}:$PATH $SK run --pool {pool} -- job x")
    assert by_name.stdout.decode() == f"{job}: x\n"


@pytest.mark.parametrize(
    "given",
    [
        {"LANG": "C"},
        {},
        {"LC_ALL": "C"},
        {"LANG": "C", "LC_CTYPE": "C.UTF-8"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0"},
        {"SEATKEEPER_TOKEN_FILE": "/of/an/outer/run", "SEATKEEPER_TOKEN": "outer"},
    ],
    ids=str,
)
def test_the_environment_of_the_command_is_the_users_own(
    cluster: Cluster, pool: str, given: dict[str, str]
) -> None:
    done = run_in(cluster, f"exec $SK run --pool {pool} -- /usr/bin/env", env=given)
    found = dict(line.split("=", 1) for line in done.stdout.decode().splitlines())
    plain = run_in(cluster, "exec /usr/bin/env", env=given).stdout.decode().splitlines()
    expected = dict(line.split("=", 1) for line in plain)
    ours = {name for name in found if name.startswith("SEATKEEPER_")}
    assert {k: v for k, v in found.items() if k not in ours} == {
        k: v for k, v in expected.items() if k not in ours
    }
    assert not {"outer", "/of/an/outer/run"} & {*found.values()}


def test_arguments_and_variables_pass_byte_for_byte(cluster: Cluster, pool: str) -> None:
    for locale in ("C.UTF-8", "C"):
        done = subprocess.run(
            [
                SCRIPT,
                "run",
                "--pool",
                pool,
                "--",
                "sh",
                "-c",
                'printf %s "$1$V"',
                "x",
                b"caf\xe9",
            ],
            env={os.fsencode(k): os.fsencode(v) for k, v in environment().items()}
            | {b"SEATKEEPER_NODES": cluster.address.encode(), b"V": b"\xff\xfe"}
            | {b"LC_ALL": locale.encode()},
            capture_output=True,
            check=True,
        )
        assert done.stdout == b"caf\xe9\xff\xfe"


def test_a_token_that_has_no_room_in_one_place_is_put_in_another(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    mount = f"mount -t tmpfs -o size=4k tmpfs {full} && head -c 4096 /dev/zero > {full}/x"
    ask = "test -s $SEATKEEPER_TOKEN_FILE && echo $SEATKEEPER_TOKEN_FILE"
    run = f"TMPDIR={full} $SK run --pool {pool} -- sh -c '{ask}'"
    done = run_in(cluster, f"{mount} && {run}", own_mounts=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert not done.stdout.decode().startswith(str(full))


def test_without_any_place_for_the_token_the_command_runs_and_it_is_said(
    cluster: Cluster, pool: str
) -> None:
    places = "/tmp /var/tmp /dev/shm /run"
    mounts = f"for d in {places}; do mount -t tmpfs -o ro tmpfs $d || exit 99; done"
    ask = 'echo "${SEATKEEPER_TOKEN_FILE-none}"; test -n "$SEATKEEPER_TOKEN"'
    run = f"unset TMPDIR XDG_RUNTIME_DIR; $SK run --pool {pool} -- sh -c '{ask}'"
    done = run_in(cluster, f"{mounts}; {run}", own_mounts=True)
    if done.returncode == 99:
        pytest.skip("this user may not mount anything over /run")
    assert (done.returncode, done.stdout) == (0, b"none\n")
    (line,) = done.stderr.decode().splitlines()
    assert "SEATKEEPER_TOKEN" in line


@pytest.mark.parametrize(
    "before",
    [
        "unset HOME USER LOGNAME",
        "mkdir gone; cd gone; rmdir ../gone",
        "unset PATH",
        "umask 077",
        "ulimit -c 0",
        "export TMPDIR=no/such/folder",
        "exec 3</dev/null 4>/dev/null",
    ],
)
def test_it_runs_where_things_are_missing(
    cluster: Cluster, pool: str, tmp_path: Path, before: str
) -> None:
    run = f"$SK run --pool {pool} -- /bin/sh -c 'exit 5'"
    done = run_in(cluster, f"cd {tmp_path}; {before}; {run}")
    assert done.returncode == 5
    # The shell itself may have something to say of a folder that is gone.
    assert b"seatkeeper" not in done.stderr


def test_a_command_is_found_where_we_are(cluster: Cluster, pool: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    job = tmp_path / "bin" / "job"
    job.write_text("#!/bin/sh\npwd\n")
    job.chmod(0o755)
    for word in ("bin/job", "./bin/job"):
        done = run_in(cluster, f"cd {tmp_path} && $SK run --pool {pool} -- {word}")
        assert done.stdout.decode() == f"{tmp_path}\n"
    done = run_in(cluster, f"cd {tmp_path} && PATH=bin:$PATH $SK run --pool {pool} -- job")
    assert done.stdout.decode() == f"{tmp_path}\n"


def test_without_room_for_descriptors_it_runs_or_says_so_and_keeps_no_seat(
    cluster: Cluster, pool: str
) -> None:
    codes = set()
    for limit in (6, 8, 10, 12, 14, 16, 20, 24, 32):
        run = f"ulimit -n {limit}; $SK run --pool {pool} --timeout 2 -- sh -c 'exit 5'"
        done = run_in(cluster, run)
        codes.add(done.returncode)
        assert done.returncode in (5, Exit.FAILED, Exit.UNAVAILABLE), (limit, done)
        if done.returncode != 5:
            assert done.stderr.count(b"seatkeeper: ") == 1, (limit, done.stderr)
        assert cluster.look(pool).held == 0
    assert 5 in codes


def test_as_many_arguments_as_the_kernel_takes(cluster: Cluster, pool: str) -> None:
    long = ["x" * 100_000] * 18
    script = [sys.executable, "-c", "import sys; print(len(sys.argv))", *long]
    mine = environment(SEATKEEPER_NODES=cluster.address)
    run = [str(SCRIPT), "run", "--pool", pool, "--"]
    done = subprocess.run([*run, *script], env=mine, capture_output=True, check=True, text=True)
    assert done.stdout == "19\n"


def test_a_command_that_left_the_disk_between_is_reported_and_the_seat_given_back(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    """What is checked before may change until the seat is there."""
    job = tmp_path / "job"
    job.write_text("#!/bin/sh\n")
    job.chmod(0o755)
    grant = cluster.client.acquire(pool)
    command = ("run", "--pool", pool, "--", str(job))
    with started(*command, folder=tmp_path, SEATKEEPER_NODES=cluster.address) as run:
        run.says("place 1")
        job.unlink()
        grant.release()
        assert "No such file" in run.ends().check(Exit.NO_COMMAND).err
    assert cluster.look(pool).held == 0


@pytest.mark.parametrize("what", ["unmounted", "foreign"])
def test_without_proc_all_is_stopped_when_the_seat_is_lost(tmp_path: Path, what: str) -> None:
    """Also what is in a session of its own, and a daemon: the end is verified without /proc."""
    mount = {
        "unmounted": "umount -l /proc 2>/dev/null || mount -t tmpfs tmpfs /proc",
        "foreign": "mount -t tmpfs tmpfs /proc && mkdir /proc/1 /proc/999999",
    }[what]
    with short_leases(tmp_path) as (node, address):
        out, err = tmp_path / "out.txt", tmp_path / "err.txt"
        run = f'exec {SCRIPT} run --pool p --nodes {address} --grace 0.5 -- sh -c "$0"'
        with out.open("ab") as out_file, err.open("ab") as err_file:
            process = subprocess.Popen(
                [*NAMESPACE, "bash", "-c", f"{mount}; {run}", FAMILY],
                stdout=out_file,
                stderr=err_file,
                env=environment(),
                start_new_session=True,
            )
        pids = family_of(Running(process, out, err))
        with ending(pids):
            node.process.kill()
            all_end(pids)
            assert process.wait(20) == Exit.SEAT_LOST


def test_without_proc_all_is_stopped_when_run_is_killed(tmp_path: Path) -> None:
    with short_leases(tmp_path) as (_, address):
        out, err = tmp_path / "out.txt", tmp_path / "err.txt"
        run = f'exec {SCRIPT} run --pool p --nodes {address} --grace 0.5 -- sh -c "$0"'
        with out.open("ab") as out_file, err.open("ab") as err_file:
            process = subprocess.Popen(
                [*NAMESPACE, "bash", "-c", f"mount -t tmpfs tmpfs /proc; {run}", FAMILY],
                stdout=out_file,
                stderr=err_file,
                env=environment(),
                start_new_session=True,
            )
        pids = family_of(Running(process, out, err))
        with ending(pids):
            process.kill()
            process.wait()
            all_end(pids)
