"""Between the values in the store and the values that decisions are made on.

Values carry what they were read from where it says more than this version knows, and are written by
patching that: see ``store.formats``. Reading raises ``RecordUnreadable``.
"""

from __future__ import annotations

from datetime import timedelta

from seatkeeper.core.lot_messages import (
    decode_lots,
    decode_marks,
    encode_lots,
    encode_seats,
)
from seatkeeper.core.reservation_messages import decode_windows, encode_windows
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import (
    NO_HOLDS,
    NO_POLICY,
    NO_RECLAIMS,
    Attribution,
    Forced,
    Grant,
    Guard,
    Instant,
    PoolSpec,
    Reclaim,
    Reclaims,
    Ticket,
    Usage,
    Watermark,
)
from seatkeeper.server.domain.gang import Gang, is_choice
from seatkeeper.server.domain.hold_back import HoldBack
from seatkeeper.server.domain.state import NO_USAGE
from seatkeeper.server.domain.wait_counts import NO_WAITS
from seatkeeper.server.store.advisory import (
    read_counts,
    read_mark,
    write_counts,
    write_mark,
)
from seatkeeper.server.store.borrows import read_borrow, write_borrow
from seatkeeper.server.store.counted_once import write_group
from seatkeeper.server.store.drains import read_drain, write_drain
from seatkeeper.server.store.formats import (
    COUNT_FORMAT,
    POLICY_FORMAT,
    RULES_FORMAT,
    STAY_FORMAT,
    TERMS_FORMAT,
    RecordDamaged,
    check_format,
    kept,
    parsed,
)
from seatkeeper.server.store.holds import cause_of, read_holds, write_cause, write_holds
from seatkeeper.server.store.moves import read_move, write_move
from seatkeeper.server.store.waits import read_waits, write_waits
from seatkeeper.server.wire.counting import group_in
from seatkeeper.server.wire.denials import decode_denied, encode_denied
from seatkeeper.server.wire.policies import decode_policy, encode_policy
from seatkeeper.v1 import pool_service_pb2, seat_pb2


def spec_message(spec: PoolSpec) -> pool_service_pb2.PoolSpec:
    """Return the message for a pool's specification."""
    message = pool_service_pb2.PoolSpec.FromString(spec.kept)
    message.name = spec.name
    message.seats = spec.seats
    message.description = spec.description
    message.format = _format_of(spec)
    write_drain(message, spec.drain)
    # One that is as it was stays whole: it may say more than this version knows.
    if decode_policy(message.policy) != spec.policy:
        message.policy.CopyFrom(encode_policy(spec.policy))
    if not spec.lots:
        message.ClearField("lots")
    elif decode_lots(message.lots) != spec.lots:
        message.lots.CopyFrom(encode_lots(spec.lots))
    if spec.lots:
        has_terms = spec.lots.rule or any(lot.overdraft for lot in spec.lots.lots)
        of_lots = TERMS_FORMAT if has_terms else RULES_FORMAT
        message.format = max(message.format, of_lots)
    if not spec.windows:
        message.ClearField("windows")
    elif decode_windows(message.windows) != spec.windows:
        message.windows.CopyFrom(encode_windows(spec.windows))
    return message


def _format_of(spec: PoolSpec) -> int:
    """Return the oldest format that says all that a specification says."""
    policy = spec.policy
    if policy.count_once or (policy.borrow is not None and policy.borrow.names_some):
        return COUNT_FORMAT
    if policy.overtaking is not None and policy.overtaking.hold_back is not None:
        return STAY_FORMAT
    if policy.stay is not None:
        return STAY_FORMAT
    if any(each.notice for each in policy.reservations):
        return STAY_FORMAT
    if policy.borrow is not None:
        return STAY_FORMAT
    if policy.hold is not None or policy.reservations:
        return TERMS_FORMAT
    if policy.counting != NO_POLICY.counting or policy.rules.looks_at_hosts:
        return TERMS_FORMAT
    if spec.policy.reclaim is not None or spec.policy.rules != NO_POLICY.rules:
        return RULES_FORMAT
    return POLICY_FORMAT if spec.policy.projects else 0


def encode_spec(spec: PoolSpec) -> bytes:
    """Return the value stored for a pool's specification."""
    return spec_message(spec).SerializeToString()


def decode_spec(value: bytes, key: str = "a pool") -> PoolSpec:
    """Return the specification stored in ``value``."""
    record = parsed(pool_service_pb2.PoolSpec, key, value)
    try:
        return _spec_of(record, value)
    except (ArithmeticError, LookupError, ValueError) as error:
        raise RecordDamaged(key, record.DESCRIPTOR.name) from error


def _spec_of(record: pool_service_pb2.PoolSpec, value: bytes) -> PoolSpec:
    if not record.name:
        raise ValueError("it has no name")
    return PoolSpec(
        name=record.name,
        seats=record.seats,
        description=record.description,
        policy=decode_policy(record.policy),
        kept=kept(record, value),
        drain=read_drain(record),
        lots=decode_lots(record.lots),
        windows=decode_windows(record.windows),
    )


def encode_guard(guard: Guard, decision_id: int = 0, facts: bytes = b"") -> bytes:
    """Return the value stored for a guard that the decision of this id wrote.

    ``facts``: what else is to be known of that decision (``events.facts``).
    """
    record = state_pb2.GuardRecord.FromString(guard.kept)
    record.fence = guard.fence
    record.ticket_number = guard.ticket_number
    record.decision_id = decision_id
    record.facts = facts
    if guard.usage is not NO_USAGE:
        record.usage.at_millis = guard.usage.at
        record.usage.seat_millis.clear()
        record.usage.seat_millis.update(guard.usage.seat_millis)
    if guard.kept or guard.overtaken:
        record.overtaken.clear()
        record.overtaken.update(guard.overtaken)
    if guard.reclaims is not NO_RECLAIMS:
        _write_reclaims(record, guard.reclaims)
    if guard.hold_back is not None:
        held = record.hold_back
        held.grant_id = guard.hold_back.grant_id
        held.since_millis, held.until_millis = guard.hold_back.since, guard.hold_back.until
    write_counts(record, guard.advisory)
    if guard.kept or guard.waits is not NO_WAITS:
        write_waits(record, guard.waits)
    if guard.kept or guard.holds is not NO_HOLDS:
        write_holds(record, guard.holds)
    return record.SerializeToString()


def _write_reclaims(record: state_pb2.GuardRecord, reclaims: Reclaims) -> None:
    for grant_id in [each for each in record.reclaims if each not in reclaims.running]:
        del record.reclaims[grant_id]
    for grant_id, each in reclaims.running.items():
        written = record.reclaims[grant_id]
        written.number = each.number
        written.decided_at_millis = each.decided_at
        written.within_millis = wait_millis(each.within)
        written.project = each.project
        write_cause(written, each)
    record.called_back_at_millis[:] = reclaims.called_at
    record.reclaim_number = reclaims.number


def _reclaims_of(record: state_pb2.GuardRecord) -> Reclaims:
    if not record.reclaim_number:
        return NO_RECLAIMS
    running = {
        grant_id: Reclaim(
            each.number,
            Instant(each.decided_at_millis),
            timedelta(milliseconds=each.within_millis),
            each.project,
            cause_of(each),
            each.reason,
            Instant(each.caused_at_millis),
        )
        for grant_id, each in record.reclaims.items()
    }
    return Reclaims(
        running, tuple(map(Instant, record.called_back_at_millis)), record.reclaim_number
    )


def decode_guard(value: bytes, key: str = "a guard") -> tuple[Guard, int]:
    """Return the guard stored in ``value``, and the id of the decision that wrote it."""
    record = parsed(state_pb2.GuardRecord, key, value)
    usage = NO_USAGE
    if record.HasField("usage"):
        usage = Usage(Instant(record.usage.at_millis), dict(record.usage.seat_millis))
    guard = Guard(
        record.fence,
        record.ticket_number,
        kept(record, value),
        usage,
        dict(record.overtaken),
        _reclaims_of(record),
        advisory=read_counts(record),
        waits=read_waits(record),
        holds=read_holds(record),
        hold_back=_hold_back_of(record),
    )
    return guard, record.decision_id


def _hold_back_of(record: state_pb2.GuardRecord) -> HoldBack | None:
    if not record.HasField("hold_back"):
        return None
    said = record.hold_back
    return HoldBack(said.grant_id, Instant(said.since_millis), Instant(said.until_millis))


def grant_record(grant: Grant) -> state_pb2.GrantRecord:
    """Return the message for a grant."""
    record = state_pb2.GrantRecord.FromString(grant.kept)
    record.session_id = grant.session_id
    record.lease_id = grant.lease_id
    grant.attribution.write(record)
    record.seats = grant.seats
    record.fence = grant.fence
    record.granted_at_millis = grant.granted_at
    record.asked_at_millis = grant.asked_at
    record.agent_id = grant.agent_id
    record.claim_id = grant.claim_id
    if grant.heeds_within is not None:
        record.heeds_within_millis = wait_millis(grant.heeds_within)
    elif grant.borrow is not None:
        record.heeds_within_millis = 0
    if grant.marks is not None:
        del record.lots[:]
        record.lots.extend(map(encode_seats, grant.marks.lots))
        record.overdraft = grant.marks.overdraft
    write_mark(record, grant.mark)
    if grant.continues:
        record.continues_fence = grant.continues
        record.held_since_millis = grant.taken_from
    write_borrow(record, grant.borrow)
    if grant.group or grant.kept:
        write_group(record, grant.group)
    return record


def encode_grant(grant: Grant) -> bytes:
    """Return the value stored for a grant."""
    return grant_record(grant).SerializeToString()


def with_claim(value: bytes, agent_id: str, claim_id: str) -> bytes:
    """Return a stored grant with another claim."""
    record = state_pb2.GrantRecord.FromString(value)
    record.agent_id, record.claim_id = agent_id, claim_id
    return record.SerializeToString()


def decode_grant(grant_id: str, value: bytes) -> Grant:
    """Return the grant stored in ``value``."""
    return grant_of(grant_id, parsed(state_pb2.GrantRecord, grant_id, value))


def grant_of(grant_id: str, record: state_pb2.GrantRecord) -> Grant:
    """Return the grant in a message."""
    check_format(grant_id, record)
    return Grant(
        grant_id=grant_id,
        session_id=record.session_id,
        lease_id=record.lease_id,
        attribution=Attribution.of(record),
        seats=record.seats,
        fence=record.fence,
        granted_at=Instant(record.granted_at_millis),
        asked_at=Instant(record.asked_at_millis),
        agent_id=record.agent_id,
        claim_id=record.claim_id,
        kept=kept(record),
        heeds_within=heeds_within_of(record),
        marks=decode_marks(record.lots, record.overdraft),
        mark=read_mark(record),
        continues=record.continues_fence,
        taken_from=Instant(record.held_since_millis),
        borrow=read_borrow(record),
        group=group_in(record.counts_once),
    )


def ticket_record(ticket: Ticket) -> state_pb2.TicketRecord:
    """Return the message for a ticket."""
    record = state_pb2.TicketRecord.FromString(ticket.kept)
    record.session_id = ticket.session_id
    record.lease_id = ticket.lease_id
    ticket.attribution.write(record)
    record.seats = ticket.seats
    record.number = ticket.number
    record.queued_at_millis = ticket.queued_at
    record.wait_millis = wait_millis(ticket.wait)
    if ticket.heeds_within is not None:
        record.heeds_within_millis = wait_millis(ticket.heeds_within)
    write_move(record, ticket.move)
    if ticket.gang:
        record.format = format_of_gang(ticket.gang)
    return record


def format_of_gang(gang: Gang) -> int:
    """Return the format of the record of a ticket that is granted with, or instead of, others."""
    return STAY_FORMAT if is_choice(gang) else TERMS_FORMAT


def wait_millis(wait: timedelta | None) -> int:
    """Return what a record says of how long somebody waits."""
    return 0 if wait is None else max(1, round(wait / timedelta(milliseconds=1)))


def wait_of(record: state_pb2.TicketRecord) -> timedelta | None:
    """Return how long somebody waits, by the record; None: without limit."""
    return timedelta(milliseconds=record.wait_millis) if record.wait_millis else None


def heeds_within_of(
    record: state_pb2.GrantRecord | state_pb2.TicketRecord,
) -> timedelta | None:
    """Return within what a holder learns of a reclaim, by the record; None: it heeds none."""
    millis = record.heeds_within_millis
    return timedelta(milliseconds=millis) if millis else None


def encode_ticket(ticket: Ticket) -> bytes:
    """Return the value stored for a ticket."""
    return ticket_record(ticket).SerializeToString()


def decode_ticket(grant_id: str, value: bytes) -> Ticket:
    """Return the ticket stored in ``value``."""
    return ticket_of(grant_id, parsed(state_pb2.TicketRecord, grant_id, value))


def ticket_of(grant_id: str, record: state_pb2.TicketRecord) -> Ticket:
    """Return the ticket in a message."""
    check_format(grant_id, record)
    return Ticket(
        grant_id=grant_id,
        session_id=record.session_id,
        lease_id=record.lease_id,
        attribution=Attribution.of(record),
        seats=record.seats,
        number=record.number,
        queued_at=Instant(record.queued_at_millis),
        wait=wait_of(record),
        kept=kept(record),
        heeds_within=heeds_within_of(record),
        move=read_move(record),
    )


def encode_watermark(mark: Watermark) -> bytes:
    """Return the value stored for a session's watermark.

    Of the value before it remains what it is patched on; ``unrecorded``, ``denied`` and ``lost`` are of
    one decision, and a span that has become another is a new one.
    """
    record = state_pb2.MarkRecord.FromString(mark.kept)
    record.finished = mark.highest
    record.lease_id = mark.lease_id
    record.unrecorded[:] = mark.unrecorded
    del record.denied[:]
    record.denied.extend(map(encode_denied, mark.denied))
    del record.lost[:]
    for each in mark.lost:
        reason = seat_pb2.LOST_REASON_FORCED
        if each.is_reclaimed:
            reason = seat_pb2.LOST_REASON_RECLAIMED
        record.lost.add(grant_id=each.grant_id, reason=reason, message=each.message)
    before = {(span.low, span.high): span for span in record.spans} if mark.kept else {}
    spans = [
        before.get((low, high)) or state_pb2.IdSpan(low=low, high=high)
        for low, high in mark.spans
    ]
    record.ClearField("spans")
    record.spans.extend(spans)
    return record.SerializeToString()


def decode_watermark(value: bytes, key: str = "a watermark") -> Watermark:
    """Return the watermark stored in ``value``."""
    record = parsed(state_pb2.MarkRecord, key, value)
    denied = list(map(decode_denied, record.denied))
    # An older node knows the highest id alone, and takes all below for completed.
    spans = tuple((span.low, span.high) for span in record.spans)
    if record.finished and not spans:
        spans = (("", record.finished),)
    return Watermark(
        record.lease_id,
        record.finished,
        list(record.unrecorded),
        denied,
        spans,
        [
            Forced(each.grant_id, each.message, each.reason == seat_pb2.LOST_REASON_RECLAIMED)
            for each in record.lost
        ],
        kept(record, value),
    )


def deployment_id_of(key: str, value: bytes) -> str:
    """Return the id of the service that the record of a deployment names."""
    return parsed(state_pb2.DeploymentRecord, key, value).deployment_id


def encode_elected_ledger(writer: str, at: Instant) -> bytes:
    """Return the record of the ledger that writes, since ``at``."""
    return state_pb2.LedgerRecord(writer=writer, elected_at_millis=at).SerializeToString()
