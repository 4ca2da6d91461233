"""Without /proc, a lost seat ends the command with its children, sessions and daemons."""

from __future__ import annotations

import subprocess

from tests.cases.place import SCRIPT, Place, needs_root, runs

JOB = (
    "sleep 301 & echo $! >> {pids}; setsid sleep 302 & echo $! >> {pids}; "
    "setsid sh -c 'sleep 303 & echo $! >> {pids}' & wait; sleep 300"
)


def case(place: Place) -> None:
    needs_root()
    node = place.start_node("--session-ttl", "4")
    pids_file = place.folder / "pids"
    job = JOB.format(pids=pids_file)
    run = f'mount -t tmpfs tmpfs /proc && exec {SCRIPT} run --pool p --grace 0.5 -- sh -c "$0"'
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", run, job],
        env=place.environment(),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        place.wait_until(
            lambda: pids_file.exists() and pids_file.read_text().count("\n") == 3,
            what="its children",
        )
        pids = [int(line) for line in pids_file.read_text().splitlines()]
        node.kill()
        code = process.wait(30)
        assert code == 76, f"exit code {code}, not 76"
        left = [pid for pid in pids if runs(pid)]
        assert not left, f"{left} go on without a seat"
    finally:
        process.kill()
        process.wait()
