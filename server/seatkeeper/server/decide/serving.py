"""Who is served: what the policy plans, turned into grants."""

from __future__ import annotations

from collections.abc import Collection

from seatkeeper.server.decide import reclaimed
from seatkeeper.server.decide.counting import mark_of
from seatkeeper.server.decide.draft import RELEASE_WRITES, Draft, snapshot
from seatkeeper.server.decide.work import WorksBegun
from seatkeeper.server.domain.advisory import AdvisoryMark
from seatkeeper.server.domain.commands import Granted
from seatkeeper.server.domain.state import Grant, Ticket


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
        if taken:
            free += sum(kept.seats for kept in taken)
        is_new = ticket.grant_id in draft.asked
        is_free = ticket.seats <= free or draft.is_advisory
        if not is_free or not (is_new or _is_stored(draft, ticket)):
            return  # The policy is wrong, and no seat is granted that is not there.
        if not works.may_begin(ticket):
            continue
        if (taken or not is_new) and not draft.fits(len(taken) + (0 if is_new else 2)):
            draft.decision.unserved = True
            return
        free -= ticket.seats
        for kept in taken:
            draft.free_kept(kept)
        _grant(draft, ticket, is_new=is_new, continues=taken[0].fence if taken else 0)


def _is_stored(draft: Draft, ticket: Ticket) -> bool:
    """Return whether a stored ticket waits still, also for this decision."""
    return (
        ticket.grant_id in draft.pool.tickets
        and ticket.grant_id not in draft.gone
        and ticket.grant_id not in draft.served
        and ticket.session_id not in draft.pool.dead_sessions
    )


def _grant(draft: Draft, ticket: Ticket, *, is_new: bool, continues: int) -> None:
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
        mark=_advisory_mark(draft, ticket) if draft.is_advisory else None,
        continues=continues,
    )
    draft.held += grant.seats
    draft.served[grant.grant_id] = grant
    draft.decision.grants.append(grant)
    if draft.plan is not None:
        draft.overtaken.note(grant, draft.plan.passed.get(grant.grant_id, ()))
    if is_new:
        command, _ = draft.asked.pop(grant.grant_id)
        draft.reserved -= 1
        draft.answer(command, Granted(grant))
    else:
        draft.decision.tickets_ended.append(grant.grant_id)


def _advisory_mark(draft: Draft, ticket: Ticket) -> AdvisoryMark | None:
    """Return why a binding pool would not have granted a ticket now; None: it would have."""
    asked = draft.asked.get(ticket.grant_id)
    may_wait = asked is None or asked[0].may_wait
    return mark_of(draft.pool.spec, draft.plan, ticket, draft.held, may_wait=may_wait)
