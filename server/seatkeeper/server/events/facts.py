"""What the guard's record says of the decision that wrote it, for readers of the history.

Every decision rewrites the guard, so this costs a few bytes and no write of its own. A grant is named
by its fence: no other grant of the pool has the same.

The facts name their decision. A node of another version that keeps fields it does not know rewrites
the guard with facts of an earlier decision in it; these are not read a second time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import Acquire, Command, Denied, Instant, Outcome, Ticket
from seatkeeper.server.store.records import ticket_of, ticket_record
from seatkeeper.server.wire.denials import DENIAL_REASONS, decode_denied
from seatkeeper.v1 import seat_pb2

REFUSED_MAX = 64
"""Most refusals written down of one decision; more are counted. Their labels may be long."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a decision says of itself."""

    decided_at: Instant
    """0: a node wrote it that says nothing of its decisions."""
    released: frozenset[int] = frozenset()
    """Fences of grants that their holders gave back."""
    reclaimed: frozenset[int] = frozenset()
    """Fences of grants that were taken back by force."""
    taken_over: frozenset[int] = frozenset()
    """Of these, fences of those whose holders took the seats over in another session."""
    refused: tuple[tuple[Ticket, Denied], ...] = ()
    """Requests that were refused, as the tickets that they would have got."""
    refused_left_out: int = 0
    """Refusals that are not among ``refused``, because there were too many."""


NO_FACTS = Facts(Instant(0))


def encode_facts(
    decision_id: int,
    decided_at: Instant,
    released: Iterable[int],
    outcomes: Iterable[tuple[Command, Outcome]],
    *,
    reclaimed: Iterable[int] = (),
    returned: Iterable[int] = (),
    taken_over: Iterable[int] = (),
    view_revision: int = 0,
) -> bytes:
    """Return what the guard says of a decision: what it released and refused, of all its outcomes.

    ``released``, ``reclaimed``: fences of grants that holders gave back, or that were ended by force.
    ``returned``: of those released, what machines gave back before its day. ``taken_over``: of those
    ended by force, what their holders have in another session. ``view_revision``: up to which revision
    its view had everything.
    """
    facts = state_pb2.DecisionFacts(
        decision_id=decision_id,
        decided_at_millis=decided_at,
        released_fences=released,
        view_revision=view_revision,
    )
    # What is seldom there is set where it is: this is made for every decision.
    for fences, said in (
        (facts.reclaimed_fences, reclaimed),
        (facts.returned_fences, returned),
        (facts.taken_over_fences, taken_over),
    ):
        if said:
            fences.extend(said)
    for command, outcome in outcomes:
        if not isinstance(outcome, Denied) or not isinstance(command, Acquire):
            continue
        if len(facts.refused) == REFUSED_MAX:
            facts.refused_left_out += 1
            continue
        facts.refused.add(
            grant_id=command.grant_id,
            reason=DENIAL_REASONS[outcome.reason],
            request=ticket_record(_ticket(command, decided_at)),
        )
    return facts.SerializeToString()


def decision_id_of(guard: bytes) -> int:
    """Return the id of the decision that wrote the record of a guard."""
    return state_pb2.GuardRecord.FromString(guard).decision_id


def decode_facts(guard: bytes) -> Facts:
    """Return what the record of a guard says of the decision that wrote it."""
    record = state_pb2.GuardRecord.FromString(guard)
    facts = state_pb2.DecisionFacts.FromString(record.facts)
    if not facts.decision_id or facts.decision_id != record.decision_id:
        return NO_FACTS
    return Facts(
        Instant(facts.decided_at_millis),
        frozenset(facts.released_fences),
        frozenset(facts.reclaimed_fences),
        frozenset(facts.taken_over_fences),
        tuple(map(_refused, facts.refused)),
        facts.refused_left_out,
    )


def _refused(record: state_pb2.RefusedRequest) -> tuple[Ticket, Denied]:
    denied = seat_pb2.Denied(grant_id=record.grant_id, reason=record.reason)
    return ticket_of(record.grant_id, record.request), decode_denied(denied)


def _ticket(command: Acquire, at: Instant) -> Ticket:
    """Return the ticket that a request would have got, without a place in the queue."""
    return Ticket(
        grant_id=command.grant_id,
        session_id=command.session_id,
        lease_id=0,
        attribution=command.attribution,
        seats=command.seats,
        number=0,
        queued_at=at,
        wait=command.wait,
    )
