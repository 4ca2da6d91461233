"""What listens to the library: its log and its progress.

The library's interfaces are classes to derive from, so the classes are made here, once the
module is known.
"""

from __future__ import annotations

import sys
from collections import deque

from seatkeeper.builder.backends._untyped import Untyped
from seatkeeper.builder.progress import BUILDING, STEP_CHARS_MAX, OnProgress, Progress

MESSAGES_MAX = 50
MESSAGE_CHARS_MAX = 1_000


class ErrorLog:
    """The last errors that the library logged."""

    def __init__(self) -> None:
        self._messages: deque[str] = deque(maxlen=MESSAGES_MAX)

    @property
    def messages(self) -> tuple[str, ...]:
        """The messages, the oldest first."""
        return tuple(self._messages)

    def add(self, message: str) -> None:
        """Keep a message, and drop the oldest when there are too many."""
        self._messages.append(message[:MESSAGE_CHARS_MAX])

    def last(self) -> str:
        """Return the last message that is about the model, empty if there is none."""
        return next(filter(None, map(about_model, reversed(self._messages))), "")


def about_model(message: str) -> str:
    """Return the lines that are about the model, as one line.

    On a host without a GPU the library also complains about its driver, after each error.
    """
    return " ".join(line for line in message.splitlines() if "catchCudaError" not in line)


def make_logger(module: Untyped, log: ErrorLog) -> Untyped:
    """Return a logger of the library's that keeps errors and prints warnings and errors."""

    class Logger(module.ILogger):  # type: ignore[misc]  # the compiler's wheel has no types
        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, severity: Untyped, message: str) -> None:
            if severity > module.ILogger.WARNING:
                return
            print(message[:MESSAGE_CHARS_MAX], file=sys.stderr)
            if severity <= module.ILogger.ERROR:
                log.add(message)

    return Logger()


def make_progress_monitor(module: Untyped, on_progress: OnProgress) -> Untyped:
    """Return a progress monitor of the library that calls ``on_progress``.

    Phases nest and the library may come back to one; each step says what its own phase is at.
    """
    steps_by_phase: dict[str, int] = {}

    class ProgressMonitor(module.IProgressMonitor):  # type: ignore[misc]  # the compiler's wheel has no types
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            steps_by_phase[phase_name] = num_steps
            _notify(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            _notify(phase_name, step + 1)
            return True

        def phase_finish(self, phase_name: str) -> None:
            _notify(phase_name, steps_by_phase.pop(phase_name, 0))

    def _notify(phase_name: str, steps_done: int) -> None:
        steps = steps_by_phase.get(phase_name, steps_done)
        on_progress(
            Progress(
                phase=BUILDING,
                step=phase_name[:STEP_CHARS_MAX],
                steps_done=min(steps_done, steps),
                steps=steps,
            )
        )

    return ProgressMonitor()
