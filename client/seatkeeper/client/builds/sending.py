"""Sends a build's files to one agent, and goes on where a lost connection ended it.

An agent that can answers first what it still needs: of each file, from which byte on. So when the
connection is lost, the same build is sent again, under the same grant, and only what is missing goes
over the wire. Agents that are older get everything in order, once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing
from typing import Protocol

from seatkeeper.client.builds.agents import AsyncAgent
from seatkeeper.core.errors import AgentUnavailable, BuildFailed, ModelRejected
from seatkeeper.v1 import build_service_pb2 as pb

TRIES_MAX = 7
"""Tries to send to one agent, over some 10 to 20 s."""
TRIES_MAX_BEFORE_OTHERS = 3
"""The same where other agents could build it: they have nothing of it, and may well be alive."""
RESUMED_BYTES_MIN = 1 << 20
"""Less than this is not worth waiting for an agent: another gets all of it as fast."""
PAUSE_SECONDS = 0.5
"""Longest pause after the first try; it doubles with each."""
PAUSE_SECONDS_MAX = 5.0
OnProgress = Callable[[pb.BuildProgress], None]
Sleep = Callable[[float], Awaitable[None]]


class Sendable(Protocol):
    """A file, known by its hash."""

    @property
    def sha256(self) -> str:
        """Of its bytes."""
        ...

    @property
    def size_bytes(self) -> int:
        """How many bytes it has."""
        ...

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes from there on in pieces."""
        ...


class Upload:
    """The files of one build on their way to one agent."""

    def __init__(self, files: Iterable[Sendable], *, is_asked_for: bool) -> None:
        """``is_asked_for``: the agent answers what it needs, as new ones do."""
        self._files: dict[str, Sendable] = {}
        for file in files:
            self._files.setdefault(file.sha256, file)
        self._is_asked_for = is_asked_for
        self._wanted: asyncio.Future[list[tuple[Sendable, int]]] | None = None
        self.tries = 0
        """How often it was begun."""
        self.sent_bytes = 0
        """Bytes given to the connection, in all tries."""
        self.is_resumed = False
        """Whether a later try had less to send than the whole."""
        self.trouble = ""
        """Why a file could not be read while it was sent; empty: all could."""

    @property
    def can_resume(self) -> bool:
        """Whether a lost connection leaves something at the agent that is worth going back for."""
        return self._is_asked_for and self.sent_bytes >= RESUMED_BYTES_MIN

    async def is_as_named(self) -> bool:
        """Return whether the files still are what their hashes say. Reads all of them.

        What an agent says of files that changed while they were sent is about no key.
        """
        return not self.trouble and await asyncio.to_thread(self._are_unchanged)

    def _are_unchanged(self) -> bool:
        for file in self._files.values():
            digest = hashlib.sha256()
            try:
                for chunk in file.chunks(0):
                    digest.update(chunk)
            except OSError:
                return False
            if digest.hexdigest() != file.sha256:
                return False
        return True

    def begin(self) -> int:
        """Begin a try; return its number as the header has it: 0 for agents that do not ask."""
        self.tries += 1
        self._wanted = asyncio.get_running_loop().create_future()
        if not self._is_asked_for:
            self._wanted.set_result([(file, 0) for file in self._files.values()])
        return self.tries if self._is_asked_for else 0

    def want(self, wanted: pb.Wanted) -> None:
        """Send what the agent asks for. Raises `AgentUnavailable` when that makes no sense."""
        assert self._wanted is not None
        asked = [(each.sha256, each.offset) for each in wanted.files]
        for sha256, offset in asked:
            file = self._files.get(sha256)
            if file is None or not 0 <= offset <= file.size_bytes:
                raise AgentUnavailable("the agent asks for what it was not offered")
        if self._wanted.done() or len({sha256 for sha256, _ in asked}) < len(asked):
            raise AgentUnavailable("the agent asks twice for the same")
        missing = sum(self._files[sha256].size_bytes - offset for sha256, offset in asked)
        whole = sum(file.size_bytes for file in self._files.values())
        self.is_resumed |= self.tries > 1 and missing < whole
        self._wanted.set_result([(self._files[sha256], offset) for sha256, offset in asked])

    def end(self) -> None:
        """Send nothing more of this try."""
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result([])

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what is to be sent in this try, once it is known."""
        assert self._wanted is not None
        for file, offset in await self._wanted:
            pieces = file.chunks(offset)
            try:
                while (chunk := await asyncio.to_thread(next, pieces, None)) is not None:
                    yield chunk
                    self.sent_bytes += len(chunk)
            except OSError as error:
                # The agent refuses what ends early; what happened is known here alone.
                self.trouble = error.strerror or str(error)
                return


async def send_build(
    connect: Callable[[], AsyncAgent],
    header: Callable[[], pb.BuildHeader],
    upload: Upload,
    on_progress: OnProgress | None,
    *,
    tries_max: int,
    random: Callable[[], float],
    sleep: Sleep = asyncio.sleep,
) -> pb.BuildDone:
    """Build on one agent, trying again when the connection is lost on the way.

    ``header`` returns it with the token as it is then. Raises what ``AsyncAgent.build`` does:
    `AgentUnavailable` only when it makes no sense to try this agent again.
    """
    while True:
        try:
            return await _send_once(connect, header(), upload, on_progress)
        except AgentUnavailable:
            if not upload.can_resume or upload.tries >= tries_max:
                raise
            await sleep(pause_seconds(upload.tries, random()))


def pause_seconds(tries: int, random: float) -> float:
    """Return how long to wait after so many tries: half of the longest pause at least.

    Never nothing: the agent, too, must notice that the connection is gone.
    """
    longest = min(PAUSE_SECONDS * 2.0 ** (tries - 1), PAUSE_SECONDS_MAX)
    return longest * (0.5 + random / 2)


async def _send_once(
    connect: Callable[[], AsyncAgent],
    header: pb.BuildHeader,
    upload: Upload,
    on_progress: OnProgress | None,
) -> pb.BuildDone:
    header.attempt = upload.begin()
    try:
        async with connect() as agent:
            async with aclosing(agent.build(header, upload.chunks())) as answers:
                async for answer in answers:
                    match answer.WhichOneof("part"):
                        case "done":
                            return answer.done
                        case "wanted":
                            upload.want(answer.wanted)
                        case "progress" if on_progress is not None:
                            on_progress(answer.progress)
            raise AgentUnavailable(f"{agent.address} ended the build without saying why")
    except BuildFailed as error:
        if upload.trouble:
            raise ModelRejected(
                f"a file could not be read while it was sent: {upload.trouble}; build it again"
            ) from error
        raise
    finally:
        upload.end()
