"""What a decision writes to the store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from seatkeeper.server.decide import Decision
from seatkeeper.server.domain import Grant, Granted, Guard, Queued, Ticket
from seatkeeper.server.domain.watermark import Watermark
from seatkeeper.server.events.facts import encode_facts
from seatkeeper.server.store import Delete, Put, Write, records, stays
from seatkeeper.server.store.keys import Keys

Made: TypeAlias = Grant | Ticket | Watermark | tuple[Guard, int]
"""What a record is made from; a guard with the id of its decision."""


def write_of(keys: Keys, pool: str, outcome: Granted | Queued) -> Put:
    """Return the write that made the grant or the ticket of an outcome."""
    if isinstance(outcome, Granted):
        return _put_grant(keys, pool, outcome.grant)
    return _put_ticket(keys, pool, outcome.ticket)


def writes_of(
    keys: Keys,
    pool: str,
    decision: Decision,
    decision_id: int,
    *,
    has_guard: bool,
    view_revision: int = 0,
) -> list[Write]:
    """Return the writes of ``decision``, in the order in which the view applies them.

    ``has_guard``: there is one, so it moves also when nothing else is written. ``view_revision``: up
    to which revision the view of the decision had everything.
    """
    writes: list[Write] = []
    if has_guard or decision.changes:
        released, at = decision.released_fences, decision.decided_at
        facts = encode_facts(
            *(decision_id, at, released, decision.outcomes),
            reclaimed=decision.reclaimed_fences,
            taken_over=decision.taken_over_fences,
            returned=decision.returned_fences,
            view_revision=view_revision,
        )
        value = records.encode_guard(decision.guard, decision_id, facts)
        writes.append(Put(keys.guard(pool), value))
    writes += [_put_grant(keys, pool, grant) for grant in _held(decision)]
    writes += [_put_ticket(keys, pool, ticket) for ticket in _waiting(decision)]
    writes += [
        Put(keys.mark(pool, session_id), records.encode_watermark(mark), mark.lease_id)
        for session_id, mark in decision.marks.items()
    ]
    writes += [Delete(keys.grant(pool, grant_id)) for grant_id in decision.grants_ended]
    if decision.stays:
        writes += [
            Delete(keys.stay(pool, grant_id))
            if stay is None
            else Put(keys.stay(pool, grant_id), stays.encode_stay(stay))
            for grant_id, stay in decision.stays.items()
        ]
    writes += [Delete(keys.ticket(pool, grant_id)) for grant_id in decision.tickets_ended]
    return writes


def made_by(keys: Keys, pool: str, decision: Decision, decision_id: int) -> dict[str, Made]:
    """Return what the values that a decision writes are made from, by key.

    Not those that keep what a newer version has said: what these say is read again.
    """
    made: dict[str, Made] = {keys.grant(pool, g.grant_id): g for g in _held(decision)}
    for ticket in _waiting(decision):
        made[keys.ticket(pool, ticket.grant_id)] = ticket
    for session_id, mark in decision.marks.items():
        if not mark.kept:
            made[keys.mark(pool, session_id)] = mark
    if not decision.guard.kept:
        made[keys.guard(pool)] = (decision.guard, decision_id)
    return made


def deletes_of(keys: Keys, pool: str, grant_ids: Iterable[str]) -> list[Write]:
    """Return what deletes grants and tickets, whichever of them there are."""
    return [
        Delete(key)
        for grant_id in grant_ids
        for key in (keys.grant(pool, grant_id), keys.ticket(pool, grant_id))
    ]


def _held(decision: Decision) -> Sequence[Grant]:
    """Return the grants that are written: new ones, and those that machines have from now on."""
    lent = decision.lent
    return [*decision.grants, *lent.values()] if lent else decision.grants


def _waiting(decision: Decision) -> Sequence[Ticket]:
    """Return the tickets that are written: new ones, and those that have another place."""
    moved = decision.moved
    return [*decision.tickets, *moved.values()] if moved else decision.tickets


def _put_grant(keys: Keys, pool: str, grant: Grant) -> Put:
    return Put(keys.grant(pool, grant.grant_id), records.encode_grant(grant), grant.lease_id)


def _put_ticket(keys: Keys, pool: str, ticket: Ticket) -> Put:
    key = keys.ticket(pool, ticket.grant_id)
    return Put(key, records.encode_ticket(ticket), ticket.lease_id)
