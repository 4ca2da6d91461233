"""The policy of every node: what each pool's own specification says."""

from __future__ import annotations

from seatkeeper.server.domain import Instant
from seatkeeper.server.policy.advisory import advisory
from seatkeeper.server.policy.counting_once import counting_once
from seatkeeper.server.policy.each import EACH
from seatkeeper.server.policy.fifo import FIFO
from seatkeeper.server.policy.holding import with_holds
from seatkeeper.server.policy.keeping_free import keeping_free
from seatkeeper.server.policy.opening import with_openings
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.reserving import RESERVING
from seatkeeper.server.policy.returning import returning, with_returns, without
from seatkeeper.server.policy.shares import Shares
from seatkeeper.server.policy.snapshot import PoolSnapshot


class ByPool:
    """Serves pools that list projects by ``Shares``, others by ``Reserving``, ``Each`` or ``Fifo``.

    One that is advisory, and neither closed nor drained, serves what waits in addition.
    """

    def plan(self, pool: PoolSnapshot, now: Instant) -> Plan:
        """Return the plan of the pool's policy, with what windows and long holds call back."""
        if not pool.state.kept:
            return self._counting(pool, now)
        tickets, returns, in_use = returning(pool)
        others = without(pool, tickets, returns, in_use) if tickets else pool
        plan = self._counting(others, now)
        return with_returns(plan, tickets, returns) if tickets else plan

    def _counting(self, pool: PoolSnapshot, now: Instant) -> Plan:
        if not pool.counts_once:
            return self._calling_back(pool, now)
        return counting_once(self._calling_back, pool, now)

    def _calling_back(self, pool: PoolSnapshot, now: Instant) -> Plan:
        planned = with_openings(self._behind_gangs(pool, now), pool, now)
        return with_holds(planned, pool, now)

    def _behind_gangs(self, pool: PoolSnapshot, now: Instant) -> Plan:
        if pool.state.guard.hold_back is None:
            return self._in_order(pool, now)
        return keeping_free(self._in_order, pool, now)

    def _in_order(self, pool: PoolSnapshot, now: Instant) -> Plan:
        spec = pool.state.spec
        if spec is not None and spec.policy.counting.is_advisory and pool.is_open:
            return advisory(pool, lambda those: self._binding(those, now))
        return self._binding(pool, now)

    def _binding(self, pool: PoolSnapshot, now: Instant) -> Plan:
        spec = pool.state.spec
        if spec is not None and spec.policy.projects:
            return Shares(spec.policy).plan(pool, now)
        if spec is not None and spec.windows.open:
            return RESERVING.plan(pool, now)
        if spec is not None and spec.policy.rules.limits_seats:
            return EACH.plan(pool, now)
        return FIFO.plan(pool, now)


BY_POOL = ByPool()
