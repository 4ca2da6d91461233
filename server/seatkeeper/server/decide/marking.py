"""From which lots the seats come that a decision grants: written with each grant, and kept.

A function of the pool as it was decided on, which the commit compares. That view may hold grants whose
leases have ended already: then a seat is taken further down the order than it need be, and never one
that another grant has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from seatkeeper.server.domain import marks_of, room_in
from seatkeeper.server.domain.commands import Command, Granted, Outcome
from seatkeeper.server.domain.state import Grant, Instant, PoolState
from seatkeeper.server.domain.wait_counts import NO_WAITS, WaitCounts, counted_waits


def marked_grants(pool: PoolState, grants: list[Grant], gone: Collection[str]) -> list[Grant]:
    """Return what is granted, each grant marked with its lots. ``gone``: what ends meanwhile."""
    if pool.spec is None or not pool.spec.lots or not grants:
        return grants
    lots, held, marked = pool.spec.lots, pool.held, pool.marked.copy()
    for grant_id in gone:
        if (ended := pool.holding(grant_id)) is not None:
            held -= ended.seats
            if ended.marks is not None:
                marked.add(ended.marks, -1)
    found = []
    for grant in grants:
        over = max(0, pool.spec.overdraft - marked.overdraft)
        marks = marks_of(grant.seats, room_in(lots, held, marked), over)
        held += grant.seats
        if marks is not None:
            marked.add(marks)
            grant = replace(grant, marks=marks)
        found.append(grant)
    return found


def waits_after(
    pool: PoolState, grants: Iterable[Grant], gone: Collection[str], now: Instant
) -> WaitCounts:
    """Return how long requests waited lately, with those that are granted, or end without a grant."""
    rule = pool.spec.lots.rule if pool.spec is not None else None
    waits = pool.guard.waits
    if not rule and waits is NO_WAITS:
        return waits
    ended = [pool.tickets[each] for each in gone if each in pool.tickets]
    waited = [
        *((each.asked_at, each.granted_at) for each in grants),
        *((each.queued_at, now) for each in ended),
    ]
    return counted_waits(waits, rule, waited)


def with_grants(
    outcomes: list[tuple[Command, Outcome]], grants: list[Grant]
) -> list[tuple[Command, Outcome]]:
    """Return the outcomes of a decision with these in the place of the grants that it made."""
    made = {grant.fence: grant for grant in grants}
    return [
        (command, Granted(made.get(outcome.grant.fence, outcome.grant)))
        if isinstance(outcome, Granted)
        else (command, outcome)
        for command, outcome in outcomes
    ]
