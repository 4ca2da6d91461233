"""What gRPC itself costs here: a server that says again what it was sent, and clients of it.

The server is a process of its own, on the event loop and with the options of our nodes, and nothing
else of them: no decision, no etcd. So nothing that answers over this stack can be faster than it is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import grpc
import grpc.aio

from bench.service import spawn
from seatkeeper.cli.processes.common import run_loop
from seatkeeper.core.channels import dial
from seatkeeper.core.serving.failure import Context
from seatkeeper.server.transport import GrpcTransport

SERVICE = "bench.Echo"
MESSAGE = b"x" * 80
"""About the size of a command with its event."""
Call: TypeAlias = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
Stream: TypeAlias = grpc.aio.StreamStreamCall[bytes, bytes]
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


class Echo:
    """Clients of one echo server: calls over one connection, and streams with one each."""

    def __init__(self, channel: grpc.aio.Channel, streams: list[Stream]) -> None:
        self._call: Call = channel.unary_unary(f"/{SERVICE}/Call")
        self._streams = streams

    async def call(self) -> None:
        """Make one call."""
        assert await self._call(MESSAGE, timeout=10) == MESSAGE

    async def message(self, worker: int) -> None:
        """Send one message over the worker's stream, and receive it."""
        stream = self._streams[worker]
        await stream.write(MESSAGE)
        assert await stream.read() == MESSAGE


@asynccontextmanager
async def running_echo(folder: Path, streams: int) -> AsyncIterator[Echo]:
    """Start the server, and connect so many streams to it."""
    server = spawn(folder, "echo", [], program=(sys.executable, "-m", "bench.echo"))
    try:
        await server.wait_serving()
        async with AsyncExitStack() as stack:
            channels = [
                await stack.enter_async_context(dial(server.address, options=OWN_CONNECTION))
                for _ in range(1 + streams)
            ]
            opened: list[Stream] = [
                channel.stream_stream(f"/{SERVICE}/Stream")() for channel in channels[1:]
            ]
            yield Echo(channels[0], opened)
    finally:
        await server.stop()


async def serve() -> None:
    """Serve until the process is ended."""
    transport = GrpcTransport()
    server = transport.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Call": grpc.unary_unary_rpc_method_handler(_call),
        "Stream": grpc.stream_stream_rpc_method_handler(_stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    address = transport.listen(server, "127.0.0.1:0", None)
    await server.start()
    print(json.dumps({"event": "serving", "address": address}), file=sys.stderr, flush=True)
    await server.wait_for_termination()


async def _call(request: bytes, context: Context) -> bytes:
    return request


async def _stream(requests: AsyncIterator[bytes], context: Context) -> None:
    while (message := await context.read()) is not grpc.aio.EOF:
        await context.write(message)


if __name__ == "__main__":
    run_loop(serve())
