"""Between the values in the store and the values that decisions are made on."""

from __future__ import annotations

from datetime import timedelta

from seatkeeper.server.decide import Watermark
from seatkeeper.server.domain import Grant, Guard, Instant, PoolSpec, Ticket
from seatkeeper.server.wire.denials import decode_denied, encode_denied
from seatkeeper.v1 import pool_service_pb2, state_pb2


def encode_spec(spec: PoolSpec) -> bytes:
    """Return the value stored for a pool's specification."""
    return pool_service_pb2.PoolSpec(
        name=spec.name, seats=spec.seats, description=spec.description
    ).SerializeToString()


def decode_spec(value: bytes) -> PoolSpec:
    """Return the specification stored in ``value``."""
    record = pool_service_pb2.PoolSpec.FromString(value)
    return PoolSpec(record.name, record.seats, record.description)


def encode_guard(guard: Guard, decision_id: int = 0) -> bytes:
    """Return the value stored for a guard that the decision of this id wrote."""
    return state_pb2.GuardRecord(
        fence=guard.fence, ticket_number=guard.ticket_number, decision_id=decision_id
    ).SerializeToString()


def decode_guard(value: bytes) -> tuple[Guard, int]:
    """Return the guard stored in ``value``, and the id of the decision that wrote it."""
    record = state_pb2.GuardRecord.FromString(value)
    return Guard(record.fence, record.ticket_number), record.decision_id


def grant_record(grant: Grant) -> state_pb2.GrantRecord:
    """Return the message for a grant."""
    return state_pb2.GrantRecord(
        session_id=grant.session_id,
        lease_id=grant.lease_id,
        holder=grant.holder,
        project=grant.project,
        seats=grant.seats,
        priority=grant.priority,
        fence=grant.fence,
        granted_at_millis=grant.granted_at,
        asked_at_millis=grant.asked_at,
        agent_id=grant.agent_id,
        claim_id=grant.claim_id,
    )


def encode_grant(grant: Grant) -> bytes:
    """Return the value stored for a grant."""
    return grant_record(grant).SerializeToString()


def with_claim(value: bytes, agent_id: str, claim_id: str) -> bytes:
    """Return a stored grant with another claim. What a newer node wrote beside it is kept."""
    record = state_pb2.GrantRecord.FromString(value)
    record.agent_id, record.claim_id = agent_id, claim_id
    return record.SerializeToString()


def decode_grant(grant_id: str, value: bytes) -> Grant:
    """Return the grant stored in ``value``."""
    return grant_of(grant_id, state_pb2.GrantRecord.FromString(value))


def grant_of(grant_id: str, record: state_pb2.GrantRecord) -> Grant:
    """Return the grant in a message."""
    return Grant(
        grant_id=grant_id,
        session_id=record.session_id,
        lease_id=record.lease_id,
        holder=record.holder,
        project=record.project,
        seats=record.seats,
        priority=record.priority,
        fence=record.fence,
        granted_at=Instant(record.granted_at_millis),
        asked_at=Instant(record.asked_at_millis),
        agent_id=record.agent_id,
        claim_id=record.claim_id,
    )


def ticket_record(ticket: Ticket) -> state_pb2.TicketRecord:
    """Return the message for a ticket."""
    return state_pb2.TicketRecord(
        session_id=ticket.session_id,
        lease_id=ticket.lease_id,
        holder=ticket.holder,
        project=ticket.project,
        seats=ticket.seats,
        priority=ticket.priority,
        number=ticket.number,
        queued_at_millis=ticket.queued_at,
        wait_millis=wait_millis(ticket.wait),
    )


def wait_millis(wait: timedelta | None) -> int:
    """Return what a record says of how long somebody waits."""
    return 0 if wait is None else max(1, round(wait / timedelta(milliseconds=1)))


def wait_of(record: state_pb2.TicketRecord) -> timedelta | None:
    """Return how long somebody waits, by the record; None: for ever."""
    return timedelta(milliseconds=record.wait_millis) if record.wait_millis else None


def encode_ticket(ticket: Ticket) -> bytes:
    """Return the value stored for a ticket."""
    return ticket_record(ticket).SerializeToString()


def decode_ticket(grant_id: str, value: bytes) -> Ticket:
    """Return the ticket stored in ``value``."""
    return ticket_of(grant_id, state_pb2.TicketRecord.FromString(value))


def ticket_of(grant_id: str, record: state_pb2.TicketRecord) -> Ticket:
    """Return the ticket in a message."""
    return Ticket(
        grant_id=grant_id,
        session_id=record.session_id,
        lease_id=record.lease_id,
        holder=record.holder,
        project=record.project,
        seats=record.seats,
        priority=record.priority,
        number=record.number,
        queued_at=Instant(record.queued_at_millis),
        wait=wait_of(record),
    )


def encode_watermark(mark: Watermark) -> bytes:
    """Return the value stored for a session's finished-mark."""
    return state_pb2.MarkRecord(
        finished=mark.finished,
        lease_id=mark.lease_id,
        unrecorded=mark.unrecorded,
        denied=map(encode_denied, mark.denied),
        spans=[state_pb2.IdSpan(low=low, high=high) for low, high in mark.spans],
    ).SerializeToString()


def decode_watermark(value: bytes) -> Watermark:
    """Return the finished-mark stored in ``value``."""
    record = state_pb2.MarkRecord.FromString(value)
    denied = list(map(decode_denied, record.denied))
    # An older node knows the highest id alone, and takes all below for finished.
    spans = tuple((span.low, span.high) for span in record.spans)
    if record.finished and not spans:
        spans = (("", record.finished),)
    return Watermark(record.lease_id, record.finished, list(record.unrecorded), denied, spans)
