"""`run`, or its watchdog, is killed or stopped: the command, its session and its daemons all end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.cases.place import Place, runs

# The command's own number first: its children write theirs when they get to it.
JOB = (
    "echo $$ >> {pids}; sleep 301 & echo $! >> {pids}; setsid sleep 302 & echo $! >> {pids}; "
    "setsid sh -c 'sleep 303 & echo $! >> {pids}' & "
    "while :; do wait; sleep 0.2; done"
)


def case(place: Place) -> None:
    for victim, number, code in (
        ("run", signal.SIGKILL, -signal.SIGKILL),
        ("run", signal.SIGSTOP, 76),
        ("watchdog", signal.SIGKILL, 137),
    ):
        node = place.start_node("--session-ttl", "4")
        file = place.folder / f"{victim}-{number.name}"
        run = place.spawn(
            *("run", "--pool", "p", "--grace", "0.5", "--nodes", node.address, "--"),
            *("sh", "-c", JOB.format(pids=file)),
            start_new_session=True,
        )
        place.wait_until(
            lambda file=file: file.exists() and file.read_text().count("\n") == 4,  # type: ignore[misc]  # mypy infers no type for a default of a lambda
            what="the command and its children",
        )
        pids = [int(line) for line in file.read_text().splitlines()]
        watchdog = int(Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1])
        try:
            os.kill(run.pid if victim == "run" else watchdog, number)
            place.wait_until(
                lambda pids=pids: not any(runs(pid) for pid in pids),  # type: ignore[misc]  # mypy infers no type for a default of a lambda
                what=f"the end of all after {number.name} to {victim}",
            )
        finally:
            run.send_signal(signal.SIGCONT)
            for pid in pids:
                if runs(pid):
                    os.kill(pid, signal.SIGKILL)
        ended = run.wait(30)
        assert ended == code, f"{number.name} to {victim}: exit code {ended}, not {code}"
