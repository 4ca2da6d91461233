"""The order of service of a pool that lists no projects, and says how many seats each may hold."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from seatkeeper.server.domain import Instant, Ticket
from seatkeeper.server.policy.at_most import Room, held_back
from seatkeeper.server.policy.fitting import fitting
from seatkeeper.server.policy.order import ListedOrder
from seatkeeper.server.policy.overtaking import Backfill
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.rules import Reason
from seatkeeper.server.policy.snapshot import PoolSnapshot


class Each:
    """Serves as ``Fifo`` does, and passes over those who hold the most that each may.

    Costs a look at each ticket that is served, held back or looked past before these, and at each
    holder that holds seats. Depends on no time, but that it allows less overtaking as time passes.
    """

    def plan(self, pool: PoolSnapshot, now: Instant) -> Plan:
        """Return the plan: the first of the queue that have room, as far as the free seats go."""
        room = Room(pool)
        spec = pool.state.spec
        backfill = Backfill(spec.policy.overtaking if spec else None, pool, now)
        serve = fitting(pool, room.admitted(), backfill, room)
        served = {ticket.grant_id for ticket in serve}

        def hold_back(ticket: Ticket) -> bool:
            return pool.stands_apart(ticket) or held_back(room, served, ticket) is not None

        return Plan(
            serve=serve,
            order=ListedOrder(lambda: _in_order(pool)),
            hold_back=hold_back,
            passed=backfill.passed,
            why=lambda ticket: (
                why_held_back(pool, ticket)
                if ticket.grant_id in pool.state.tickets
                else held_back(room, served, ticket)
            ),
        )


def _in_order(pool: PoolSnapshot) -> Iterator[Ticket]:
    """Yield all that wait, as seats would go to them one by one; what limits hold back, last."""
    listed: set[str] = set()
    for ticket in _turns(Room(pool)):
        listed.add(ticket.grant_id)
        yield ticket
    others = chain(pool.waiting(), pool.apart())
    yield from (ticket for ticket in others if ticket.grant_id not in listed)


def _turns(room: Room) -> Iterator[Ticket]:
    """Yield whom seats would go to, one by one, as far as there is room."""
    works: set[str] = set()
    for ticket in room.admitted():
        if ticket.work_key not in works:
            yield ticket
            room.take(ticket)
            if ticket.work_key:
                works.add(ticket.work_key)


def why_held_back(pool: PoolSnapshot, ticket: Ticket) -> Reason | None:
    """Keep the promise of ``Plan.why``, of a ticket that is stored."""
    if (reason := Room(pool).reached(ticket)) is not None:
        return reason
    room = Room(pool)
    if any(each.grant_id == ticket.grant_id for each in _turns(room)):
        return None
    return room.left_by_others(ticket)


EACH = Each()
