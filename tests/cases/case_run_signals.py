"""Batch systems send XCPU, ALRM, ABRT, PWR, real-time signals: `run` forwards all of them."""

from __future__ import annotations

import os
import signal
import sys

from tests.cases.place import Place
from tests.processes import PAUSE

COUNTER = (
    PAUSE
    + """
import sys
def report(number, frame):
    os.write(1, b"got %d.\\n" % number)
    if number == signal.SIGTERM:
        sys.exit(9)
for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
    signal.signal(number, report)
os.write(1, b"ready\\n")
while True:
    pause()
"""
)
KEPT = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGTERM}


def case(place: Place) -> None:
    place.start_node()
    out = place.folder / "out"
    job = (sys.executable, "-c", COUNTER)
    with out.open("wb") as file:
        run = place.spawn("run", "--pool", "p", "--", *job, stdout=file, start_new_session=True)
    place.wait_until(lambda: "ready" in out.read_text(), what="the command")
    for number in sorted(signal.valid_signals() - KEPT):
        os.kill(run.pid, number)
        said = f"got {int(number)}.\n"
        place.wait_until(lambda said=said: said in out.read_text(), what=said)  # type: ignore[misc]  # mypy infers no type for a default of a lambda
    run.terminate()
    code = run.wait(30)
    assert code == 9, f"exit code {code}, not the command's own 9"
    assert place.held() == 0, "the seat is still held"
