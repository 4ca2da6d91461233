"""A store whose answers go missing: the faults that a loop has to live with, each by name."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import timedelta
from enum import Enum, auto

from seatkeeper.server.store import (
    Committed,
    LargeWrite,
    Listing,
    MemoryStore,
    OutcomeUnknown,
    Put,
    StoreFull,
    StoreHealth,
    StoreStatus,
    StoreUnavailable,
    Unchanged,
    UnwrittenBelow,
    WatchBatch,
    Write,
)
from seatkeeper.server.store.interface import Entry


class Fault(Enum):
    """What becomes of one commit."""

    ANSWER_LOST = auto()
    """It took effect; the answer was lost."""
    ANSWER_LOST_LATE = auto()
    """The same, and it takes a while until that is known: the watch may deliver it first."""
    REQUEST_LOST = auto()
    """It did not take effect; the answer was lost."""
    APPLIED_AFTER_THE_NEXT_READ = auto()
    """Its outcome is unknown, and it takes effect when the pool has been read again."""
    APPLIED_AFTER_THE_NEXT_COMMIT = auto()
    """Its outcome is unknown, and it arrives after the commit that comes next."""
    UNAVAILABLE = auto()
    """It was refused, and everybody knows."""
    SLOW = auto()
    """It takes effect, and the answer takes a while."""


UNKNOWN = (
    Fault.ANSWER_LOST,
    Fault.ANSWER_LOST_LATE,
    Fault.REQUEST_LOST,
    Fault.APPLIED_AFTER_THE_NEXT_READ,
    Fault.APPLIED_AFTER_THE_NEXT_COMMIT,
)


class FaultyStore:
    """One node's way to a store that others use too. Faults hit guarded commits, in order."""

    def __init__(self, store: MemoryStore, *, rng: random.Random | None = None) -> None:
        self.store = store
        self.faults: deque[Fault] = deque()
        """What becomes of the next commits."""
        self.fault_rate = 0.0
        self.injected: list[Fault] = []
        self.watch_lag = 0
        """Most turns of the event loop by which the watch delivers each change later."""
        self.watching = asyncio.Event()
        """What the watch delivers waits for it."""
        self.watching.set()
        self.is_down = False
        """True: every call fails, and nothing happens."""
        self.is_full = False
        """True: what writes is refused, what only deletes is not."""
        self.gate = asyncio.Event()
        """Commits wait for it."""
        self.gate.set()
        self.answers = asyncio.Event()
        """Commits that took effect are answered when it is set."""
        self.answers.set()
        self.commits: list[Sequence[Write]] = []
        """Guarded commits that were tried."""
        self._rng = rng or random.Random(0)
        self._deck: list[Fault] = []
        self._after_read: list[tuple[Sequence[Write], Sequence[Unchanged]]] = []
        self._after_commit: list[tuple[Sequence[Write], Sequence[Unchanged]]] = []

    async def commit(
        self,
        writes: Sequence[Write],
        *,
        only_if: Sequence[Unchanged] = (),
        else_read: Sequence[str] = (),
        timeout: timedelta | None = None,
    ) -> Committed:
        self._check_up()
        late, self._after_commit = self._after_commit, []
        self.commits.append(writes)
        await self.gate.wait()
        self._check_up()
        if self.is_full and any(isinstance(write, Put) for write in writes):
            raise StoreFull("no space")
        fault = self._next_fault()
        try:
            return await self._commit(fault, writes, only_if, else_read)
        finally:
            for late_writes, late_only_if in late:
                await self.store.commit(late_writes, only_if=late_only_if)

    async def commit_large(
        self,
        writes: Sequence[LargeWrite],
        *,
        only_if: Sequence[Unchanged] = (),
        unwritten_below: UnwrittenBelow,
    ) -> Committed:
        self._check_up()
        return await self.store.commit_large(
            writes, only_if=only_if, unwritten_below=unwritten_below
        )

    async def _commit(
        self,
        fault: Fault | None,
        writes: Sequence[Write],
        only_if: Sequence[Unchanged],
        else_read: Sequence[str],
    ) -> Committed:
        match fault:
            case Fault.UNAVAILABLE:
                raise StoreUnavailable(fault.name)
            case Fault.REQUEST_LOST:
                raise OutcomeUnknown(fault.name)
            case Fault.APPLIED_AFTER_THE_NEXT_READ:
                self._after_read.append((writes, only_if))
                raise OutcomeUnknown(fault.name)
            case Fault.APPLIED_AFTER_THE_NEXT_COMMIT:
                self._after_commit.append((writes, only_if))
                raise OutcomeUnknown(fault.name)
        committed = await self.store.commit(writes, only_if=only_if, else_read=else_read)
        await self.answers.wait()
        if fault in {Fault.SLOW, Fault.ANSWER_LOST_LATE}:
            for _ in range(self._rng.randrange(50)):
                await asyncio.sleep(0)
        if fault in {Fault.ANSWER_LOST, Fault.ANSWER_LOST_LATE}:
            raise OutcomeUnknown(fault.name)
        return committed

    async def list(self, prefix: str) -> Listing:
        self._check_up()
        listing = await self.store.list(prefix)
        late, self._after_read = self._after_read, []
        for writes, only_if in late:
            await self.store.commit(writes, only_if=only_if)
        return listing

    async def get(self, key: str) -> Entry | None:
        self._check_up()
        return await self.store.get(key)

    async def watch(
        self, prefix: str, *, from_revision: int
    ) -> AsyncGenerator[WatchBatch, None]:
        self._check_up()
        async with aclosing(self.store.watch(prefix, from_revision=from_revision)) as watch:
            async for batch in watch:
                for _ in range(self._rng.randrange(self.watch_lag + 1)):
                    await asyncio.sleep(0)
                await self.watching.wait()
                yield batch

    async def grant_lease(self, lease_id: int, ttl: timedelta) -> timedelta:
        return await self.store.grant_lease(lease_id, ttl)

    async def keep_alive(self, lease_id: int) -> timedelta:
        return await self.store.keep_alive(lease_id)

    async def revoke_lease(self, lease_id: int) -> None:
        await self.store.revoke_lease(lease_id)

    async def lease_remaining(self, lease_id: int) -> timedelta | None:
        self._check_up()
        return await self.store.lease_remaining(lease_id)

    async def status(self) -> StoreStatus:
        return await self.store.status()

    async def health(self) -> StoreHealth:
        return await self.store.health()

    async def close(self) -> None:
        await self.store.close()

    def _check_up(self) -> None:
        if self.is_down:
            raise StoreUnavailable("the store is down")

    def _next_fault(self) -> Fault | None:
        fault = None
        if self.faults:
            fault = self.faults.popleft()
        elif self._rng.random() < self.fault_rate:
            # From a shuffled deck, so that none stays away for long.
            self._deck = self._deck or self._rng.sample(list(Fault), len(Fault))
            fault = self._deck.pop()
        if fault is not None:
            self.injected.append(fault)
        return fault
