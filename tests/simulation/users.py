"""Those who use the simulated service: the chaos library's users, and build agents, in processes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Sequence
from typing import Any

from tests.simulation.cluster import SimCluster, SimNode, seconds
from tests.simulation.rpc import SimTransport
from tests.simulation.world import Process

from seatkeeper.chaos.users import StubUser, User
from seatkeeper.client import AsyncSeatClient, ClientConfig
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb
from seatkeeper.v1 import seat_service_pb2_grpc as pb_grpc


class SimSurroundings:
    """A process of the simulated world."""

    def __init__(
        self,
        cluster: SimCluster,
        name: str,
        rng: random.Random,
        nodes: Sequence[SimNode] = (),
    ) -> None:
        """``nodes``: those that stubs go to; default: all."""
        self.name = name
        self.project = cluster.project_of(name)
        self._nodes = nodes or cluster.nodes
        self.process: Process = cluster.world.process(name)
        self.process.clock_rate = rng.uniform(0.997, 1.003)
        self._cluster = cluster
        self._world = cluster.world

    @property
    def is_alive(self) -> bool:
        return self.process.is_alive

    def now(self) -> float:
        return self._world.now

    def own_time(self) -> float:
        return self._world.now * self.process.clock_rate

    def unix_millis(self) -> int:
        return int(self.process.unix_seconds() * 1000)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return self.process.start(work)

    def client(self, config: ClientConfig) -> AsyncSeatClient:
        return self._cluster.client(self.process, config, project=self.project)

    def stub(self, rng: random.Random) -> pb_grpc.SeatServiceAsyncStub:
        node = rng.choice(self._nodes)
        transport = SimTransport(self._cluster.board, self.process)
        return pb_grpc.SeatServiceStub(transport.connect(node.address))

    def note(self, text: str) -> None:
        self._world.note(text)


def process_of(user: User) -> Process:
    """Return the process that a user lives in."""
    assert isinstance(user.surroundings, SimSurroundings)
    return user.surroundings.process


def kill(user: User) -> None:
    """End a user as a power cut would."""
    process = process_of(user)
    if process.is_alive and not user.is_done:
        user.user_record.killed[user.name] = process.world.now
        process.kill()


class LastUser(StubUser):
    """Comes when all is recovered and nothing is held: it must get a seat of every pool."""

    WAIT_SECONDS = 5.0

    def _set_up(self) -> None:
        super()._set_up()
        self.unserved: list[str] = []
        """The pools that it got no seat of."""

    async def _work(self) -> None:
        await self._open()
        credentials = self._credentials
        for pool, _ in self._pools:
            if credentials is None or not await self._takes_a_seat(credentials, pool):
                self.unserved.append(pool)
        await self._end()
        self.is_done = True

    async def _takes_a_seat(self, credentials: pb.SessionCredentials, pool: str) -> bool:
        acquire = seat_pb2.Acquire(pool=pool, grant_id=self._new_id(), seats=1)
        acquire.wait.FromTimedelta(seconds(self.WAIT_SECONDS))
        request = pb.AcquireRequest(credentials=credentials, acquire=acquire)
        ref = pb.GrantRef(pool=pool, grant_id=acquire.grant_id)
        release = pb.ReleaseRequest(credentials=credentials, release=pb.Release(grant=ref))
        timeout = self.WAIT_SECONDS + 2.0
        if await self._insist(lambda stub: stub.Acquire(request, timeout=timeout)) is None:
            return False
        return await self._insist(lambda stub: stub.Release(release, timeout=2.0)) is not None
