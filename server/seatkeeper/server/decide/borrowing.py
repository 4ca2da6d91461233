"""Seats that leave with machines, as a decision lends them, takes them back, and frees them. Pure.

A borrowed grant is of no session and of no lease: so a session that ends, a release, a reclaim and a
watermark do not concern it, and it ends in three ways only. A machine gives it back; its day and the
pool's skew are over by the deciding node's clock; an administrator frees it. Each is a deletion in the
guarded transaction, so each happens once, and none is undone by a slower clock.

What is never true: a grant that is lent while it is called back, or beyond what the rule allows by the
view that the commit compares; one that is freed before its day and skew, but by its machine or an
administrator.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

from seatkeeper.server.decide.draft import RELEASE_WRITES, Draft
from seatkeeper.server.decide.forced import NOTHING_THERE
from seatkeeper.server.domain.borrow import (
    NO_SESSION,
    Borrow,
    Borrower,
    BorrowRefusal,
    at,
    borrow_refusal,
)
from seatkeeper.server.domain.commands import (
    BorrowCommand,
    BorrowGrant,
    Denied,
    Noted,
    Outcome,
    Refusal,
    Released,
    ReturnGrant,
)
from seatkeeper.server.domain.counted_once import NO_GROUP
from seatkeeper.server.domain.state import Grant, Instant, PoolState, Ticket

ANOTHERS = "another machine has borrowed the seats"
NOT_BORROWED = (
    "a session holds the seats, and no machine: they are free when it ends, unless a request to borrow "
    "them is still on its way; try again then"
)
SECOND = timedelta(seconds=1)


def take(draft: Draft, command: BorrowCommand) -> None:
    """Lend a grant to a machine, or take it back from one."""
    found = draft.existing(command.grant_id)
    if isinstance(command, ReturnGrant):
        draft.answer(command, _returned(draft, command, found))
    else:
        draft.answer(command, _lent(draft, command, found))


def due(pool: PoolState, now: Instant) -> Iterator[Grant]:
    """Yield the borrowed grants whose day and skew are over."""
    for grant in pool.borrowed.values():
        if grant.borrow is not None and grant.borrow.free_at <= now:
            yield grant


def next_due(pool: PoolState) -> Instant | None:
    """Return when the next borrowed grant is due; None: none is borrowed."""
    return min(
        (each.borrow.free_at for each in pool.borrowed.values() if each.borrow is not None),
        default=None,
    )


def free_due(draft: Draft) -> None:
    """Free what is due, as far as writes go, for those who are served next."""
    if not draft.pool.borrowed:
        return
    for grant in due(draft.pool, draft.now):
        if not draft.fits(RELEASE_WRITES):
            draft.decision.unserved = True
            return
        _free(draft, grant)


def _lent(draft: Draft, command: BorrowGrant, found: Grant | Ticket | None) -> Outcome:
    grant_id = command.grant_id
    if isinstance(found, Ticket):
        return Denied(grant_id, Refusal.OTHER_TERMS, "it waits, and holds no seat")
    if found is None:
        return Denied(grant_id, Refusal.FINISHED, NOTHING_THERE)
    if found.fence != command.fence:
        message = f"it holds seats by now, under fence {found.fence}"
        return Denied(grant_id, Refusal.OTHER_TERMS, message)
    if found.borrow is not None:
        if found.borrow.machine_key == command.machine_key:
            return Noted(found)  # the same, sent again
        return Denied(grant_id, Refusal.OTHER_TERMS, ANOTHERS)
    is_over = (
        found.session_id in draft.pool.dead_sessions
    )  # and with it went what is in the view
    if found.session_id != command.session_id or is_over:
        return Denied(grant_id, Refusal.FINISHED, NOTHING_THERE)
    if (refusal := _refusal(draft, command, found)) is not None:
        return Denied(grant_id, Refusal.BORROW_REFUSED, str(refusal))
    assert draft.pool.spec is not None
    rule = draft.pool.spec.policy.borrow
    assert rule is not None
    # To a second, as the token says it.
    until = at(draft.now, command.length)
    until = Instant(until - until % (SECOND // timedelta(milliseconds=1)))
    borrow = Borrow(
        command.machine_key, command.machine, until, at(until, rule.skew), draft.now
    )
    after = replace(
        *(found,),
        session_id=NO_SESSION,
        lease_id=0,
        heeds_within=None,
        borrow=borrow,
        group=NO_GROUP,
    )
    draft.decision.lent[grant_id] = after
    draft.sum.remove(found.seats, found.group)
    draft.sum.add(after.seats, after.group)
    if grant_id in draft.pool.stays:
        # Of a session no more: nothing is kept of it when it ends, for its holder or for no one.
        draft.decision.stays[grant_id] = None
    # The session's request is over: a late copy must not be granted once the machine has given it back.
    # And the watermark is of the session's lease, so a grant whose session has ended is not lent.
    draft.marks.complete(found.session_id, found.lease_id, grant_id, recorded=False)
    return Noted(after)


def _refusal(draft: Draft, command: BorrowGrant, found: Grant) -> BorrowRefusal | None:
    pool = draft.pool
    if pool.spec is None:
        return BorrowRefusal("borrow.off", "the pool does not exist any more")
    lent = [each for each in pool.borrowed.values() if each.grant_id not in draft.gone]
    lent += draft.decision.lent.values()
    theirs = sum(each.seats for each in lent if each.project == found.project)
    refusal = borrow_refusal(
        pool.spec.policy.borrow,
        command.length,
        found.seats,
        borrowed=sum(each.seats for each in lent),
        capacity=pool.spec.seats,
        who=Borrower(found.holder, found.project, found.host, theirs),
        groups=pool.spec.policy.rules.groups,
    )
    if refusal is None and found.grant_id in (
        pool.guard.reclaims.running.keys() | draft.holds.revokes.keys()
    ):
        return BorrowRefusal("borrow.called_back", "the seats are called back; ask for others")
    if refusal is None and (found.agent_id or found.work_key):
        work = f"agent {found.agent_id} works" if found.agent_id else "others wait for the work"
        return BorrowRefusal("borrow.in_use", f"{work} under the grant; ask for another")
    if refusal is None and _is_shared(draft, found):
        why = "the seats count once with those of other grants; ask when these have ended"
        return BorrowRefusal("borrow.count_once", why)
    return refusal


def _is_shared(draft: Draft, found: Grant) -> bool:
    """Return whether others count once with a grant: its seats cannot leave without them."""
    if not found.group:
        return False
    there = draft.pool.groups.members(found.group)
    return any(each.grant_id not in draft.freed | {found.grant_id} for each in there)


def _returned(draft: Draft, command: ReturnGrant, found: Grant | Ticket | None) -> Outcome:
    if not isinstance(found, Grant) or found.fence != command.fence:
        return Released(command.grant_id)
    if found.borrow is None or found.grant_id in draft.decision.lent:
        return Denied(command.grant_id, Refusal.OTHER_TERMS, NOT_BORROWED)
    draft.decision.returned_fences.append(found.fence)
    _free(draft, found)
    return Released(command.grant_id)


def _free(draft: Draft, grant: Grant) -> None:
    draft.decision.released_fences.append(grant.fence)
    draft.end_grant(grant)
