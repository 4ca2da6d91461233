"""A holder moves its seats to another session of its own, of another machine perhaps. Pure.

The grant that it has ends by force in the same transaction that makes the new one, with the same
seats and a new fence. So no more is held than before, whatever waits, and no order of service is asked.
Who has the old session may be cut off, and believe in its seats until its lease or its token ends: as
with an administrator's release at once, the fence is what protects from it.

What a plan says is of a pool without the new grant. So a decision that makes one serves no ticket,
calls nothing back, and takes no command after it: the next one does.

What is never true: two grants of the seats; a grant whose holder, project, seats or cost are others
than those of the one before; one in a pool that has fewer seats than are held, or that is drained.
"""

from __future__ import annotations

from dataclasses import replace

from seatkeeper.server.decide.by_rules import refused_by_rules
from seatkeeper.server.decide.counting import counts_only, mark_of_moved
from seatkeeper.server.decide.draft import COMPLETED_BEFORE, SESSION_ENDED, Draft
from seatkeeper.server.decide.possible import POOL_DELETED
from seatkeeper.server.decide.reclaimed import heeds_within
from seatkeeper.server.domain import NO_RULES
from seatkeeper.server.domain.commands import Forced, Granted, Refusal, TakeOver
from seatkeeper.server.domain.state import Grant, PoolSpec, Ticket
from seatkeeper.server.policy.returning import may_return
from seatkeeper.server.policy.rules import Reason, Rule
from seatkeeper.server.policy.snapshot import group_in

NOT_THERE = (
    "there is no live grant {} of this holder in the pool; "
    "`seatkeeper grant list` shows those there are"
)
CALLED_BACK = (
    "the seats are called back, and are not to be had anew; release them, or ask for others"
)
DRAINED = "the pool is drained, and grants nothing: the seats stay where they are"
NO_ROOM = (
    "more seats are held than the pool has by now; nothing is granted until some are released"
)
TAKEN_OVER = "its holder has taken the seats over in another of its sessions, under a new fence"
TOGETHER = (
    "these seats were asked for together with those of other pools, or as one of several alternatives: "
    "they stay where they are"
)
SHARED = (
    "other grants count once with it where it is, and would not there: the seats stay with them; ask "
    "for others"
)

_LEFT_OPEN = {Refusal.POOL_NOT_FOUND, Refusal.SESSION_LOST, Refusal.FINISHED}


def take_over(draft: Draft, command: TakeOver) -> None:
    """Give a holder's seats to another session of its, or deny it."""
    found = draft.existing(command.grant_id)
    if found is not None:
        if found.session_id != command.session_id:
            draft.deny_not_yours(command)
        elif isinstance(found, Grant) and found.continues:
            draft.answer(command, Granted(found))  # the same, sent again
        else:
            message = "this id has asked for seats before; take them over under a new one"
            draft.deny(command, Refusal.OTHER_TERMS, message)
        return
    kept = draft.kept(command.taken_id) if draft.pool.kept else None
    taken = draft.existing(command.taken_id) if kept is None else kept
    if (refusal := _refusal(draft, command, taken)) is not None:
        draft.deny(command, *refusal)
        if refusal[0] not in _LEFT_OPEN:
            # A late copy must not take over what was left where it was.
            draft.complete(command)
        return
    assert isinstance(taken, Grant)
    if kept is not None:
        draft.free_kept(taken)
    else:
        _end(draft, taken)
    _grant(draft, command, taken)


def _refusal(
    draft: Draft, command: TakeOver, taken: Grant | Ticket | None
) -> tuple[Refusal, str] | None:
    """Return why nothing is taken over; None: it can be."""
    pool = draft.pool
    if pool.spec is None:
        return Refusal.POOL_NOT_FOUND, POOL_DELETED
    if command.session_id in pool.dead_sessions:
        return Refusal.SESSION_LOST, SESSION_ENDED
    if draft.marks.is_completed(command.session_id, command.grant_id) or (
        command.grant_id in draft.gone or command.grant_id in pool.kept
    ):
        return Refusal.FINISHED, COMPLETED_BEFORE
    if not isinstance(taken, Grant) or taken.holder != command.holder or taken.gang:
        return Refusal.NOT_TAKEN_OVER, _not_there(command, taken)
    if (why := _not_movable(draft, command, taken)) is not None:
        return why
    return _without_room(draft, pool.spec, command, taken)


def _not_there(command: TakeOver, taken: Grant | Ticket | None) -> str:
    if taken is None or taken.holder != command.holder:
        return NOT_THERE.format(command.taken_id)
    if isinstance(taken, Ticket):
        return "the request waits, and holds no seat; cancel it, and ask for one here"
    return TOGETHER


def _not_movable(draft: Draft, command: TakeOver, taken: Grant) -> tuple[Refusal, str] | None:
    """Return what speaks against it that is the grant's."""
    why = ""
    if taken.session_id == command.session_id:
        why = "this session holds the seats already"
    elif taken.borrow is not None:
        why = f"machine {taken.borrow.machine} has borrowed the seats; it has to return them"
    elif taken.agent_id or taken.work_key:
        work = f"agent {taken.agent_id} works" if taken.agent_id else "others wait for the work"
        why = f"{work} under the grant; release it, and ask for another"
    elif taken.grant_id in draft.pool.kept:
        if not may_return(draft.pool, draft.pool.stays[taken.grant_id]):
            why = NOT_THERE.format(command.taken_id)
    elif taken.session_id in draft.pool.dead_sessions:
        why = NOT_THERE.format(command.taken_id)
    elif taken.grant_id in (
        draft.pool.guard.reclaims.running.keys() | draft.holds.revokes.keys()
    ):
        why = CALLED_BACK
    return (Refusal.NOT_TAKEN_OVER, why) if why else None


def _without_room(
    draft: Draft, spec: PoolSpec, command: TakeOver, taken: Grant
) -> tuple[Refusal, str] | None:
    """Return what speaks against it that is the pool's."""
    if spec.drain is not None:
        return Refusal.POOL_DRAINED, DRAINED
    if counts_only(spec):
        return None
    if draft.held > spec.open_seats:
        return Refusal.NO_SEAT_FREE, NO_ROOM
    if _takes_more(draft, command, taken):
        return Refusal.NO_SEAT_FREE, SHARED
    if spec.policy.rules is NO_RULES:
        return None
    there = _as_ticket(draft, command, taken)
    return refused_by_rules(spec, there) or _host_full(draft, spec, command, taken)


def _takes_more(draft: Draft, command: TakeOver, taken: Grant) -> bool:
    """Return whether more is in use afterwards: others count once with it where it is."""
    if not taken.group:
        return False
    ticket, after = _as_ticket(draft, command, taken), draft.sum.branch()
    after.remove(taken.seats, taken.group)
    after.add(ticket.seats, group_in(draft.pool, ticket))
    return after.of() > draft.held


def _host_full(
    draft: Draft, spec: PoolSpec, command: TakeOver, taken: Grant
) -> tuple[Refusal, str] | None:
    most, host = spec.policy.rules.per_host.seats, command.host.lower()
    if most is None or not host or host == taken.host.lower():
        return None
    group = group_in(draft.pool, _as_ticket(draft, command, taken))
    of_hosts = draft.pool.by_rules.of_hosts
    held = of_hosts.of(host)
    if held + of_hosts.takes(taken.seats, group, host) <= most:
        return None
    text = f"host {host} holds {held} seats, and each may hold {most}"
    return Refusal.NO_SEAT_FREE, f"{Reason(Rule.PER_HOST, text)}; release some there first"


def _end(draft: Draft, taken: Grant) -> None:
    draft.take_back(taken, Forced(taken.grant_id, TAKEN_OVER))
    draft.decision.taken_over_fences.append(taken.fence)


def _as_ticket(draft: Draft, command: TakeOver, taken: Grant) -> Ticket:
    """Return the ticket that a request for the seats would have."""
    return Ticket(
        grant_id=command.grant_id,
        session_id=command.session_id,
        lease_id=command.lease_id,
        attribution=replace(taken.attribution, host=command.host),
        seats=taken.seats,
        number=draft.number + 1,
        queued_at=draft.now,
    )


def _grant(draft: Draft, command: TakeOver, taken: Grant) -> None:
    ticket = _as_ticket(draft, command, taken)
    group = group_in(draft.pool, ticket)
    held = draft.held, draft.held + draft.sum.takes(ticket.seats, group)
    mark = mark_of_moved(draft.pool.spec, ticket, held)
    draft.fence += 1
    grant = Grant(
        grant_id=command.grant_id,
        session_id=command.session_id,
        lease_id=command.lease_id,
        attribution=ticket.attribution,
        seats=ticket.seats,
        fence=draft.fence,
        asked_at=draft.now,
        granted_at=draft.now,
        heeds_within=heeds_within(draft.pool.spec, command),
        mark=mark,
        continues=taken.fence,
        taken_from=taken.held_since,
        group=group,
    )
    draft.sum.add(grant.seats, grant.group)
    draft.decision.grants.append(grant)
    draft.decision.unserved = True
    draft.is_closed = True
    if (extended := draft.holds.extended.get(taken.grant_id)) is not None:
        draft.holds = draft.holds.with_extended(grant.grant_id, extended)
        draft.said.add(grant.grant_id)
    draft.answer(command, Granted(grant))
