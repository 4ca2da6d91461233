"""What signals mean to a server of ours: drain, reload, or nothing. None of them kills it silently.

Not caught, and deadly as everywhere: KILL, and what a crash sends (ABRT, BUS, FPE, ILL, SEGV, SYS,
TRAP). Left alone: what stops and continues a job, and what does nothing by default.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable

logger = logging.getLogger(__name__)

DRAIN = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGXCPU})
"""They end the server in good order. XCPU: its processor time is nearly used up."""
RELOAD = signal.SIGHUP
_LEFT_ALONE = frozenset(
    {
        *(signal.SIGKILL, signal.SIGSTOP),
        *(signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV),
        *(signal.SIGSYS, signal.SIGTRAP),
        *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT),
        *(signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH),
        *(signal.SIGPIPE, signal.SIGXFSZ),  # Python makes errors of them
    }
)


_early: list[int] = []
"""HUPs that came before anybody listened."""


def _numbers() -> list[int]:
    """Return every other signal, those without a name too."""
    return sorted(set(map(int, signal.valid_signals())) - _LEFT_ALONE - DRAIN - {RELOAD})


def shield() -> None:
    """Ignore whatever would kill a server that has just begun to start; ``Signals`` takes over."""
    for number in _numbers():
        signal.signal(number, signal.SIG_IGN)
    # Not ignored: the settings may have been read by then, so it is due as soon as they can be again.
    signal.signal(RELOAD, lambda _number, _frame: _early.append(RELOAD))


class Signals:
    """Listens to signals, on the running event loop, for as long as the process lives."""

    def __init__(self) -> None:
        self.drain = asyncio.Event()
        """Set when the server is to end."""
        self.reload: Callable[[], None] | None = None
        """Called for HUP; None: not yet. Then it is done when ``ready`` is called."""
        self._loop = loop = asyncio.get_running_loop()
        for drain in DRAIN:
            # One that was ignored at the start (a background job of sh) is meant for others.
            if signal.getsignal(drain) is not signal.SIG_IGN:
                loop.add_signal_handler(drain, self._on_drain, drain)
        loop.add_signal_handler(RELOAD, self._on_reload)
        self._reload_is_due = bool(_early)
        for number in _numbers():
            loop.add_signal_handler(number, self._on_other, number)

    def ready(self, reload: Callable[[], None]) -> None:
        """Have ``reload`` called for each HUP from now on; for one that came before, now."""
        self.reload = reload
        if self._reload_is_due:
            reload()

    def done(self) -> None:
        """Ignore everything from now on: the server has drained, and the process is about to exit.

        The loop would leave signals to kill it, and its exit code would say that it had not drained.
        """
        for number in (*DRAIN, RELOAD, *_numbers()):
            self._loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def _on_drain(self, number: int) -> None:
        logger.info("signal_received", extra={"signal": _name(number), "meaning": "drain"})
        self.drain.set()

    def _on_reload(self) -> None:
        logger.info("signal_received", extra={"signal": "SIGHUP", "meaning": "reload"})
        self._reload_is_due = True
        if self.reload is not None:
            self.reload()

    def _on_other(self, number: int) -> None:
        about = {"signal": _name(number), "meaning": "none"}
        logger.warning("signal_ignored", extra=about)


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
