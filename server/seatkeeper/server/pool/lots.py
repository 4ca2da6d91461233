"""What is written of a pool's lots: by the node that decides for it, when their time has come.

A lot begins, and ends, with a transaction that compares the specification by its revision. It moves
each state one way only, by what is stored and never by a view. So it is written once whatever the
number of nodes, and a slower clock undoes nothing. Every decision compares the specification, too, so
whichever commits first, the other notices; the guard, which a busy pool rewrites all the time, is not
compared.

Two places look: ``LotKeeper`` for all pools of a node, also those that no client uses, and the
committer before each decision, so that none is made here by seats whose time is over by this node's
clock.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from seatkeeper.core.lots import (
    NO_LOTS,
    LotMove,
    LotState,
    LotStep,
    moved,
    next_move,
    succeeding,
)
from seatkeeper.core.reservations import WindowMove
from seatkeeper.server.domain import Instant, PoolSpec
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.events import log as events
from seatkeeper.server.events.observer import LotEnd
from seatkeeper.server.pool import windows
from seatkeeper.server.pool.catalogue import PoolCatalogue
from seatkeeper.server.pool.keeper import Keeper
from seatkeeper.server.store import (
    OutcomeUnknown,
    Put,
    Store,
    StoreError,
    StoreUnavailable,
    Unchanged,
    records,
)
from seatkeeper.server.store.formats import RecordUnreadable
from seatkeeper.server.store.keys import Keys

ATTEMPTS_MAX = 10
"""A write that loses its race against other changes of the specification is tried this often."""
LOOK_MAX = 10.0
"""Seconds until the next look where a lot has dates to come, so that a wall clock that is put forward
is noticed."""
TAKEOVER_MILLIS = 2_000
"""How late what is due is written by a node that is not the pool's owner."""
RETRY_SECONDS = 1.0
POOLS_AT_ONCE = 50
"""Pools that are written without a look at the clock in between."""

logger = logging.getLogger(__name__)


def are_due(spec: PoolSpec | None, now: Instant) -> bool:
    """Return whether there is something to be written of a pool's lots, or of its windows."""
    if spec is None:
        return False
    if spec.windows and windows.are_due(spec, now):
        return True
    at = next_move(spec.lots) if spec.lots else None
    return at is not None and at <= now


def applied(
    spec: PoolSpec, before: PoolSpec | None, now: Instant | None
) -> tuple[PoolSpec, tuple[LotMove | WindowMove, ...]]:
    """Return a specification as an administrator's change stores it, and what is written of its lots.

    Lots that are as they were go on as they were written, and so do windows. What is due at ``now`` is
    written at once; without a time, nothing is.
    """
    spec, of_windows = windows.applied(spec, before, now)
    there = before.lots if before is not None else NO_LOTS
    if not spec.lots and not there.rule:
        return replace(spec, lots=NO_LOTS), of_windows
    wanted = spec.lots or replace(spec.lots, seats=spec.seats)
    lots = succeeding(wanted, there)
    lots, moves = moved(lots, now) if now is not None else (lots, ())
    return spec.with_lots(lots), (*moves, *of_windows)


def is_as_seen(seen: int, revision: int, spec: PoolSpec) -> bool:
    """Return whether a pool at this revision is as an administrator has seen it.

    What nodes have written of its lots, and of its windows, since does not make it another one.
    """
    said = (spec.lots.edited_revision, spec.windows.edited_revision)
    edited = min((each for each in said if each), default=0)
    return seen == revision or (0 < edited <= seen <= revision)


async def write_due(store: Store, keys: Keys, clock: Clock, pool: str) -> None:
    """Write what is due of a pool's lots by this node's clock. Raises ``StoreError``.

    Each lot that moves is an event of the log, of the node that wrote it alone, also where the answer
    to its write was lost.
    """
    key = keys.pool(pool)
    sent: dict[bytes, tuple[tuple[LotMove, ...], int]] = {}
    for _ in range(ATTEMPTS_MAX):
        found = await store.get(key)
        if found is None:
            return
        if found.value in sent:
            report(pool, *sent[found.value])
            return
        before = records.decode_spec(found.value, key)
        lots, moves = moved(before.lots, clock.now())
        if not moves:
            return
        lots = replace(lots, edited_revision=lots.edited_revision or found.mod_revision)
        after = before.with_lots(lots)
        value = records.encode_spec(after)
        try:
            committed = await store.commit(
                [Put(key, value)], only_if=[Unchanged(key, found.mod_revision)]
            )
        except OutcomeUnknown:
            sent[value] = moves, after.seats  # the next look shows whether it took effect
            continue
        if committed.succeeded:
            report(pool, moves, after.seats)
            return
    raise StoreUnavailable(f"pool {pool} changes faster than its lots can be written")


def report(pool: str, moves: Sequence[LotMove | WindowMove], seats: int) -> None:
    """Log what was written of a pool's lots, and windows; ``seats`` are in force now."""
    for move in moves:
        if isinstance(move, WindowMove):
            windows.report(pool, [move])
            continue
        lot = move.lot
        facts: dict[str, object] = {"pool": pool, "lot": lot.name, "kind": lot.kind.value}
        facts |= {"lot_seats": lot.seats, "seats": seats, "owner": lot.owner}
        facts |= {"price": str(lot.price) if lot.price else ""}
        match move.step:
            case LotStep.BEGAN:
                events.happened("lot_began", **facts)
            case LotStep.ENDED:
                events.happened("lot_ended", **facts)
            case LotStep.ENDS_SOON:
                facts |= {"ends_at_millis": lot.ends, "days": lot.announced_days}
                events.happened("lot_ends_soon", logging.WARNING, **facts)


def _next_due(spec: PoolSpec, now: Instant) -> int | None:
    found = (next_move(spec.lots) if spec.lots else None, windows.next_due(spec, now))
    return min((each for each in found if each is not None), default=None)


class LotKeeper(Keeper):
    """Writes what is due of the lots and windows of all pools, for those that this node owns."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        catalogue: PoolCatalogue,
        clock: Clock,
        is_elsewhere: Callable[[str], bool],
    ) -> None:
        """Write nothing yet. ``is_elsewhere``: whether another node owns a pool."""
        super().__init__()
        self._store = store
        self._keys = keys
        self._catalogue = catalogue
        self._clock = clock
        self._is_elsewhere = is_elsewhere
        self._due: dict[str, int] = {}
        """By pool, when there is next something to be written."""

    def spec_changed(self, pool: str) -> None:
        """Notice another specification of a pool."""
        spec, _ = self._catalogue.spec(pool)
        at = _next_due(spec, self._clock.now()) if spec is not None else None
        if at is None:
            self._due.pop(pool, None)
        elif self._due.get(pool) != at:
            self._due[pool] = at
            self._changed.set()

    def ends(self) -> list[LotEnd]:
        """Return the lots in force that end, of all pools. From any thread."""
        now = self._clock.now()
        specs = [self._catalogue.spec(pool)[0] for pool in self._catalogue.names()]
        return [
            LotEnd(spec.name, lot.name, (lot.ends - now) / 1000)
            for spec in specs
            if spec is not None
            for lot in spec.lots.lots
            if lot.state is LotState.IN_FORCE and lot.ends is not None
        ]

    async def _look(self) -> float | None:
        """Write what is due; return in how many seconds to look again; None: after a change."""
        now = self._clock.now()
        when = {pool: self._when(pool, at) for pool, at in self._due.items()}
        due = [pool for pool, at in when.items() if at <= now]
        for pool in due[:POOLS_AT_ONCE]:
            try:
                await write_due(self._store, self._keys, self._clock, pool)
                await windows.write_due(self._store, self._keys, self._clock, pool)
                await self._catalogue.refresh(pool)
            except RecordUnreadable:
                self._due.pop(pool, None)
            except StoreError as error:
                about = {"pool": pool, "error": str(error), "retry_in_s": RETRY_SECONDS}
                logger.warning("lots_not_written", extra=about)
                return RETRY_SECONDS
        if due:
            return 0.0 if len(due) > POOLS_AT_ONCE else RETRY_SECONDS
        soonest = min(when.values(), default=None)
        return None if soonest is None else min((soonest - now) / 1000, LOOK_MAX)

    def _when(self, pool: str, at: int) -> int:
        return at + TAKEOVER_MILLIS if self._is_elsewhere(pool) else at
