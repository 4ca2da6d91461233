"""Nodes that the suite plays: they answer every caller as the script says."""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc import aio
from tests.conformance.streams import Inbox
from tests.conformance.values import Json
from tests.conformance.wire import Method, decode, encode, status_details

Context = aio.ServicerContext[bytes, bytes]
SESSION = Method.named("SeatService.Session")
DETAILS = {"reason", "retry_after", "resource"}
STOP_SECONDS = 5.0


class ServedStream:
    """A ``Session`` call of the client under test."""

    def __init__(self, node: str, context: Context, renewed: Renewals) -> None:
        self.node = node
        self.inbox = Inbox(f"the stream on node {node}")
        self._context = context
        self._renewals = renewed
        self._writing = asyncio.Lock()
        self._over: asyncio.Future[Json] = asyncio.get_running_loop().create_future()

    async def serve(self, requests: AsyncIterator[bytes]) -> None:
        """Serve until the script or the client ends it."""
        reader = asyncio.create_task(self._read(requests))
        try:
            status = await self._over
        except asyncio.CancelledError:
            self.inbox.end({"code": "CANCELLED"})
            raise
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        await refuse(self._context, status)

    async def send(self, response: Json) -> None:
        """Send a frame. Does nothing when the client is gone."""
        frame = encode(SESSION.descriptor.output_type, response)
        try:
            # gRPC refuses a second write while one is under way, and a renewal may be answered then:
            # the client has the script's frame before the write of it has returned here.
            async with self._writing:
                await self._context.write(frame)
        except (aio.UsageError, aio.InternalError, aio.AbortError):
            self.inbox.end({"code": "CANCELLED"})

    def end(self, status: Json) -> None:
        """End the stream."""
        if not self._over.done():
            self._over.set_result(status)

    async def _read(self, requests: AsyncIterator[bytes]) -> None:
        async for data in requests:
            for command in decode(SESSION.descriptor.input_type, data)["commands"]:
                answer = self._renewals.answer(command)
                if answer is None:
                    self.inbox.put(command)
                else:
                    await self.send({"events": [answer]})
        self.inbox.end({"code": "OK"})


class Renewals:
    """Answers renewals by itself while that is on."""

    def __init__(self) -> None:
        self.terms: Json = None
        """``ttl``, ``renew_in``, and perhaps the ``sequence`` that every answer carries; None: off."""

    def answer(self, command: Json) -> Json:
        """Return the answer to a command; None: it is the script's."""
        if self.terms is None or "renew" not in command:
            return None
        renew = command["renew"]
        tokens = [{"grant": ref, "token": "a.new.token"} for ref in renew["tokens_for"]]
        sequence = self.terms.get("sequence", renew["sequence"])
        times = {"ttl": self.terms["ttl"], "renew_in": self.terms["renew_in"]}
        return {"renewed": {"sequence": sequence, **times, "tokens": tokens}}


class UnaryCall:
    """A unary call of the client under test."""

    def __init__(self, request: Json) -> None:
        self.request = request
        self.outcome: asyncio.Future[Json] = asyncio.get_running_loop().create_future()


class ScriptedNodes:
    """The nodes of one script, on loopback."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.renewals = Renewals()
        self.streams: asyncio.Queue[ServedStream] = asyncio.Queue()
        self.calls: defaultdict[str, asyncio.Queue[UnaryCall]] = defaultdict(asyncio.Queue)
        self.addresses = {name: f"127.0.0.1:{_free_port()}" for name in names}
        self._servers: dict[str, aio.Server] = {}
        self._served: list[ServedStream] = []

    async def start(self, name: str) -> None:
        """Have a node answer."""
        if name in self._servers:
            return
        server = aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((_Everything(self, name),))
        server.add_insecure_port(self.addresses[name])
        await server.start()
        self._servers[name] = server

    async def stop(self, name: str) -> None:
        """Have a node vanish: streams on it break, connections are refused."""
        server = self._servers.pop(name, None)
        if server is not None:
            await asyncio.wait_for(server.stop(None), STOP_SECONDS)

    async def close(self) -> None:
        """Stop all."""
        for stream in self._served:
            stream.end({"code": "UNAVAILABLE", "message": "the script is over"})
        for queue in self.calls.values():
            while not queue.empty():
                _settle(queue.get_nowait(), {"status": {"code": "UNAVAILABLE"}})
        for name in list(self._servers):
            await self.stop(name)

    def serve_stream(
        self, name: str
    ) -> Callable[[AsyncIterator[bytes], Context], Awaitable[None]]:
        """Return the handler of ``Session`` on a node."""

        async def serve(requests: AsyncIterator[bytes], context: Context) -> None:
            stream = ServedStream(name, context, self.renewals)
            self._served.append(stream)
            self.streams.put_nowait(stream)
            await stream.serve(requests)

        return serve

    def serve_call(self, path: str) -> Callable[[bytes, Context], Awaitable[bytes]]:
        """Return the handler of a unary call."""
        service, _, name = path.removeprefix("/seatkeeper.v1.").partition("/")
        method = Method.named(f"{service}.{name}")

        async def serve(request: bytes, context: Context) -> bytes:
            try:
                call = UnaryCall(decode(method.descriptor.input_type, request))
            except DecodeError:
                call = UnaryCall({"undecodable": True})
            self.calls[f"{service}.{name}"].put_nowait(call)
            outcome = await call.outcome
            if "status" in outcome:
                await refuse(context, outcome["status"])
            return encode(method.descriptor.output_type, outcome["response"])

        return serve


async def refuse(context: Context, status: Json) -> None:
    """End a call with a status; with details where the script names some."""
    if status["code"] == "OK":
        return
    metadata: tuple[Any, ...] = ()
    if DETAILS & set(status):
        metadata = (("grpc-status-details-bin", status_details(status)),)
    await context.abort(grpc.StatusCode[status["code"]], status.get("message", ""), metadata)


class _Everything(grpc.GenericRpcHandler):
    """Takes every call to a node."""

    def __init__(self, nodes: ScriptedNodes, name: str) -> None:
        self._nodes = nodes
        self._name = name

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        path = str(handler_call_details.method)
        if path == SESSION.path:
            return grpc.stream_stream_rpc_method_handler(self._nodes.serve_stream(self._name))
        try:
            return grpc.unary_unary_rpc_method_handler(self._nodes.serve_call(path))
        except Exception:
            return None  # No call of this protocol: UNIMPLEMENTED.


def _settle(call: UnaryCall, outcome: Json) -> None:
    if not call.outcome.done():
        call.outcome.set_result(outcome)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
