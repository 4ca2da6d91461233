"""Makes ``with`` blocks unwind when the process is asked to end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def exit_on_signals(
    *numbers: signal.Signals,
) -> Iterator[None]:
    """Turn signals into `SystemExit` inside the block, so that seats are given back at once.

    Without this, ``SIGTERM`` ends a Python program on the spot: its seats are free only when the
    lease ends. ``SIGINT`` needs nothing: Python raises `KeyboardInterrupt` by itself. ``numbers``
    defaults to ``SIGTERM`` and ``SIGHUP``. One that was ignored (``nohup``) stays ignored. Only for
    the main thread, as all signal handlers are; what was set before is set again afterwards.
    """
    wanted = numbers or (signal.SIGTERM, signal.SIGHUP)

    def leave(number: int, frame: FrameType | None) -> None:
        # The shell's convention for "ended by this signal".
        raise SystemExit(128 + number)

    caught = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, leave) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
