"""Priority, then first come first served: the order of service of every pool today."""

from __future__ import annotations

from seatkeeper.server.domain import Instant
from seatkeeper.server.policy.fitting import fitting
from seatkeeper.server.policy.overtaking import Backfill
from seatkeeper.server.policy.plan import Plan, holds_back_none
from seatkeeper.server.policy.snapshot import PoolSnapshot


class Fifo:
    """Serves by priority, then in the order of acceptance, and passes no ticket over.

    But one that wants more seats than are free may be overtaken, as far as the pool's policy says;
    time only takes from that. Holds back only those whose work another does. Costs a look at each
    ticket that it serves, and at those that it holds back or looks past before these, however many
    wait.
    """

    def plan(self, pool: PoolSnapshot, now: Instant) -> Plan:
        """Return the plan: the first of the queue, as far as the free seats go."""
        hold_back = pool.waits_apart if pool.has_apart else holds_back_none
        spec = pool.state.spec
        backfill = Backfill(spec.policy.overtaking if spec else None, pool, now)
        serve = fitting(pool, pool.waiting(), backfill)
        return Plan(
            serve=serve, order=pool.by_acceptance, hold_back=hold_back, passed=backfill.passed
        )


FIFO = Fifo()
