"""Without a terminal and with stdin closed, run takes its seat and gives it back."""

from __future__ import annotations

import subprocess

from tests.cases.place import SCRIPT, Place


def case(place: Place) -> None:
    place.start_node()
    ended = place.seatkeeper(
        "run", "--pool", "p", "--", "sh", "-c", "echo ran; exit 3", start_new_session=True
    )
    assert (ended.returncode, ended.stdout) == (3, b"ran\n"), ended
    assert place.held() == 0, "the seat is still held"
    shell = f"exec {SCRIPT} run --pool p -- sh -c 'echo ran; exit 3' <&-"
    closed = subprocess.run(
        ["setsid", "--wait", "sh", "-c", shell],
        env=place.environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (closed.returncode, closed.stdout) == (3, b"ran\n"), closed
    assert place.held() == 0, "the seat is still held"
