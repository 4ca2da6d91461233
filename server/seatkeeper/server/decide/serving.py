"""Who is served: what the policy plans, turned into grants."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from seatkeeper.server.decide import reclaimed
from seatkeeper.server.decide.counting import mark_of
from seatkeeper.server.decide.draft import RELEASE_WRITES, Draft, snapshot
from seatkeeper.server.decide.work import WorksBegun
from seatkeeper.server.domain.advisory import AdvisoryMark
from seatkeeper.server.domain.commands import Granted
from seatkeeper.server.domain.counted_once import Group
from seatkeeper.server.domain.state import Grant, Ticket
from seatkeeper.server.policy.returning import after, group_of_grant


def free_reclaimed(draft: Draft, over: Collection[int]) -> None:
    """End the grants whose notice is over, as far as writes go, for those who are served next."""
    plan = draft.policy.plan(snapshot(draft), draft.now)
    for grant in reclaimed.freed(draft.pool, plan, over, draft.said):
        if not draft.fits(RELEASE_WRITES):
            draft.decision.unserved = True
            return
        lost = reclaimed.taken_back(
            grant, draft.pool.guard.reclaims.running.get(grant.grant_id)
        )
        draft.take_back(grant, lost)


def serve_queue(draft: Draft) -> None:
    """Turn tickets into grants, as the policy plans, while seats and writes last."""
    draft.reserved = len(draft.asked)
    pool = snapshot(draft)
    plan, free, works = draft.policy.plan(pool, draft.now), pool.free, WorksBegun(pool)
    draft.plan, returns = plan, plan.returns
    for ticket in plan.serve:
        taken = returns.get(ticket.grant_id, ()) if returns else ()
        is_new = ticket.grant_id in draft.asked
        group = group_of_grant(draft.pool, ticket, taken)
        takes = _takes(draft, ticket, group, taken)
        is_free = takes <= free or draft.is_advisory
        if not is_free or not (is_new or _is_stored(draft, ticket)):
            return  # The policy is wrong, and no seat is granted that is not there.
        if not works.may_begin(ticket):
            continue
        if (taken or not is_new) and not draft.fits(len(taken) + (0 if is_new else 2)):
            draft.decision.unserved = True
            return
        free -= takes
        for kept in taken:
            draft.free_kept(kept)
        continues = taken[0].fence if taken else 0
        _grant(draft, ticket, takes, group, is_new=is_new, continues=continues)


def _takes(draft: Draft, ticket: Ticket, group: Group, taken: Sequence[Grant]) -> int:
    """Return how many more seats are in use once a ticket has its own, and these are kept no more."""
    if taken:
        return after(draft.pool, draft.sum, ticket, taken).of() - draft.held
    return draft.sum.takes(ticket.seats, group)


def _is_stored(draft: Draft, ticket: Ticket) -> bool:
    """Return whether a stored ticket waits still, also for this decision."""
    return (
        ticket.grant_id in draft.pool.tickets
        and ticket.grant_id not in draft.gone
        and ticket.grant_id not in draft.served
        and ticket.session_id not in draft.pool.dead_sessions
    )


def _grant(
    draft: Draft, ticket: Ticket, takes: int, group: Group, *, is_new: bool, continues: int
) -> None:
    """Grant a ticket. ``takes``: how many seats are in use more than before."""
    draft.fence += 1
    grant = Grant(
        grant_id=ticket.grant_id,
        session_id=ticket.session_id,
        lease_id=ticket.lease_id,
        attribution=ticket.attribution,
        seats=ticket.seats,
        fence=draft.fence,
        asked_at=ticket.queued_at,
        granted_at=draft.now,
        heeds_within=reclaimed.heeds_within(draft.pool.spec, ticket),
        mark=_advisory_mark(draft, ticket, takes) if draft.is_advisory else None,
        continues=continues,
        group=group,
    )
    draft.sum.add(grant.seats, grant.group)
    draft.served[grant.grant_id] = grant
    draft.decision.grants.append(grant)
    if draft.plan is not None:
        passed = draft.plan.passed.get(grant.grant_id, ())
        draft.overtaken.note(takes, passed)
    if is_new:
        command, _ = draft.asked.pop(grant.grant_id)
        draft.reserved -= 1
        draft.answer(command, Granted(grant))
    else:
        draft.decision.tickets_ended.append(grant.grant_id)


def _advisory_mark(draft: Draft, ticket: Ticket, takes: int) -> AdvisoryMark | None:
    """Return why a binding pool would not have granted a ticket now; None: it would have."""
    asked = draft.asked.get(ticket.grant_id)
    may_wait = asked is None or asked[0].may_wait
    held = draft.held, draft.held + takes
    return mark_of(draft.pool.spec, draft.plan, ticket, held, may_wait=may_wait)
