"""What the parts of one pool's loop have in common: its name, its surroundings, its bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from seatkeeper.server.domain import Limits, PoolSpec
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.events.observer import Observer
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.plan import Policy
from seatkeeper.server.store import Store
from seatkeeper.server.store.formats import RecordUnreadable
from seatkeeper.server.store.keys import Keys

LISTING_STEP = 128
"""Records of a listing that are brought in without a turn of the event loop."""


class SpecSource(Protocol):
    """Where a pool's specification comes from."""

    def spec(self, pool: str) -> tuple[PoolSpec | None, int]:
        """Return the specification and its revision; None and 0 when there is none."""
        ...

    def unsupported(self, pool: str) -> RecordUnreadable | None:
        """Return why the specification is not understood; None: it is, or there is none."""
        ...

    async def refresh(self, pool: str) -> None:
        """Read the specification afresh."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopConfig:
    """By what a pool is served: the order of service, and the bounds of its loop."""

    limits: Limits = field(default_factory=Limits)
    policy: Policy = BY_POOL
    """The order of service, the same on all nodes."""
    commands_max: int = 20_000
    """Commands waiting to be decided. More are refused with ``OVERLOADED``."""
    command_timeout: timedelta = timedelta(seconds=10)
    """A command not committed within this is answered ``UNAVAILABLE``: outcome unknown."""
    crowd_pause: timedelta = timedelta(milliseconds=3)
    """How long a call of a crowd waits for others to share its commit."""
    queue_pause: timedelta = timedelta(milliseconds=10)
    """How long a request that can only join a queue waits for that."""
    contention_pause: timedelta = timedelta(milliseconds=28)
    """Least time from one decision to the next under contention."""
    catch_up_timeout: timedelta = timedelta(milliseconds=500)
    """After a conflict, how long to wait for the watch before reading the pool afresh."""
    position_interval: timedelta = timedelta(milliseconds=500)
    """Least time between two notifications of one request's position."""
    listing_step: int = LISTING_STEP


def _forget(pool: str) -> None:
    """Grant no gangs."""


@dataclass(frozen=True, slots=True)
class PoolContext:
    """One pool on one node, and what serving it needs."""

    pool: str
    store: Store
    keys: Keys
    specs: SpecSource
    clock: Clock
    config: LoopConfig
    observer: Observer
    on_gangs: Callable[[str], None] = _forget
    """Called with the pool's name after each change while a gang waits in it."""
