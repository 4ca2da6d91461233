"""From what can go wrong in the core to what a gRPC client is told."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from seatkeeper.server.decide import Denied, Refusal
from seatkeeper.server.sessions import NotYourSession, SessionGone
from seatkeeper.server.store import OutcomeUnknown, StoreError, StoreFull, StoreUnavailable
from seatkeeper.server.validate import Malformed
from seatkeeper.v1 import seat_pb2

DOMAIN = "seatkeeper"
RETRY_AFTER = timedelta(seconds=1)

DENIAL_REASONS = {
    Refusal.POOL_NOT_FOUND: seat_pb2.DENIAL_REASON_POOL_NOT_FOUND,
    Refusal.TOO_MANY_SEATS: seat_pb2.DENIAL_REASON_TOO_MANY_SEATS,
    Refusal.NO_SEAT_FREE: seat_pb2.DENIAL_REASON_NO_SEAT_FREE,
    Refusal.OVERLOADED: seat_pb2.DENIAL_REASON_OVERLOADED,
    Refusal.FINISHED: seat_pb2.DENIAL_REASON_FINISHED,
    Refusal.NOT_YOURS: seat_pb2.DENIAL_REASON_NOT_YOURS,
    Refusal.SESSION_LOST: seat_pb2.DENIAL_REASON_SESSION_LOST,
    Refusal.UNAVAILABLE: seat_pb2.DENIAL_REASON_UNAVAILABLE,
}

_STATUS = {
    Refusal.POOL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Refusal.TOO_MANY_SEATS: grpc.StatusCode.INVALID_ARGUMENT,
    Refusal.NO_SEAT_FREE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Refusal.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Refusal.FINISHED: grpc.StatusCode.ABORTED,
    Refusal.NOT_YOURS: grpc.StatusCode.PERMISSION_DENIED,
    Refusal.SESSION_LOST: grpc.StatusCode.NOT_FOUND,
    Refusal.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}

Context = grpc.aio.ServicerContext[Any, Any]


class Failure(Exception):
    """A call fails: what its client is told."""

    def __init__(self, code: grpc.StatusCode, message: str, *details: Message) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    async def tell(self, context: Context) -> NoReturn:
        """End the call."""
        number: int = self.code.value[0]
        status = status_pb2.Status(code=number, message=self.message)
        for detail in self.details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        metadata = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(self.code, self.message, metadata)


def not_found(kind: str, name: str, message: str) -> Failure:
    """Return the failure of a call that named something that does not exist."""
    info = error_details_pb2.ResourceInfo(
        resource_type=kind, resource_name=name, description=message
    )
    return Failure(grpc.StatusCode.NOT_FOUND, message, info)


def retry_info(after: timedelta) -> error_details_pb2.RetryInfo:
    """Return the detail that says when to try again."""
    detail = error_details_pb2.RetryInfo()
    detail.retry_delay.FromTimedelta(after)
    return detail


def failure_of_denial(pool: str, denied: Denied) -> Failure:
    """Return the failure of a unary call whose command was refused."""
    details: list[Message] = [
        error_details_pb2.ErrorInfo(reason=denied.reason.name, domain=DOMAIN)
    ]
    code = _STATUS[denied.reason]
    if denied.reason is Refusal.TOO_MANY_SEATS:
        details.append(_bad_request("acquire.seats", denied.message))
    if denied.reason is Refusal.POOL_NOT_FOUND:
        details.append(_resource("pool", pool, denied.message))
    if code in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}:
        details.append(retry_info(denied.retry_after or RETRY_AFTER))
    return Failure(code, denied.message, *details)


def failure_of(error: Exception) -> Failure | None:
    """Return the failure that ``error`` means to a client; None: it is a bug of ours."""
    match error:
        case Failure():
            return error
        case Malformed(field=field, description=description):
            detail = _bad_request(field, description)
            return Failure(grpc.StatusCode.INVALID_ARGUMENT, str(error), detail)
        case SessionGone(session_id=session_id):
            return not_found("session", session_id, str(error))
        case NotYourSession():
            return Failure(grpc.StatusCode.PERMISSION_DENIED, str(error))
        case StoreFull():
            message = "the store is full; an operator must free space. Releases still work"
            return Failure(grpc.StatusCode.UNAVAILABLE, message, retry_info(10 * RETRY_AFTER))
        case StoreUnavailable() | OutcomeUnknown():
            message = f"the store did not answer in time ({error}); send the same request again"
            return Failure(grpc.StatusCode.UNAVAILABLE, message, retry_info(RETRY_AFTER))
        case StoreError():
            return Failure(grpc.StatusCode.INTERNAL, f"the store refused: {error}")
        case _:
            return None


Servicer = TypeVar("Servicer")
Request = TypeVar("Request")
Response = TypeVar("Response")


def answers(
    method: Callable[[Servicer, Request, Context], Awaitable[Response]],
) -> Callable[[Servicer, Request, Context], Awaitable[Response]]:
    """Turn the errors of a unary call's method into gRPC failures with details."""

    @functools.wraps(method)
    async def call(servicer: Servicer, request: Request, context: Context) -> Response:
        try:
            return await method(servicer, request, context)
        except Exception as error:
            if (failure := failure_of(error)) is None:
                raise
            await failure.tell(context)

    return call


def streams(
    method: Callable[[Servicer, Request, Context], AsyncIterator[Response]],
) -> Callable[[Servicer, Request, Context], AsyncIterator[Response]]:
    """Turn the errors of a streaming call's method into gRPC failures with details."""

    @functools.wraps(method)
    async def call(
        servicer: Servicer, request: Request, context: Context
    ) -> AsyncIterator[Response]:
        try:
            async for response in method(servicer, request, context):
                yield response
        except Exception as error:
            if (failure := failure_of(error)) is None:
                raise
            await failure.tell(context)

    return call


def _bad_request(field: str, description: str) -> error_details_pb2.BadRequest:
    detail = error_details_pb2.BadRequest()
    detail.field_violations.add(field=field, description=description)
    return detail


def _resource(kind: str, name: str, description: str) -> error_details_pb2.ResourceInfo:
    return error_details_pb2.ResourceInfo(
        resource_type=kind, resource_name=name, description=description
    )
