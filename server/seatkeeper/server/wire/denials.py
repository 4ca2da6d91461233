"""Between reasons to refuse and the words of the contract for them."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Literal, Protocol

from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo

from seatkeeper.core.serving.failure import error_info
from seatkeeper.server.domain import Basis, Denied, EstimatedWait, Refusal, WorkEnd
from seatkeeper.v1 import seat_pb2


class HasWorkEnd(Protocol):
    """A message that can say how work ended: a release, or a refusal."""

    @property
    def work_end(self) -> seat_pb2.WorkEnd:
        """How it ended."""
        ...

    def HasField(self, field_name: Literal["work_end"], /) -> bool:  # noqa: N802 - protobuf's
        """Return whether it is set."""
        ...


class HasEstimate(Protocol):
    """A message that says how long a request may wait."""

    @property
    def estimate(self) -> Duration:
        """How long that is likely to be."""
        ...

    @property
    def estimate_low(self) -> Duration:
        """About what it is at least."""
        ...

    @property
    def estimate_high(self) -> Duration:
        """About what it is at most."""
        ...


DENIAL_REASONS = {
    Refusal.POOL_NOT_FOUND: seat_pb2.DENIAL_REASON_POOL_NOT_FOUND,
    Refusal.TOO_MANY_SEATS: seat_pb2.DENIAL_REASON_TOO_MANY_SEATS,
    Refusal.NO_SEAT_FREE: seat_pb2.DENIAL_REASON_NO_SEAT_FREE,
    Refusal.OVERLOADED: seat_pb2.DENIAL_REASON_OVERLOADED,
    Refusal.FINISHED: seat_pb2.DENIAL_REASON_FINISHED,
    Refusal.NOT_YOURS: seat_pb2.DENIAL_REASON_NOT_YOURS,
    Refusal.OTHER_TERMS: seat_pb2.DENIAL_REASON_INVALID_ARGUMENT,
    Refusal.SESSION_LOST: seat_pb2.DENIAL_REASON_SESSION_LOST,
    Refusal.UNAVAILABLE: seat_pb2.DENIAL_REASON_UNAVAILABLE,
    Refusal.WORK_ENDED: seat_pb2.DENIAL_REASON_WORK_ENDED,
    Refusal.REMOVED: seat_pb2.DENIAL_REASON_REMOVED,
    Refusal.NOT_ALLOWED: seat_pb2.DENIAL_REASON_NOT_ALLOWED,
    Refusal.TOO_MANY_TICKETS: seat_pb2.DENIAL_REASON_TOO_MANY_TICKETS,
    Refusal.POOL_DRAINED: seat_pb2.DENIAL_REASON_POOL_DRAINED,
    Refusal.UNKNOWN_COST_CLASS: seat_pb2.DENIAL_REASON_UNKNOWN_COST_CLASS,
    Refusal.GRANTED_ELSEWHERE: seat_pb2.DENIAL_REASON_GRANTED_ELSEWHERE,
    Refusal.NOT_TAKEN_OVER: seat_pb2.DENIAL_REASON_NOT_TAKEN_OVER,
    Refusal.BORROW_REFUSED: seat_pb2.DENIAL_REASON_BORROW_REFUSED,
}
RETRY_SPREAD_SECONDS = 2.0
"""By how much the times differ at which those who are refused together should come again."""
_REFUSALS = {reason: refusal for refusal, reason in DENIAL_REASONS.items()}


def encode_basis(basis: Basis | None) -> seat_pb2.EstimateBasis | None:
    """Return the message that says what an estimate was made from; None: nothing is known."""
    if basis is None:
        return None
    message = seat_pb2.EstimateBasis(
        holds=basis.holds, holders=basis.holders, holders_overdue=basis.overdue
    )
    message.hold_median.FromTimedelta(basis.hold_median)
    return message


def fill_estimate(message: HasEstimate, wait: EstimatedWait | None) -> None:
    """Write how long a wait is estimated to be; None: it is not known."""
    if wait is None:
        return
    message.estimate.FromTimedelta(wait.likely)
    if wait.low is not None and wait.high is not None:
        message.estimate_low.FromTimedelta(wait.low)
        message.estimate_high.FromTimedelta(wait.high)


def spread(retry_after: timedelta) -> timedelta:
    """Return when one client should come again that may not come before ``retry_after``.

    Drawn when the client is answered, and only then: a decision is the same for the same arguments, and
    clients that were refused at one moment would otherwise all come back at one.
    """
    return retry_after + timedelta(seconds=random.uniform(0.0, RETRY_SPREAD_SECONDS))


def denial_name(refusal: Refusal) -> str:
    """Return the name of a refusal in metrics and logs: that of the contract, without its prefix."""
    return seat_pb2.DenialReason.Name(DENIAL_REASONS[refusal]).removeprefix("DENIAL_REASON_")


def denial_info(refusal: Refusal) -> ErrorInfo:
    """Return the detail of a failed call that names the reason, as the contract's enum does.

    The metadata ``reason`` is the name without its prefix: what was sent before.
    """
    name = seat_pb2.DenialReason.Name(DENIAL_REASONS[refusal])
    return error_info(name, reason=denial_name(refusal))


def encode_denied(denied: Denied) -> seat_pb2.Denied:
    """Return the message of a refusal."""
    message = seat_pb2.Denied(
        grant_id=denied.grant_id,
        reason=DENIAL_REASONS[denied.reason],
        message=denied.message,
    )
    if denied.retry_after is not None:
        message.retry_after.FromTimedelta(denied.retry_after)
    if denied.work_end is not None:
        message.work_end.CopyFrom(encode_work_end(denied.work_end))
    return message


def decode_denied(message: seat_pb2.Denied) -> Denied:
    """Return the refusal of a message. A reason of a newer node: outcome unknown."""
    retry_after: timedelta | None = None
    if message.HasField("retry_after"):
        retry_after = message.retry_after.ToTimedelta()
    reason = _REFUSALS.get(message.reason, Refusal.UNAVAILABLE)
    work_end = decode_work_end(message)
    return Denied(message.grant_id, reason, message.message, retry_after, work_end)


def encode_work_end(end: WorkEnd) -> seat_pb2.WorkEnd:
    """Return the message that says how work ended."""
    return seat_pb2.WorkEnd(failure=end.failure, message=end.message)


def decode_work_end(message: HasWorkEnd) -> WorkEnd | None:
    """Return what a release or a refusal says of the end of work; None: nothing."""
    if not message.HasField("work_end"):
        return None
    return WorkEnd(message.work_end.failure, message.work_end.message)
