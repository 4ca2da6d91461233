"""Requests that count once with what is held: they take no seats, and are granted at once. Pure.

A plan around the plan of any order of service. That sees of every ticket the seats that it takes of the
pool (``PoolSnapshot.charged``): all that it asks for, or what its group lacks of that. Those that lack
nothing are left out of it, whatever comes before them, and are served beside it. They take the place of
none, as they need no seat: orders, shares, limits, windows and overtaking do not count for them.

What is never true: one of them is served while more is held than there is, or the pool is closed or
drained; a group whose seats are called back for another has a new member.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from seatkeeper.server.domain import Instant, Ticket
from seatkeeper.server.domain.counted_once import NO_GROUP
from seatkeeper.server.domain.state import queue_key
from seatkeeper.server.policy.order import ListedOrder
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.snapshot import FOR_ANOTHER, PoolSnapshot, group_in


def counting_once(
    planned: Callable[[PoolSnapshot, Instant], Plan], pool: PoolSnapshot, now: Instant
) -> Plan:
    """Return the plan of a policy, and beside it those who take no seats.

    Costs a look at each group that holds seats, in addition.
    """
    joining = list(_joining(pool))
    ids = {ticket.grant_id for ticket in joining}
    others = pool
    if ids:
        new = [ticket for ticket in pool.new if ticket.grant_id not in ids]
        others = replace(pool, returned={*pool.returned, *ids}, new=new)
    plan = planned(others, now)
    called = {each.grant.group for each in plan.reclaim if each.cause in FOR_ANOTHER}
    served = [each for each in joining if group_in(pool.state, each) not in called]
    # A group that gets a larger member now is called back by the next decision, with that.
    growing = {group_in(pool.state, each) for each in plan.serve} - {NO_GROUP}
    return replace(
        plan,
        serve=[*map(pool.whole, plan.serve), *served],
        takes={
            **{each.grant_id: each.seats for each in plan.serve},
            **dict.fromkeys((each.grant_id for each in served), 0),
        },
        reclaim=[
            each
            for each in plan.reclaim
            if each.cause not in FOR_ANOTHER or each.grant.group not in growing
        ],
        order=ListedOrder(lambda: [*joining, *map(pool.whole, plan.order)]),
        hold_back=lambda each: each.grant_id not in ids and plan.hold_back(pool.charged(each)),
        why=lambda each: None if each.grant_id in ids else plan.why(pool.charged(each)),
        would_wait=lambda each: (
            None if each.grant_id in ids else plan.would_wait(pool.charged(each))
        ),
    )


def _joining(pool: PoolSnapshot) -> Iterator[Ticket]:
    """Yield the tickets that take no seats, in the order of the queue."""
    state, spec = pool.state, pool.state.spec
    if spec is None or not spec.open_seats:
        return
    if pool.in_use.of() > spec.open_seats and not spec.policy.counting.is_advisory:
        return
    waiting = state.waiting_groups.by_group
    stored = [
        state.tickets[grant_id]
        for group in state.groups
        for grant_id in waiting.get(group, ())
        if pool.lives(state.tickets[grant_id])
    ]
    works: set[str] = set()
    count = 0
    for ticket in sorted([*stored, *pool.new], key=queue_key):
        if count >= pool.grants_max:
            return
        if pool.charged(ticket).seats or ticket.grant_id in state.kept:
            continue
        if ticket.work_key and (ticket.work_key in works or pool.waits_apart(ticket)):
            continue
        works |= {ticket.work_key} - {""}
        count += 1
        yield ticket
