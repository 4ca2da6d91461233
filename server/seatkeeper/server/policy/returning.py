"""Who takes seats that are kept for it: requests that come before all others. Pure.

Seats may be kept when no session holds them any more (``domain.state.Stay``). They count as held, so no
order of service hands them out. Whom they are kept for gets them here, whatever waits: they are the
same seats, and no more of them are held than before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from seatkeeper.server.domain import Grant, PoolState, Stay, Ticket
from seatkeeper.server.domain.counted_once import Group, SeatSum
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.rules import Reason, Rule
from seatkeeper.server.policy.snapshot import PoolSnapshot, group_in

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
    kept = state.kept_seats
    if not 0 < seats <= kept:
        return None
    released = {state.stays[key].was_released for key in state.kept}
    after = " or ".join(
        text for text, is_so in (("a release", True), ("a loss", False)) if is_so in released
    )
    held = "1 seat is" if kept == 1 else f"{kept} seats are"
    return Reason(Rule.STAY, f"{held} kept after {after}, for its holder or for no one")


def returning(pool: PoolSnapshot) -> tuple[list[Ticket], Returns, SeatSum]:
    """Return the tickets that take kept seats now, in the order of the queue, and what each takes.

    And what is in use then. None where more is held than there is, or the pool is closed or drained:
    then nothing is granted.
    """
    state = pool.state
    there = {each: kept for each, kept in state.kept.items() if each not in pool.ended}
    if not there or state.spec is None or not _has_room(pool):
        return [], NO_RETURNS, pool.in_use
    holders = {kept.holder for kept in there.values()}
    waits = any(state.tickets_of[each] for each in holders)
    if not waits and not any(ticket.holder in holders for ticket in pool.new):
        return [], NO_RETURNS, pool.in_use
    in_use = pool.in_use
    found: list[Ticket] = []
    returns: dict[str, tuple[Grant, ...]] = {}
    for ticket in pool.waiting():
        if ticket.holder not in holders or ticket.gang:
            continue
        whole = pool.whole(ticket) if pool.counts_once else ticket
        able: Mapping[str, Grant] = there
        if not ticket.seats and ticket.grant_id not in there:
            able = _of_group(there, group_in(state, whole))
        if taken := _taken(state, able, whole, in_use):
            found.append(whole)
            in_use = after(state, in_use, whole, taken)
            returns[ticket.grant_id] = taken
            for kept in taken:
                del there[kept.grant_id]
            holders = {kept.holder for kept in there.values()}
        if not there or len(found) >= pool.grants_max:
            break
    return found, returns, in_use


def after(state: PoolState, in_use: SeatSum, ticket: Ticket, taken: Sequence[Grant]) -> SeatSum:
    """Return what is in use once a ticket has taken over kept seats."""
    found = in_use.branch()
    for kept in taken:
        found.remove(kept.seats, kept.group)
    found.add(ticket.seats, group_of_grant(state, ticket, taken))
    return found


def group_of_grant(state: PoolState, ticket: Ticket, taken: Sequence[Grant]) -> Group:
    """Return the group of what a ticket is granted: of the same grant once more, the one it had."""
    if taken and taken[0].grant_id == ticket.grant_id:
        return taken[0].group
    return group_in(state, ticket)


def without(
    pool: PoolSnapshot, tickets: Iterable[Ticket], returns: Returns, in_use: SeatSum
) -> PoolSnapshot:
    """Return the pool that the others are served from: without these tickets, and what they leave."""
    ids = {ticket.grant_id for ticket in tickets}
    fewer = pool.in_use.of() - in_use.of()
    return replace(
        pool,
        # What is left of the kept seats is granted by the next decision: until then those for whom a
        # window keeps seats seem to hold all of them.
        free=min(pool.free, pool.free + fewer),
        sum=in_use,
        returned=ids,
        new=[ticket for ticket in pool.new if ticket.grant_id not in ids],
    )


def with_returns(plan: Plan, tickets: list[Ticket], returns: Returns) -> Plan:
    """Return a plan in which these tickets are served first."""
    return replace(plan, serve=[*tickets, *plan.serve], returns=returns)


def _of_group(there: Mapping[str, Grant], group: Group) -> Mapping[str, Grant]:
    """Return the kept grants of a group.

    One that counts once with others needs no seats of these. It takes the place of one all the same, or
    a kept grant would be left behind by each release, for as long as seats are kept.
    """
    return {each: kept for each, kept in there.items() if kept.group == group}


def _has_room(pool: PoolSnapshot) -> bool:
    """Return whether no more is held than may be."""
    spec = pool.state.spec
    return spec is not None and 0 < spec.open_seats >= pool.in_use.of()


def _taken(
    state: PoolState, there: Mapping[str, Grant], ticket: Ticket, in_use: SeatSum
) -> tuple[Grant, ...]:
    """Return the kept grants that a ticket takes over; empty: none are for it, or too few.

    No more is in use afterwards: where others count once with a kept grant, it alone may be too few.
    """
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
        if kept in taken:
            continue
        taken.append(kept)
        if after(state, in_use, ticket, taken).of() <= in_use.of():
            return tuple(taken)
        if len(taken) >= TAKEN_MAX:
            break
    return ()
