"""The one gate that every call of a node passes, before its request is read."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio

from seatkeeper.core.serving.failure import Context, Failure, error_info
from seatkeeper.core.serving.handlers import Handler, behaviour_of, rebuilt
from seatkeeper.core.serving.log_limit import LogLimit
from seatkeeper.server.identity.authorizer import Authorizer, Refused
from seatkeeper.server.identity.principal import principal_of

logger = logging.getLogger(__name__)


class Gate(grpc.aio.ServerInterceptor):
    """Refuses calls with ``PERMISSION_DENIED``.

    Calls that everybody may make keep their handlers, and cost nothing. For the others the handler is
    wrapped, because gRPC says who calls only to a handler; and the wrapper reads the request itself,
    because otherwise gRPC would do so before asking it. An interceptor inside or outside of this one
    may do the same: a handler without a deserializer is given bytes.
    """

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer
        self._limit = LogLimit()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler of a call, wrapped where the caller must be asked for."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        # None: there is no such call, and gRPC says so.
        if handler is None or not self._authorizer.needs_asking(method):
            return handler
        return self._asking(handler, method)

    def _asking(self, handler: Handler, method: str) -> Handler:
        inner = behaviour_of(handler)
        decode = handler.request_deserializer
        reads_here = None if handler.request_streaming else decode  # else gRPC does

        async def call(request: Any, context: Context) -> Any:  # noqa: ANN401  # whatever message the call takes
            await self._check(method, context)
            if reads_here is not None:
                request = await _decoded(reads_here, request, context)
            answer = inner(request, context)
            if inspect.isasyncgen(answer):
                async with aclosing(answer):
                    async for response in answer:
                        await context.write(response)
                return None
            return await answer

        # A stream's requests are read by its handler one by one, so after the check anyway.
        return rebuilt(handler, call, None if reads_here is not None else decode)

    async def _check(self, method: str, context: Context) -> None:
        principal = principal_of(context)
        try:
            self._authorizer.allow(principal, method)
        except Refused as refused:
            who = str(principal)
            if (left_out := self._limit.passes((who, method))) is not None:
                about = {"call": method, "by": who, "peer": principal.address}
                logger.warning("call_refused", extra=about | {"left_out": left_out})
            info = error_info("NOT_AUTHORIZED")
            if refused.setting:
                info.metadata["setting"] = refused.setting
            failure = Failure(grpc.StatusCode.PERMISSION_DENIED, str(refused), info)
            await failure.notify(context)


async def _decoded(decode: Callable[[bytes], Any], request: bytes, context: Context) -> Any:  # noqa: ANN401  # whatever message the call takes
    try:
        return decode(request)
    except Exception:  # whatever the library raises: these bytes are no request of ours
        message = "the request cannot be decoded: it is no message of this call's type"
        await Failure(grpc.StatusCode.INVALID_ARGUMENT, message).notify(context)
