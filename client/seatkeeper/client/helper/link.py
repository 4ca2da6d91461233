"""The program's side of its helper: one socket, and one thread that listens to it.

The thread runs nothing of the user's but log handlers, and nothing waits for it that could not also
do its work: a caller that needs the newest reads the socket itself (`Link.pump`). Answers are handed to
the event loop that asked, with ``call_soon_threadsafe``.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

from seatkeeper.client.helper import spawn
from seatkeeper.client.helper.frames import (
    BadFrame,
    Decoder,
    Frame,
    error_from,
    frame,
    rpc_error,
)
from seatkeeper.client.helper.slots import SlotReader, boot_ms
from seatkeeper.core.errors import ClientClosed, HelperLost, SeatError

IDLE_SECONDS = 10.0
"""How long a helper stays when its last client is closed."""
LOOK_SECONDS = 1.0
"""How often the thread looks at the helper's pulse and at leases that run out."""
SILENT_LOOKS = 10
"""A helper whose pulse stood still for so many looks in a row is taken for stopped. Looks, not
seconds: when all was suspended, or the interpreter was held, the helper gets its time again."""
BACKLOG_BYTES_MAX = 64 << 20
"""Most that is kept for a helper that does not read."""
READ_BYTES = 1 << 18

Handler = Callable[[Frame | HelperLost], None]
"""Takes what the helper says about one request; or why it will say nothing more."""

_numbers = itertools.count(1)
_log = logging.getLogger("seatkeeper.client")


class Watcher(Protocol):
    """The holder of grants that the helper keeps."""

    def look(self) -> float:
        """Do what the clock says is due; return seconds until there is more to do."""

    def is_believing(self) -> bool:
        """Return whether any grant is still believed in."""


class Link:
    """Speaks to one helper. Usable from every thread of the process that made it."""

    def __init__(self, helper: spawn.Helper) -> None:
        self._helper = helper
        self._pid = os.getpid()
        self._made_at = helper.asked_at_ms
        self.helper_pid = 0
        """The helper's process id; 0 until it is ready."""
        self.slots = SlotReader.of(helper.memory)
        """Until when what it keeps may be believed."""
        self.lost: HelperLost | None = None
        """Why there is no helper any more; None: there is one."""
        self._decoder = Decoder()
        self._handlers: dict[int, Handler] = {}
        self._watchers: dict[int, Watcher] = {}
        self._idle_looks = 0
        self._pulse, self._still = 0, 0
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._reader = 0
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        """About; two threads that count at once may lose one. Put right whenever all is written."""
        self._sent = 0
        """Of the first of them, so many bytes have been written."""
        self._woken, self._wake = socket.socketpair()
        self._ready = threading.Event()
        for sock in (helper.socket, self._woken, self._wake):
            sock.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="seatkeeper-link", daemon=True)

    def start(self) -> None:
        """Wait until the helper is ready. Raises `HelperLost`."""
        self._thread.start()
        if not self._ready.wait(spawn.READY_SECONDS_MAX) and self.lost is None:
            self._end(HelperLost("the helper process did not start in time"))
        if self.lost is not None:
            raise self._why()

    # For sessions and calls --------------------------------------------------------------------

    def attach(self, watcher: Watcher) -> int:
        """Return a number for a client. Raises `HelperLost` when the helper is gone."""
        with self._write_lock:
            if self.lost is not None:
                raise self._why()
            number = next(_numbers)
            self._watchers[number] = watcher
            return number

    def detach(self, client: int) -> None:
        """Note that a client is closed. With the last one, the helper ends after a while."""
        self._watchers.pop(client, None)

    def number(self, handler: Handler) -> int:
        """Return a number for a request, about which ``handler`` is called from any thread."""
        number = next(_numbers)
        self._handlers[number] = handler
        return number

    def handler(self, number: int) -> Handler | None:
        """Return the handler of a request."""
        return self._handlers.get(number)

    def forget(self, number: int) -> None:
        """Drop the handler of a request."""
        self._handlers.pop(number, None)

    def send(self, message: Frame) -> None:
        """Send a frame; never waits. Raises `HelperLost`.

        It takes no lock that it would have to wait for: a signal handler or the garbage collector
        may send in the very thread that is sending, which would wait for itself.
        """
        if self._pid != os.getpid():
            raise ClientClosed("this client came through a fork; make one after forking")
        if self.lost is not None:
            raise self._why()
        if self._backlog_bytes > BACKLOG_BYTES_MAX:
            raise HelperLost("the helper process does not read what it is asked")
        data = message.encode()
        self._backlog_bytes += len(data)
        self._backlog.append(data)
        if self._write_lock.acquire(blocking=False):
            try:
                self._write()
            finally:
                self._write_lock.release()
        # Also what came while another was writing, who may have looked for more already.
        if self._backlog:
            self._poke()

    def notify(self, message: Frame) -> None:
        """Send a frame if there still is a helper, which needs to know it only then."""
        with suppress(SeatError):
            self.send(message)

    async def ask(self, op: str, fields: Mapping[str, object], body: bytes = b"") -> Frame:
        """Send a request and return its answer. Raises what the helper raises."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Frame] = loop.create_future()
        number = self.number(in_loop(loop, lambda answer: settle(future, answer)))
        try:
            self.send(Frame({"op": op, "id": number, **fields}, body))
            return await future
        except asyncio.CancelledError:
            self.notify(frame("stop", of=number, client=fields["client"]))
            raise
        finally:
            self.forget(number)

    def pump(self) -> None:
        """Take everything that the helper has said until now."""
        me = threading.get_ident()
        if self._reader == me:
            return
        with self._read_lock:
            self._reader = me
            try:
                self._read()
            finally:
                self._reader = 0

    def abandon(self) -> None:
        """Drop everything in a forked child: the helper is the parent's."""
        self.lost = HelperLost("the helper process belongs to the process that was forked")
        self._handlers, self._watchers = {}, {}
        for sock in (self._helper.socket, self._woken, self._wake):
            sock.close()
        self._helper.close()

    # The thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        wait, look_at, pulse_at = 0.0, 0.0, 0.0
        try:
            while self.lost is None:
                wanted = select.POLLIN | (select.POLLOUT if self._backlog else 0)
                poll.register(self._helper.socket, wanted)
                poll.poll(int(wait * 1000) + 1)
                with suppress(BlockingIOError):
                    self._woken.recv(READ_BYTES)
                self._flush()
                self.pump()
                now = time.monotonic()
                if now >= pulse_at:
                    pulse_at = now + LOOK_SECONDS
                    self._feel_pulse()
                if now >= look_at:
                    look_at = now + self._look()
                wait = max(0.0, min(look_at, pulse_at) - time.monotonic())
        except Exception as error:
            if self.lost is None:
                _log.exception("the link to the helper process broke")
                self._end(HelperLost(f"the link to the helper process broke: {error!r}"))
        finally:
            # Until nothing is believed any more, somebody has to say when that is.
            while self._watchers and self._pid == os.getpid():
                wait = min((w.look() for w in list(self._watchers.values())), default=0.0)
                if wait == float("inf"):
                    break
                threading.Event().wait(min(LOOK_SECONDS, max(0.01, wait)))
            with suppress(OSError):
                self._woken.close()
                self._wake.close()

    def _flush(self) -> None:
        with self._write_lock:
            self._write()

    def _write(self) -> None:
        """Write what the helper accepts now. The caller has the lock."""
        try:
            while self._backlog:
                data = self._backlog[0]
                self._sent += self._helper.socket.send(memoryview(data)[self._sent :])
                if self._sent == len(data):
                    self._sent = 0
                    self._backlog_bytes -= len(data)
                    self._backlog.popleft()
            self._backlog_bytes = 0
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            # What it said before is still to be read; the end is found there.
            self._sent = self._backlog_bytes = 0
            self._backlog.clear()

    def _read(self) -> None:
        while self.lost is None:
            try:
                data = self._helper.socket.recv(READ_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                self._end(HelperLost("the helper process ended"))
                return
            try:
                for message in self._decoder.feed(data):
                    self._take(message)
            except BadFrame as error:
                self._end(HelperLost(f"the helper process sent {error}"))

    def _take(self, message: Frame) -> None:
        match message.op:
            case "ready":
                self.helper_pid = int(message["pid"])
                self._compare_clocks(int(message["clock"]))
                self._ready.set()
            case "log":
                log = logging.getLogger(str(message["name"]))
                log.log(int(message["level"]), "%s", message["text"])
            case _:
                about = message.header.get("of", message.header.get("id"))
                handler = self._handlers.get(int(about or 0))
                if handler is not None:
                    handler(message)

    def _compare_clocks(self, theirs: int) -> None:
        """Make sure that both read one clock: in a time namespace of its own the helper would not."""
        if not self._made_at <= theirs <= boot_ms():
            self._end(
                HelperLost(
                    "the helper process reads another clock (a time namespace?), by which nothing "
                    'can be believed; use ClientConfig(keeper="process")'
                )
            )

    def _look(self) -> float:
        """Have the clients look at their leases; return seconds until one may run out."""
        wait = min((w.look() for w in list(self._watchers.values())), default=LOOK_SECONDS)
        return min(LOOK_SECONDS, max(0.01, wait))

    def _feel_pulse(self) -> None:
        """Notice a helper that stands still, and one that is not needed."""
        pulse = self.slots.pulse()
        self._still = self._still + 1 if pulse == self._pulse else 0
        self._pulse = pulse
        if self._still >= SILENT_LOOKS:
            self._still = 0
            self._on_silence()
        self._idle_looks = 0 if self._watchers else self._idle_looks + 1
        if self._idle_looks * LOOK_SECONDS >= IDLE_SECONDS:
            self._end(
                HelperLost("the helper process was not needed any more"), unless_used=True
            )

    def _on_silence(self) -> None:
        error = HelperLost("the helper process does not answer: is it stopped?")
        believing = any(w.is_believing() for w in list(self._watchers.values()))
        if believing:
            # It may go on before the leases end. What waits has waited long enough.
            self._fail_all(error)
        else:
            # If it ever goes on, it finds the socket closed, and ends what it keeps.
            self._end(error)

    def _end(self, error: HelperLost, *, unless_used: bool = False) -> None:
        with self._write_lock:
            if self.lost is not None or (unless_used and self._watchers):
                return
            words = self._helper.stderr_tail()
            self.lost = HelperLost(f"{error}: {words}") if words else error
            self._helper.close()
            self._backlog.clear()
        if not unless_used:
            _log.warning("%s", self.lost)
        self._ready.set()
        self._poke()
        self._fail_all(self.lost)

    def _fail_all(self, error: HelperLost) -> None:
        for handler in list(self._handlers.values()):
            handler(error)

    def _poke(self) -> None:
        with suppress(OSError):
            self._wake.send(b"\0")

    def _why(self) -> HelperLost:
        return HelperLost(str(self.lost))


def in_loop(
    loop: asyncio.AbstractEventLoop, handler: Handler, dead: Callable[[], None] | None = None
) -> Handler:
    """Return a handler that runs ``handler`` in ``loop``; ``dead`` where that loop is closed."""

    def hand_over(answer: Frame | HelperLost) -> None:
        try:
            loop.call_soon_threadsafe(handler, answer)
        except RuntimeError:
            if dead is not None:
                dead()

    return hand_over


def settle(future: asyncio.Future[Frame], answer: Frame | HelperLost) -> None:
    """End ``future`` with an answer, or with the error in it."""
    if future.done():
        return
    if isinstance(answer, HelperLost):
        future.set_exception(HelperLost(str(answer)))
    elif answer.op == "error":
        future.set_exception(error_from(answer.header))
    elif answer.op == "rpc_error":
        future.set_exception(rpc_error(answer.header))
    else:
        future.set_result(answer)
