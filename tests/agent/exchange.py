"""A build as a client sends it that goes on after a lost connection: message by message."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from grpc import aio
from tests.agent.site import CHUNK_BYTES, OPTIONS, Refusal, refusal_of

from seatkeeper.agent.main import Agent
from seatkeeper.client.transport.status import FirstStatus
from seatkeeper.v1 import build_service_pb2 as pb
from seatkeeper.v1 import build_service_pb2_grpc

TIME_LIMIT_SECONDS = 60.0


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def header(
    token: str, model: bytes, files: Mapping[str, bytes], attempt: int = 1, **changes: object
) -> pb.BuildHeader:
    """The header of a build of a model with files outside, some of it otherwise."""
    fields: dict[str, object] = {
        "token": token,
        "options": OPTIONS,
        "model_name": "model.onnx",
        "model_size_bytes": len(model),
        "model_sha256": sha256(model),
        "external_files": [external(path, content) for path, content in files.items()],
        "attempt": attempt,
    }
    return pb.BuildHeader(**(fields | changes))  # type: ignore[arg-type]  # the test gives fields by name


def external(path: str, content: bytes, **changes: object) -> pb.ExternalFile:
    fields: dict[str, object] = {
        "path": path,
        "sha256": sha256(content),
        "size_bytes": len(content),
    }
    return pb.ExternalFile(**(fields | changes))  # type: ignore[arg-type]  # the test gives fields by name


class Exchange:
    """One call of ``Build`` that answers what the agent asks for."""

    def __init__(
        self,
        agent: Agent,
        header: pb.BuildHeader,
        contents: Sequence[bytes],
        cut: Callable[[bytes], bytes] = lambda content: content,
    ) -> None:
        """``contents``: all files; ``cut`` returns what is sent of what is asked for of each."""
        self.wanted: list[tuple[str, int]] | None = None
        self.done: pb.BuildDone | None = None
        self._contents = {sha256(content): content for content in contents}
        self._cut = cut
        self._header = header
        self._asked = asyncio.get_running_loop().create_future()
        self._channel = aio.insecure_channel(agent.info.address)
        self._call = build_service_pb2_grpc.BuildServiceStub(self._channel).Build(self._sent())
        self._first_status = FirstStatus(self._call)

    async def result(self) -> pb.BuildDone:
        """Return the build's end. Raises ``aio.AioRpcError``."""
        try:
            async with asyncio.timeout(TIME_LIMIT_SECONDS):
                async for answer in self._call:
                    if answer.HasField("wanted"):
                        assert self.wanted is None
                        self.wanted = [(e.sha256, e.offset) for e in answer.wanted.files]
                        self._asked.set_result(None)
                    if answer.HasField("done"):
                        self.done = answer.done
        finally:
            if not self._asked.done():
                self._asked.set_result(None)
            await self._channel.close()
        assert self.done is not None
        return self.done

    async def refused(self) -> Refusal:
        """Return why it failed; fail when it did not."""
        try:
            await self.result()
        except aio.AioRpcError as error:
            return refusal_of(self._first_status.of(error))
        raise AssertionError("it was built")

    async def _sent(self) -> AsyncIterator[pb.BuildRequest]:
        yield pb.BuildRequest(header=self._header)
        if self._header.attempt:
            await self._asked
            asked = self.wanted or []
        else:
            asked = [(each, 0) for each in self._contents]
        for each, offset in asked:
            rest = self._cut(self._contents[each][offset:])
            for at in range(0, len(rest), CHUNK_BYTES):
                yield pb.BuildRequest(model_chunk=rest[at : at + CHUNK_BYTES])
