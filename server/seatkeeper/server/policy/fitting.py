"""Which of the tickets of an order are served: the first ones, as far as seats go."""

from __future__ import annotations

from collections.abc import Iterable

from seatkeeper.server.domain import Ticket
from seatkeeper.server.policy.at_most import Room
from seatkeeper.server.policy.overtaking import Backfill
from seatkeeper.server.policy.snapshot import PoolSnapshot


def fitting(
    pool: PoolSnapshot,
    order: Iterable[Ticket],
    backfill: Backfill | None = None,
    room: Room | None = None,
) -> list[Ticket]:
    """Return the first tickets of an order, as far as seats and ``grants_max`` go.

    When the next one wants more seats than are free, those behind it wait with it, or a large request
    would never be served; or they go before it as far as ``backfill`` allows. One that may not wait
    holds up none. Of those for the same work, the first that fits is among them. What is found is taken
    from ``room``.
    """
    free = pool.free
    found: list[Ticket] = []
    works: set[str] = set()
    if not free:
        return found
    for ticket in order:
        if ticket.work_key in works:
            continue
        if ticket.seats <= free and (backfill is None or backfill.may_go(ticket)):
            free -= ticket.seats
            found.append(ticket)
            if backfill is not None:
                backfill.go(ticket)
            if room is not None:
                room.take(ticket)
            if ticket.work_key:
                works.add(ticket.work_key)
        elif pool.may_wait(ticket) and not (
            backfill is not None and ticket.seats > free and backfill.look_past(ticket)
        ):
            break
        if not free or len(found) >= pool.grants_max:
            break
    return found
