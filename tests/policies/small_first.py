"""A policy for tests: small requests first, and no ticket is overtaken more than so often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.policies.rules import Step

from seatkeeper.server.domain import Instant, Ticket
from seatkeeper.server.policy.fitting import fitting
from seatkeeper.server.policy.order import ListedOrder
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.snapshot import PoolSnapshot


@dataclass(frozen=True)
class SmallFirst:
    """Serves those that want the fewest seats, until so many later requests were accepted.

    How often a ticket was overtaken is written nowhere. But only later requests can overtake it, and
    the ticket numbers show how many there were.
    """

    overtaken_max: int

    def plan(self, pool: PoolSnapshot, now: Instant) -> Plan:
        def turn(ticket: Ticket) -> tuple[int, ...]:
            if pool.ticket_number - ticket.number >= self.overtaken_max:
                return (0, ticket.number)
            return (1, ticket.seats, ticket.number)

        order = sorted(pool.waiting(), key=turn)
        return Plan(serve=fitting(pool, order), order=ListedOrder(lambda: order))


@dataclass
class OvertakenSeldom:
    """While a ticket waits, at most so many later ones are served."""

    overtaken_max: int
    _overtaken: Counter[str] = field(default_factory=Counter)

    def broken_by(self, step: Step) -> Iterator[str]:
        numbers = {ticket.grant_id: ticket.number for ticket in step.before.tickets.values()}
        for grant in step.made:
            # One that never waited was accepted after all that were stored before.
            number = numbers.get(grant.grant_id, step.before.guard.ticket_number + 1)
            for ticket in step.after.tickets.values():
                if ticket.grant_id in numbers and ticket.number < number:
                    self._overtaken[ticket.grant_id] += 1
                    if self._overtaken[ticket.grant_id] > self.overtaken_max:
                        yield f"{ticket.grant_id} was overtaken too often"
