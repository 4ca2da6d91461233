"""Bursts that a pool's rule starts: the pool's owner looks at the waits, and writes one.

Once in every slot of the rule's time the owner reads what the store has: the specification, the counts
in the guard, and the tickets. If the waits were long (``domain.wait_counts``), and the month has hours
and budget left (``core.rule_bursts``), it writes the burst with the specification, as an administrator
would, and what it takes of the month. That transaction compares the specification by its revision. So
one burst is started whatever the number of nodes that look, their clocks, and who owns the pool
meanwhile; and no month gets more than the rule allows. The guard is not compared: a busy pool rewrites
it all the time, and waits that were long a moment ago are reason enough.

It ends as every burst does: see ``lots``. No promise depends on a burst being started, so no other node
does it where the owner is silent; the next owner does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from seatkeeper.core.lots import LotKind, LotMove, LotStep, PoolLots
from seatkeeper.core.rule_bursts import left, started
from seatkeeper.server.domain import PoolSpec
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.domain.rule_start import is_wanted, may_start
from seatkeeper.server.domain.wait_counts import NO_WAITS, counting_for
from seatkeeper.server.events import log as events
from seatkeeper.server.pool import lots as pool_lots
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
PAUSE_MIN, PAUSE_MAX = 1.0, 10.0
"""Seconds between two looks at the clock."""

logger = logging.getLogger(__name__)


async def start_due(store: Store, keys: Keys, clock: Clock, pool: str) -> bool:
    """Start the burst of a pool's rule if it is due; return whether this did. Raises ``StoreError``."""
    key = keys.pool(pool)
    sent: dict[bytes, _Started] = {}
    for _ in range(ATTEMPTS_MAX):
        found = await store.get(key)
        if found is None:
            return False
        if found.value in sent:
            sent[found.value].report(pool)
            return True
        before, now = records.decode_spec(found.value, key), clock.now()
        if not may_start(before, now) or not await _waits_are_long(store, keys, before, now):
            return False
        begun = started(before.lots, now)
        assert begun is not None  # there is no obstacle
        after = before.with_lots(begun[0])
        value, done = records.encode_spec(after), _Started(*begun, after.seats, now)
        try:
            committed = await store.commit(
                [Put(key, value)], only_if=[Unchanged(key, found.mod_revision)]
            )
        except OutcomeUnknown:
            sent[value] = done  # the next look shows whether it took effect
            continue
        if committed.succeeded:
            done.report(pool)
            return True
    raise StoreUnavailable(f"pool {pool} changes faster than its rule can start a burst")


async def _waits_are_long(store: Store, keys: Keys, spec: PoolSpec, now: int) -> bool:
    guard = await store.get(keys.guard(spec.name))
    waits = records.decode_guard(guard.value)[0].waits if guard is not None else NO_WAITS
    tickets = await store.list(keys.ticket(spec.name, ""))
    since = [records.decode_ticket(each.key, each.value).queued_at for each in tickets.entries]
    return is_wanted(spec, waits, since, now)


@dataclass(frozen=True, slots=True)
class _Started:
    """A burst that was written."""

    lots: PoolLots
    moves: tuple[LotMove, ...]
    seats: int
    now: int

    def report(self, pool: str) -> None:
        """Log it, with what the month has left."""
        pool_lots.report(pool, self.moves, self.seats)
        for move in self.moves:
            lot = move.lot
            if move.step is LotStep.BEGAN and lot.kind is LotKind.BURST and lot.is_by_rule:
                hours, budget = left(self.lots, self.now)
                facts: dict[str, object] = {"pool": pool, "lot": lot.name, "seats": lot.seats}
                facts |= {"ends_at_millis": lot.ends, "hours_left": round(hours, 2)}
                events.happened("burst_by_rule", **facts, budget_left=budget)


class BurstStarter(Keeper):
    """Looks at the pools with a rule that this node owns."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        catalogue: PoolCatalogue,
        clock: Clock,
        is_elsewhere: Callable[[str], bool],
    ) -> None:
        """Look at none yet. ``is_elsewhere``: whether another node owns a pool."""
        super().__init__()
        self._store = store
        self._keys = keys
        self._catalogue = catalogue
        self._clock = clock
        self._is_elsewhere = is_elsewhere
        self._looked: dict[str, int] = {}
        """By pool with a rule: the slot in which it was looked at last."""

    def spec_changed(self, pool: str) -> None:
        """Notice another specification of a pool."""
        spec, _ = self._catalogue.spec(pool)
        if spec is None or not spec.lots.rule:
            self._looked.pop(pool, None)
        elif pool not in self._looked:
            self._looked[pool] = 0
            self._changed.set()

    async def _look(self) -> float | None:
        """Start what is due; return in how many seconds to look again; None: after a change."""
        pause = PAUSE_MAX
        for pool in list(self._looked):
            spec, _ = self._catalogue.spec(pool)
            if spec is None or not spec.lots.rule:
                continue
            now, (slot, _) = self._clock.now(), counting_for(spec.lots.rule)
            pause = min(pause, (slot - now % slot) / 1000)
            if self._looked.get(pool) == now // slot or self._is_elsewhere(pool):
                continue
            if not may_start(spec, now):
                continue
            try:
                if await start_due(self._store, self._keys, self._clock, pool):
                    await self._catalogue.refresh(pool)
            except RecordUnreadable:
                pass  # a newer node's to do
            except StoreError as error:
                about = {"pool": pool, "error": str(error), "retry_in_s": PAUSE_MIN}
                logger.warning("burst_not_started", extra=about)
                return PAUSE_MIN
            if pool in self._looked:
                self._looked[pool] = now // slot
        return max(PAUSE_MIN, pause) if self._looked else None
