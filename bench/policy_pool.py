"""A pool that is decided on, in virtual time, and nothing else: no node, and no store."""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from seatkeeper.server.decide import Decision, decide
from seatkeeper.server.domain import (
    Acquire,
    Attribution,
    Command,
    Instant,
    Limits,
    PoolPolicy,
    PoolSpec,
    PoolState,
    Release,
)

SEATS = 20


@dataclass
class Pool:
    """A pool that is decided on, in virtual time, and nothing else."""

    state: PoolState
    rng: random.Random
    now: float = 1_000.0
    number: int = 0
    mean_hold: float = 1.0
    heeds_within: timedelta | None = None
    """Of the clients: how long until one is sure to know of a reclaim; None: they know of none."""
    seat_time: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _ends: list[tuple[float, str]] = field(default_factory=list)
    """When each grant is released."""

    @classmethod
    def of(cls, policy: PoolPolicy, seed: int) -> Pool:
        """Return an empty pool."""
        spec = PoolSpec("pool", SEATS, policy=policy)
        return cls(PoolState(spec=spec), random.Random(seed))

    def asks(self, project: str, seats: int = 1) -> Acquire:
        """Return a request; ids grow in the order in which they are made."""
        self.number += 1
        holder = Attribution("holder", project, 0)
        return Acquire(
            grant_id=f"{self.number:012}",
            session_id=f"session-{self.number}",
            lease_id=1,
            attribution=holder,
            seats=seats,
            heeds_within=self.heeds_within,
        )

    def decide(self, commands: Sequence[Command], over: Collection[int] = ()) -> Decision:
        """Decide, and apply what was decided, as a node does once it is committed.

        ``over``: the numbers of the reclaims whose notice is over.
        """
        state, now = self.state, Instant(int(self.now * 1000))
        decision = decide(state, commands, now, Limits(), over=over)
        for grant_id in decision.grants_ended:
            state.remove_grant(grant_id)
        for grant_id in decision.tickets_ended:
            state.remove_ticket(grant_id)
        for ticket in decision.tickets:
            state.put_ticket(ticket)
        for grant in decision.grants:
            state.put_grant(grant)
            end = self.now + self.rng.expovariate(1 / self.mean_hold)
            heapq.heappush(self._ends, (end, grant.grant_id))
        state.guard = decision.guard
        return decision

    @property
    def next_end(self) -> float:
        """When the next hold ends; infinity: none does."""
        while self._ends and self._ends[0][1] not in self.state.grants:
            heapq.heappop(self._ends)  # it was called back
        return self._ends[0][0] if self._ends else float("inf")

    def next_release(self) -> Release:
        """Go on to the next end of a hold; return its release."""
        at, grant_id = heapq.heappop(self._ends)
        for grant in self.state.grants.values():
            self.seat_time[grant.project] += (at - self.now) * grant.seats
        self.now = at
        grant = self.state.grants[grant_id]
        return Release(grant_id, grant.session_id, grant.lease_id)
