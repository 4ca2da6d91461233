"""The usage events of a decision: what it began, ended and refused. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from seatkeeper.server.decide import Decision
from seatkeeper.server.domain import Administrative, Denied, Grant, PoolState, Ticket
from seatkeeper.server.domain.immutable import immutable
from seatkeeper.server.events.usage import (
    SESSION_ENDED,
    TAKEN_OVER,
    UsageEvent,
    UsageKind,
    command_refused,
    grant_begins,
    grant_ends,
    ticket_begins,
    ticket_ends,
)


@immutable
class Ended:
    """What a decision ends, as it was before: the decision has the ids alone."""

    grants: tuple[Grant, ...]
    tickets: tuple[tuple[Ticket, Denied | None, bool], ...]
    """Tickets that get no grant; why they are given up (None: their clients do so); whether their
    session was known to have ended."""

    @classmethod
    def of(cls, pool: PoolState, decision: Decision) -> Ended:
        """Look up in the pool, as it was decided on, what ``decision`` ends."""
        if not decision.grants_ended and not decision.tickets_ended:
            return NOTHING_ENDED
        denied = {d.grant_id: d for mark in decision.marks.values() for d in mark.denied}
        served = {grant.grant_id for grant in decision.grants}
        tickets = (
            pool.tickets[grant_id]
            for grant_id in decision.tickets_ended
            if grant_id not in served and grant_id in pool.tickets
        )
        return cls(
            tuple(pool.grants[each] for each in decision.grants_ended if each in pool.grants),
            tuple(
                (t, denied.get(t.grant_id), t.session_id in pool.dead_sessions) for t in tickets
            ),
        )


NOTHING_ENDED = Ended((), ())


def changes_of(
    pool: str,
    decision: Decision,
    ended: Ended,
    *,
    gone: Collection[str] = (),
    peers: Mapping[str, str],
) -> Iterator[UsageEvent]:
    """Yield what a decision began and ended.

    ``gone``: ids whose sessions ended after the decision was made and before it was committed. That
    end was an event of its own. ``peers``: addresses of clients by grant id, as far as they are known.
    """
    at = decision.decided_at
    for grant in ended.grants:
        if grant.grant_id not in gone:
            peer = peers.get(grant.grant_id, "")
            is_forced = grant.fence in decision.reclaimed_fences
            kind = UsageKind.RECLAIMED if is_forced else UsageKind.RELEASED
            reason = TAKEN_OVER if grant.fence in decision.taken_over_fences else ""
            yield grant_ends(kind, pool, grant, at, reason=reason, peer=peer)
    for ticket, denied, is_dead in ended.tickets:
        if ticket.grant_id not in gone:
            peer, reason = peers.get(ticket.grant_id, ""), SESSION_ENDED if is_dead else ""
            yield ticket_ends(pool, ticket, at, denied=denied, reason=reason, peer=peer)
    for grant in decision.grants:
        yield grant_begins(pool, grant, peers.get(grant.grant_id, ""))
    for ticket in decision.tickets:
        yield ticket_begins(pool, ticket, peers.get(ticket.grant_id, ""))


def called_back(
    pool: str, decision: Decision, state: PoolState
) -> Iterator[dict[str, str | float]]:
    """Yield what is logged of the grants that a decision calls back, by the pool after it."""
    if not decision.is_reclaim:
        return
    for grant_id, reclaim in decision.guard.reclaims.running.items():
        grant = state.grants.get(grant_id)
        if reclaim.decided_at != decision.decided_at or grant is None:
            continue
        yield {
            "pool": pool,
            "grant_id": grant_id,
            "holder": grant.holder,
            "project": grant.project,
            "for_project": reclaim.project,
            "cause": str(reclaim.cause),
            "within_s": reclaim.within.total_seconds(),
        }


def seats_kept(decision: Decision) -> Iterator[dict[str, str | int]]:
    """Yield what is logged of seats that are kept from now on."""
    for stay in decision.kept:
        cause = "released" if stay.was_released else "lost"
        yield {**_of_kept(stay.grant), "cause": cause, "for_ms": stay.until - stay.since}


def seats_returned(decision: Decision) -> Iterator[dict[str, str | int]]:
    """Yield what is logged of kept seats that those whom they were kept for have taken."""
    taken = _takers(decision)
    for kept in decision.kept_freed:
        if (grant := taken.get(kept.fence)) is not None:
            yield {**_of_kept(kept), "by": grant.grant_id, "new_fence": grant.fence}


def kept_seats_freed(decision: Decision) -> Iterator[dict[str, str | int]]:
    """Yield what is logged of kept seats that are kept no more, and free."""
    taken = _takers(decision)
    return (_of_kept(kept) for kept in decision.kept_freed if kept.fence not in taken)


def _takers(decision: Decision) -> Mapping[int, Grant]:
    return {grant.continues: grant for grant in decision.grants if grant.continues}


def _of_kept(kept: Grant) -> dict[str, str | int]:
    return {
        "grant_id": kept.grant_id,
        "holder": kept.holder,
        "project": kept.project,
        "seats": kept.seats,
        "fence": kept.fence,
    }


def freed_at_their_day(
    pool: str, decision: Decision, ended: Ended
) -> Iterator[dict[str, str | int]]:
    """Yield what is logged of borrowed grants that are freed because their day is over."""
    returned = {*decision.returned_fences, *decision.reclaimed_fences}
    for grant in ended.grants:
        if grant.borrow is not None and grant.fence not in returned:
            yield {
                "pool": pool,
                "grant_id": grant.grant_id,
                "holder": grant.holder,
                "project": grant.project,
                "seats": grant.seats,
                "machine": grant.borrow.machine,
                "until_millis": grant.borrow.until,
            }


def overdrawn(pool: str, decision: Decision) -> Iterator[dict[str, str | int]]:
    """Yield what is logged of grants beyond the seats in force, which a contract allows."""
    for grant in decision.grants:
        if grant.marks is not None and grant.marks.overdraft:
            yield {
                "pool": pool,
                "grant_id": grant.grant_id,
                "holder": grant.holder,
                "project": grant.project,
                "seats": grant.seats,
                "overdraft": grant.marks.overdraft,
            }


def refusals_of(
    pool: str, decision: Decision, peers: Mapping[str, str]
) -> Iterator[UsageEvent]:
    """Yield the commands that a decision refused. An administrator's are no requests for seats."""
    for command, outcome in decision.outcomes:
        if isinstance(outcome, Denied) and not isinstance(command, Administrative):
            peer = peers.get(command.grant_id, "")
            yield command_refused(pool, command, outcome, decision.decided_at, peer)
