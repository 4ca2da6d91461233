"""One's own calls of TensorRT, under a seat.

For programs that call the library themselves (``build_serialized_network``, Polygraphy) and want no
build agent. A `Compiling` takes a seat, has the library stop when the seat is lost, and lets no engine
out whose seat was lost meanwhile. It imports no library: its progress monitor is derived from the class
of the library that the config is of, be that ``tensorrt`` or ``tensorrt_rtx``.

The library asks its monitor now and then, and may be silent for most of a build. So the loss of a seat
may be noticed late, but never later than the engine.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from seatkeeper.client import (
    AsyncGrant,
    AsyncSeatClient,
    Grant,
    HoldingState,
    SeatClient,
    UsageError,
)
from seatkeeper.client.session.grants import HeldTerms

_Grant = TypeVar("_Grant", Grant, AsyncGrant)
Library = Any
"""A module of TensorRT's, or an object of one: they come without types."""


class Compiling:
    """Takes a seat when entered, and gives it back when left.

    Leaving raises `SeatLost` when the seat was lost meanwhile, unless the body raised something itself.
    """

    def __init__(self, client: SeatClient, pool: str, **terms: Unpack[HeldTerms]) -> None:
        """Make it; ``terms`` are as for `SeatClient.seat`."""
        self._seat = client.seat(pool, **terms)
        self._grant: Grant | None = None

    def __enter__(self) -> Self:
        """Take the seat. Raises as `SeatClient.acquire` does."""
        self._grant = self._seat.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the seat back."""
        self._seat.__exit__(kind, error, traceback)
        self._grant = None

    @property
    def grant(self) -> Grant:
        """The seat, while it is held."""
        return _held(self._grant)

    def build(self, builder: Library, network: Library, config: Library) -> Library:
        """Return what ``builder.build_serialized_network(network, config)`` returns.

        The config's own progress monitor is asked as well, and is its monitor again afterwards. Raises
        `SeatLost`, and returns no engine, when the seat was lost; the library's own None where it
        could not build.
        """
        return _built(self.grant, builder, network, config, threading.Event())

    def monitor(self, library: Library, other: Library = None) -> Library:
        """Return a progress monitor of ``library``, a module of TensorRT's, that stops a lost build.

        For those who make the config elsewhere, such as Polygraphy. ``other`` is asked as well. Look at
        `grant.raise_if_lost()` before you use the engine: the library returns one all the same
        when the seat is lost at the end.
        """
        return _monitor(library.IProgressMonitor, self.grant, other, threading.Event())


class AsyncCompiling:
    """The same for async programs: ``async with``, and a `build` that is awaited."""

    def __init__(self, client: AsyncSeatClient, pool: str, **terms: Unpack[HeldTerms]) -> None:
        """Make it; ``terms`` are as for `AsyncSeatClient.seat`."""
        self._seat = client.seat(pool, **terms)
        self._grant: AsyncGrant | None = None

    async def __aenter__(self) -> Self:
        """Take the seat. Raises as `AsyncSeatClient.acquire` does."""
        self._grant = await self._seat.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the seat back."""
        await self._seat.__aexit__(kind, error, traceback)
        self._grant = None

    @property
    def grant(self) -> AsyncGrant:
        """The seat, while it is held."""
        return _held(self._grant)

    async def build(self, builder: Library, network: Library, config: Library) -> Library:
        """Return what ``builder.build_serialized_network(network, config)`` returns, from a thread.

        As `Compiling.build`. Cancelling stops the build as soon as the library asks, and returns then:
        it cannot be left alone with objects that are yours.
        """
        stop = threading.Event()
        work = asyncio.create_task(
            asyncio.to_thread(_built, self.grant, builder, network, config, stop)
        )
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            stop.set()
            await _ended(work)
            raise

    def monitor(self, library: Library, other: Library = None) -> Library:
        """Return a progress monitor, as `Compiling.monitor` does."""
        return _monitor(library.IProgressMonitor, self.grant, other, threading.Event())


def _held(grant: _Grant | None) -> _Grant:
    if grant is None:
        raise UsageError("no seat is held: enter the `with` first")
    return grant


async def _ended(work: asyncio.Task[Any]) -> None:
    """Wait until it has ended, however often we are cancelled meanwhile."""
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:
            continue


def _built(
    grant: Grant | AsyncGrant,
    builder: Library,
    network: Library,
    config: Library,
    stop: threading.Event,
) -> Library:
    grant.raise_if_lost()
    before = config.progress_monitor
    kind = sys.modules[type(config).__module__].IProgressMonitor
    config.progress_monitor = _monitor(kind, grant, before, stop)
    try:
        engine = builder.build_serialized_network(network, config)
    finally:
        config.progress_monitor = before
    grant.raise_if_lost()
    return engine


def _monitor(
    kind: Library, grant: Grant | AsyncGrant, other: Library, stop: threading.Event
) -> Library:
    def goes_on() -> bool:
        return not stop.is_set() and grant.state is not HoldingState.LOST

    class Monitor(kind):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            kind.__init__(self)

        def phase_start(
            self, phase_name: str, parent_phase: str | None, num_steps: int
        ) -> None:
            _ask(other, lambda: other.phase_start(phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            wanted = _ask(other, lambda: other.step_complete(phase_name, step))
            return wanted is not False and goes_on()

        def phase_finish(self, phase_name: str) -> None:
            _ask(other, lambda: other.phase_finish(phase_name))

    return Monitor()


def _ask(other: Library, call: Callable[[], Any]) -> Any:  # noqa: ANN401  # what the library's own returns
    return None if other is None else call()
