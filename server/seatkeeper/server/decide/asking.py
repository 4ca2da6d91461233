"""Requests for seats, as a decision takes them."""

from __future__ import annotations

from seatkeeper.server.decide.draft import COMPLETED_BEFORE, COMPLETING, SESSION_ENDED, Draft
from seatkeeper.server.decide.possible import impossible
from seatkeeper.server.decide.weighing import asked_seats, unknown_class, weighed
from seatkeeper.server.domain.commands import Acquire, Granted, Refusal
from seatkeeper.server.domain.gang import Gang, is_choice
from seatkeeper.server.domain.state import Grant, PoolSpec, Ticket
from seatkeeper.server.policy.returning import may_return


def acquire(draft: Draft, command: Acquire) -> None:
    """Accept a request, as one that waits until the queue is served, or deny it."""
    grant_id = command.grant_id
    if (earlier := draft.asked.get(grant_id)) is not None:
        _acquire_again(draft, command, earlier[1])
        return
    if (found := draft.existing(grant_id)) is not None:
        _acquire_again(draft, command, found)
        return
    kept = draft.kept(grant_id) if draft.pool.kept else None
    if kept is not None and kept.session_id != command.session_id:
        stay = draft.pool.stays[grant_id]
        if kept.holder != command.holder:
            draft.deny_not_yours(command)
            return
        if not may_return(draft.pool, stay):
            draft.deny(command, Refusal.FINISHED, COMPLETED_BEFORE)
            return
        if _terms(stay.grant) != _terms(command):
            draft.deny(command, Refusal.OTHER_TERMS, _other_terms(stay.grant))
            return
    if grant_id in draft.gone and not draft.marks.is_completed(command.session_id, grant_id):
        # Another session's until now. A transaction writes no key twice.
        draft.deny_not_yours(command)
        return
    ticket = weighed(draft.pool.spec, command.ticket(draft.number + 1, draft.now))
    if (refusal := _refusal(draft, command, ticket)) is not None:
        draft.deny(command, *refusal)
        if refusal[0] in COMPLETING:
            draft.complete(command)
        return
    draft.number += 1
    draft.asked[grant_id] = (command, ticket)
    draft.reserved += 1


def _acquire_again(draft: Draft, command: Acquire, found: Grant | Ticket) -> None:
    if found.session_id != command.session_id:
        draft.deny_not_yours(command)
    elif command.session_id in draft.pool.dead_sessions:
        draft.deny(command, Refusal.SESSION_LOST, SESSION_ENDED)
    elif _terms(found) != _terms(command):
        draft.deny(command, Refusal.OTHER_TERMS, _other_terms(found))
    elif isinstance(found, Grant):
        draft.answer(command, Granted(found))
    else:
        draft.again.append((command, found.grant_id))


def _refusal(draft: Draft, command: Acquire, ticket: Ticket) -> tuple[Refusal, str] | None:
    """Return why a new request, which would wait with a ticket, cannot be accepted, or None."""
    if (why := _impossible(draft.pool.spec, ticket)) and draft.pool.spec is None:
        return why
    if command.session_id in draft.pool.dead_sessions:
        return Refusal.SESSION_LOST, SESSION_ENDED
    if why is not None:  # also of one whose ticket this decision has denied
        return why
    if draft.marks.is_completed(command.session_id, command.grant_id):
        return draft.marks.forced_answer(command) or (Refusal.FINISHED, COMPLETED_BEFORE)
    return None


def _impossible(spec: PoolSpec | None, ticket: Ticket) -> tuple[Refusal, str] | None:
    """Return why the request of a ticket that is not stored yet can never be served, or None."""
    why = impossible(spec, ticket)
    if why is not None or spec is None or not ticket.attribution.cost_class:
        return why
    unknown = None if spec.policy.counting.is_advisory else unknown_class(spec, ticket)
    return None if unknown is None else (unknown[0], f"{unknown[1]}; name one of these")


def _other_terms(found: Grant | Ticket) -> str:
    seats, project, priority, named, gang = _terms(found)
    asked_before = f"{seats} seats for project {project} at priority {priority}"
    if named:
        asked_before += f" as {named}"
    if gang:
        joined = " or " if is_choice(gang) else " and "
        asked_before += " with seats of " + joined.join(each.pool for each in gang)
    return f"this grant id asked for {asked_before} before; ask for others under a new id"


def _terms(asked: Acquire | Grant | Ticket) -> tuple[int, str, int, str, Gang]:
    named = asked.attribution.cost_class
    return asked_seats(asked), asked.project, asked.priority, named, asked.gang
