"""Translate failures of the core into gRPC statuses."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from seatkeeper.core.serving.failure import (
    Context,
    Failure,
    bad_request,
    resource_info,
    retry_info,
)
from seatkeeper.core.serving.texts import check_texts
from seatkeeper.core.validate import Malformed
from seatkeeper.server.domain import Denied, Refusal
from seatkeeper.server.events import log as events
from seatkeeper.server.sessions.sessions import NotYourSession, SessionLost
from seatkeeper.server.store import OutcomeUnknown, StoreError, StoreFull, StoreUnavailable
from seatkeeper.server.store.formats import RecordUnreadable
from seatkeeper.server.wire.denials import denial_info, encode_work_end, spread

RETRY_AFTER = timedelta(seconds=1)

_STATUS = {
    Refusal.POOL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Refusal.TOO_MANY_SEATS: grpc.StatusCode.INVALID_ARGUMENT,
    Refusal.NO_SEAT_FREE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Refusal.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Refusal.FINISHED: grpc.StatusCode.ABORTED,
    Refusal.NOT_YOURS: grpc.StatusCode.PERMISSION_DENIED,
    Refusal.OTHER_TERMS: grpc.StatusCode.INVALID_ARGUMENT,
    Refusal.SESSION_LOST: grpc.StatusCode.NOT_FOUND,
    Refusal.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Refusal.WORK_ENDED: grpc.StatusCode.ABORTED,
    Refusal.REMOVED: grpc.StatusCode.ABORTED,
    Refusal.NOT_ALLOWED: grpc.StatusCode.PERMISSION_DENIED,
    Refusal.TOO_MANY_TICKETS: grpc.StatusCode.FAILED_PRECONDITION,
    Refusal.POOL_DRAINED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Refusal.UNKNOWN_COST_CLASS: grpc.StatusCode.INVALID_ARGUMENT,
    Refusal.GRANTED_ELSEWHERE: grpc.StatusCode.FAILED_PRECONDITION,
    Refusal.BORROW_REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
    Refusal.NOT_TAKEN_OVER: grpc.StatusCode.FAILED_PRECONDITION,
}


def failure_of_denial(pool: str, denied: Denied) -> Failure:
    """Return the failure of a unary call whose command was refused."""
    details: list[Message] = [denial_info(denied.reason)]
    code = _STATUS[denied.reason]
    if denied.reason is Refusal.OTHER_TERMS:
        details.append(bad_request("acquire.grant_id", denied.message))
    if denied.reason is Refusal.TOO_MANY_SEATS:
        details.append(bad_request("acquire.seats", denied.message))
    if denied.reason is Refusal.SESSION_LOST:
        details.append(resource_info("session", "", denied.message))
    if denied.reason is Refusal.POOL_NOT_FOUND:
        details.append(resource_info("pool", pool, denied.message))
    if denied.work_end is not None:
        details.append(encode_work_end(denied.work_end))
    if code in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}:
        details.append(retry_info(denied.retry_after or spread(RETRY_AFTER)))
    failure = Failure(code, denied.message, *details)
    failure.is_counted = True
    return failure


def pool_not_found(name: str, message: str) -> Failure:
    """Return the failure of a call that named a pool that does not exist."""
    info, resource = denial_info(Refusal.POOL_NOT_FOUND), resource_info("pool", name, message)
    return Failure(grpc.StatusCode.NOT_FOUND, message, info, resource)


def too_much(what: str) -> Failure:
    """Return the failure of a call that is one too many."""
    return Failure(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"{what}; try again later, or another node",
        denial_info(Refusal.OVERLOADED),
        retry_info(spread(RETRY_AFTER)),
    )


def failure_of(error: Exception) -> Failure | None:
    """Return the failure that ``error`` means to a client; None: it is a bug of ours."""
    match error:
        case Failure():
            return error
        case Malformed(field=field, description=description):
            detail = bad_request(field, description)
            info = denial_info(Refusal.OTHER_TERMS)
            return Failure(grpc.StatusCode.INVALID_ARGUMENT, str(error), info, detail)
        case SessionLost(session_id=session_id):
            info = denial_info(Refusal.SESSION_LOST)
            resource = resource_info("session", session_id, str(error))
            return Failure(grpc.StatusCode.NOT_FOUND, str(error), info, resource)
        case NotYourSession():
            info = denial_info(Refusal.NOT_YOURS)
            return Failure(grpc.StatusCode.PERMISSION_DENIED, str(error), info)
        case StoreFull():
            message = (
                "the store is full: an operator must free space. "
                "Closing a session still frees what it holds"
            )
            return _unavailable(message, 10 * RETRY_AFTER)
        case StoreUnavailable() | OutcomeUnknown():
            message = f"the store did not answer in time ({error}); send the same request again"
            return _unavailable(message, RETRY_AFTER)
        case RecordUnreadable():
            events.record_unreadable(error)
            return _unavailable(str(error), 10 * RETRY_AFTER)
        case StoreError():
            return Failure(grpc.StatusCode.INTERNAL, f"the store refused: {error}")
        case _:
            return None


def _unavailable(message: str, retry_after: timedelta) -> Failure:
    info = denial_info(Refusal.UNAVAILABLE)
    return Failure(grpc.StatusCode.UNAVAILABLE, message, info, retry_info(spread(retry_after)))


Servicer = TypeVar("Servicer")
Request = TypeVar("Request")
Response = TypeVar("Response")


def answers(
    method: Callable[[Servicer, Request, Context], Awaitable[Response]],
) -> Callable[[Servicer, Request, Context], Awaitable[Response]]:
    """Check the text of a unary call; turn the errors of its method into gRPC failures with details."""

    @functools.wraps(method)
    async def call(servicer: Servicer, request: Request, context: Context) -> Response:
        try:
            if isinstance(request, Message):
                check_texts(request)
            return await method(servicer, request, context)
        except Exception as error:
            if (failure := failure_of(error)) is None:
                raise
            await failure.notify(context)

    return call


def streams(
    method: Callable[[Servicer, Request, Context], AsyncIterator[Response]],
) -> Callable[[Servicer, Request, Context], AsyncIterator[Response]]:
    """Do the same for a call that answers with a stream; what comes in one is checked as it comes."""

    @functools.wraps(method)
    async def call(
        servicer: Servicer, request: Request, context: Context
    ) -> AsyncIterator[Response]:
        try:
            if isinstance(request, Message):
                check_texts(request)
            async for response in method(servicer, request, context):
                yield response
        except Exception as error:
            if (failure := failure_of(error)) is None:
                raise
            await failure.notify(context)

    return call
