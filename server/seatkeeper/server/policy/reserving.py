"""The order of service of a pool that lists no projects, while a window of a reservation is open."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from seatkeeper.server.domain import Instant, Ticket
from seatkeeper.server.policy.at_most import Room, held_back, room_in
from seatkeeper.server.policy.each import why_held_back
from seatkeeper.server.policy.kept import Kept, kept_from, kept_in
from seatkeeper.server.policy.order import ListedOrder
from seatkeeper.server.policy.overtaking import Backfill
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.rules import Reason
from seatkeeper.server.policy.snapshot import PoolSnapshot


class Reserving:
    """Serves as ``Fifo`` and ``Each`` do, in a pool in which a window is open.

    Costs a look at each ticket before the last that is served, or that a window is for.
    """

    def plan(self, pool: PoolSnapshot, now: Instant) -> Plan:
        """Return the plan: the first that may have what is free."""
        kept, room, spec = kept_in(pool, now), room_in(pool), pool.state.spec
        assert kept is not None, "only asked while a window is open"
        assert spec is not None
        backfill = Backfill(spec.policy.overtaking, pool, now)
        serve = list(_served(pool, kept, room, backfill))
        served = {ticket.grant_id for ticket in serve}

        def left_by_rules(ticket: Ticket) -> Reason | None:
            return held_back(room, served, ticket) or kept_from(kept, served, ticket)

        def why(ticket: Ticket) -> Reason | None:
            if (reason := left_by_rules(ticket)) is not None:
                return reason
            is_limited = room is not None and ticket.grant_id in pool.state.tickets
            return why_held_back(pool, ticket) if is_limited else None

        def hold_back(ticket: Ticket) -> bool:
            return pool.stands_apart(ticket) or left_by_rules(ticket) is not None

        return Plan(
            serve=serve,
            order=ListedOrder(lambda: _in_order(pool, serve, hold_back)),
            hold_back=hold_back,
            passed=backfill.passed,
            why=why,
        )


def _served(
    pool: PoolSnapshot, kept: Kept, room: Room | None, backfill: Backfill
) -> Iterator[Ticket]:
    """Yield the tickets that are served, as far as seats and ``grants_max`` go."""
    works: set[str] = set()
    count = 0
    if kept.is_done:
        return
    for ticket in pool.waiting_with_mates(()) if room is None else room.admitted():
        if kept.is_behind(ticket) or ticket.work_key in works:
            continue
        if kept.admits(ticket, backfill):
            kept.serve(ticket, backfill)
            if room is not None:
                room.take(ticket)
            if ticket.work_key:
                works.add(ticket.work_key)
            count += 1
            yield ticket
        else:
            kept.hold_up(ticket, backfill)
        if kept.is_done or count >= pool.grants_max:
            return


def _in_order(
    pool: PoolSnapshot, serve: Iterable[Ticket], hold_back: Callable[[Ticket], bool]
) -> Iterator[Ticket]:
    """Yield who is served, then the others by acceptance, and last those that are held back."""
    listed = {ticket.grant_id for ticket in serve}
    yield from serve
    others = [*pool.waiting(), *pool.apart()]
    yield from sorted(
        (ticket for ticket in others if ticket.grant_id not in listed), key=hold_back
    )


RESERVING = Reserving()
