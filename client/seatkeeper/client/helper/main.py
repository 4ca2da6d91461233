"""The helper process: keeps the sessions of one program, and makes its calls.

One event loop. It reads requests from the socket, watches the program by its pidfd, and never waits
for a program that does not read: what only the newest matters of is kept once (`Outbox`), answers
are as many as the program asked for, and streams stop at `PARTS_MAX` messages.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import mmap
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

from seatkeeper.client.helper.frames import BadFrame, Decoder, Frame, error_fields, frame
from seatkeeper.client.helper.keeping import Keeping
from seatkeeper.client.helper.outbox import Outbox
from seatkeeper.client.helper.settings import config_from
from seatkeeper.client.helper.slots import TABLE_BYTES, SlotWriter, boot_ms
from seatkeeper.core.errors import ClientClosed

PULSE_SECONDS = 0.5
CLOSE_SECONDS_MAX = 4.0
"""How long the helper tries to close sessions when the program is gone; their leases end anyway."""
LOG_BYTES_MAX = 1 << 20
"""What libraries may print until it is thrown away: it is kept in memory."""


def main(control: int, memory: int, program: int) -> None:
    """Serve the program behind ``control`` until it is gone. ``program`` is a pidfd of it."""
    faulthandler.enable()
    _raise_descriptors()
    table = mmap.mmap(memory, TABLE_BYTES)
    os.close(memory)
    try:
        asyncio.run(_serve(socket.socket(fileno=control), SlotWriter.of(table), program))
    finally:
        # Nothing is left to do, and what gRPC's threads still do is of no use to anybody.
        sys.stderr.flush()
        os._exit(0)


async def _serve(sock: socket.socket, slots: SlotWriter, program: int) -> None:
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(program, gone.set)
    server = Server(slots, lambda: kill(program), gone.set)
    sock.setblocking(False)
    await loop.create_connection(lambda: server, sock=sock)
    pulse = asyncio.create_task(_heartbeat(slots))
    await gone.wait()
    pulse.cancel()
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS_MAX):
            await server.close()


def kill(program: int) -> None:
    """Kill the program: a seat was lost, and it asked for that. Only ever that very process."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(program, signal.SIGKILL)


class Server(asyncio.Protocol):
    """Reads the program's requests and has them done."""

    def __init__(
        self, slots: SlotWriter, kill: Callable[[], None], on_end: Callable[[], None]
    ) -> None:
        self._slots = slots
        self._kill = kill
        self._on_end = on_end
        self._decoder = Decoder()
        self._outbox = Outbox()
        self._clients: dict[int, Keeping] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say that the helper is ready."""
        assert isinstance(transport, asyncio.Transport)
        self._outbox.open(transport)
        handler = _ToProgram(self._outbox)
        logging.getLogger("seatkeeper").addHandler(handler)
        logging.getLogger("seatkeeper").setLevel(logging.INFO)
        self._outbox.send(frame("ready", pid=os.getpid(), clock=boot_ms() - 1))

    def connection_lost(self, error: Exception | None) -> None:
        """End: no program is connected any more."""
        self._on_end()

    def pause_writing(self) -> None:
        """Keep what only the newest matters of once, until the program reads again."""
        self._outbox.pause()

    def resume_writing(self) -> None:
        """Send it."""
        self._outbox.resume()

    def data_received(self, data: bytes) -> None:
        """Take requests."""
        try:
            for message in self._decoder.feed(data):
                self._take(message)
        except (BadFrame, KeyError, TypeError):
            logging.getLogger("seatkeeper.client").exception("a request was not understood")
            self._on_end()

    def _take(self, message: Frame) -> None:
        number = int(message["client"])
        match message.op:
            case "open":
                self._clients[number] = Keeping(
                    config_from(message["config"]), self._slots, self._outbox, self._kill
                )
                self._clients[number].open(message)
            case "forget":
                client = self._clients.pop(number, None)
                if client is not None:
                    self._end(client)
            case _:
                if (client := self._clients.get(number)) is not None:
                    client.take(message)
                elif message.header.get("id"):
                    fields = error_fields(ClientClosed())
                    self._outbox.send(frame("error", id=message.id, **fields))

    def _end(self, client: Keeping) -> None:
        task = asyncio.create_task(client.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """End every session."""
        for client in self._clients.values():
            self._end(client)
        self._clients.clear()
        await asyncio.gather(*self._closing, return_exceptions=True)


class _ToProgram(logging.Handler):
    """Hands records to the program, which logs them as its own."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self._outbox = outbox

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self._outbox.notify(frame("log", name=record.name, level=record.levelno, text=text))


async def _heartbeat(slots: SlotWriter) -> None:
    pulse = 0
    while True:
        pulse += 1
        slots.heartbeat(pulse)
        with suppress(OSError):
            if os.fstat(2).st_size > LOG_BYTES_MAX:
                os.ftruncate(2, 0)
        await asyncio.sleep(PULSE_SECONDS)


def _raise_descriptors() -> None:
    with suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
