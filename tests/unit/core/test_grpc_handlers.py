"""What holds for every method: bytes that are no message, and calls under way when a node stops."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2
from tests.unit.kit import eventually
from tests.unit.services import DEADLINE, Services, refused

from seatkeeper.core.serving import handlers as grpc_handlers
from seatkeeper.core.serving.handlers import CallGate, WrappingServer, decoding
from seatkeeper.internal.v1 import peer_service_pb2
from seatkeeper.v1 import (
    cluster_service_pb2,
    engine_service_pb2,
    pool_service_pb2,
    seat_service_pb2,
)

NO_MESSAGE = b"\x0a\xff\xff\xff\xff\x7f"
"""A field that says it is longer than the message."""
SERVICES = (
    seat_service_pb2,
    pool_service_pb2,
    cluster_service_pb2,
    engine_service_pb2,
    peer_service_pb2,
)


def methods() -> Iterator[MethodDescriptor]:
    """Every RPC of a node."""
    for module in SERVICES:
        for service in module.DESCRIPTOR.services_by_name.values():
            yield from service.methods


@pytest.mark.parametrize("method", list(methods()), ids=lambda method: method.full_name)
async def test_bytes_that_are_no_message_are_an_invalid_argument(
    services: Services, method: MethodDescriptor, caplog: pytest.LogCaptureFixture
) -> None:
    assert method.containing_service is not None
    path = f"/{method.containing_service.full_name}/{method.name}"
    async with grpc.aio.insecure_channel(services.node.address) as channel:
        with caplog.at_level(logging.WARNING):
            call: Any
            if method.client_streaming:
                call = channel.stream_stream(path, bytes, bytes)(
                    iter([NO_MESSAGE]), timeout=DEADLINE
                )
            elif method.server_streaming:
                call = channel.unary_stream(path, bytes, bytes)(NO_MESSAGE, timeout=DEADLINE)
            else:
                call = channel.unary_unary(path, bytes, bytes)(NO_MESSAGE, timeout=DEADLINE)
            reported = await refused(_first(call) if method.server_streaming else call)
    assert reported.code is grpc.StatusCode.INVALID_ARGUMENT
    info = reported.details["ErrorInfo"]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert info.reason == "DENIAL_REASON_INVALID_ARGUMENT"
    lines = [record for record in caplog.records if record.message == "undecodable_message"]
    assert len(lines) == 1, "one line of log, and no traceback"
    assert not any(record.exc_info for record in caplog.records)


async def _first(call: Any) -> object:
    async for response in call:
        return response
    return None


class Handlers:
    """A service of two calls that go on until they are let go, over a real socket."""

    def __init__(self) -> None:
        self.gate = CallGate()
        self.go_on = asyncio.Event()

    async def wait(self, request: bytes, context: object) -> bytes:
        await self.go_on.wait()
        return request

    async def listen(self, request: bytes, context: object) -> AsyncIterator[bytes]:
        yield request
        await asyncio.Event().wait()

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        server = grpc.aio.server()
        services = cast("grpc.aio.Server", WrappingServer(server, [self.gate.wrap, decoding]))
        services.add_registered_method_handlers(
            "test.Slow",
            {
                "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
                "Listen": grpc.unary_stream_rpc_method_handler(self.listen),
            },
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
        await server.stop(0)


def _wait(channel: Any) -> Any:
    return channel.unary_unary("/test.Slow/Wait")(b"x", timeout=DEADLINE)


def _listen(channel: Any) -> Any:
    return channel.unary_stream("/test.Slow/Listen")(b"x", timeout=DEADLINE)


async def test_a_call_under_way_is_completedin_the_grace() -> None:
    slow = Handlers()
    async with slow.channel() as channel:
        call = asyncio.ensure_future(_wait(channel))
        await eventually(lambda: len(slow.gate) == 1)
        slow.gate.close()
        drained = asyncio.create_task(slow.gate.drained(timedelta(seconds=DEADLINE)))
        await asyncio.sleep(0)
        assert not drained.done()
        slow.go_on.set()
        assert await call == b"x"
        await drained


async def test_a_call_that_does_not_finish_in_time_is_sent_to_another_node() -> None:
    slow = Handlers()
    async with slow.channel() as channel:
        call = asyncio.ensure_future(_wait(channel))
        await eventually(lambda: len(slow.gate) == 1)
        slow.gate.close()
        assert not await slow.gate.drained(timedelta(0))
        slow.gate.end()
        _is_sent_elsewhere(await refused(call))


async def test_a_call_that_comes_during_a_stop_is_sent_to_another_node() -> None:
    slow = Handlers()
    async with slow.channel() as channel:
        slow.gate.close()
        _is_sent_elsewhere(await refused(_wait(channel)))
        listening = _listen(channel)
        _is_sent_elsewhere(await refused(_first(listening)))
    assert not len(slow.gate)


async def test_a_call_that_only_listens_keeps_no_node_from_stopping() -> None:
    slow = Handlers()
    async with slow.channel() as channel:
        listening = _listen(channel)
        assert await listening.read() == b"x"
        slow.gate.close()
        assert await slow.gate.drained(timedelta(seconds=DEADLINE))
        _is_sent_elsewhere(await refused(listening.read()))


async def test_a_client_that_gives_up_is_counted_no_more() -> None:
    slow = Handlers()
    async with slow.channel() as channel:
        call = _wait(channel)
        await eventually(lambda: len(slow.gate) == 1)
        call.cancel()
        await eventually(lambda: len(slow.gate) == 0)


def _is_sent_elsewhere(reported: Any) -> None:
    assert reported.code is grpc.StatusCode.UNAVAILABLE
    assert "another node" in reported.message
    assert set(reported.details) == {"ErrorInfo", "RetryInfo"}


async def test_a_client_that_hangs_up_while_it_is_answered_is_no_error_of_ours() -> None:
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, about: reported.append(about)
    )

    class HangsUp:
        async def write(self, _response: object) -> None:
            await asyncio.sleep(0)
            hung_up.set()
            await asyncio.sleep(0.01)
            raise RuntimeError("the client is gone")

    async def answers() -> AsyncIterator[bytes]:
        yield b""

    hung_up = asyncio.Event()
    call = asyncio.create_task(grpc_handlers._run(answers(), HangsUp()))  # type: ignore[arg-type]  # forwarded as it came
    await hung_up.wait()
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    del call
    gc.collect()
    await asyncio.sleep(0)
    assert reported == []
