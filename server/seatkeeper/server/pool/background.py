"""Background work on one pool: what there is to decide that no command asks for.

Tickets that the policy serves, tickets that can never be served, waits that have ended, lent seats
that are called back, and seats that are kept. All of it is read from the plan and the view, so that the
loop wakes for what the decision does, and for nothing else: at once when there is work, and at the time
at which there may be some.
"""

from __future__ import annotations

from seatkeeper.server.decide import Forecast, HoldStats, forecast, impossible_tickets
from seatkeeper.server.decide.borrowing import due, next_due
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.policy.plan import Plan, Policy
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.pool.reclaim_timers import ReclaimTimers
from seatkeeper.server.pool.stay_timers import StayTimers
from seatkeeper.server.pool.wait_timers import WaitTimers

WAKE_MIN, WAKE_MAX = 0.01, 10.0
"""Seconds until the next plan where a policy names a time. Not at once, so that a policy that names
the present is no hot loop. Not later, so that a wall clock that is put forward is noticed."""


class BackgroundWork:
    """What is to be done for one pool on one node, and when to look again."""

    def __init__(
        self,
        mirror: PoolMirror,
        waits: WaitTimers,
        reclaims: ReclaimTimers,
        stays: StayTimers,
        policy: Policy,
        clock: Clock,
    ) -> None:
        self._mirror = mirror
        self._waits = waits
        self._reclaims = reclaims
        self._stays = stays
        self._policy = policy
        self._clock = clock
        self.plan = self._planned(grants_max=1)
        """The plan of the latest ``look``: as old as the last change of the view."""

    def look(self) -> str | None:
        """Plan anew; return the id of a request that something is to be done with; None: of none.

        A ticket that is to be served or denied, a grant that is to be called back, or not any more,
        or that was borrowed and whose day is over, or seats of a lost session of which that is to be
        written.
        """
        self.plan = self._planned(grants_max=1)
        for ticket in self.plan.serve:
            return ticket.grant_id
        for ticket, _, _ in impossible_tickets(self._mirror.state):
            return ticket.grant_id
        state = self._mirror.state
        for grant in due(state, self._clock.now()):
            return grant.grant_id
        for grant_id in state.kept:
            if not state.stays[grant_id].until:
                return grant_id
        running = state.guard.reclaims.running
        if not running and not self.plan.reclaim:
            return None
        wanted = {each.grant.grant_id for each in self.plan.reclaim}
        return next(iter(wanted.symmetric_difference(running)), None)

    def is_due(self, late_by: float = 0.0) -> bool:
        """Return whether a wait or a notice has ended, at least ``late_by`` seconds ago."""
        end = self._next_end()
        return end is not None and end + late_by <= self._clock.monotonic()

    def next_look(self) -> float | None:
        """Return in how many seconds there may be work although the pool stays the same; None: never.

        By the plan of the latest ``look``.
        """
        found: list[float] = []
        if (end := self._next_end()) is not None:
            found.append(end - self._clock.monotonic())
        if (wake := self.plan.next_wake) is not None:
            seconds = (wake - self._clock.now()) / 1000
            found.append(min(max(seconds, WAKE_MIN), WAKE_MAX))
        if (day := next_due(self._mirror.state)) is not None:
            found.append(min(max((day - self._clock.now()) / 1000, WAKE_MIN), WAKE_MAX))
        return min(found, default=None)

    def _next_end(self) -> float | None:
        timers = self._waits, self._reclaims, self._stays
        ends = (each.next_end() for each in timers)
        return min((end for end in ends if end is not None), default=None)

    def forecast(self, holds: HoldStats) -> Forecast:
        """Return what those who wait are shown, by the holds that ended lately."""
        return forecast(self._mirror.state, self._planned(), holds, self._clock.now())

    def _planned(self, **bounds: int) -> Plan:
        pool = PoolSnapshot.of(self._mirror.state, **bounds)
        return self._policy.plan(pool, self._clock.now())
