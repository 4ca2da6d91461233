"""Those who use the simulated service: the chaos library's users, and build agents, in processes."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.simulation.cluster import SimCluster, SimNode, seconds
from tests.simulation.rpc import SimTransport
from tests.simulation.world import Process

from seatkeeper.chaos import users
from seatkeeper.chaos.record import Published
from seatkeeper.chaos.users import StubUser, User
from seatkeeper.client import AsyncGrant, AsyncSeatClient, ClientConfig, SeatError
from seatkeeper.v1 import build_pb2, build_service_pb2, seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb
from seatkeeper.v1 import seat_service_pb2_grpc as pb_grpc


class SimSurroundings:
    """A process of the simulated world."""

    project = "sim"

    def __init__(
        self,
        cluster: SimCluster,
        name: str,
        rng: random.Random,
        nodes: Sequence[SimNode] = (),
    ) -> None:
        """``nodes``: those that stubs go to; default: all."""
        self.name = name
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
        return self._cluster.client(self.process, config)

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
        user.story.killed[user.name] = process.world.now
        process.kill()


class LibraryUser(users.LibraryUser):
    """Has agents build something under its seats."""

    agents: Sequence[Agent] = ()

    def _pass_on(self, grant: AsyncGrant) -> None:
        if self.agents and self._rng.random() < 0.4:
            agent = self._rng.choice(self.agents)
            agent.ask(grant.token, grant.pool, grant.grant_id, grant.fence)


class LastUser(StubUser):
    """Comes when all is healed and nobody holds anything: it must get a seat of every pool."""

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


class Agent(User):
    """A build agent's seat logic: it claims a grant that it was handed, works, publishes under it."""

    KEYS_COUNT = 3

    def _set_up(self) -> None:
        self._client = self.surroundings.client(
            ClientConfig(ttl=seconds(self.ttl), call_timeout=seconds(4.0))
        )
        self._key = Ed25519PrivateKey.from_private_bytes(self._rng.randbytes(32))
        self._jobs: deque[tuple[str, str, str, int]] = deque(maxlen=10)

    def ask(self, token: str, pool: str, grant_id: str, fence: int) -> None:
        """Have it build something under a grant, when it comes to that: perhaps too late."""
        self._jobs.append((token, pool, grant_id, fence))

    async def _cycle(self) -> None:
        if not self._jobs:
            return
        token, pool, grant_id, fence = self._jobs.popleft()
        self.story.operations += 1
        try:
            await self._build(token, pool, grant_id, fence)
        except SeatError as error:
            self.surroundings.note(f"{self.name}: not built: {type(error).__name__}")

    async def _build(self, token: str, pool: str, grant_id: str, fence: int) -> None:
        engines, claim_id = self._client.engines, self._new_id()
        public_key = self._key.public_key().public_bytes_raw()
        await engines.register_agent(
            build_service_pb2.AgentInfo(
                agent_id=self.name, address="agent:1", public_key=public_key
            )
        )
        claim = engines.claim(token, agent_id=self.name, claim_id=claim_id)
        await anext(claim)
        await asyncio.sleep(self._rng.expovariate(1 / self._rng.choice([0.05, 1.0])))
        manifest = build_pb2.EngineManifest(
            key=f"{self._rng.randrange(self.KEYS_COUNT):064x}",
            agent_id=self.name,
            pool=pool,
            grant_id=grant_id,
            fence=fence,
        ).SerializeToString()
        signed = build_pb2.SignedManifest(
            manifest=manifest, signature=self._key.sign(manifest), public_key=public_key
        )
        # It goes on though the claim may have ended: the service must not let it.
        await engines.publish(signed, claim_id=claim_id)
        self.story.note(Published(self.name, pool, grant_id, fence, self.surroundings.now()))
        await engines.yield_claim(pool=pool, grant_id=grant_id, claim_id=claim_id)

    async def _end(self) -> None:
        await self._client.close()
