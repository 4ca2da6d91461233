"""Those who use the service: each in a process of its own, with the real client."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.simulation.cluster import SimCluster, seconds
from tests.simulation.rpc import SimTransport
from tests.simulation.world import Process

from seatkeeper.chaos.record import Acquired, Published, Record, Refused, Returned
from seatkeeper.client import (
    ClientConfig,
    HoldingState,
    NoSeatFree,
    SeatError,
    ServiceUnavailable,
)
from seatkeeper.client.ids import IdGenerator
from seatkeeper.v1 import build_pb2, build_service_pb2, seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb
from seatkeeper.v1 import seat_service_pb2_grpc as pb_grpc

T = TypeVar("T")
Code = grpc.StatusCode
HOLD_SECONDS = (0.05, 0.05, 0.5, 0.5, 2.0, 10.0)
"""How long seats are held, on average; one of these each time."""
HOLD_SECONDS_MAX = 25.0


@dataclass(slots=True)
class Belief:
    """A user who counts on seats."""

    user: str
    process: Process
    pool: str
    seats: int
    is_safe: Callable[[], bool]
    """Whether the user's own clock still lets it count on them."""
    is_over: bool = False

    @property
    def is_held(self) -> bool:
        """Whether the user, asked now, would go on using them."""
        return not self.is_over and self.process.is_alive and self.is_safe()


@dataclass
class Story(Record):
    """The record of one run, and what it was like."""

    beliefs: list[Belief] = field(default_factory=list)
    operations: int = 0
    unserved: list[tuple[str, float]] = field(default_factory=list)
    """Requests that nobody answered for certain: whose, and until when."""


class User:
    """Works in a process of its own, for as long as it is told to."""

    def __init__(
        self,
        cluster: SimCluster,
        story: Story,
        name: str,
        pools: Sequence[tuple[str, int]],
        rng: random.Random,
    ) -> None:
        self.name = name
        self.process = cluster.world.process(name)
        self.process.clock_rate = rng.uniform(0.997, 1.003)
        self.is_done = False
        self.ttl = rng.choice([3.0, 5.0, 8.0])
        self._cluster = cluster
        self._world = cluster.world
        self._story = story
        self._pools = pools
        self._rng = rng
        self._stop_at = float("inf")
        self.agents: Sequence[Agent] = ()
        """Whom it may have build something under its seats."""
        self._new_id = IdGenerator(
            now_millis=lambda: int(self.process.unix_seconds() * 1000),
            random_bits=rng.getrandbits,
        )
        self._set_up()

    def _set_up(self) -> None:
        """Make what this kind of user works with."""
        raise NotImplementedError

    def begin(self, stop_at: float) -> None:
        """Work until ``stop_at``, then close."""
        self._stop_at = stop_at
        self.process.start(self._work())

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process.is_alive and not self.is_done:
            self._story.killed[self.name] = self._world.now
            self.process.kill()

    async def _work(self) -> None:
        while self._world.now < self._stop_at:
            await asyncio.sleep(self._rng.expovariate(1 / 0.5))
            if self._world.now < self._stop_at:
                await self._cycle()
        await self._end()
        self.is_done = True
        self._world.note(f"{self.name}: done")

    async def _cycle(self) -> None:
        raise NotImplementedError

    async def _end(self) -> None:
        raise NotImplementedError

    def _choose(self) -> tuple[str, int, float]:
        """Draw a pool, how many of its seats, and how long to wait for them."""
        pool, capacity = self._rng.choice(self._pools)
        seats = self._rng.choice([1, 1, 1, min(2, capacity)])
        return pool, seats, self._rng.choice([0.0, 0.5, 3.0, 10.0, 10.0])

    async def _use(
        self, pool: str, seats: int, grant_id: str, fence: int, is_safe: Callable[[], bool]
    ) -> None:
        """Count on seats for a while."""
        story, world = self._story, self._world
        world.note(f"{self.name}: holds {grant_id} of {pool} under {fence}")
        story.acquired.append(Acquired(self.name, pool, grant_id, fence, seats, world.now))
        belief = Belief(self.name, self.process, pool, seats, is_safe)
        story.beliefs.append(belief)
        held_for = self._rng.expovariate(1 / self._rng.choice(HOLD_SECONDS))
        await asyncio.sleep(min(held_for, HOLD_SECONDS_MAX))
        belief.is_over = True


class LibraryUser(User):
    """Uses the client library."""

    def _set_up(self) -> None:
        self._client = self._cluster.client(
            self.process,
            ClientConfig(
                ttl=seconds(self.ttl),
                safety_margin=seconds(self._rng.choice([0.2, 1.0])),
                linger=seconds(self._rng.choice([0.0, 0.0, 0.5])),
                connect_timeout=seconds(8.0),
                call_timeout=seconds(8.0),
            ),
        )

    async def _cycle(self) -> None:
        rng, story = self._rng, self._story
        pool, seats, wait = self._choose()
        story.operations += 1
        asking = asyncio.ensure_future(
            self._client.acquire(
                pool, seats=seats, priority=rng.choice([0, 0, 0, 1, 2]), wait=wait
            )
        )
        if rng.random() < 0.1:
            await asyncio.wait({asking}, timeout=rng.uniform(0.0, 0.3))
            asking.cancel()
        try:
            grant = await asking
        except NoSeatFree:
            return
        except (SeatError, asyncio.CancelledError) as error:
            self._world.note(f"{self.name}: failed: {type(error).__name__}")
            if isinstance(error, ServiceUnavailable):
                story.unserved.append((self.name, self._world.now))
            return
        if self.agents and rng.random() < 0.4:
            rng.choice(self.agents).ask(grant.token, pool, grant.grant_id, grant.fence)
        await self._use(
            *(pool, seats, grant.grant_id, grant.fence),
            lambda: grant.state is not HoldingState.LOST,
        )
        story.operations += 1
        await grant.release()

    async def _end(self) -> None:
        await self._client.close()


class StubUser(User):
    """Uses unary calls of the generated stubs, on any node, and sends again whatever is not answered.

    So it knows for certain what was granted and what was given back.
    """

    MARGIN_SECONDS = 0.7

    def _set_up(self) -> None:
        self._credentials: pb.SessionCredentials | None = None
        self._safe_until = 0.0
        self._was_refused = False
        """The last call was refused for certain."""
        self._renewing: asyncio.Task[None] | None = None

    def _is_safe(self) -> bool:
        return self._world.now * self.process.clock_rate < self._safe_until

    async def _cycle(self) -> None:
        if not self._is_safe():
            await self._open()
        credentials = self._credentials
        if credentials is None:
            return
        if self._rng.random() < 0.1:
            await self._steal(credentials)
        pool, seats, wait = self._choose()
        acquire = seat_pb2.Acquire(pool=pool, grant_id=self._new_id(), seats=seats)
        acquire.wait.FromTimedelta(seconds(wait))
        self._story.operations += 1
        if self._rng.random() < 0.1:
            await self._leave_while_asking(credentials, acquire)
            return
        answer = await self._insist(
            lambda stub: stub.Acquire(
                pb.AcquireRequest(credentials=credentials, acquire=acquire), timeout=wait + 2.0
            )
        )
        if answer is None:
            if self._was_refused:
                self._story.refused.append(
                    Refused(self.name, pool, acquire.grant_id, self._world.now)
                )
            return
        await self._use(
            *(pool, seats, acquire.grant_id, answer.granted.fence),
            lambda: self._credentials is credentials and self._is_safe(),
        )
        self._story.operations += 1
        ref = pb.GrantRef(pool=pool, grant_id=acquire.grant_id)
        release = pb.ReleaseRequest(credentials=credentials, release=pb.Release(grant=ref))
        if await self._insist(lambda stub: stub.Release(release, timeout=2.0)) is not None:
            self._story.returned.append(
                Returned(self.name, pool, acquire.grant_id, self._world.now)
            )

    async def _leave_while_asking(
        self, credentials: pb.SessionCredentials, acquire: seat_pb2.Acquire
    ) -> None:
        """Close the session that a request is under way of."""
        request = pb.AcquireRequest(credentials=credentials, acquire=acquire)
        asking = asyncio.ensure_future(self._stub().Acquire(request, timeout=2.0))
        await asyncio.sleep(self._rng.uniform(0.0, 0.003))
        await self._end()
        self._credentials, self._safe_until = None, 0.0
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    async def _steal(self, credentials: pb.SessionCredentials) -> None:
        """Give back a seat of somebody else, which must be refused."""
        held = [told for told in self._story.acquired[-5:] if told.user != self.name]
        if not held:
            return
        prey = self._rng.choice(held)
        ref = pb.GrantRef(pool=prey.pool, grant_id=prey.grant_id)
        release = pb.ReleaseRequest(credentials=credentials, release=pb.Release(grant=ref))
        self._story.operations += 1
        # One that is not there any more is not there: that is no theft.
        await self._insist(lambda stub: stub.Release(release, timeout=2.0))

    async def _open(self) -> None:
        credentials = pb.SessionCredentials(
            session_id=self._new_id(), secret=self._rng.randbytes(16)
        )
        opening = pb.Open(credentials=credentials, holder=self.name, project="sim")
        opening.ttl.FromTimedelta(seconds(self.ttl))
        sent_at = self._world.now * self.process.clock_rate
        request = pb.OpenSessionRequest(open=opening)
        opened = await self._insist(lambda stub: stub.OpenSession(request, timeout=2.0))
        if opened is None:
            return
        self._credentials = credentials
        self._safe_until = sent_at + self.ttl - self.MARGIN_SECONDS
        if self._renewing is not None:
            self._renewing.cancel()
        self._renewing = self.process.start(self._renew_forever(credentials))

    async def _renew_forever(self, credentials: pb.SessionCredentials) -> None:
        sequence = 0
        while True:
            await asyncio.sleep(self.ttl / 4)
            sequence += 1
            sent_at = self._world.now * self.process.clock_rate
            request = pb.RenewRequest(
                credentials=credentials, renew=pb.Renew(sequence=sequence)
            )
            try:
                await self._stub().Renew(request, timeout=1.0)
            except grpc.aio.AioRpcError as error:
                if error.code() is Code.NOT_FOUND:
                    self._credentials = None
                    return
            else:
                self._safe_until = sent_at + self.ttl - self.MARGIN_SECONDS

    async def _insist(
        self, call: Callable[[pb_grpc.SeatServiceAsyncStub], Awaitable[T]]
    ) -> T | None:
        """Call, on one node after another, until one answers for certain; None: it was refused."""
        self._was_refused = False
        for _ in range(12):
            try:
                return await call(self._stub())
            except grpc.aio.AioRpcError as error:
                if error.code() not in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
                    self._was_refused = True
                    self._world.note(f"{self.name}: refused: {error.code()} {error.details()}")
                    return None
                await asyncio.sleep(self._rng.uniform(0.05, 0.5))
        self._story.unserved.append((self.name, self._world.now))
        return None

    async def _end(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
        if (credentials := self._credentials) is not None:
            request = pb.CloseSessionRequest(credentials=credentials)
            await self._insist(lambda stub: stub.CloseSession(request, timeout=2.0))

    def _stub(self) -> pb_grpc.SeatServiceAsyncStub:
        node = self._rng.choice(self._cluster.nodes)
        transport = SimTransport(self._cluster.board, self.process)
        return pb_grpc.SeatServiceStub(transport.connect(node.address))


class Agent(User):
    """A build agent's seat logic: it claims a grant that it was handed, works, publishes under it."""

    KEYS_COUNT = 3

    def _set_up(self) -> None:
        self._client = self._cluster.client(
            self.process, ClientConfig(ttl=seconds(self.ttl), call_timeout=seconds(4.0))
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
        self._story.operations += 1
        try:
            await self._build(token, pool, grant_id, fence)
        except SeatError as error:
            self._world.note(f"{self.name}: not built: {type(error).__name__}")

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
        self._story.published.append(
            Published(self.name, pool, grant_id, fence, self._world.now)
        )
        await engines.yield_claim(pool=pool, grant_id=grant_id, claim_id=claim_id)

    async def _end(self) -> None:
        await self._client.close()
