"""The client for programs that run an event loop."""

from __future__ import annotations

import asyncio
import getpass
import os
import random
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

from seatkeeper.client.admin.borrowing import AsyncBorrowing
from seatkeeper.client.admin.cluster import AsyncCluster
from seatkeeper.client.admin.engines import AsyncEngines
from seatkeeper.client.admin.pools import AsyncPools
from seatkeeper.client.admin.seats import AsyncUnarySeats
from seatkeeper.client.alternatives import AsyncOneOf
from seatkeeper.client.client_session import ClientSession
from seatkeeper.client.config.from_environment import ClientArguments, EnvironmentOptions
from seatkeeper.client.config.options import refuse_others, spelled_out
from seatkeeper.client.config.values import ClientConfig, TlsConfig
from seatkeeper.client.gangs import AsyncGang
from seatkeeper.client.lingering import Lingering
from seatkeeper.client.session.again import TakesAgain
from seatkeeper.client.session.fetched_token import fetched_token
from seatkeeper.client.session.grants import (
    AsyncGrant,
    AsyncSeat,
    GangTerms,
    HeldTerms,
    RequestTerms,
    SeatRequest,
    SeatTerms,
    taking,
)
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.session.introduction import introduced
from seatkeeper.client.session.lease import Account
from seatkeeper.client.session.requests import Held
from seatkeeper.client.transport.calls import Calls
from seatkeeper.client.transport.edge import sendable
from seatkeeper.client.transport.nodes import NodePicker, parse_addresses
from seatkeeper.core.clock import Clock, default_clock
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.text import printable
from seatkeeper.core.typed import check_type
from seatkeeper.v1 import build_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

if TYPE_CHECKING:
    # What builds need is imported by the first one: it is a sixth of all that a client loads.
    from seatkeeper.client.builds.agents import AsyncAgent
    from seatkeeper.client.builds.builds import AsyncBuilds, BuiltEngine, PulledEngine
    from seatkeeper.client.builds.bundle import WeightsFile
    from seatkeeper.client.builds.model import Model
    from seatkeeper.client.builds.output import Output
    from seatkeeper.client.builds.sample_files import Source
    from seatkeeper.client.builds.sending import OnProgress

HOLDER_LENGTH_MAX = 253
AGENT_KEEPALIVE = timedelta(seconds=6)
"""Time between pings of an agent. A paused agent keeps a seat from others, and a compiler that works
may be silent for long: nothing else shows the difference."""


class AsyncSeatClient(TakesAgain):
    """Takes seats of a Seatkeeper service, and administers it.

    ::

        async with AsyncSeatClient("seats-1:7420,seats-2:7420", project="cv") as client:
            async with client.seat("tensorrt") as grant:
                await build(await grant.fetch_token())

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
        check_type("config", config, ClientConfig | None)
        check_type("tls", tls, TlsConfig | None)
        self._config = introduced(config or ClientConfig())
        self._clock = clock or default_clock()
        nodes = parse_addresses(addresses)
        self._nodes = NodePicker(nodes, self._config.breaker, random=random.random())
        account = Account(_checked_holder(holder), sendable("project", project))
        self._session = ClientSession(self._nodes, self._config, tls, self._clock, account)
        self._calls = Calls(
            self._nodes,
            self._session.connect,
            self._config,
            self._clock,
            self._session.check_usable,
        )
        self._lingering = Lingering(self._session, self._config, self._clock)
        self.pools = AsyncPools(self._calls)
        """Administers pools."""
        self.cluster = AsyncCluster(self._calls)
        """Describes nodes, versions and keys."""
        self.engines = AsyncEngines(self._calls, self._session.credentials)
        """The catalogue of build agents and engines."""
        self.seats = AsyncUnarySeats(self._calls, self._config.call_timeout)
        """Sessions without a stream, for those who keep their own."""
        self.borrowing = AsyncBorrowing(self._calls)
        """Seats that leave with machines."""

    @classmethod
    @spelled_out(EnvironmentOptions, dict.fromkeys(EnvironmentOptions.__annotations__))
    def from_env(cls, **given: Unpack[EnvironmentOptions]) -> Self:
        """Make a client as the environment says.

        ``SEATKEEPER_NODES`` (default: 127.0.0.1:7420), ``SEATKEEPER_TLS_CA``, ``SEATKEEPER_TLS_CERT``,
        ``SEATKEEPER_TLS_KEY``, ``SEATKEEPER_HOLDER`` and ``SEATKEEPER_PROJECT`` say what no argument
        does, as they do for the command line; one that is set to nothing is not set. ``env`` is
        read in the place of the process's own environment. Raises `InvalidArgument`, whose
        ``field`` is the variable, for one that cannot be used.
        """
        return ClientArguments.read(**given).make(cls)

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

    @taking(HeldTerms)
    def seat(self, pool: str, **terms: Unpack[HeldTerms]) -> AsyncSeat:
        """Return an ``async with`` that holds seats of ``pool``; also a decorator.

        ``wait`` is how long to queue, in seconds or as a timedelta: None waits without limit, 0
        does not queue. ``on_queued`` is called with the place in the queue when it changes;
        ``on_state`` when the seats are in doubt, safe again, or lost. Both are called in the event
        loop and must not block. ``priority`` goes from -1000 to 1000; higher is served earlier.
        ``labels``, at most 16 pairs of text, are shown with the seats: in `status`, tokens and logs.
        With ``token`` the grant comes with signed proof, `AsyncGrant.token`, and each renewal brings a
        new one; without it, `AsyncGrant.fetch_token` asks for one.

        ``work_key`` names the work that the seats are for: of the requests of a pool with the same
        key one holds seats at a time. The others wait in their places, and are refused with
        `WorkEnded` when it calls `AsyncGrant.end_work` and releases; otherwise the next is granted.
        ``cost_class`` names a class of the pool's costs: that many seats of the pool are held for each
        of ``seats``, and `AsyncGrant.seats` says how many.

        Entering raises what `acquire` raises. Leaving raises `SeatLost` when the seats were lost
        meanwhile, unless the body raised something itself, or ``check`` is False.
        """
        return AsyncSeat(self, SeatRequest.of(pool, **terms))

    @taking(SeatTerms)
    async def acquire(self, pool: str, **terms: Unpack[SeatTerms]) -> AsyncGrant:
        """Take seats, for you to `release`. Prefer `seat`, which cannot forget to.

        Arguments as for `seat`. Raises `NoSeatFree` when none became free in time, `PoolNotFound`,
        `TooManySeats`, `InvalidArgument`, `Overloaded` when the queue is full, and
        `ServiceUnavailable` when no node answered; none of them leaves anything held. Cancelling
        leaves the queue. The place in the queue survives the loss of nodes and connections; when
        the session itself is lost, it is asked for anew.
        """
        refuse_others(SeatTerms, terms)
        return await self.take(SeatRequest.of(pool, **terms))

    @taking(GangTerms)
    def gang(self, seats: Mapping[str, int], **terms: Unpack[GangTerms]) -> AsyncGang:
        """Return an ``async with`` that holds seats of several pools: all of them, or none.

        ::

            async with client.gang({"compiler": 1, "quantiser": 2}) as grants:
                await build(await grants["compiler"].fetch_token())

        ``seats`` says how many of each pool, of 2 to 8 pools. They are granted in one moment; while
        the request waits it holds nothing, so two such requests never wait for one another. It is
        granted when the order of service of each pool would serve it and the seats are free, and
        requests for one pool alone pass it meanwhile. Other arguments as for `seat`, without
        ``work_key``; ``wait`` must not be 0, ``on_queued`` is called for the place in each of the
        queues (``place.pool`` says which), and ``on_state`` for each of the pools. Entering returns
        the grants by pool, and raises what `acquire` raises, or `ServiceTooOld`. Leaving raises
        `SeatLost` when any were lost meanwhile, unless the body raised something itself, or ``check``
        is False.
        """
        return AsyncGang(self, seats, **terms)

    @taking(GangTerms)
    def one_of(
        self,
        pools: Iterable[str] | Mapping[str, float],
        *,
        seats: int = 1,
        **terms: Unpack[GangTerms],
    ) -> AsyncOneOf:
        """Return an ``async with`` that holds seats of one of several pools, whichever serves first.

        ::

            async with client.one_of({"a100": 0, "l4": 30}) as grant:
                await build_on(grant.pool, await grant.fetch_token())

        ``pools`` are 2 to 4, in the order of preference, each with the seconds after which it will do
        as well: 0 for the first, and never less than for the one before; a list means 0 for all. The
        request waits in the queues of all of them, is granted ``seats`` of exactly one, and leaves the
        other queues in the same moment. Other arguments as for `gang`. Entering returns the grant, and
        raises what `acquire` raises, or `ServiceTooOld`; what one pool refuses fails all of it.
        """
        return AsyncOneOf(self, pools, seats=seats, **terms)

    @property
    def state(self) -> HoldingState:
        """How sure this client may be of all it holds; LOST while there is no session."""
        return self._session.state()

    async def session(self) -> pb.SessionCredentials:
        """Return what proves to the service that this client's session is its own.

        Opens a session when there is none. For the calls that name a session, such as those of a
        build agent. Raises `ServiceUnavailable` when no node answers.
        """
        return await self._session.credentials()

    @taking(RequestTerms)
    async def build(
        self,
        model: str | os.PathLike[str] | bytes,
        options: build_pb2.BuildOptions,
        *,
        to: str | os.PathLike[str] | None = None,
        model_name: str | None = None,
        pool: str | None = None,
        sample_files: Iterable[Source] = (),
        on_progress: OnProgress | None = None,
        **terms: Unpack[RequestTerms],
    ) -> BuiltEngine:
        """Return the engine of ``model`` and ``options``, building it only if it is not published.

        Takes a seat only to build, and gives it back when the engine is published. With ``to``, the
        engine is fetched to that file, as by `fetch`; whether it can be written to is found out
        before anything is asked. Weights that the model keeps in files in its folder or below are
        sent with it, where ``model`` is a path. ``pool`` names the pool to take the seat of, where
        agents of several are alive; ``sample_files`` are those that ``options`` name for calibration
        and accuracy (see `samples_of`); ``project``, ``priority``, ``wait`` and ``on_queued`` are of
        that seat, as for `seat`. Raises `AgentUnavailable`, `InvalidArgument`, another `BuildFailed`,
        `SeatLost`, or what `acquire` raises; in none of these cases is anything published.
        """
        from seatkeeper.client.builds.builds import ANY_POOL, BuildRequest
        from seatkeeper.client.builds.sample_files import sample_files_of

        refuse_others(RequestTerms, terms)
        pool = None if pool is None else sendable("pool", pool)
        if model_name is not None:
            model_name = sendable("model_name", model_name)
        seat = SeatRequest.of(pool or ANY_POOL, token=True, **terms)
        read, weights, place = await asyncio.to_thread(_read, model, model_name, to)
        files = await asyncio.to_thread(sample_files_of, options, sample_files)
        request = BuildRequest(options, pool, seat, on_progress, files, weights)
        builds = _builds(self)
        built = await builds.build(read, request)
        if place is not None:
            await builds.fetch(built.key, place)
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
        return await _builds(self).fetch(key, await asyncio.to_thread(_output, to))

    async def pull(self, key: str, to: str | os.PathLike[str]) -> PulledEngine:
        """Fetch a published engine as `fetch` does, and resume what was cut off before.

        What has arrived lies beside ``to`` until it is whole; nothing is transferred when ``to`` is the
        engine already. Raises as `fetch` does, and `InUse` while another program pulls it.
        """
        key = sendable("key", key)
        return await _builds(self).pull(key, await asyncio.to_thread(_output, to))

    def agent(self, address: str) -> AsyncAgent:
        """Return a connection to the build agent at ``address``; use it as ``async with``."""
        from seatkeeper.client.builds.agents import AsyncAgent

        (address,) = parse_addresses(address)
        channel = self._session.connect_to_agent(address, AGENT_KEEPALIVE)
        return AsyncAgent(address, channel, self._config.call_timeout)

    async def close(self) -> None:
        """Give back everything, at once where a node answers, and end the session.

        Requests that still wait fail with `ClientClosed`. Safe to call twice.
        """
        await self._session.close(self._lingering.stop, self._calls.close)

    # For grants --------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the time by which grants are believed."""
        return self._clock.now()

    def is_here(self) -> bool:
        """Return whether this is the process that made the client."""
        return self._session.is_here()

    def freshen(self) -> None:
        """Read what has arrived, such as new tokens."""
        self._session.freshen()

    async def take(self, request: SeatRequest) -> AsyncGrant:
        """Take what ``request`` says: a seat that lingers here, or one of the service."""
        driver = self._session.driver()
        held = self._lingering.take(request) or await driver.acquire(
            request.wanted,
            wait=request.wait_seconds,
            on_queued=request.on_queued,
            on_state=request.on_state,
        )
        return AsyncGrant(self, held)

    async def fetch_token(self, held: Held, check: Callable[[], None]) -> str:
        """Have a node sign a token for what is held: see `fetched_token`."""
        ref = pb.GrantRef(pool=held.pool, grant_id=held.grant_id)

        async def renewed() -> pb.Renewed:
            return await self.seats.renew(await self._session.credentials(), [ref])

        return await fetched_token(renewed, ref, self._config.call_timeout, check)

    def report_activity(self, held: Held) -> None:
        """Note that the program does something with what is held."""
        driver = self._session.living()
        if driver is not None:
            driver.report_activity(held)

    def give_back(self, held: Held) -> Awaitable[None] | None:
        """Give seats back, or let them linger when none of our own requests waits for them."""
        return self._lingering.give_back(held)


def _builds(client: AsyncSeatClient) -> AsyncBuilds:
    from seatkeeper.client.builds.builds import AsyncBuilds

    return AsyncBuilds(client)


def _output(to: str | os.PathLike[str]) -> Output:
    from seatkeeper.client.builds.output import Output

    return Output.at(to)


def _read(
    model: str | os.PathLike[str] | bytes,
    model_name: str | None,
    to: str | os.PathLike[str] | None,
) -> tuple[Model, Sequence[WeightsFile], Output | None]:
    from seatkeeper.client.builds.bundle import weights_of
    from seatkeeper.client.builds.model import Model

    read = Model.read(model, model_name)
    weights = weights_of(read)
    return read, weights, None if to is None else _place(to, read, weights)


def _place(to: str | os.PathLike[str], model: Model, weights: Sequence[WeightsFile]) -> Output:
    from seatkeeper.client.builds.output import check_apart

    place = _output(to)
    if isinstance(model.source, Path):
        check_apart({"to": place}, {"model": model.source})
    for file in weights:
        check_apart({"to": place}, {f"model's {file.file.path}": file.path})
    return place


def _checked_holder(holder: str | None) -> str:
    holder = default_holder() if holder is None else sendable("holder", holder)
    if not 0 < len(holder) <= HOLDER_LENGTH_MAX:
        raise InvalidArgument(
            f"holder must have from 1 to {HOLDER_LENGTH_MAX} characters", field="holder"
        )
    return holder


def default_holder() -> str:
    """Return user@host, as far as the system knows them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):
        # A container may run under a number that has no name.
        user = f"uid{os.getuid()}"
    return printable(f"{user}@{socket.gethostname()}")[:HOLDER_LENGTH_MAX]
