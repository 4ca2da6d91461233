"""Priority, then first come first served: the order of service of every pool today."""

from __future__ import annotations

from seatkeeper.server.domain import Instant
from seatkeeper.server.policy.plan import Plan, holds_back_none
from seatkeeper.server.policy.snapshot import PoolSnapshot, fitting


class Fifo:
    """Serves by priority, then in the order of acceptance, and passes no ticket over.

    Depends on no time, and holds back only those whose work another does. Costs a look at each ticket
    that it serves, and at those that it holds back before these, however many wait.
    """

    def plan(self, pool: PoolSnapshot, now: Instant) -> Plan:
        """Return the plan: the first of the queue, as far as the free seats go."""
        hold_back = pool.waits_for_work if pool.has_work else holds_back_none
        serve = fitting(pool, pool.waiting())
        return Plan(serve=serve, order=pool.by_acceptance, hold_back=hold_back)


FIFO = Fifo()
