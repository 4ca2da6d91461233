"""A policy for tests: at most so many seats at once for a project; within that, as ``Fifo``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tests.policies.rules import Step

from seatkeeper.server.domain import Instant, Ticket
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.snapshot import PoolSnapshot, held_back_last


@dataclass(frozen=True)
class Quota:
    """Leaves seats free rather than give a project more than its quota.

    A project's tickets keep their order: behind one that is held back, the others of its project are.
    """

    seats_max: int

    def plan(self, pool: PoolSnapshot, now: Instant) -> Plan:
        held: Counter[str] = Counter()
        for grant in pool.grants():
            held[grant.project] += grant.seats
        held_back: set[str] = set()
        serve: list[Ticket] = []
        free = pool.free

        def hold_back(ticket: Ticket) -> bool:
            is_over = held[ticket.project] + ticket.seats > self.seats_max
            return is_over or ticket.project in held_back

        for ticket in pool.waiting():
            if not free or len(serve) >= pool.grants_max:
                break
            if hold_back(ticket):
                if pool.may_wait(ticket):
                    held_back.add(ticket.project)
            elif ticket.seats <= free:
                free -= ticket.seats
                held[ticket.project] += ticket.seats
                serve.append(ticket)
            elif pool.may_wait(ticket):
                break
        order = held_back_last(pool, serve, hold_back)
        return Plan(serve=serve, hold_back=hold_back, order=order)


@dataclass(frozen=True)
class WithinQuota:
    """No project holds more than its quota after a grant of its own."""

    seats_max: int

    def broken_by(self, step: Step) -> Iterator[str]:
        for grant in step.made:
            grants = step.after.grants.values()
            held = sum(each.seats for each in grants if each.project == grant.project)
            if held > self.seats_max:
                yield f"{grant.project} holds {held} seats, and may {self.seats_max}"
