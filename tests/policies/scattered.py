"""A policy for tests that follows no reason: who is served, and when, is drawn from a seed.

It depends on time in two ways. Every request may have a time before which it is not served, and in
some stretches of time no request is. In some, seats are kept free.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b

from tests.policies.rules import Step

from seatkeeper.server.domain import Grant, Instant, Ticket
from seatkeeper.server.policy.fitting import fitting
from seatkeeper.server.policy.order import ListedOrder
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.snapshot import PoolSnapshot

STRETCH_MILLIS = 700


@dataclass(frozen=True)
class Scattered:
    """The same pool at the same time always gets the same plan."""

    seed: int
    delay_millis: int = 3_000
    """The longest time for which a request is held back from when it was asked; half are not."""
    kept_max: int = 1
    """Most seats that are kept free."""

    def plan(self, pool: PoolSnapshot, now: Instant) -> Plan:
        stretch = now // STRETCH_MILLIS
        is_closed = self.is_closed(stretch)

        def hold_back(ticket: Ticket) -> bool:
            return is_closed or self.due_at(ticket) > now

        order = sorted(
            pool.waiting(), key=lambda t: (hold_back(t), self.draw("turn", t.grant_id))
        )
        ready = (ticket for ticket in order if not hold_back(ticket))
        reduced = replace(pool, free=max(0, pool.free - self.seats_kept(stretch)))
        times = [self.due_at(ticket) for ticket in order if self.due_at(ticket) > now]
        times.append((stretch + 1) * STRETCH_MILLIS)
        return Plan(
            serve=fitting(reduced, ready),
            hold_back=hold_back,
            order=ListedOrder(lambda: order),
            next_wake=Instant(min(times)) if order else None,
        )

    def is_closed(self, stretch: int) -> bool:
        return stretch % 2 == 1 and self.draw("closed", stretch) < 0.5

    def seats_kept(self, stretch: int) -> int:
        return int((self.kept_max + 1) * self.draw("kept", stretch))

    def due_at(self, asked: Ticket | Grant) -> int:
        """Return when a request may be served."""
        since = asked.queued_at if isinstance(asked, Ticket) else asked.asked_at
        delay = 2 * self.delay_millis * (self.draw("delay", asked.grant_id) - 0.5)
        return since + int(max(0.0, delay))

    def draw(self, what: str, key: object) -> float:
        """Return a number from 0 to 1, always the same for the same question."""
        digest = blake2b(f"{self.seed}/{what}/{key}".encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") / 2**32


@dataclass(frozen=True)
class NotBeforeItsTime:
    """No request is served before its time, in a closed stretch, or by a seat that is kept."""

    policy: Scattered

    def broken_by(self, step: Step) -> Iterator[str]:
        for grant in step.made:
            stretch = grant.granted_at // STRETCH_MILLIS
            if self.policy.is_closed(stretch):
                yield f"{grant.grant_id} was granted while none is"
            if grant.granted_at < self.policy.due_at(grant):
                yield f"{grant.grant_id} was granted before its time"
            if step.after.free < self.policy.seats_kept(stretch):
                yield f"{grant.grant_id} got a seat that is kept"
