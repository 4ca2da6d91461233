"""What every method of a gRPC server has in common, added where its handlers are registered.

A `HandlerWrapper` gets each method's handler and returns the one that is served instead. So a rule for
all calls is written once and holds for every service, those of gRPC itself included. The first wrapper
of a list is the outermost.

Two are here. `decoding` answers bytes that are no message. `CallGate` counts the calls under way, so
that a server can stop without breaking one of them: gRPC's own stop ends calls that have just arrived
with ``CANCELLED``, which gives a client no hint what to do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, NoReturn, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from seatkeeper.core.serving.failure import (
    Context,
    Failure,
    bad_request,
    error_info,
    retry_info,
)
from seatkeeper.core.serving.log_limit import LogLimit

logger = logging.getLogger(__name__)

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
HandlerWrapper: TypeAlias = Callable[[str, Handler], Handler]
"""From a method's full name (``/package.Service/Method``) and handler to the handler to serve."""
STOP_RETRY_AFTER = timedelta(seconds=0.2)
"""When to try another node, for those whose node is stopping."""
WRITE_SECONDS = 0.5
"""How long a message that is on its way is waited for when its call is to end."""


class WrappingServer:
    """Takes services as a ``grpc.aio.Server`` does, and registers their wrapped handlers on one."""

    def __init__(self, server: grpc.aio.Server, wrappers: Sequence[HandlerWrapper]) -> None:
        self._server = server
        self._wrappers = tuple(reversed(wrappers))

    def add_generic_rpc_handlers(self, generic_rpc_handlers: object) -> None:
        """Do nothing: generated code registers every method by name as well."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Handler]
    ) -> None:
        """Register the methods of a service."""
        wrapped = {}
        for name, handler in method_handlers.items():
            for wrap in self._wrappers:
                handler = wrap(f"/{service_name}/{name}", handler)
            wrapped[name] = handler
        generic = grpc.method_handlers_generic_handler(service_name, wrapped)
        self._server.add_generic_rpc_handlers((generic,))
        self._server.add_registered_method_handlers(service_name, wrapped)


def decoding(method: str, handler: Handler) -> Handler:
    """Answer a message that cannot be decoded with ``INVALID_ARGUMENT``, and log it, sparingly.

    A handler that calls ``context.read()`` itself gets the `Failure` instead of a message.
    """
    decode = handler.request_deserializer
    if decode is None:
        return handler
    limit = LogLimit()

    def decoded(data: bytes) -> Any:  # noqa: ANN401  # whatever message the call takes
        try:
            return decode(data)
        except (DecodeError, ValueError, RecursionError) as error:
            if (left_out := limit.passes(method)) is not None:
                about = {"method": method, "bytes": len(data), "error": str(error)[:200]}
                logger.warning("undecodable_message", extra=about | {"left_out": left_out})
            message = f"the message is not a valid request of {method}"
            detail = bad_request("", message)
            reason = error_info("DENIAL_REASON_INVALID_ARGUMENT")
            return Failure(grpc.StatusCode.INVALID_ARGUMENT, message, reason, detail)

    behaviour = behaviour_of(handler)

    async def call(request: Any, context: Context) -> Any:  # noqa: ANN401  # whatever message the call takes
        if handler.request_streaming:
            request = _messages(request)
        elif isinstance(request, Failure):
            await request.notify(context)
        try:
            return await _run(behaviour(request, context), context)
        except Failure as failure:
            await failure.notify(context)

    return rebuilt(handler, call, decoded)


async def _run(answers: Any, context: Context) -> Any:  # noqa: ANN401  # whatever message the call takes
    """Run a handler: one that yields responses, one that writes them, or one that returns one."""
    if not hasattr(answers, "__aiter__"):
        return await answers
    async for response in answers:
        writing = asyncio.ensure_future(context.write(response))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            # gRPC can say no status while a message is on its way.
            writing.add_done_callback(_forget_failure)
            await asyncio.wait({writing}, timeout=WRITE_SECONDS)
            raise
    return None


def _forget_failure(writing: asyncio.Future[None]) -> None:
    """Take note that a message did not arrive: who hung up does not wait for it."""
    if not writing.cancelled():
        writing.exception()


async def _messages(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, Failure):
            raise request
        yield request


class CallGate:
    """Counts the calls under way; once closed, lets no more in and sees the others out.

    A call that comes after ``close``, and one that is still under way at the end of the grace, ends
    with ``UNAVAILABLE`` and the advice to send the same to another node.
    """

    def __init__(self) -> None:
        self._calls: dict[asyncio.Task[Any], bool] = {}
        """Those under way, each with whether it only listens and so never ends by itself."""
        self._ending: set[asyncio.Task[Any]] = set()
        self._is_closed = False
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._calls)

    def close(self) -> None:
        """Let no more calls in, and end those that only listen."""
        self._is_closed = True
        self._end(task for task, listens in self._calls.items() if listens)

    async def drained(self, grace: timedelta) -> bool:
        """Wait until no call is under way; return False when ``grace`` is over before."""
        with suppress(TimeoutError):
            async with asyncio.timeout(grace.total_seconds()):
                await self._empty.wait()
        return self._empty.is_set()

    def end(self) -> None:
        """End all calls that are under way yet."""
        self._end(self._calls)

    def _end(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        for task in list(tasks):
            if task not in self._ending:
                self._ending.add(task)
                task.cancel()

    def wrap(self, method: str, handler: Handler) -> Handler:
        """Count the calls of a method. A `HandlerWrapper`."""
        behaviour = behaviour_of(handler)
        listens = bool(handler.response_streaming and not handler.request_streaming)

        async def call(request: Any, context: Context) -> Any:  # noqa: ANN401  # whatever message the call takes
            task = await self._enter(context, listens=listens)
            try:
                return await _run(behaviour(request, context), context)
            except asyncio.CancelledError:
                if not self._was_notified(task):
                    raise
                await _notify_stopping(context)
            finally:
                self._leave(task)

        return rebuilt(handler, call, handler.request_deserializer)

    async def _enter(self, context: Context, *, listens: bool) -> asyncio.Task[Any]:
        if self._is_closed:
            await stopping().notify(context)
        task = asyncio.current_task()
        assert task is not None
        self._calls[task] = listens
        self._empty.clear()
        return task

    def _leave(self, task: asyncio.Task[Any]) -> None:
        self._ending.discard(task)
        self._calls.pop(task, None)
        if not self._calls:
            self._empty.set()

    def _was_notified(self, task: asyncio.Task[Any]) -> bool:
        """Return whether this gate, and not the client, has ended a call."""
        if task not in self._ending:
            return False
        task.uncancel()
        return True


async def _notify_stopping(context: Context) -> NoReturn:
    try:
        await stopping().notify(context)
    except grpc.aio.AbortError:
        raise
    except Exception as error:  # another status was sent before, or none can be sent
        raise asyncio.CancelledError from error


def stopping() -> Failure:
    """Return the failure of a call that another node should be asked."""
    return Failure(
        grpc.StatusCode.UNAVAILABLE,
        "the node is stopping: send the same request to another node",
        error_info("DENIAL_REASON_UNAVAILABLE"),
        retry_info(STOP_RETRY_AFTER),
    )


def behaviour_of(handler: Handler) -> Any:  # noqa: ANN401  # gRPC's handlers have one of four shapes
    """Return what a handler calls, whichever of its four attributes has it."""
    return (
        handler.unary_unary
        or handler.unary_stream
        or handler.stream_unary
        or handler.stream_stream
    )


def rebuilt(
    handler: Handler,
    behaviour: Any,  # noqa: ANN401  # gRPC's handlers have one of four shapes
    deserializer: Any,  # noqa: ANN401  # gRPC's handlers have one of four shapes
) -> Handler:
    """Return a handler of the same kind that does something else."""
    make: Any = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[bool(handler.request_streaming), bool(handler.response_streaming)]
    other: Handler = make(behaviour, deserializer, handler.response_serializer)
    return other
