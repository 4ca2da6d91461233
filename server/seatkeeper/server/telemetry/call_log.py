"""Every call that fails is counted, and can be found in the log, whichever service it was of.

A call that is refused before a pool sees its request is a usage event, too.

Outermost of the interceptors, so that it also sees the calls that another one refuses.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2

from seatkeeper.core.serving.call_origin import peer_of_call, request_id
from seatkeeper.core.serving.failure import Context, Failure, reported
from seatkeeper.core.serving.handlers import Handler, behaviour_of, rebuilt
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.events import log as events
from seatkeeper.server.events.observer import Observer
from seatkeeper.server.events.usage import unread_refusal
from seatkeeper.v1 import seat_pb2

_PREFIX = "DENIAL_REASON_"
_REASONS = {
    name.removeprefix(_PREFIX) for name in seat_pb2.DenialReason.DESCRIPTOR.values_by_name
} | {
    "NOT_AUTHORIZED",
    "UNAUTHENTICATED",
}
_BY_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: "INVALID_ARGUMENT",
    grpc.StatusCode.UNAUTHENTICATED: "UNAUTHENTICATED",
    grpc.StatusCode.PERMISSION_DENIED: "NOT_YOURS",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "OVERLOADED",
    grpc.StatusCode.UNAVAILABLE: "UNAVAILABLE",
}
_OF_ANY_CALL = {"NOT_AUTHORIZED", "UNAUTHENTICATED"}


class CallLog(grpc.aio.ServerInterceptor):
    """Reports failing calls to an observer."""

    def __init__(self, observer: Observer, clock: Clock) -> None:
        self._observer = observer
        self._clock = clock
        self._watched: dict[str, tuple[Handler, Handler]] = {}
        """By method: the handler that was wrapped, and what became of it."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler of a call, watched."""
        handler = await continuation(handler_call_details)
        if handler is None:  # there is no such call, and gRPC says so
            return None
        method = str(handler_call_details.method)
        known = self._watched.get(method)
        if known is None or known[0] is not handler:
            known = self._watched[method] = handler, self._watching(handler, method)
        return known[1]

    def _watching(self, handler: Handler, method: str) -> Handler:
        inner = behaviour_of(handler)

        async def call(request: Any, context: Context) -> Any:  # noqa: ANN401  # whatever message the call takes
            reported.set(None)
            try:
                answer = inner(request, context)
                if not inspect.isasyncgen(answer):
                    return await answer
                async with aclosing(answer):
                    async for response in answer:
                        await context.write(response)
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                self._failed(method, context, "UNKNOWN", str(error))
                raise
            finally:
                if (failure := reported.get()) is not None:
                    self._failed(method, context, failure.code.name, failure.message)
                    self._report_denial(method, failure, context)

        return rebuilt(handler, call, handler.request_deserializer)

    def _failed(self, method: str, context: Context, code: str, why: str) -> None:
        call = method.rpartition(".")[2]
        self._observer.call_failed(call, code)
        if events.are_wanted():
            events.happened(
                "call_failed",
                events.USAGE,
                call=call,
                code=code,
                why=why,
                peer=peer_of_call(context),
                request_id=request_id(context),
            )

    def _report_denial(self, method: str, failure: Failure, context: Context) -> None:
        reason = None if failure.is_counted else _reason(failure)
        if reason and (".SeatService/" in method or reason in _OF_ANY_CALL):
            now, peer = self._clock.now(), peer_of_call(context)
            event = unread_refusal(reason, failure.message, now, peer)
            self._observer.usage.publish(event)


def _reason(failure: Failure) -> str | None:
    """Return why a call was refused, in the words of the contract; None: it was not, it failed."""
    for detail in failure.details:
        if isinstance(detail, error_details_pb2.ErrorInfo):
            name: str = detail.reason.removeprefix(_PREFIX)
            if name in _REASONS:
                return name
        if isinstance(detail, error_details_pb2.ResourceInfo):
            return "SESSION_LOST" if detail.resource_type == "session" else None
    return _BY_CODE.get(failure.code)
