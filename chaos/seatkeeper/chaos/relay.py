"""A relay between those who call and a server, which can be the network at its worst.

It works on bytes of TCP connections and knows no protocol, so it stands anywhere, needs no rights,
and TLS goes through it unread. When one end closes, so does the other.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from enum import Enum

from seatkeeper.core.address import parse_address

CHUNK_BYTES = 65536
YOUNG_SECONDS = 0.5
"""A connection is spared from losing answers for so long: its two ends have not agreed on anything."""


_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Way(Enum):
    """Where bytes go."""

    REQUESTS = "requests"
    ANSWERS = "answers"


class Relay:
    """Forwards what comes to ``endpoint`` to a target, well or badly.

    A setting holds for all its connections, also those that are there, until `recover`.
    """

    def __init__(
        self,
        target: str,
        *,
        host: str = "127.0.0.1",
        rng: random.Random | None = None,
    ) -> None:
        """``target`` and what it listens on are TCP addresses: ``host:port``, and a free port."""
        self.target = target
        self.answers_cut = 0
        """How many connections were cut instead of forwarding an answer."""
        self.held_up = 0
        """How many pieces wait for a stall to be over."""
        self.caught = b""
        """The piece of a request that ``trap`` waits for, once it has come."""
        self._target = parse_address(target)
        self._host = host
        self._rng = rng or random.Random()
        self._server: asyncio.Server | None = None
        self._flowing = {way: asyncio.Event() for way in Way}
        self._share_lost = 0.0
        self._is_mute = False
        self._is_refusing = False
        self._trap: tuple[Callable[[bytes], bool], Way] | None = None
        self._delay = 0.0
        self._connections: set[asyncio.Task[None]] = set()
        self._stranded: set[asyncio.Task[None]] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._openings: set[asyncio.Task[_Streams]] = set()
        self._cuts = 0
        self._flow()

    @property
    def endpoint(self) -> str:
        """Where it listens, as ``host:port``."""
        assert self._server is not None, "start it first"
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def start(self) -> None:
        """Listen. Raises ``OSError``."""
        self._server = await asyncio.start_server(self._serve, self._host, 0)

    async def close(self) -> None:
        """Break all connections and listen no more."""
        assert self._server is not None
        self._server.close()
        self.recover()
        self.refuse()
        self.cut()
        if self._connections:
            await asyncio.wait(self._connections)

    # What it can do ------------------------------------------------------------------------

    def stall(self, *ways: Way) -> None:
        """Silently let nothing through. Without ``ways``: neither way."""
        for way in ways or Way:
            self._flowing[way].clear()

    def trap(self, is_wanted: Callable[[bytes], bool], way: Way) -> None:
        """Stall a way from the first piece of a request on that is wanted; then that is ``caught``."""
        self._trap = is_wanted, way

    def mute(self) -> None:
        """Let requests arrive and silently drop the answers."""
        self._is_mute = True

    def lose_answers(self, share: float) -> None:
        """Break a connection, this share of the times, when an answer comes; it is never seen."""
        self._share_lost = share

    def slow(self, seconds: float) -> None:
        """Whatever is sent, either way, arrives so much later, or up to twice as much."""
        self._delay = seconds

    def refuse(self) -> None:
        """Nothing listens at this address, for connections made from now on."""
        self._is_refusing = True

    def strand(self) -> None:
        """Silently let nothing through on the present connections; new ones work."""
        self._stranded |= self._pumps

    def cut(self) -> None:
        """Every present connection is closed at both ends."""
        self._cuts += 1
        for task in (*self._openings, *self._pumps):
            task.cancel()

    def recover(self) -> None:
        """All is well again. What was held up goes on; where answers were lost, connections break."""
        if self._is_mute or self._stranded:
            self.cut()
        self._share_lost, self._delay = 0.0, 0.0
        self._is_mute = self._is_refusing = False
        self._trap, self.caught = None, b""
        self._flow()

    # Inside --------------------------------------------------------------------------------

    def _is_to_be_lost(self) -> bool:
        return self._share_lost > 0 and self._rng.random() < self._share_lost

    def _look_at(self, data: bytes, is_wanted: Callable[[bytes], bool], way: Way) -> None:
        if not self.caught and is_wanted(data):
            self.caught = data
            self.stall(way)

    def _flow(self) -> None:
        for flowing in self._flowing.values():
            flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        writers = [writer]
        cuts = self._cuts
        try:
            if not self._is_refusing:
                remote_reader, remote_writer = await self._open()
                writers.append(remote_writer)
                if cuts == self._cuts:
                    await self._join(reader, writer, remote_reader, remote_writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for each in writers:
                each.transport.abort()
            await asyncio.sleep(0)  # a transport ends in the loop's next turn

    async def _open(self) -> _Streams:
        """Connect to the target, as a task that can be cut: it may take minutes to fail."""
        opening = asyncio.create_task(asyncio.open_connection(*self._target))
        self._openings.add(opening)
        opening.add_done_callback(self._openings.discard)
        return await opening

    async def _join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        remote_reader: asyncio.StreamReader,
        remote_writer: asyncio.StreamWriter,
    ) -> None:
        began = asyncio.get_running_loop().time()
        pumps = {
            asyncio.create_task(self._pump(reader, remote_writer, Way.REQUESTS, began)),
            asyncio.create_task(self._pump(remote_reader, writer, Way.ANSWERS, began)),
        }
        self._pumps |= pumps
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.wait(pumps)
        self._pumps -= pumps
        self._stranded -= pumps

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        way: Way,
        began: float,
    ) -> None:
        now: Callable[[], float] = asyncio.get_running_loop().time
        # What was read has been forwarded when it is drained: a connection's end loses nothing.
        writer.transport.set_write_buffer_limits(high=0)
        try:
            while data := await reader.read(CHUNK_BYTES):
                if self._delay:
                    await asyncio.sleep(self._delay)
                if asyncio.current_task() in self._stranded:
                    await asyncio.Event().wait()  # until it is cut
                if way is Way.REQUESTS and self._trap is not None:
                    self._look_at(data, *self._trap)
                self.held_up += 1
                try:
                    await self._flowing[way].wait()
                finally:
                    self.held_up -= 1
                if way is Way.ANSWERS and self._is_mute:
                    continue
                is_young = now() - began < YOUNG_SECONDS
                if way is Way.ANSWERS and not is_young and self._is_to_be_lost():
                    self.answers_cut += 1
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            return
