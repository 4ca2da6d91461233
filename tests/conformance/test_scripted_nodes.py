"""What the suite plays does not fail a client for its own mistakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from grpc import aio
from tests.conformance.scripted_nodes import Renewals, ServedStream
from tests.conformance.wire import Method, encode

SESSION = Method.named("SeatService.Session")
RENEW = {"commands": [{"renew": {"sequence": "1"}}]}
OPENED = {"events": [{"opened": {"ttl": "60s", "renew_in": "20s"}}]}


class OneAtATime:
    """The context of a call, whose first write returns late; two at once are refused, as by gRPC."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_return = asyncio.Event()
        self.written = 0
        self._is_writing = False

    async def write(self, frame: bytes) -> None:
        if self._is_writing:
            raise aio.InternalError("GRPC_CALL_ERROR_TOO_MANY_OPERATIONS")
        self._is_writing = True
        self.begun.set()
        await self.may_return.wait()
        self._is_writing = False
        self.written += 1


async def test_a_renewal_is_answered_while_a_frame_of_the_script_is_written() -> None:
    context: Any = OneAtATime()
    renewals = Renewals()
    renewals.terms = {"ttl": "60s", "renew_in": "20s"}
    stream = ServedStream("a", context, renewals)
    asked = asyncio.Event()

    async def requests() -> AsyncIterator[bytes]:
        await context.begun.wait()
        yield encode(SESSION.descriptor.input_type, RENEW)
        asked.set()

    async def return_late() -> None:
        for _ in range(10):  # the renewal is read by then, and its answer begun
            await asyncio.sleep(0)
        context.may_return.set()

    serving = asyncio.create_task(stream.serve(requests()))
    await asyncio.gather(stream.send(OPENED), return_late())
    await asked.wait()
    stream.end({"code": "OK"})
    await serving
    await stream.inbox.expect_end({"code": "OK"}, {}, ignore=(), within=10)
    assert context.written == 2
