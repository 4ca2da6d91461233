"""What administrators command, as a decision takes it."""

from __future__ import annotations

from seatkeeper.server.decide import borrowing, holding
from seatkeeper.server.decide.draft import Draft
from seatkeeper.server.decide.forced import not_as_seen, removed, taken_back
from seatkeeper.server.domain.commands import (
    Administrative,
    BorrowCommand,
    Denied,
    ForcedEnd,
    HoldCommand,
    KeepFree,
    Queued,
    Refusal,
    Released,
    Withdraw,
)
from seatkeeper.server.domain.hold_back import HoldBack
from seatkeeper.server.domain.state import Grant, Ticket


def administer(draft: Draft, command: Administrative) -> None:
    """Take an administrator's command."""
    if isinstance(command, ForcedEnd):
        _end_by_force(draft, command)
        return
    if isinstance(command, Withdraw):
        _withdraw(draft, command)
        return
    if isinstance(command, KeepFree):
        _keep_free(draft, command)
        return
    if isinstance(command, BorrowCommand):
        borrowing.take(draft, command)
        return
    if isinstance(command, HoldCommand):
        found = draft.existing(command.grant_id)
        before = draft.holds
        draft.holds, outcome = holding.noted(command, found, draft.pool, before)
        if draft.holds is not before:
            draft.said.add(command.grant_id)
        draft.answer(command, outcome)
        return
    if draft.moves.take(command, draft.gone, draft.number + 1, draft.now):
        draft.number += 1


def _keep_free(draft: Draft, command: KeepFree) -> None:
    """Keep seats free for a gang that has waited for long, if it waits still."""
    found = draft.existing(command.grant_id)
    if isinstance(found, Ticket) and found.session_id == command.session_id:
        draft.hold_back = HoldBack(command.grant_id, draft.now, command.until)
        draft.answer(command, Queued(found))
    else:
        draft.deny(command, Refusal.FINISHED, "it waits no more")


def _withdraw(draft: Draft, command: Withdraw) -> None:
    """Take a request out of the queue, as another of its alternatives is granted."""
    found = draft.existing(command.grant_id)
    if isinstance(found, Ticket) and found.session_id == command.session_id:
        message = f"granted in {command.granted_in} instead"
        draft.give_up(found)
        draft.note_denial(found, Refusal.GRANTED_ELSEWHERE, message)
        draft.answer_again(Denied(found.grant_id, Refusal.GRANTED_ELSEWHERE, message))
    draft.answer(command, Released(command.grant_id))


def _end_by_force(draft: Draft, command: ForcedEnd) -> None:
    """End a ticket or a grant of another, if it still is what the administrator saw."""
    if (kept := draft.kept(command.grant_id)) is not None and kept.fence == command.fence:
        draft.decision.reclaimed_fences.append(kept.fence)
        draft.free_kept(kept)
        draft.answer(command, Released(command.grant_id))
        return
    found = draft.existing(command.grant_id)
    was_forced = draft.marks.forced_answer(command) is not None
    if (denied := not_as_seen(command, found, was_forced=was_forced)) is not None:
        draft.answer(command, denied)
        return
    if found is not None and found.session_id == command.session_id:
        owner = found.session_id, found.lease_id
        if isinstance(found, Grant):
            draft.take_back(found, taken_back(found, command.reason))
        else:
            answer = removed(found, command.reason)
            draft.give_up(found)
            draft.marks.note_denial(*owner, answer)
            draft.answer_again(answer)
    draft.answer(command, Released(command.grant_id))
