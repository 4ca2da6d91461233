"""Our end of a watchdog: how it is started, the messages to it, and its answers.

A line of text for a command or an answer, over a socket pair; the lease in memory that both share.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from seatkeeper.hold.linux import adopt_orphans, keep_going, send
from seatkeeper.hold.signals import TAKEN
from seatkeeper.hold.watchdog import pack_lease

READY_SECONDS_MAX = 30.0
READ_BYTES = 1 << 16
NO_NAMESPACE = (
    "--contain cannot make PID and mount namespaces here ({}): run it as root, give the container "
    "CAP_SYS_ADMIN, or leave --contain out"
)

_WATCHDOG = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from seatkeeper.hold.watchdog import main; main()"
)
_ROOT = str(Path(__file__).parents[2])


class CannotStart(OSError):
    """The command cannot be executed, or the watchdog cannot be started; ``errno`` says why."""


class WatchdogLink:
    """One watchdog at a time, and the words that are exchanged with it. Belongs to one event loop."""

    def __init__(
        self,
        *,
        grace: float,
        contain: bool,
        on_ended: Callable[[int], None],
        on_gone: Callable[[], None],
    ) -> None:
        """``grace`` and ``contain`` are the watchdog's own, as `Program` has them.

        ``on_ended`` is called with the wait status of the program; ``on_gone`` when the watchdog ends.
        """
        self._grace = grace
        self._contain = contain
        self._on_ended = on_ended
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._lease = os.memfd_create("seatkeeper-lease")
        self._socket: socket.socket | None = None
        self._unread = b""
        self._words: dict[str, asyncio.Future[str]] = {}
        self.pid = 0
        """The watchdog's process id; 0 while there is none."""
        self.is_gone = False
        """Whether it has ended."""
        self.has_stopped = asyncio.Event()
        """Set when it stopped the program without being asked: the lease was over."""

    async def start(self) -> None:
        """Start a watchdog; raises `CannotStart`. Everything that can fail early, fails here."""
        self.is_gone = False
        adopt_orphans()
        ours, theirs = socket.socketpair()
        try:
            self._spawn(theirs.fileno())
        except OSError as error:
            ours.close()
            raise CannotStart(
                error.errno, f"cannot start the watchdog: {error.strerror}"
            ) from None
        finally:
            theirs.close()
        ours.setblocking(False)
        self._socket, self._words, self._unread = ours, {}, b""
        self._loop.add_reader(ours, self._read)
        refused = await self.word("ready", READY_SECONDS_MAX)
        if refused is None:
            raise CannotStart(0, "cannot start the watchdog: it ended, or does not answer")
        if refused:
            raise CannotStart(int(refused), NO_NAMESPACE.format(os.strerror(int(refused))))

    def publish(self, until: float, ends: float) -> None:
        """Say until when the seat may be believed in, and when another may have it."""
        with suppress(OSError):
            os.pwrite(self._lease, pack_lease(until, ends), 0)

    async def send_order(self, order: bytes) -> None:
        """Say what to start. Raises `CannotStart`."""
        assert self._socket is not None
        try:
            await self._loop.sock_sendall(
                self._socket, f"start {len(order)}\n".encode() + order
            )
        except OSError as error:
            raise CannotStart(error.errno, "the watchdog ended") from None

    def say(self, line: str) -> None:
        """Say something, if there is a watchdog."""
        if self._socket is None or self.is_gone:
            return
        with suppress(OSError):
            self._socket.send(line.encode() + b"\n")

    async def word(self, name: str, seconds_max: float) -> str | None:
        """Wait until the watchdog says ``name``; None: it is gone, or does not in time."""
        if self.is_gone:
            return None
        word = self._words.setdefault(name, self._loop.create_future())
        try:
            return await asyncio.wait_for(asyncio.shield(word), seconds_max)
        except (TimeoutError, ConnectionError):
            return None

    def keep_going(self) -> None:
        """Let a watchdog go on that was stopped."""
        if self.pid and not self.is_gone:
            keep_going(self.pid)

    def kill(self) -> None:
        """Kill the watchdog, if there is one."""
        if self.pid:
            send(self.pid, signal.SIGKILL)

    def on_reaped(self) -> None:
        """Note that the watchdog's process has ended."""
        self.pid = 0
        self._note_end()

    def close(self) -> None:
        """Let the watchdog go."""
        self.say("end")
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        os.close(self._lease)

    def _spawn(self, control: int) -> None:
        environment = {k: v for k, v in os.environb.items() if not k.startswith(b"PYTHON")}
        grace = int(self._grace * 1000)
        about_us = (os.getpid(), grace, os.getpgrp(), int(self._contain))
        numbers = (control, self._lease, *about_us)
        words = (sys.executable, "-I", "-S", "-c", _WATCHDOG, _ROOT, *map(str, numbers))
        for descriptor in (control, self._lease):
            os.set_inheritable(descriptor, True)
        try:
            self.pid = os.posix_spawn(sys.executable, words, environment, setsigmask=TAKEN)
        finally:
            os.set_inheritable(self._lease, False)

    def _read(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._socket)
            self._note_end()
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            name, _, value = line.decode().partition(" ")
            self._take(name, value)

    def _take(self, name: str, value: str) -> None:
        match name:
            case "ended":
                self._on_ended(int(value))
            case "failed":
                name = "started"
            case "refused":
                name = "ready"
            case "started":
                value = "started"
            case "stopping" if "stopping" not in self._words:
                self.has_stopped.set()
        word = self._words.setdefault(name, self._loop.create_future())
        if not word.done():
            word.set_result(value)

    def _note_end(self) -> None:
        if self.is_gone:
            return
        self.is_gone = True
        for word in self._words.values():
            if not word.done():
                word.set_exception(ConnectionError("the watchdog is gone"))
                word.exception()  # a caller that waits has it; there may be none
        self._on_gone()
