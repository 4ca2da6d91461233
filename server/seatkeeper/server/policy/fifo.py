"""Priority, then first come first served: the order of service of every pool today."""

from __future__ import annotations

from seatkeeper.server.domain import Instant
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.snapshot import PoolSnapshot, fitting


class Fifo:
    """Serves by priority, then in the order of acceptance, and passes no ticket over.

    Holds none back and depends on no time. Costs a look at each ticket that it serves, however many
    wait.
    """

    def plan(self, pool: PoolSnapshot, now: Instant) -> Plan:
        """Return the plan: the first of the queue, as far as the free seats go."""
        return Plan(serve=fitting(pool, pool.waiting()), order=pool.by_acceptance)


FIFO = Fifo()
