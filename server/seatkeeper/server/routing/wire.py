"""Between commands and outcomes and the messages in which nodes forward them."""

from __future__ import annotations

from datetime import timedelta

from seatkeeper.internal.v1 import peer_service_pb2 as pb
from seatkeeper.server.domain import (
    Acquire,
    Administrative,
    Attribution,
    Command,
    Denied,
    Granted,
    Moved,
    Noted,
    Outcome,
    Queued,
    Refusal,
    Release,
    Released,
    TakeOver,
)
from seatkeeper.server.store import records
from seatkeeper.server.store.formats import (
    RecordUnreadable,
    check_format,
    kept,
)
from seatkeeper.server.wire.denials import (
    decode_denied,
    decode_work_end,
    encode_denied,
    encode_work_end,
)
from seatkeeper.v1 import seat_pb2

RETRY_AFTER = timedelta(seconds=1)


def encode_command(command: Command) -> pb.PeerCommand:
    """Return the message for a command. Some are decided where they come."""
    assert not isinstance(command, Administrative | TakeOver)
    if isinstance(command, Release):
        release = pb.ReleaseCommand(
            grant_id=command.grant_id,
            session_id=command.session_id,
            lease_id=command.lease_id,
        )
        if command.work_end is not None:
            release.work_end.CopyFrom(encode_work_end(command.work_end))
        return pb.PeerCommand(release=release)
    message = pb.AcquireCommand(grant_id=command.grant_id, may_wait=command.may_wait)
    ticket = message.ticket
    ticket.ParseFromString(command.kept)
    ticket.session_id = command.session_id
    ticket.lease_id = command.lease_id
    ticket.seats = command.seats
    command.attribution.write(ticket)
    ticket.wait_millis = records.wait_millis(command.wait)
    if command.gang:
        # One that does not know such requests is not to decide.
        ticket.format = records.format_of_gang(command.gang)
    if command.heeds_within is not None:
        ticket.heeds_within_millis = records.wait_millis(command.heeds_within)
    return pb.PeerCommand(acquire=message)


def decode_command(message: pb.PeerCommand) -> Command:
    """Return the command in a message. Raises ``RecordUnreadable``."""
    if message.WhichOneof("command") == "release":
        release = message.release
        work_end = decode_work_end(release)
        return Release(release.grant_id, release.session_id, release.lease_id, work_end)
    acquire, ticket = message.acquire, message.acquire.ticket
    check_format(acquire.grant_id, ticket)
    return Acquire(
        grant_id=acquire.grant_id,
        session_id=ticket.session_id,
        lease_id=ticket.lease_id,
        attribution=Attribution.of(ticket),
        seats=ticket.seats,
        wait=records.wait_of(ticket),
        may_wait=acquire.may_wait,
        kept=kept(ticket),
        heeds_within=records.heeds_within_of(ticket),
    )


def encode_outcome(outcome: Outcome) -> pb.PeerOutcome:
    """Return the message for an outcome. Those of administrators' commands are not sent."""
    assert not isinstance(outcome, Moved | Noted)
    match outcome:
        case Granted(grant):
            return pb.PeerOutcome(granted=records.grant_record(grant))
        case Queued(ticket):
            return pb.PeerOutcome(queued=records.ticket_record(ticket))
        case Released(grant_id):
            return pb.PeerOutcome(released=seat_pb2.Released(grant_id=grant_id))
        case denied:
            return pb.PeerOutcome(denied=encode_denied(denied))


def decode_outcome(grant_id: str, message: pb.PeerOutcome) -> Outcome:
    """Return the outcome in a message about the command of ``grant_id``.

    One in a record format of a newer version: outcome unknown to this node.
    """
    try:
        match message.WhichOneof("outcome"):
            case "granted":
                return Granted(records.grant_of(grant_id, message.granted))
            case "queued":
                return Queued(records.ticket_of(grant_id, message.queued))
            case "released":
                return Released(grant_id)
            case _:
                return decode_denied(message.denied)
    except RecordUnreadable as error:
        return not_understood(grant_id, error)


def not_understood(grant_id: str, error: RecordUnreadable) -> Denied:
    """Return the answer to a command that is about a record of a newer format."""
    return Denied(grant_id, Refusal.UNAVAILABLE, str(error), RETRY_AFTER)
