"""Making a decision true: one guarded transaction, and what becomes of it.

The store's answer, the watch, or the store's silence decide what happens next: see the theory of
operation in ``loop``.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial

from seatkeeper.server.decide import Decision, decide
from seatkeeper.server.events import log as events
from seatkeeper.server.events.facts import decision_id_of
from seatkeeper.server.pool import lots, windows
from seatkeeper.server.pool.context import PoolContext
from seatkeeper.server.pool.decided import (
    Ended,
)
from seatkeeper.server.pool.delivery import Delivery
from seatkeeper.server.pool.full_store import FullStore
from seatkeeper.server.pool.gang_part import GangParts
from seatkeeper.server.pool.in_flight import InFlightCommit
from seatkeeper.server.pool.inbox import PendingCommand
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.pool.reclaim_timers import ReclaimTimers
from seatkeeper.server.pool.stay_timers import StayTimers
from seatkeeper.server.pool.subscribers import Subscribers
from seatkeeper.server.pool.unknown import UnknownOutcomes
from seatkeeper.server.pool.wait_timers import WaitTimers
from seatkeeper.server.pool.writes import writes_of
from seatkeeper.server.store import (
    Committed,
    LeaseNotFound,
    Listing,
    OutcomeUnknown,
    StoreError,
    StoreFull,
    Unchanged,
    WatchBatch,
    Write,
)
from seatkeeper.server.store.formats import RecordUnreadable

TURNS_UNTIL_SENT = 2
"""Turns of the event loop in which a request to the store gets on its way."""
ISOLATIONS_MAX = 4
"""Dead sessions are looked for this often before a batch is given up."""


class Committer:
    """Decides on one pool's view, and commits. One transaction is in flight at a time."""

    def __init__(
        self,
        context: PoolContext,
        mirror: PoolMirror,
        subscribers: Subscribers,
        waits: WaitTimers,
        changed: Callable[[set[str]], None],
        bring_in: Callable[[Listing], Awaitable[None]],
        reclaims: ReclaimTimers,
        stays: StayTimers,
    ) -> None:
        """Commit nothing yet. ``changed`` is called, with the ids concerned, after each change.

        ``bring_in`` brings a listing of the pool into the view.
        """
        self._pool = context.pool
        self._store = context.store
        self._keys = context.keys
        self._guard = context.keys.guard(context.pool)
        self._specs = context.specs
        self._clock = context.clock
        self._observer = context.observer
        self._config = context.config
        self._mirror = mirror
        self._waits = waits
        self._bring_in = bring_in
        self._reclaims = reclaims
        self._stays = stays
        self._delivery = Delivery(context, mirror, subscribers, waits, changed)
        self._full_store = FullStore(context, mirror, waits, changed)
        self._spec_revision = 0
        self._moved = asyncio.Event()
        self._unsettled = False
        """A transaction of unknown outcome may still take effect: the next commit moves the guard,
        whatever it decides, so that the lost one can no longer win."""
        self._in_flight: InFlightCommit | None = None
        self._unknown = UnknownOutcomes(self._pool, self._observer)
        self.gang_parts = GangParts(
            *(context, mirror, self._unknown, self._compared),
            *(self.get_ready, self._set_dead_sessions_apart),
        )

    def read_spec(self) -> None:
        """Apply the pool's specification."""
        self._mirror.state.spec, self._spec_revision = self._specs.spec(self._pool)

    @property
    def unsupported(self) -> RecordUnreadable | None:
        """Why nothing may be decided here: a newer version's record; None: all are understood."""
        if self._mirror.unsupported:
            return next(iter(self._mirror.unsupported.values()))
        return self._specs.unsupported(self._pool)

    def own_revision(self, batch: WatchBatch) -> int:
        """Return the revision at which a batch shows the commit that is in flight; 0: it does not."""
        if self._in_flight is None or self._in_flight.landed.done():
            return 0
        decision_id = self._in_flight.decision_id
        return next((r for r, made_by in self._guards(batch) if made_by == decision_id), 0)

    def _guards(self, batch: WatchBatch) -> Iterator[tuple[int, int]]:
        """Yield when a batch shows the guard written, and by which decisions."""
        for change in batch.changes:
            if change.key == self._guard and change.entry is not None:
                yield change.revision, decision_id_of(change.entry.value)

    def landed(self, revision: int) -> None:
        """Bring in the commit that is in flight: the watch shows it, at that revision."""
        if self._in_flight is not None:
            self._in_flight.seen(revision)

    def watch_delivered(self, batch: WatchBatch) -> None:
        """Process a watch batch: it may show a commit whose outcome was unknown."""
        if self._unknown:
            for _, decision_id in self._guards(batch):
                self._unknown.took_effect(decision_id)
        self._moved.set()

    def view_moved(self) -> None:
        """Record that the view has changed."""
        if self._unknown:
            self._unknown.took_effect(self._mirror.decision_id)
        self._moved.set()

    async def commit(self, asks: list[PendingCommand]) -> Decision | None:
        """Decide and commit. None: it conflicted, and must be decided again.

        Those of ``asks`` that are answered are taken out, in the moment in which they are. Raises
        ``RecordUnreadable`` where there is a newer version's record, and ``StoreError`` as the store
        does: ``LeaseNotFound``, and nothing was changed, when sessions end at every try.
        """
        commands = [ask.command for ask in asks]
        for _ in range(ISOLATIONS_MAX):
            await self.get_ready()
            state = self._mirror.state
            due = self._waits.due(state)
            decision = decide(
                *(state, commands, self._clock.now(), self._config.limits, due),
                policy=self._config.policy,
                over=self._reclaims.over(),
                kept=self._stays.ends(),
            )
            if not (commands or decision.changes or self._unsettled):
                return decision  # nothing to change, and no answer that must be true
            ended = Ended.of(state, decision)
            decision_id = random.getrandbits(63) | 1
            writes = []
            if decision.changes or self._unsettled:
                has_guard = bool(self._mirror.guard_revision)
                writes = writes_of(
                    *(self._keys, self._pool, decision, decision_id),
                    has_guard=has_guard,
                    view_revision=self._mirror.complete_revision,
                )
            sent_at = self._clock.monotonic()
            succeeded = partial(
                self._succeeded, asks, decision, ended, writes, decision_id, sent_at
            )
            try:
                committed = await self._send(asks, decision, writes, decision_id, succeeded)
            except LeaseNotFound:
                await self._set_dead_sessions_apart(decision)
                continue
            except StoreFull as error:
                self._observer.store_failed(self._pool, type(error).__name__)
                await self._full_store.answer(asks)
                raise
            except OutcomeUnknown:
                self._observer.outcome_unknown(self._pool)
                self._unsettled = True
                self._unknown.remember(decision_id, decision, ended)
                await self._bring_in(await self._store.list(self._keys.seats(self._pool)))
                raise
            except StoreError as error:
                self._observer.store_failed(self._pool, type(error).__name__)
                raise
            if not committed.succeeded:
                self._observer.conflicted(self._pool)
                await self._catch_up(committed)
                return None
            return decision
        self._observer.store_failed(self._pool, LeaseNotFound.__name__)
        raise LeaseNotFound("sessions end faster than they can be set apart")

    async def get_ready(self) -> None:
        """Write what is due before anything is decided. Raises ``RecordUnreadable``."""
        if (error := self.unsupported) is not None:
            raise error
        await self._write_lots()
        if self._mirror.state.kept:
            await self._stays.look_up(self._store, self._keys, self._mirror.state)

    def _compared(self) -> tuple[Unchanged, Unchanged]:
        guard, spec = self._guard, self._keys.pool(self._pool)
        return (
            Unchanged(guard, self._mirror.guard_revision),
            Unchanged(spec, self._spec_revision),
        )

    async def _write_lots(self) -> None:
        """Write what is due of lots and windows: no decision is made here by seats that are over.

        In a full store nothing is granted, and what is released must be deleted all the same.
        """
        if lots.are_due(self._mirror.state.spec, self._clock.now()):
            with suppress(StoreFull):
                await lots.write_due(self._store, self._keys, self._clock, self._pool)
                await windows.write_due(self._store, self._keys, self._clock, self._pool)
            await self._specs.refresh(self._pool)
            self.read_spec()

    async def _send(
        self,
        asks: list[PendingCommand],
        decision: Decision,
        writes: list[Write],
        decision_id: int,
        succeeded: Callable[[Committed], None],
    ) -> Committed:
        """Commit a decision if no other has been made since the view that it was made on."""
        guard, spec = self._guard, self._keys.pool(self._pool)
        self._mirror.expired_ids.clear()
        in_flight = self._in_flight = InFlightCommit(
            self._store.commit(
                writes,
                only_if=self._compared(),
                else_read=(guard, spec),
            ),
            decision_id,
            succeeded,
        )
        if decision.grants:
            _call_after(TURNS_UNTIL_SENT, partial(self._delivery.presign, asks, decision))
        try:
            return await in_flight.landed
        finally:
            self._in_flight = None

    async def _set_dead_sessions_apart(self, decision: Decision) -> None:
        """Find the sessions of a refused transaction whose lease has ended."""
        leases = {g.session_id: g.lease_id for g in decision.grants}
        leases |= {t.session_id: t.lease_id for t in decision.tickets}
        leases |= {t.session_id: t.lease_id for t in decision.moved.values()}
        leases |= {session_id: mark.lease_id for session_id, mark in decision.marks.items()}
        remaining = await asyncio.gather(
            *(self._store.lease_remaining(lease) for lease in leases.values())
        )
        for session_id, left in zip(leases, remaining, strict=True):
            if left is None:
                self._observer.dead_session(self._pool)
                self._mirror.state.dead_sessions.add(session_id)

    async def _catch_up(self, committed: Committed) -> None:
        """After a conflict, wait until the view has what the other node decided."""
        guard = committed.read.get(self._guard)
        spec = committed.read.get(self._keys.pool(self._pool))
        if (spec.mod_revision if spec else 0) != self._spec_revision:
            await self._specs.refresh(self._pool)
            self.read_spec()
        target = guard.mod_revision if guard else 0
        try:
            async with asyncio.timeout(self._config.catch_up_timeout.total_seconds()):
                while self._mirror.guard_revision < target:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            events.happened("watch_behind", logging.DEBUG, pool=self._pool)
        if self._mirror.guard_revision < target or not target:
            await self._bring_in(await self._store.list(self._keys.seats(self._pool)))

    def _succeeded(
        self,
        asks: list[PendingCommand],
        decision: Decision,
        ended: Ended,
        writes: list[Write],
        decision_id: int,
        sent_at: float,
        committed: Committed,
    ) -> None:
        self._unsettled = False
        self._delivery.deliver(
            *(asks, decision, ended, writes, decision_id), sent_at, committed
        )


def _call_after(turns: int, call: Callable[[], None]) -> None:
    """Call ``call`` after so many turns of the event loop."""
    loop = asyncio.get_running_loop()
    if turns > 0:
        loop.call_soon(_call_after, turns - 1, call)
    else:
        call()
