"""Turns what the wire says into the errors of `seatkeeper.core.errors`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status

from seatkeeper.core import errors
from seatkeeper.core.errors import SeatError
from seatkeeper.v1 import seat_pb2

_ErrorOf = type[SeatError]
Overrides = Mapping[grpc.StatusCode, _ErrorOf]
"""What a status code means for one call, where it differs from its usual meaning."""

_Code = grpc.StatusCode
_TRANSPORT_CODES = frozenset({_Code.RESOURCE_EXHAUSTED, _Code.UNKNOWN, _Code.INTERNAL})
_REASON_PREFIX = "DENIAL_REASON_"

_BY_REASON: Mapping[str, _ErrorOf] = {
    "POOL_NOT_FOUND": errors.PoolNotFound,
    "TOO_MANY_SEATS": errors.TooManySeats,
    "NO_SEAT_FREE": errors.NoSeatFree,
    "OVERLOADED": errors.Overloaded,
    "INVALID_ARGUMENT": errors.InvalidArgument,
    "FINISHED": errors.SeatLost,
    "CLAIMED": errors.InUse,
    "NOT_YOURS": errors.NotYours,
    "SESSION_LOST": errors.SessionLost,
    "UNAVAILABLE": errors.ServiceUnavailable,
    "engine_not_stored": errors.EngineNotStored,  # an agent's word, as the builder's errors have it
    "WORK_ENDED": errors.WorkEnded,
    "REMOVED": errors.RequestRemoved,
    "NOT_ALLOWED": errors.NotAllowed,
    "TOO_MANY_TICKETS": errors.TooManyTickets,
    "POOL_DRAINED": errors.PoolDrained,
    "UNKNOWN_COST_CLASS": errors.UnknownCostClass,
    "GRANTED_ELSEWHERE": errors.GrantedElsewhere,
    "NOT_TAKEN_OVER": errors.NotTakenOver,
    "BORROW_REFUSED": errors.BorrowRefused,
    "POOLS_CHANGED": errors.PoolsChanged,
}
_BY_CODE: Mapping[grpc.StatusCode, _ErrorOf] = {
    _Code.INVALID_ARGUMENT: errors.InvalidArgument,
    _Code.OUT_OF_RANGE: errors.InvalidArgument,
    _Code.UNIMPLEMENTED: errors.UsageError,
    _Code.NOT_FOUND: errors.UsageError,
    _Code.ALREADY_EXISTS: errors.AlreadyExists,
    _Code.FAILED_PRECONDITION: errors.InUse,
    _Code.ABORTED: errors.Changed,
    _Code.PERMISSION_DENIED: errors.NotYours,
    _Code.UNAUTHENTICATED: errors.TokenInvalid,
    _Code.RESOURCE_EXHAUSTED: errors.Overloaded,
    _Code.DATA_LOSS: errors.EngineDamaged,
}
_BY_RESOURCE: Mapping[str, _ErrorOf] = {
    "pool": errors.PoolNotFound,
    "session": errors.SessionLost,
    "engine": errors.EngineNotFound,
    "grant": errors.SeatLost,
    "request": errors.RequestNotFound,
}


def from_denied(denied: seat_pb2.Denied) -> SeatError:
    """Return the error that a refused command of the session stream means."""
    after = denied.retry_after if denied.HasField("retry_after") else None
    # A newer service may have reasons that we do not know: its message is passed through.
    known = seat_pb2.DenialReason.DESCRIPTOR.values_by_number.get(denied.reason)
    name = known.name if known is not None else ""
    return _make(
        _BY_REASON.get(name.removeprefix(_REASON_PREFIX), errors.SeatError),
        denied.message,
        retry_after=after,
        grant_id=denied.grant_id,
        work_end=denied.work_end,
    )


def from_rpc(error: aio.AioRpcError, overrides: Overrides | None = None) -> SeatError:
    """Return the error that a failed call means.

    ``google.rpc`` details decide where the service sent them; then ``overrides``, for codes that
    mean something of their own for this call; then the code. Whatever is left is
    `ServiceUnavailable`: nothing is known of the outcome, and another node may do better.
    """
    code, message = error.code(), error.details() or ""
    details = list(_details(error))
    retry = _first(details, error_details_pb2.RetryInfo)
    bad = _first(details, error_details_pb2.BadRequest)
    info = _first(details, error_details_pb2.ErrorInfo)
    resource = _first(details, error_details_pb2.ResourceInfo)
    debug = _first(details, error_details_pb2.DebugInfo)
    work_end = _first(details, seat_pb2.WorkEnd)
    kind = None
    if info is not None and _is_ours(info):
        kind = _BY_REASON.get(info.reason.removeprefix(_REASON_PREFIX))
    if kind is None and resource is not None and code is _Code.NOT_FOUND:
        kind = _BY_RESOURCE.get(resource.resource_type)
    if kind is None and debug is not None:
        # Only agents send the end of an output; gRPC's own INTERNAL, of a broken call, has none.
        kind = errors.CompilerCrashed
    if kind is None and overrides is not None:
        kind = overrides.get(code)
    if kind is None and code is _Code.RESOURCE_EXHAUSTED and not _is_ours(info):
        # A connection that was given up, or a message too long for it: not a denial, which says why.
        kind = errors.ServiceUnavailable
    if kind is None:
        kind = _BY_CODE.get(code, errors.ServiceUnavailable)
    if code is _Code.UNIMPLEMENTED and kind is errors.ServiceTooOld:
        message = (
            f"the node that answered does not know this call ({message}): upgrade all nodes"
        )
    elif code is _Code.UNIMPLEMENTED:
        message = f"what answers there does not know this call ({message}): check the address"
    field = bad.field_violations[0].field if bad and bad.field_violations else ""
    return _make(
        kind,
        message or f"the call failed with {code.name}",
        retry_after=retry.retry_delay if retry is not None else None,
        field=field,
        stderr_tail=debug.detail if debug is not None else "",
        work_end=work_end,
        pools=info.metadata["pools"] if info is not None and "pools" in info.metadata else "",
    )


def is_transport_trouble(error: aio.AioRpcError) -> bool:
    """Return whether a connection, and not the service, ended the call: its outcome is unknown.

    What the service says carries ``ErrorInfo``. The codes are those that gRPC makes up itself.
    """
    if error.code() not in _TRANSPORT_CODES:
        return False
    return not _is_ours(_first(_details(error), error_details_pb2.ErrorInfo))


def _is_ours(info: error_details_pb2.ErrorInfo | None) -> bool:
    return info is not None and info.domain == "seatkeeper"


def seconds(duration: Duration) -> float:
    """Return a duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def as_duration(value: float) -> Duration:
    """Return seconds as a duration of the wire."""
    whole = int(value)
    return Duration(seconds=whole, nanos=int((value - whole) * 1e9))


def _make(
    kind: _ErrorOf,
    message: str,
    *,
    retry_after: Duration | None = None,
    field: str = "",
    grant_id: str = "",
    stderr_tail: str = "",
    work_end: seat_pb2.WorkEnd | None = None,
    pools: str = "",
) -> SeatError:
    if issubclass(kind, errors.NoSeatFree | errors.ServiceUnavailable):
        after = None if retry_after is None else timedelta(seconds=seconds(retry_after))
        return kind(message, retry_after=after)
    if issubclass(kind, errors.InvalidArgument):
        return kind(message, field=field)
    if issubclass(kind, errors.SeatLost):
        return kind(message, grant_id=grant_id)
    if issubclass(kind, errors.CompilerCrashed):
        return kind(message, stderr_tail=stderr_tail)
    if issubclass(kind, errors.PoolsChanged):
        return kind(message, pools=tuple(filter(None, pools.split(","))))
    if issubclass(kind, errors.WorkEnded) and work_end is not None:
        return kind(message, failure=work_end.failure, why=work_end.message)
    return kind(message)


_M = TypeVar("_M", bound=Message)


def _details(error: aio.AioRpcError) -> Iterable[Message]:
    try:
        status = rpc_status.from_call(error)
        for detail in status.details if status is not None else ():
            for kind in (
                error_details_pb2.RetryInfo,
                error_details_pb2.BadRequest,
                error_details_pb2.ErrorInfo,
                error_details_pb2.ResourceInfo,
                error_details_pb2.DebugInfo,
                seat_pb2.WorkEnd,
            ):
                if detail.Is(kind.DESCRIPTOR):
                    message = kind()
                    detail.Unpack(message)
                    yield message
    except (ValueError, DecodeError):
        # A proxy on the way may have replaced the status and left the details.
        return


def _first(details: Iterable[Message], kind: type[_M]) -> _M | None:
    return next((detail for detail in details if isinstance(detail, kind)), None)
