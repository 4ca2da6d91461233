"""The client for programs without an event loop. Usable from many threads.

Nothing is decided here: one background thread runs an event loop, and an `AsyncSeatClient` in it
does all the work.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, Unpack, cast

from seatkeeper.client.admin.sync import Borrowing, Cluster, Engines, Pools, UnarySeats
from seatkeeper.client.aio import AsyncSeatClient
from seatkeeper.client.config.from_environment import ClientArguments, EnvironmentOptions
from seatkeeper.client.config.options import refuse_others, spelled_out
from seatkeeper.client.config.values import ClientConfig, TlsConfig
from seatkeeper.client.gangs import SeveralPools
from seatkeeper.client.session.grants import (
    AsyncGrant,
    GangTerms,
    HeldTerms,
    RequestTerms,
    SeatRequest,
    SeatTerms,
    notify_loss,
    taking,
)
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.transport.loop_thread import ClientThread, LoopThread
from seatkeeper.core.errors import SeatLost, UsageError
from seatkeeper.v1 import build_pb2, build_service_pb2

if TYPE_CHECKING:
    from seatkeeper.client.builds.builds import BuiltEngine, PulledEngine
    from seatkeeper.client.builds.sample_files import Source
    from seatkeeper.client.builds.sending import OnProgress

_P = ParamSpec("_P")
_T = TypeVar("_T")


class SeatClient:
    """Takes seats of a Seatkeeper service, and administers it.

    ::

        with SeatClient("seats-1:7420,seats-2:7420", project="cv") as client:
            with client.seat("tensorrt") as grant:
                build(grant.fetch_token())

    One client is one session, shared by all threads that use it: whatever it holds lives and
    dies together, and is kept alive by a helper process even while native code holds the interpreter.
    A process that is forked from this one holds nothing of it: make a client there.
    """

    def __init__(
        self,
        addresses: str | Iterable[str],
        *,
        holder: str | None = None,
        project: str = "",
        tls: TlsConfig | None = None,
        config: ClientConfig | None = None,
    ) -> None:
        """Make a client; arguments as for `AsyncSeatClient`. Connects when it is first used."""
        self._async = AsyncSeatClient(
            addresses, holder=holder, project=project, tls=tls, config=config
        )
        self._thread = ClientThread(LoopThread(), self._async.close)
        self.pools = Pools(self._thread, self._async.pools)
        """Administers pools."""
        self.cluster = Cluster(self._thread, self._async.cluster)
        """Describes nodes, versions and keys."""
        self.engines = Engines(self._thread, self._async.engines)
        """The catalogue of build agents and engines."""
        self.seats = UnarySeats(self._thread, self._async.seats)
        """Sessions without a stream, for those who keep their own."""
        self.borrowing = Borrowing(self._thread, self._async.borrowing)
        """Seats that leave with machines."""

    @classmethod
    @spelled_out(EnvironmentOptions, dict.fromkeys(EnvironmentOptions.__annotations__))
    def from_env(cls, **given: Unpack[EnvironmentOptions]) -> Self:
        """Make a client as the environment says.

        Variables, arguments and errors as for `AsyncSeatClient.from_env`.
        """
        return ClientArguments.read(**given).make(cls)

    def __enter__(self) -> Self:
        """Do nothing yet: the client connects when it is first used."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client."""
        self.close()

    @taking(HeldTerms)
    def seat(self, pool: str, **terms: Unpack[HeldTerms]) -> Seat:
        """Return a ``with`` that holds seats of ``pool``; also a decorator.

        Arguments and errors as for `AsyncSeatClient.seat`. The callbacks are called in the
        client's own thread: they must not block, nor call the client.
        """
        return Seat(self, SeatRequest.of(pool, **terms))

    @taking(GangTerms)
    def gang(self, seats: Mapping[str, int], **terms: Unpack[GangTerms]) -> Gang:
        """Return a ``with`` that holds seats of several pools: all of them, or none.

        Arguments and errors as for `AsyncSeatClient.gang`.
        """
        return Gang(self, self._async.gang(seats, **terms))

    @taking(GangTerms)
    def one_of(
        self,
        pools: Iterable[str] | Mapping[str, float],
        *,
        seats: int = 1,
        **terms: Unpack[GangTerms],
    ) -> OneOf:
        """Return a ``with`` that holds seats of one of several pools, whichever serves first.

        Arguments and errors as for `AsyncSeatClient.one_of`.
        """
        return OneOf(self, self._async.one_of(pools, seats=seats, **terms))

    @taking(SeatTerms)
    def acquire(self, pool: str, **terms: Unpack[SeatTerms]) -> Grant:
        """Take seats, for you to `release`. Prefer `seat`, which cannot forget to.

        Arguments and errors as for `AsyncSeatClient.acquire`. An interrupt while waiting leaves the
        queue.
        """
        refuse_others(SeatTerms, terms)
        return Seat(self, SeatRequest.of(pool, **terms)).take()

    def take_again(self, grant: Grant, *, wait: float | timedelta | None = None) -> Grant:
        """Take seats that were lost again; as `AsyncSeatClient.take_again`."""
        return Grant(self, self._thread.call(self._async.take_again(grant._grant, wait=wait)))

    def take_over(
        self,
        pool: str,
        grant_id: str,
        *,
        token: bool = False,
        on_state: Callable[[HoldingState], None] | None = None,
    ) -> Grant:
        """Take over the seats of a live grant of the same holder; as `AsyncSeatClient.take_over`."""
        taking = self._async.take_over(pool, grant_id, token=token, on_state=on_state)
        return Grant(self, self._thread.call(taking))

    @property
    def state(self) -> HoldingState:
        """How sure this client may be of all it holds; LOST while there is no session."""
        return self._async.state

    @taking(RequestTerms)
    def build(
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

        Arguments and errors as for `AsyncSeatClient.build`. An interrupt stops the build.
        """
        return self._thread.call(
            self._async.build(
                model,
                options,
                to=to,
                model_name=model_name,
                pool=pool,
                sample_files=sample_files,
                on_progress=on_progress,
                **terms,
            )
        )

    def fetch(self, key: str, to: str | os.PathLike[str]) -> build_pb2.EngineManifest:
        """Fetch a published engine to the file ``to``; as `AsyncSeatClient.fetch`."""
        return self._thread.call(self._async.fetch(key, to))

    def pull(self, key: str, to: str | os.PathLike[str]) -> PulledEngine:
        """Fetch an engine to ``to``, resuming what was cut off; as `AsyncSeatClient.pull`."""
        return self._thread.call(self._async.pull(key, to))

    def capabilities(self, address: str) -> build_service_pb2.AgentInfo:
        """Return what the build agent at ``address`` can build. Raises `AgentUnavailable`."""

        async def ask() -> build_service_pb2.AgentInfo:
            async with self._async.agent(address) as agent:
                return await agent.capabilities()

        return self._thread.call(ask())

    def close(self) -> None:
        """Give back everything, and end the session and the thread. Safe to call twice."""
        self._thread.end()


class Grant:
    """Seats that this program holds, until they are released or lost."""

    __slots__ = ("_client", "_grant")

    def __init__(self, client: SeatClient, grant: AsyncGrant) -> None:
        # The client must live as long as what it keeps alive.
        self._client = client
        self._grant = grant

    def __repr__(self) -> str:
        return repr(self._grant).replace("AsyncGrant", "Grant", 1)

    @property
    def grant_id(self) -> str:
        """The grant's id: a UUIDv7."""
        return self._grant.grant_id

    @property
    def pool(self) -> str:
        """Name of the pool."""
        return self._grant.pool

    @property
    def seats(self) -> int:
        """How many seats."""
        return self._grant.seats

    @property
    def fence(self) -> int:
        """Strictly increasing over the grants of a pool; a lower fence is stale."""
        return self._grant.fence

    @property
    def granted_at(self) -> datetime:
        """When it was granted, by the clock of the node that decided it."""
        return self._grant.granted_at

    @property
    def holder(self) -> str:
        """Who holds, as the service has it: under mutual TLS the name in the certificate."""
        return self._grant.holder

    @property
    def project(self) -> str:
        """Who is charged, as the service has it."""
        return self._grant.project

    @property
    def notice(self) -> str:
        """What you should know of these seats, for people; empty: nothing. As of `AsyncGrant`."""
        return self._grant.notice

    @property
    def expires_at(self) -> datetime:
        """Until when you may rely on the seats without a renewal; as `AsyncGrant.expires_at`.

        An estimate in terms of the machine's date. Raises `SeatLost` once they are not yours.
        """
        return self._grant.expires_at

    @property
    def token(self) -> str:
        """Signed proof of the grant, always fresh; as `AsyncGrant.token`."""
        return self._grant.token

    def fetch_token(self) -> str:
        """Return signed proof of the grant as it is now; as `AsyncGrant.fetch_token`."""
        return self._client._thread.call(self._grant.fetch_token())

    @property
    def state(self) -> HoldingState:
        """How sure you may be of the seats right now; as `AsyncGrant.state`."""
        return self._grant.state

    @property
    def longest_hold(self) -> timedelta | None:
        """After how long the pool calls the seats back; as `AsyncGrant.longest_hold`."""
        return self._grant.longest_hold

    def raise_if_lost(self) -> None:
        """Raise `SeatLost` unless the seats may be counted on right now."""
        self._grant.raise_if_lost()

    def report_activity(self) -> None:
        """Say that the program does something with the seats; as `AsyncGrant.report_activity`."""
        self._grant.report_activity()

    def end_work(self, *, failure: str = "", message: str = "") -> None:
        """Have the release say how the work of a request with a ``work_key`` has ended.

        As `AsyncGrant.end_work`.
        """
        self._grant.end_work(failure=failure, message=message)

    def release(self) -> None:
        """Give the seats back now; as `AsyncGrant.release`. Safe to call twice."""
        thread = self._client._thread
        if thread.is_running:
            thread.finish(self._grant.release())


class Seat:
    """Takes seats when entered and gives them back when left, however it is left.

    Also a decorator, for plain functions, ``async def`` functions and generators: each call takes seats
    of its own, a generator from its first step until it is exhausted or closed. What would do its work
    later, when the seats are given back, is refused with `UsageError`.
    """

    def __init__(self, client: SeatClient, request: SeatRequest) -> None:
        self._client = client
        self._request = request
        self._grant: Grant | None = None

    def __enter__(self) -> Grant:
        """Take the seats, waiting for them as long as was asked for."""
        if self._grant is not None:
            raise UsageError("this seat is entered already; ask the client for another")
        self._grant = self.take()
        return self._grant

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the seats back; raises `SeatLost` as `AsyncSeat` does."""
        grant, self._grant = self._grant, None
        if grant is not None:
            loss = grant._grant._loss()
            grant.release()
            notify_loss(loss, error, check=self._request.check)

    def __call__(self, function: Callable[_P, _T]) -> Callable[_P, _T]:
        """Make ``function`` run while holding the seats."""
        # An object may be callable, too, and its `__call__` of any kind.
        kinds = (function, getattr(function, "__call__", None))  # noqa: B004  # the method itself is looked at, not whether it can be called
        if any(map(inspect.iscoroutinefunction, kinds)):
            return cast("Callable[_P, _T]", self._seated_coroutine(function))
        if any(map(inspect.isgeneratorfunction, kinds)):
            return cast("Callable[_P, _T]", self._seated_generator(function))
        if any(map(inspect.isasyncgenfunction, kinds)):
            raise UsageError(
                "an async generator cannot be decorated; in it, use `async with client.seat(...)` "
                "of an AsyncSeatClient"
            )

        @functools.wraps(function)
        def seated(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            with Seat(self._client, self._request):
                return _finished(function(*args, **kwargs))

        return seated

    def _seated_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def seated(*args: object, **kwargs: object) -> Generator[object, object, object]:
            with Seat(self._client, self._request):
                return (yield from function(*args, **kwargs))

        return seated

    def take(self) -> Grant:
        """Take the seats, for the caller to release."""
        thread = self._client._thread
        taken, future = self._submit()
        try:
            return Grant(self._client, future.result())
        except BaseException:
            future.cancel()
            # An interrupt may have come after the grant did, and the result has no owner then.
            thread.submit(_give_back(taken))
            raise

    def _submit(self) -> tuple[list[AsyncGrant], Future[AsyncGrant]]:
        taken: list[AsyncGrant] = []

        async def take() -> AsyncGrant:
            taken.append(await self._client._async.take(self._request))
            return taken[0]

        return taken, self._client._thread.submit(take())

    def _seated_coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def seated(*args: object, **kwargs: object) -> object:
            # Waits in the caller's own event loop, which may not be blocked.
            taken, future = self._submit()
            losses: list[SeatLost] = []
            failure: BaseException | None = None
            try:
                await asyncio.wrap_future(future)
                return await function(*args, **kwargs)
            except BaseException as error:
                failure = error
                raise
            finally:
                losses += [loss for grant in taken if (loss := grant._loss()) is not None]
                given = self._client._thread.submit(_give_back(taken))
                await asyncio.wrap_future(given)
                for loss in losses:
                    notify_loss(loss, failure, check=self._request.check)

        return seated


class _SeveralPools:
    """Takes seats of several pools, or of one of them, as its asynchronous counterpart does."""

    def __init__(self, client: SeatClient, several: SeveralPools) -> None:
        self._client = client
        self._several = several
        self._grants: Mapping[str, Grant] = {}

    def _enter(self) -> Mapping[str, Grant]:
        if self._grants:
            raise UsageError("this is entered already; ask the client for another")
        thread = self._client._thread
        taken: list[AsyncGrant] = []

        async def take() -> Mapping[str, AsyncGrant]:
            found = await self._several.take()
            taken.extend(found.values())
            return found

        future = thread.submit(take())
        try:
            found = future.result()
            self._grants = {pool: Grant(self._client, each) for pool, each in found.items()}
        except BaseException:
            future.cancel()
            # An interrupt may have come after the grants did, and the result has no owner then.
            thread.submit(_give_back(taken))
            raise
        return self._grants

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the seats back; raises `SeatLost` as the asynchronous one does."""
        grants, self._grants = self._grants, {}
        found = [grant._grant._loss() for grant in grants.values()]
        with ExitStack() as leaving:
            for grant in grants.values():
                leaving.callback(grant.release)
        for loss in found:
            notify_loss(loss, error, check=self._several.is_checked)


class Gang(_SeveralPools):
    """Takes seats of several pools when entered, all together, and gives all back when left."""

    def __enter__(self) -> Mapping[str, Grant]:
        """Take the seats, waiting for them as long as was asked for; return the grants by pool."""
        return self._enter()


class OneOf(_SeveralPools):
    """Takes seats of one of several pools when entered, and gives them back when left."""

    def __enter__(self) -> Grant:
        """Take the seats, waiting for them as long as was asked for; the grant says which pool's."""
        (grant,) = self._enter().values()
        return grant


def _finished(result: _T) -> _T:
    """Return what a decorated function returned, unless its work is still to be done."""
    if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        if inspect.iscoroutine(result) or inspect.isgenerator(result):
            result.close()
        raise UsageError(
            f"the decorated function returned a {type(result).__name__}, which would run after the "
            "seats are given back; take them with `with client.seat(...)` where it runs"
        )
    return result


async def _give_back(taken: list[AsyncGrant]) -> None:
    for grant in taken:
        await grant.release()
