"""The places of an agent: what runs at them, what memory that has, and whether more may come."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from seatkeeper.core.serving.failure import Failure, retry_info
from seatkeeper.v1 import build_service_pb2

RETRY_WHEN_FULL = timedelta(seconds=5)
MEMORY_SHARE = 0.8
"""Of the host's memory, what builds get by default."""
SHOWN_CHARS_MAX = 80
SHOWN_BUILDS_MAX = 64
"""With these, what an agent says of itself stays under the 64 KiB that a node accepts."""
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(kw_only=True, eq=False)
class RunningBuild:
    """A build that has a place."""

    model_name: str
    holder: str
    memory_bytes: int
    """Set aside for it: an estimate."""
    began_at: datetime
    phase: build_service_pb2.BuildPhase.ValueType = build_service_pb2.BUILD_PHASE_RECEIVING

    def to_message(self) -> build_service_pb2.RunningBuild:
        """Return it as the agent describes it."""
        began_at = Timestamp()
        began_at.FromDatetime(self.began_at)
        return build_service_pb2.RunningBuild(
            model_name=self.model_name[:SHOWN_CHARS_MAX],
            holder=self.holder[:SHOWN_CHARS_MAX],
            began_at=began_at,
            phase=self.phase,
            memory_bytes=self.memory_bytes,
        )


@dataclass
class Places:
    """Admits builds: so many at a time, and as many as fit into the memory for builds.

    A build that runs alone always fits, since what it needs is an estimate and its own limit is kept
    anyway. One that does not fit waits for memory, for a bounded time.
    """

    builds_max: int
    memory_bytes: int
    """For all builds together."""
    memory_wait: timedelta = timedelta(0)
    """Longest that a build waits for memory."""
    running: list[RunningBuild] = field(default_factory=list)
    draining: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set at each change of the load; who has seen it clears it."""
    drained: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once no build runs any more and none is taken."""
    _freed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def memory_reserved_bytes(self) -> int:
        """What is set aside."""
        return sum(build.memory_bytes for build in self.running)

    @asynccontextmanager
    async def take(
        self, *, model_name: str, holder: str, memory_bytes: int
    ) -> AsyncIterator[RunningBuild]:
        """Take a place. Raises ``Failure`` when there is none, or no memory in time."""
        await self._admitted(memory_bytes)
        build = RunningBuild(
            model_name=model_name,
            holder=holder,
            memory_bytes=memory_bytes,
            began_at=datetime.now(UTC),
        )
        self.running.append(build)
        self.changed.set()
        try:
            yield build
        finally:
            self.running.remove(build)
            self._notify()

    def at_phase(
        self, build: RunningBuild, phase: build_service_pb2.BuildPhase.ValueType
    ) -> None:
        """Note what a build is at."""
        if build.phase != phase:
            build.phase = phase
            self.changed.set()

    def drain(self) -> None:
        """Take no more builds. Safe to repeat."""
        if not self.draining:
            self.draining = True
            self._notify()

    def describe(self, agent: build_service_pb2.AgentInfo) -> None:
        """Put what runs into an agent's description."""
        agent.draining = self.draining
        shown = self.running[:SHOWN_BUILDS_MAX]
        load = build_service_pb2.AgentLoad(
            running=len(self.running),
            memory_reserved_bytes=self.memory_reserved_bytes,
            builds=[build.to_message() for build in shown],
        )
        agent.load.CopyFrom(load)

    async def _admitted(self, memory_bytes: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.memory_wait.total_seconds()):
                while self._lacks_memory(memory_bytes):
                    self._freed.clear()
                    await self._freed.wait()
        if self.draining:
            raise _draining()
        if len(self.running) >= self.builds_max:
            raise _full(self.builds_max)
        if self._lacks_memory(memory_bytes):
            raise _no_memory(memory_bytes, self.memory_bytes - self.memory_reserved_bytes)

    def _lacks_memory(self, memory_bytes: int) -> bool:
        """Return whether a build has to wait for memory, and for nothing else."""
        if self.draining or not 0 < len(self.running) < self.builds_max:
            return False
        return self.memory_reserved_bytes + memory_bytes > self.memory_bytes

    def _notify(self) -> None:
        self.changed.set()
        self._freed.set()
        if self.draining and not self.running:
            self.drained.set()


def memory_for_builds() -> int:
    """Return what builds get of this host's memory unless a setting says it."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # "max", or another version of cgroups
        total = min(total, int(_CGROUP_LIMIT.read_text()))
    return int(total * MEMORY_SHARE)


def _draining() -> Failure:
    return Failure(
        grpc.StatusCode.UNAVAILABLE, "this agent is being drained and takes no more builds"
    )


def _full(builds_max: int) -> Failure:
    return Failure(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"this agent runs {builds_max} builds at a time, and all of them are under way",
        retry_info(RETRY_WHEN_FULL),
    )


def _no_memory(wanted: int, free: int) -> Failure:
    return Failure(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        f"this build is expected to need {wanted} bytes of memory, and {max(0, free)} are free here",
        retry_info(RETRY_WHEN_FULL),
    )
