"""Who takes seats that are kept for it: requests that come before all others. Pure.

Seats may be kept when no session holds them any more (``domain.state.Stay``). They count as held, so no
order of service hands them out. Whom they are kept for gets them here, whatever waits: they are the
same seats, and no more of them are held than before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import chain

from seatkeeper.server.domain import Grant, PoolState, Stay, Ticket
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.rules import Reason, Rule
from seatkeeper.server.policy.snapshot import PoolSnapshot

TAKEN_MAX = 4
"""Most kept grants that one request takes over."""
Returns = Mapping[str, tuple[Grant, ...]]
NO_RETURNS: Returns = {}


def may_return(state: PoolState, stay: Stay) -> bool:
    """Return whether the same grant may be taken again, also where it is not written that it is kept.

    Not one that was called back when its session was lost: its seats are for another. Nor one that was
    asked for together with seats of other pools.
    """
    if stay.grant.gang:
        return False
    if stay.until:
        return stay.may_return
    rule = state.spec.policy.stay if state.spec is not None else None
    grant_id = stay.grant.grant_id
    is_called_back = (
        grant_id in state.guard.reclaims.running or grant_id in state.guard.holds.revokes
    )
    return rule is not None and rule.resurrection is not None and not is_called_back


def kept_from(state: PoolState, seats: int) -> Reason | None:
    """Return that so many seats would be free if none were kept; None: they would not."""
    kept = sum(each.seats for each in state.kept.values())
    if not 0 < seats <= kept:
        return None
    released = sum(
        each.seats for key, each in state.kept.items() if state.stays[key].was_released
    )
    after = " or ".join(
        text for text, some in (("a release", released), ("a loss", kept - released)) if some
    )
    held = "1 seat is" if kept == 1 else f"{kept} seats are"
    return Reason(Rule.STAY, f"{held} kept after {after}, for its holder or for no one")


def returning(pool: PoolSnapshot) -> tuple[list[Ticket], Returns]:
    """Return the tickets that take kept seats now, in the order of the queue, and what each takes.

    None where more is held than there is, or the pool is closed or drained: then nothing is granted.
    """
    state = pool.state
    there = {each: kept for each, kept in state.kept.items() if each not in pool.ended}
    if not there or state.spec is None or not _has_room(pool):
        return [], NO_RETURNS
    holders = {kept.holder for kept in there.values()}
    waits = any(state.tickets_of[each] for each in holders)
    if not waits and not any(ticket.holder in holders for ticket in pool.new):
        return [], NO_RETURNS
    found: list[Ticket] = []
    returns: dict[str, tuple[Grant, ...]] = {}
    for ticket in pool.waiting():
        if ticket.holder not in holders or ticket.gang:
            continue
        if taken := _taken(state, there, ticket):
            found.append(ticket)
            returns[ticket.grant_id] = taken
            for kept in taken:
                del there[kept.grant_id]
            holders = {kept.holder for kept in there.values()}
        if not there or len(found) >= pool.grants_max:
            break
    return found, returns


def without(pool: PoolSnapshot, tickets: Iterable[Ticket], returns: Returns) -> PoolSnapshot:
    """Return the pool that the others are served from: without these tickets, and what they leave."""
    ids = {ticket.grant_id for ticket in tickets}
    taken = sum(kept.seats for each in returns.values() for kept in each)
    asked = sum(ticket.seats for ticket in tickets)
    return replace(
        pool,
        # What is left of the kept seats is granted by the next decision: until then those for whom a
        # window keeps seats seem to hold all of them.
        free=min(pool.free, pool.free + taken - asked),
        returned=ids,
        new=[ticket for ticket in pool.new if ticket.grant_id not in ids],
    )


def with_returns(plan: Plan, tickets: list[Ticket], returns: Returns) -> Plan:
    """Return a plan in which these tickets are served first."""
    return replace(plan, serve=[*tickets, *plan.serve], returns=returns)


def _has_room(pool: PoolSnapshot) -> bool:
    """Return whether no more is held than may be."""
    state, spec = pool.state, pool.state.spec
    gone = sum(each.seats for each in map(state.holding, pool.ended) if each is not None)
    return spec is not None and 0 < spec.open_seats >= state.held - gone


def _taken(state: PoolState, there: Mapping[str, Grant], ticket: Ticket) -> tuple[Grant, ...]:
    """Return the kept grants that a ticket takes over; empty: none are for it, or too few."""
    if (own := there.get(ticket.grant_id)) is not None:
        is_its = own.session_id != ticket.session_id and own.seats == ticket.seats
        return (own,) if is_its and may_return(state, state.stays[own.grant_id]) else ()
    lingering = [
        kept
        for kept in there.values()
        if state.stays[kept.grant_id].was_released
        and (kept.holder, kept.project) == (ticket.holder, ticket.project)
    ]
    exact = (kept for kept in lingering if kept.seats == ticket.seats)
    taken: list[Grant] = []
    # What fits exactly first, then the largest: so the fewest are taken.
    for kept in chain(exact, sorted(lingering, key=lambda kept: (-kept.seats, kept.fence))):
        taken.append(kept)
        if sum(each.seats for each in taken) >= ticket.seats:
            return tuple(taken)
        if len(taken) >= TAKEN_MAX:
            break
    return ()
