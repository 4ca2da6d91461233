"""The client for programs that run an event loop."""

from __future__ import annotations

import asyncio
import functools
import getpass
import logging
import os
import random
import socket
import weakref
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from grpc import aio

from seatkeeper.client.admin.cluster import AsyncCluster
from seatkeeper.client.admin.engines import AsyncEngines
from seatkeeper.client.admin.pools import AsyncPools
from seatkeeper.client.admin.seats import AsyncUnarySeats
from seatkeeper.client.builds.agents import AsyncAgent
from seatkeeper.client.builds.builds import AsyncBuilds, BuildRequest, BuiltEngine, OnProgress
from seatkeeper.client.builds.model import Model
from seatkeeper.client.builds.output import Output, check_apart
from seatkeeper.client.config.environment import ClientArguments
from seatkeeper.client.config.values import ClientConfig, TlsConfig
from seatkeeper.client.helper.channel import RelayedChannel
from seatkeeper.client.helper.session import KeptSession
from seatkeeper.client.helper.spawn import why_none
from seatkeeper.client.session.driver import SessionDriver
from seatkeeper.client.session.grants import AsyncGrant, AsyncSeat, SeatRequest, wait_seconds
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.session.introduction import introduced
from seatkeeper.client.session.linger import LingerCache, LingerKey
from seatkeeper.client.session.requests import Held, OnQueued, OnState
from seatkeeper.client.transport.calls import Calls
from seatkeeper.client.transport.channels import open_channel
from seatkeeper.client.transport.edge import sendable, sendable_number
from seatkeeper.client.transport.nodes import NodePicker, parse_addresses
from seatkeeper.core.channels import check_fork
from seatkeeper.core.clock import Clock, FollowedClock, SystemClock, Timer, default_clock
from seatkeeper.core.errors import ClientClosed, InvalidArgument, OtherLoop
from seatkeeper.core.text import printable
from seatkeeper.v1 import build_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

HOLDER_LENGTH_MAX = 253
CLOSE_SECONDS_MAX = 6.0
"""How long closing waits for another event loop to do it."""
_log = logging.getLogger("seatkeeper.client")

AGENT_KEEPALIVE = timedelta(seconds=6)
"""Time between pings of an agent. One that is frozen while it builds holds a seat up, and a compiler
that works may be silent for long: nothing else tells."""


class AsyncSeatClient:
    """Takes seats of a Seatkeeper service, and administers it.

    ::

        async with AsyncSeatClient("seats-1:7420,seats-2:7420", project="cv") as client:
            async with client.seat("tensorrt") as grant:
                await build(grant.token)

    One client is one session: whatever it holds lives and dies together. It is kept alive by a helper
    process, also while the event loop is blocked, and the client may be used in several loops. With
    ``ClientConfig(keeper="process")`` it is kept by the loop that it was first used in, and belongs
    to that.
    """

    def __init__(
        self,
        addresses: str | Iterable[str],
        *,
        holder: str | None = None,
        project: str = "",
        tls: TlsConfig | None = None,
        config: ClientConfig | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Make a client. Connects when it is first used.

        ``addresses`` are nodes or load balancers: ``"host:port"``, several separated by commas, or
        a sequence. ``holder`` says who holds (default: user@host); ``project`` who is charged where
        a request does not say. Raises `InvalidArgument` for what can be seen to be wrong.
        """
        self._config = introduced(config or ClientConfig())
        self._clock = clock or default_clock()
        self._tls = tls
        self._pid = os.getpid()
        self._closed = False
        self._nodes = NodePicker(
            parse_addresses(addresses), self._config.breaker, random=random.random()
        )
        self._holder = default_holder() if holder is None else sendable("holder", holder)
        if not 0 < len(self._holder) <= HOLDER_LENGTH_MAX:
            raise InvalidArgument(
                f"holder must have from 1 to {HOLDER_LENGTH_MAX} characters", field="holder"
            )
        self._project = sendable("project", project)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: SessionDriver | KeptSession | None = None
        self._kept: KeptSession | None = None
        if (
            self._config.keeper == "helper"
            # A clock of a test's own is not shared with another process.
            and type(self._clock) is SystemClock
            and _can_have_helper()
        ):
            self._kept = KeptSession(
                self._nodes.addresses,
                self._config,
                tls,
                holder=self._holder,
                project=self._project,
            )
            # A client that is forgotten must not hold seats for ever.
            self._forget = weakref.finalize(self, self._kept.forget)
        else:
            check_fork()
        self._connect: Callable[[str], aio.Channel] = functools.partial(
            _open, self._kept, self._config, tls
        )
        self._calls = Calls(
            self._nodes, self._connect, self._config, self._clock, self._check_usable
        )
        self.pools = AsyncPools(self._calls)
        """Administers pools."""
        self.cluster = AsyncCluster(self._calls)
        """Tells about nodes, versions and keys."""
        self.engines = AsyncEngines(self._calls, self.session)
        """The catalogue of build agents and engines."""
        self.seats = AsyncUnarySeats(self._calls, self._config.call_timeout)
        """Sessions without a stream, for those who keep their own."""
        self._builds = AsyncBuilds(self)
        self._lingering: LingerCache[Held] = LingerCache(
            self._config.linger.total_seconds(),
            self._config.linger_max,
            is_safe=lambda held: held.state(self._clock.now()) is HoldingState.SAFE,
        )
        self._linger_timer: Timer | None = None
        self._linger_loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def from_env(
        cls,
        *,
        env: Mapping[str, str] | None = None,
        addresses: str | Iterable[str] | None = None,
        holder: str | None = None,
        project: str | None = None,
        tls: TlsConfig | None = None,
        config: ClientConfig | None = None,
    ) -> Self:
        """Make a client as the environment says.

        ``SEATKEEPER_NODES`` (default: 127.0.0.1:7420), ``SEATKEEPER_TLS_CA``, ``SEATKEEPER_TLS_CERT``,
        ``SEATKEEPER_TLS_KEY``, ``SEATKEEPER_HOLDER`` and ``SEATKEEPER_PROJECT`` say what no argument
        does, as they do for the command line; one that is set to nothing is not set. ``env`` is
        read in the place of the process's own environment. Raises `InvalidArgument`, whose
        ``field`` is the variable, for one that cannot be used.
        """
        given = ClientArguments.read(
            env=env, addresses=addresses, holder=holder, project=project, tls=tls, config=config
        )
        try:
            return cls(
                given.addresses,
                holder=given.holder,
                project=given.project,
                tls=given.tls,
                config=given.config,
            )
        except InvalidArgument as error:
            given.blame(error)

    async def __aenter__(self) -> Self:
        """Do nothing yet: the client connects when it is first used."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client."""
        await self.close()

    def seat(
        self,
        pool: str,
        *,
        project: str = "",
        seats: int = 1,
        priority: int = 0,
        wait: float | timedelta | None = None,
        on_queued: OnQueued | None = None,
        on_state: OnState | None = None,
        check: bool = True,
    ) -> AsyncSeat:
        """Return an ``async with`` that holds seats of ``pool``; also a decorator.

        ``wait`` is how long to queue, in seconds or as a timedelta: None waits for ever, 0 does
        not queue. ``on_queued`` is told the place in the queue when it changes; ``on_state`` is
        told when the seats are in doubt, safe again, or lost. Both are called in the event loop and
        must not block. ``priority`` goes from -1000 to 1000; higher is served earlier.

        Entering raises what `acquire` raises. Leaving raises `SeatLost` when the seats were lost
        meanwhile, unless the body raised something itself, or ``check`` is False.
        """
        request = SeatRequest.of(
            pool,
            project=project,
            seats=seats,
            priority=priority,
            wait=wait,
            on_queued=on_queued,
            on_state=on_state,
            check=check,
        )
        return AsyncSeat(self, request)

    async def acquire(
        self,
        pool: str,
        *,
        project: str = "",
        seats: int = 1,
        priority: int = 0,
        wait: float | timedelta | None = None,
        on_queued: OnQueued | None = None,
        on_state: OnState | None = None,
    ) -> AsyncGrant:
        """Take seats, for you to `release`. Prefer `seat`, which cannot forget to.

        Raises `NoSeatFree` when none became free in time, `PoolNotFound`, `TooManySeats`,
        `InvalidArgument`, `Overloaded` when the queue is full, and `ServiceUnavailable` when no
        node answered; none of them leaves anything held. Cancelling leaves the queue. The
        place in the queue survives the loss of nodes and connections; when the session itself is
        lost, it is asked for anew.
        """
        request = SeatRequest.of(
            pool,
            project=project,
            seats=seats,
            priority=priority,
            wait=wait,
            on_queued=on_queued,
            on_state=on_state,
        )
        return await self.take(request)

    @property
    def state(self) -> HoldingState:
        """How sure this client may be of all it holds; LOST while there is no session."""
        if self._session is None or not self.is_here():
            return HoldingState.LOST
        return self._session.state()

    async def session(self) -> pb.SessionCredentials:
        """Return what proves to the service that this client's session is its own.

        Opens a session when there is none. For the calls that name a session, such as those of a
        build agent. Raises `ServiceUnavailable` when no node answers.
        """
        return await self._driver().opened()

    async def build(
        self,
        model: str | os.PathLike[str] | bytes,
        options: build_pb2.BuildOptions,
        *,
        to: str | os.PathLike[str] | None = None,
        model_name: str | None = None,
        pool: str | None = None,
        project: str = "",
        priority: int = 0,
        wait: float | timedelta | None = None,
        on_queued: OnQueued | None = None,
        on_progress: OnProgress | None = None,
    ) -> BuiltEngine:
        """Return the engine that ``options`` make of ``model``, building it only if nobody has.

        Takes a seat only to build, and gives it back when the engine is published. With ``to``, the
        engine is fetched to that file, as by `fetch`; whether it can be written to is found out
        before anything is asked. ``pool`` names the pool to take the seat of, where agents of several
        are alive. Raises `AgentUnavailable`, `InvalidArgument`, another `BuildFailed`, `SeatLost`, or
        what `acquire` raises; in none of these cases is anything published.
        """
        pool = None if pool is None else sendable("pool", pool)
        project = sendable("project", project)
        if model_name is not None:
            model_name = sendable("model_name", model_name)
        sendable_number("priority", priority)
        wait_seconds(wait)
        read = await asyncio.to_thread(Model.read, model, model_name)
        place = None if to is None else await asyncio.to_thread(_place, to, read)
        request = BuildRequest(options, pool, project, priority, wait, on_queued, on_progress)
        built = await self._builds.build(read, request)
        if place is not None:
            await self._builds.fetch(built.key, place)
            built = replace(built, path=place.path)
        return built

    async def fetch(self, key: str, to: str | os.PathLike[str]) -> build_pb2.EngineManifest:
        """Fetch a published engine to the file ``to``; return its manifest. Needs no seat.

        The file is replaced at once, and only by bytes whose hash and signature are right; it keeps
        its mode and owner, and a new one has the mode that the umask leaves. A symbolic link is
        followed; a device, a pipe or a file with several names stays what it is and gets the bytes.
        Raises `InvalidArgument` before anything is asked when ``to`` cannot be written to,
        `EngineNotFound`, `EngineDamaged`, or `AgentUnavailable` when no agent has it any more.
        """
        key = sendable("key", key)
        return await self._builds.fetch(key, await asyncio.to_thread(Output.at, to))

    def agent(self, address: str) -> AsyncAgent:
        """Return a connection to the build agent at ``address``; use it as ``async with``."""
        (address,) = parse_addresses(address)
        self._check_usable()
        channel = _open(self._kept, self._config, self._tls, address, AGENT_KEEPALIVE)
        return AsyncAgent(address, channel, self._config.call_timeout)

    async def close(self) -> None:
        """Give back everything, at once where a node answers, and end the session.

        Requests that still wait fail with `ClientClosed`. Safe to call twice.
        """
        if self._closed:
            return
        self._closed = True
        if self._pid != os.getpid():
            return
        home = self._loop
        if home is None or home is asyncio.get_running_loop():
            await self._close()
        elif home.is_running():
            # In another thread: only there may what belongs to it be touched.
            closing = asyncio.run_coroutine_threadsafe(self._close(), home)
            with suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS_MAX):
                    await asyncio.wrap_future(closing)
        elif isinstance(self._session, SessionDriver):
            await self._session.close_elsewhere()

    async def _close(self) -> None:
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        if self._session is not None:
            await self._session.close()
        await self._calls.close()

    # For grants --------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the time by which grants are believed."""
        return self._clock.now()

    def is_here(self) -> bool:
        """Tell whether this is the process that made the client."""
        return self._pid == os.getpid()

    def freshen(self) -> None:
        """Take in what has arrived, such as new tokens."""
        if self._session is not None and self.is_here():
            self._session.freshen()

    async def take(self, request: SeatRequest) -> AsyncGrant:
        """Take what ``request`` says: a seat that lingers here, or one of the service."""
        session = self._driver()
        if self._config.linger:
            kept = self._lingering.take(_linger_key(request), self._clock.now())
            if kept is not None:
                kept.on_state = session.bind(request.on_state)
                return AsyncGrant(self, kept)
            # Seats that linger here for another project must not keep this request waiting.
            for held in self._lingering.of_pool(request.pool):
                session.release(held)
        held = await session.acquire(
            request.pool,
            seats=request.seats,
            project=request.project,
            priority=request.priority,
            wait=request.wait_seconds,
            on_queued=request.on_queued,
            on_state=request.on_state,
        )
        return AsyncGrant(self, held)

    def give_back(self, held: Held) -> Awaitable[None] | None:
        """Give seats back, or let them linger when none of our own requests waits for them."""
        session = self._session
        if session is None or self._closed or not self.is_here():
            return None
        if not self._config.linger or session.is_waiting(held.pool):
            return session.release(held)
        held.on_state = None
        key = LingerKey(held.pool, held.project, held.seats, held.priority)
        for surplus in self._lingering.put(key, held, self._clock.now()):
            session.release(surplus)
        self._watch_lingering()
        return None

    def _watch_lingering(self) -> None:
        until = self._lingering.next_expiry()
        if until is None:
            return
        if self._linger_timer is not None and self._linger_loop is not None:
            if not self._linger_loop.is_closed():
                return
            # It would have gone off in a loop that is no more.
            self._linger_timer = None
        if self._linger_timer is None:
            self._linger_timer = self._clock.call_at(until, self._end_lingering)
            self._linger_loop = asyncio.get_running_loop()

    def _end_lingering(self) -> None:
        self._linger_timer = None
        if self._session is not None and not self._closed:
            for held in self._lingering.expired(self._clock.now()):
                self._session.release(held)
            self._watch_lingering()

    def _driver(self) -> SessionDriver | KeptSession:
        self._check_usable()
        if self._session is None and self._kept is not None:
            self._session = self._kept
        elif self._session is None:
            self._session = SessionDriver(
                self._nodes,
                self._connect,
                self._config,
                holder=self._holder,
                project=self._project,
                clock=self._clock,
            )
            if isinstance(self._clock, FollowedClock):
                self._clock.follow(self._session)
        return self._session

    def _check_usable(self) -> None:
        if self._pid != os.getpid():
            raise ClientClosed(
                "this client came through a fork, where neither its connection nor its session "
                "is its own; make one after forking"
            )
        if self._closed:
            raise ClientClosed("this client is closed; make another")
        if self._kept is not None:
            return
        check_fork()
        with suppress(RuntimeError):
            loop = asyncio.get_running_loop()
            self._loop = self._loop or loop
            if self._loop is not loop:
                raise OtherLoop(
                    "this client belongs to the event loop that it was first used in; make one for "
                    'each loop, or leave out keeper="process": then one serves them all'
                )


def _open(
    kept: KeptSession | None,
    config: ClientConfig,
    tls: TlsConfig | None,
    address: str,
    keepalive: timedelta | None = None,
) -> aio.Channel:
    if kept is None:
        return open_channel(address, config, tls, keepalive=keepalive)
    return cast("aio.Channel", RelayedChannel(address, kept, keepalive=keepalive))


@functools.cache
def _can_have_helper() -> bool:
    reason = why_none()
    if reason:
        _log.warning(
            "sessions are kept by this process itself, which must not be forked nor hold its "
            "interpreter for long: no helper process can be had, as %s",
            reason,
        )
    return not reason


def _place(to: str | os.PathLike[str], model: Model) -> Output:
    place = Output.at(to)
    if isinstance(model.source, Path):
        check_apart({"to": place}, {"model": model.source})
    return place


def default_holder() -> str:
    """Return user@host, as far as the system knows them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        # A container may run under a number that has no name.
        user = f"uid{os.getuid()}"
    return printable(f"{user}@{socket.gethostname()}")[:HOLDER_LENGTH_MAX]


def _linger_key(request: SeatRequest) -> LingerKey:
    return LingerKey(request.pool, request.project, request.seats, request.priority)
