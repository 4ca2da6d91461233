"""Keeps one stream to some node: picks nodes, gives up on silent ones, waits between rounds.

A round tries every node that its breaker allows, once, without waiting; then comes the backoff. A
stream that was good until it ended begins a new round at once, with another node where there
is one. So the loss of a node costs one connection, and an outage costs few and ever fewer.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from grpc import aio

from seatkeeper.client.config.values import ClientConfig
from seatkeeper.client.session.stream import SessionStream
from seatkeeper.client.transport.backoff import delay_seconds
from seatkeeper.client.transport.nodes import NodePicker
from seatkeeper.client.transport.translate import from_rpc
from seatkeeper.core.clock import Clock
from seatkeeper.core.errors import Overloaded, ServiceUnavailable
from seatkeeper.v1 import seat_service_pb2 as pb

STABLE_SECONDS = 1.0
"""A stream that lived for so long was a good one: the next is tried at once."""
URGENT_SHARE = 0.25
"""Most of the time left to the lease that one attempt, or one rest between rounds, may take."""
ATTEMPT_SECONDS_MIN = 0.2
"""A node gets at least so long to accept a stream, however little time is left."""
LEAVE_ALONE_SECONDS = 10.0
"""How long a node that said it is going away is left alone."""

_log = logging.getLogger("seatkeeper.client")


class NodeLinkOwner(Protocol):
    """The user of the stream."""

    def is_wanted(self) -> bool:
        """Return whether there should be a stream now."""

    def hello(self) -> pb.SessionCommand:
        """Return the first command of a stream that begins now."""

    def seconds_left(self) -> float | None:
        """Return how long the lease may still be counted on; None: there is none to lose."""

    def on_events(self, events: Iterable[pb.SessionEvent]) -> None:
        """Take what the service says."""

    def on_stream_end(self, error: aio.AioRpcError | None, *, was_open: bool) -> bool:
        """Learn that the stream ended; return whether the node is to blame."""

    def on_outage(self) -> None:
        """Learn that every node was tried and none answered."""


class NodeLink:
    """The stream of one session, over whichever node answers."""

    def __init__(
        self,
        owner: NodeLinkOwner,
        nodes: NodePicker,
        connect: Callable[[str], aio.Channel],
        config: ClientConfig,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._owner = owner
        self._nodes = nodes
        self._connect = connect
        self._config = config
        self._clock = clock
        self._random = random
        self._wake = asyncio.Event()
        self._address = ""
        self._running: SessionStream | None = None
        self._opened_at: float | None = None
        self._blamed = False
        self._moved_on_purpose = False
        self.stream: SessionStream | None = None
        """Where commands go; None until the service has opened the session on it."""
        self.trouble: ServiceUnavailable = ServiceUnavailable()
        """Why there is no stream."""

    def poke(self) -> None:
        """Look again whether a stream is wanted."""
        self._wake.set()

    def opened(self) -> None:
        """Note that the service answered on the running stream: it may be used."""
        self.stream, self._opened_at = self._running, self._clock.now()
        self.trouble = ServiceUnavailable()
        self._nodes.succeeded(self._address)

    def move_on(self, *, blame: str = "") -> None:
        """Leave this stream for the next node. ``blame`` says what the node did wrong, if so."""
        if blame:
            self._blamed = True
            self.trouble = ServiceUnavailable(f"{self._address}: {blame}")
        self.stream = None
        if self._running is not None:
            self._running.stop()

    @property
    def address(self) -> str:
        """The node of the running stream, or of the last one."""
        return self._address

    def go_to(self, address: str) -> None:
        """Move on to another node."""
        if self._running is not None:
            self._nodes.prefer(address)
            self.move_on()

    def leave_undecided(self, *, is_repeated: bool) -> bool:
        """Move on because the node could not decide a request; return False where that is no use.

        ``is_repeated``: it is not the first time that the request was not decided. See
        `NodePicker.denied` for when it is of use.
        """
        if self.stream is None:
            return False
        now, random = self._clock.now(), self._random()
        if not self._nodes.denied(self._address, now, random=random, is_repeated=is_repeated):
            return False
        self._moved_on_purpose = True
        self.move_on()
        return True

    def leave_for(self, within: float) -> None:
        """Move on because the node is going away: at some moment in the first half of ``within``.

        Its other clients were notified at the same time, and should not all arrive at once.
        """
        stream, now = self._running, self._clock.now()
        self._nodes.leaving(self._address, now + within + LEAVE_ALONE_SECONDS)

        def leave() -> None:
            if stream is self._running:
                self.move_on()

        self._clock.call_at(now + self._random() * within / 2, leave)

    async def run(self) -> None:
        """Keep a stream for as long as one is wanted, until cancelled."""
        tried: set[str] = set()
        rounds = 0
        excused = False
        while True:
            if not self._owner.is_wanted():
                self._wake.clear()
                await self._wake.wait()
                continue
            address = self._nodes.pick(self._clock.now(), tried=tried)
            if address in tried:
                tried.clear()
                rounds += 1
                self._owner.on_outage()
                await self._rest(rounds)
                continue
            blamed = await self._serve(address)
            now = self._clock.now()
            if self._opened_at is not None and now - self._opened_at >= STABLE_SECONDS:
                # Behind one address there may be many nodes: then it is worth trying at once.
                # One that was left because it could not decide can still keep the session.
                is_left = len(self._nodes.addresses) > 1 and not self._moved_on_purpose
                tried = {address} if is_left else set()
                rounds, excused = 0, False
            elif not blamed and not excused:
                # The session was gone, or the node is leaving: begin anew at once, but only once.
                excused = True
            else:
                tried.add(address)

    async def _rest(self, rounds: int) -> None:
        left, after = self._owner.seconds_left(), self.trouble.retry_after
        delay = delay_seconds(
            rounds,
            self._config.backoff,
            random=self._random(),
            retry_after=None if after is None else after.total_seconds(),
            longest=None if left is None else left * URGENT_SHARE,
        )
        rested = asyncio.Event()
        timer = self._clock.call_at(self._clock.now() + delay, rested.set)
        try:
            await rested.wait()
        finally:
            timer.cancel()

    async def _serve(self, address: str) -> bool:
        """Run one stream on a node until it ends; return whether the node is to blame."""
        stream = SessionStream(self._connect(address), self._owner.on_events)
        self._address, self._running = address, stream
        self._opened_at, self._blamed, self._moved_on_purpose = None, False, False
        time_limit = self._clock.call_at(
            self._clock.now() + self._attempt_seconds(), lambda: self._attempt_timed_out(stream)
        )
        stream.send(self._owner.hello())
        error: aio.AioRpcError | None = None
        try:
            await stream.run()
        except aio.AioRpcError as broken:
            error = broken
        except Exception:
            # An event that we cannot take must not end the client: its seats would go, and its
            # requests wait forever, without a word.
            _log.exception("an event from %s could not be taken", address)
            self._blamed = True
            self.trouble = ServiceUnavailable(f"{address}: it said what cannot be understood")
        finally:
            time_limit.cancel()
            self.stream = self._running = None
        if error is not None:
            _log.info("stream to %s: %s %s", address, error.code().name, error.details())
            trouble = from_rpc(error)
            after = trouble.retry_after if isinstance(trouble, ServiceUnavailable) else None
            kind = Overloaded if isinstance(trouble, Overloaded) else ServiceUnavailable
            self.trouble = kind(f"{address}: {trouble}", retry_after=after)
        was_open = self._opened_at is not None
        blamed = self._owner.on_stream_end(error, was_open=was_open) or self._blamed
        if blamed:
            self._nodes.failed(address, self._clock.now())
        return blamed

    def _attempt_seconds(self) -> float:
        most, left = self._config.attempt_timeout.total_seconds(), self._owner.seconds_left()
        # With a lease that runs out, several nodes must get their chance.
        return (
            most if left is None else min(most, max(ATTEMPT_SECONDS_MIN, left * URGENT_SHARE))
        )

    def _attempt_timed_out(self, stream: SessionStream) -> None:
        if stream is self._running and self._opened_at is None:
            self.move_on(blame="no answer to the first command")
