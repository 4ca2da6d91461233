"""Ctrl-C once, while bash works through a list with `run` or `status --watch`: the script ends."""

from __future__ import annotations

import os
import pty
import select
import signal
import time

from tests.cases.place import Place

SECONDS_MAX = 60.0


def case(place: Place) -> None:
    place.start_node()
    for words, shown in (
        ("run --pool p -- sh -c 'echo item; exec sleep 300'", b"item"),
        ("status p --watch --json", b'"name"'),
    ):
        script = f"for i in 1 2 3; do seatkeeper {words}; done; echo whole list done"
        out, status = _at_a_terminal(place, script, shown)
        assert out.count(shown) == 1, f"{words}: the script went on: {out!r}"
        assert b"whole list done" not in out, f"{words}: the script went on: {out!r}"
        assert os.WIFSIGNALED(status), f"{words}: bash did not die of the signal"
        assert os.WTERMSIG(status) == signal.SIGINT


def _at_a_terminal(place: Place, script: str, wait_for: bytes) -> tuple[bytes, int]:
    """Run a script of bash, press Ctrl-C when ``wait_for`` is shown; its output and end."""
    pid, screen = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execvpe("bash", ["bash", "--norc", "-c", script], place.environment())
    out, pressed, end = b"", False, time.monotonic() + SECONDS_MAX
    try:
        while time.monotonic() < end:
            if not select.select([screen], [], [], 0.2)[0]:
                continue
            try:
                out += os.read(screen, 4096)
            except OSError:
                break
            if not pressed and wait_for in out:
                pressed = True
                os.write(screen, b"\x03")
        else:
            os.killpg(pid, signal.SIGKILL)
    finally:
        os.close(screen)
    return out, os.waitpid(pid, 0)[1]
