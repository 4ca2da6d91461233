"""Seats and places that their holders give back, as a decision takes them."""

from __future__ import annotations

from seatkeeper.server.decide.draft import RELEASED_BEFORE, Draft
from seatkeeper.server.decide.staying import lingering
from seatkeeper.server.decide.work import waiting_for, work_ended
from seatkeeper.server.domain.commands import Denied, Refusal, Release, Released
from seatkeeper.server.domain.state import Grant, Ticket


def release(draft: Draft, command: Release) -> None:
    """End what the holder gives back: a grant, a place in the queue, or a request just made."""
    grant_id, recorded = command.grant_id, False
    if (earlier := draft.asked.get(grant_id)) is not None:
        if earlier[0].session_id != command.session_id:
            draft.deny_not_yours(command)
            return
        del draft.asked[grant_id]
        draft.reserved -= 1
        draft.deny(earlier[0], Refusal.FINISHED, RELEASED_BEFORE)
    elif (found := draft.existing(grant_id)) is not None:
        if found.session_id != command.session_id:
            draft.deny_not_yours(command)
            return
        recorded = True
        if isinstance(found, Grant):
            draft.decision.released_fences.append(found.fence)
            if (stay := lingering(draft, found)) is not None:
                draft.let_linger(found, stay)
            else:
                draft.end_grant(found)
            if command.work_end is not None and found.work_key:
                draft.works_ended[found.work_key] = command.work_end
        else:
            draft.gone.add(grant_id)
            draft.decision.tickets_ended.append(grant_id)
    draft.answer_again(Denied(grant_id, Refusal.FINISHED, RELEASED_BEFORE))
    draft.marks.complete(command.session_id, command.lease_id, grant_id, recorded=recorded)
    draft.answer(command, Released(grant_id))


def end_works(draft: Draft) -> None:
    """Answer those who wait for work that has ended, as far as writes go.

    The next of those that do not fit is granted, finds the work ended, and says so in its turn.
    """
    if not draft.works_ended:
        return
    new = [ticket for _, ticket in draft.asked.values()]
    for work_key, end in draft.works_ended.items():
        for ticket in waiting_for(work_key, draft.pool, draft.gone, new):
            if not draft.fits(2):
                return
            _end_work(draft, ticket, work_ended(ticket, end))


def _end_work(draft: Draft, ticket: Ticket, denied: Denied) -> None:
    grant_id = ticket.grant_id
    if (asked := draft.asked.pop(grant_id, None)) is not None:
        draft.reserved -= 1
        draft.answer(asked[0], denied)
        draft.marks.complete(ticket.session_id, ticket.lease_id, grant_id, recorded=False)
    else:
        draft.give_up(ticket)
        draft.marks.note_denial(ticket.session_id, ticket.lease_id, denied)
    draft.answer_again(denied)
