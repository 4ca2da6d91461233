"""Streams that are closed or full: the command runs, exit codes stay, one line, no traceback."""

from __future__ import annotations

import subprocess

from tests.cases.place import SCRIPT, Place


def case(place: Place) -> None:
    place.start_node()
    ran = place.folder / "ran"
    job = f"sh -c 'touch {ran}; exit 3'"
    for words, code in (
        (f"run --pool p -- {job} 2>&-", 3),
        (f"run --pool p -- {job} 0<&- 1>&- 2>&-", 3),
        (f"run --json --pool p -- {job} 2>/dev/full", 3),
        ("run --pool nope -- true 2>/dev/full", 66),
        ("status >/dev/full", 1),
        ("status >&-", 1),
        ("status p --watch --json >/dev/full", 1),
        ("--help >/dev/full", 1),
        ("token show - <&-", 65),
    ):
        ran.unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", "-c", f"{SCRIPT} {words}"],
            env=place.environment(),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, f"{words}: exit {done.returncode}, not {code}"
        said = done.stdout + done.stderr
        assert b"Traceback" not in said, f"{words}: {said.decode()}"
        assert len(done.stderr.splitlines()) <= 1, f"{words}: {done.stderr.decode()}"
        assert ran.exists() == (code == 3), f"{words}: the command did not run"
    assert place.held() == 0, "the seat is still held"
