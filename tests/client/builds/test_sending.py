"""Sending the files of a build to one agent, over connections that are lost."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from seatkeeper.client import AgentUnavailable, ModelRejected
from seatkeeper.client.builds.model import Model
from seatkeeper.client.builds.sending import Upload, pause_seconds, send_build
from seatkeeper.v1 import build_service_pb2 as pb

MIB = 1 << 20
FIRST = Model.read(bytes(3 * MIB), "first")
SECOND = Model.read(b"x" * 2 * MIB, "second")
SAME = Model.read(b"x" * 2 * MIB, "same")
ALL = (FIRST, SECOND, SAME)


class FakeAgent:
    """An agent that keeps what it was sent; each call of ``cuts`` ends after so many bytes more."""

    address = "agent:1"

    def __init__(self, *cuts: int, asks: bool = True) -> None:
        self.cuts = list(cuts)
        self.asks = asks
        self.here: dict[str, bytearray] = {}
        self.headers: list[int] = []
        self.received: list[int] = []
        self.error: Exception = AgentUnavailable("the connection is lost")

    async def __aenter__(self) -> FakeAgent:
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    async def build(
        self, header: pb.BuildHeader, chunks: AsyncIterator[bytes]
    ) -> AsyncIterator[pb.BuildResponse]:
        self.headers.append(header.attempt)
        cut = self.cuts.pop(0) if self.cuts else None
        sizes = {file.sha256: file.size_bytes for file in ALL}
        missing = [sha for sha in sizes if len(self.here.get(sha, b"")) < sizes[sha]]
        if self.asks:
            yield pb.BuildResponse(
                wanted=pb.Wanted(
                    files=[
                        pb.WantedFile(sha256=sha, offset=len(self.here.get(sha, b"")))
                        for sha in missing
                    ]
                )
            )
        received = 0
        if cut == 0:
            raise self.error
        async for chunk in chunks:
            part = self.here.setdefault(missing[0], bytearray())
            part += chunk
            received += len(chunk)
            if len(part) == sizes[missing[0]]:
                missing.pop(0)
            if cut is not None and received >= cut:
                self.received.append(received)
                raise self.error
        self.received.append(received)
        if missing:
            raise ModelRejected("bytes of the model are missing")
        yield pb.BuildResponse(progress=pb.BuildProgress(phase=pb.BUILD_PHASE_BUILDING))
        yield pb.BuildResponse()  # of a newer agent
        yield pb.BuildResponse(done=pb.BuildDone(cached=True))


async def sent(
    agent: FakeAgent, upload: Upload, pauses: list[float], **changes: Any
) -> tuple[pb.BuildDone, list[pb.BuildProgress]]:
    progress: list[pb.BuildProgress] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    given: dict[str, Any] = {"tries_max": 5, "random": lambda: 1.0, "sleep": sleep}
    done = await send_build(
        lambda: agent,  # type: ignore[arg-type,return-value]  # it stands in for a connection
        pb.BuildHeader,
        upload,
        progress.append,
        **(given | changes),
    )
    return done, progress


async def test_what_is_there_twice_is_sent_once() -> None:
    pauses: list[float] = []
    agent, upload = FakeAgent(), Upload(ALL, is_asked_for=True)
    done, progress = await sent(agent, upload, pauses)
    assert done.cached
    assert len(progress) == 1
    assert agent.received == [5 * MIB]
    assert (agent.headers, pauses, upload.is_resumed) == ([1], [], False)
    for file in ALL:
        assert hashlib.sha256(agent.here[file.sha256]).hexdigest() == file.sha256


async def test_a_lost_connection_costs_what_was_on_the_way() -> None:
    pauses: list[float] = []
    agent, upload = FakeAgent(2 * MIB, 2 * MIB), Upload(ALL, is_asked_for=True)
    await sent(agent, upload, pauses)
    assert agent.received == [2 * MIB, 2 * MIB, MIB]
    assert agent.headers == [1, 2, 3]
    assert pauses == [0.5, 1.0]
    assert upload.is_resumed


async def test_tries_are_bounded() -> None:
    pauses: list[float] = []
    agent, upload = FakeAgent(2 * MIB, *[0] * 9), Upload(ALL, is_asked_for=True)
    with pytest.raises(AgentUnavailable):
        await sent(agent, upload, pauses)
    assert len(agent.headers) == 5
    assert len(pauses) == 4


async def test_an_agent_that_got_next_to_nothing_is_left_for_the_next() -> None:
    pauses: list[float] = []
    agent, upload = FakeAgent(0), Upload(ALL, is_asked_for=True)
    with pytest.raises(AgentUnavailable):
        await sent(agent, upload, pauses)
    assert (len(agent.headers), pauses) == (1, [])


async def test_an_older_agent_gets_everything_once_and_is_not_tried_again() -> None:
    pauses: list[float] = []
    upload = Upload(ALL, is_asked_for=False)
    agent = FakeAgent(asks=False)
    await sent(agent, upload, pauses)
    assert (agent.headers, agent.received) == ([0], [5 * MIB])
    agent = FakeAgent(2 * MIB, asks=False)
    with pytest.raises(AgentUnavailable):
        await sent(agent, Upload(ALL, is_asked_for=False), pauses)
    assert (agent.headers, pauses) == ([0], [])


async def test_a_refusal_is_not_tried_again() -> None:
    pauses: list[float] = []
    agent, upload = FakeAgent(2 * MIB), Upload(ALL, is_asked_for=True)
    agent.error = ModelRejected("no")
    with pytest.raises(ModelRejected):
        await sent(agent, upload, pauses)
    assert (len(agent.headers), pauses) == (1, [])


async def test_a_file_that_changes_while_it_is_sent_is_named_as_the_cause(
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(3 * MIB))
    upload = Upload([Model.read(path, None), SECOND], is_asked_for=True)
    path.unlink()
    pauses: list[float] = []
    agent = FakeAgent()
    with pytest.raises(
        ModelRejected, match="could not be read while it was sent: No such file"
    ):
        await sent(agent, upload, pauses)
    assert pauses == []


@pytest.mark.parametrize(
    "files",
    [
        [pb.WantedFile(sha256="ab" * 32)],
        [pb.WantedFile(sha256=FIRST.sha256, offset=-1)],
        [pb.WantedFile(sha256=FIRST.sha256, offset=3 * MIB + 1)],
        [pb.WantedFile(sha256=FIRST.sha256)] * 2,
    ],
    ids=range(4),
)
async def test_an_agent_that_asks_for_what_makes_no_sense_gets_nothing(
    files: list[pb.WantedFile],
) -> None:
    upload = Upload(ALL, is_asked_for=True)
    upload.begin()
    with pytest.raises(AgentUnavailable, match="the agent asks"):
        upload.want(pb.Wanted(files=files))
    upload.end()
    assert [chunk async for chunk in upload.chunks()] == []


async def test_an_agent_asks_once() -> None:
    upload = Upload(ALL, is_asked_for=True)
    upload.begin()
    upload.want(pb.Wanted())
    with pytest.raises(AgentUnavailable, match="the agent asks"):
        upload.want(pb.Wanted())


def test_pauses_double_and_end_growing() -> None:
    assert [pause_seconds(tries, 1.0) for tries in range(1, 8)] == [
        *(0.5, 1.0, 2.0, 4.0),
        *(5.0, 5.0, 5.0),
    ]
    assert pause_seconds(2, 0.0) == 0.5
