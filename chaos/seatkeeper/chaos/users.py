"""Users of a service who know for certain what they observed. The same ones everywhere.

They work in a process of their own, with the real client or with the generated stubs, and write down
in a ``UserRecord`` what a checker can hold the service to. Where they live is a ``Surroundings``: a
process in simulation, or one of the operating system.
"""

from __future__ import annotations

import asyncio
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from seatkeeper.client import (
    AsyncGrant,
    AsyncSeatClient,
    ClientConfig,
    HoldingState,
    NoSeatFree,
    SeatError,
    SeatLost,
    ServiceUnavailable,
)
from seatkeeper.core.ids import IdGenerator
from seatkeeper.oracle.record import (
    Acquired,
    Attack,
    Believed,
    Denied,
    Prevented,
    Published,
    Record,
    Refused,
    Returned,
)
from seatkeeper.v1 import build_pb2, build_service_pb2, seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb
from seatkeeper.v1 import seat_service_pb2_grpc as pb_grpc

T = TypeVar("T")
Code = grpc.StatusCode
TRIES_MAX = 12
"""How often an unanswered request is sent again."""


class Surroundings(Protocol):
    """Where a user lives: its process, its clocks, and its way to the service."""

    @property
    def name(self) -> str:
        """Who the user is; holders are looked up by it."""
        ...

    @property
    def project(self) -> str:
        """Who is charged."""
        ...

    @property
    def is_alive(self) -> bool:
        """Whether its process exists."""
        ...

    def now(self) -> float:
        """Return the time that the record is kept in: seconds, the same for all users."""
        ...

    def own_time(self) -> float:
        """Return what the user's own clock says, in seconds."""
        ...

    def unix_millis(self) -> int:
        """Return what the user takes for the time of day."""
        ...

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin something that goes on beside what the user does."""
        ...

    def client(self, config: ClientConfig) -> AsyncSeatClient:
        """Return a client of the service."""
        ...

    def stub(self, rng: random.Random) -> pb_grpc.SeatServiceAsyncStub:
        """Return the stub of any node."""
        ...

    def note(self, text: str) -> None:
        """Write down that something happened, for people."""
        ...


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How users behave; one of each list, each time."""

    pause: float = 0.5
    """Seconds between two requests, on average."""
    holds: Sequence[float] = (0.05, 0.05, 0.5, 0.5, 2.0, 10.0)
    """Seconds that seats are held, on average."""
    hold_max: float = 25.0
    waits: Sequence[float] = (0.0, 0.5, 3.0, 10.0, 10.0)
    """Seconds that a request may wait."""
    ttls: Sequence[float] = (3.0, 5.0, 8.0)
    wait_max: float = 60.0
    """Seconds that one waits who wants many seats, or for long, at most."""
    time_limit: float = 8.0
    """Seconds beyond its wait after which an unanswered request is given up."""
    give_up: float = 0.1
    """Share of the requests that are given up before they are answered."""


@dataclass(slots=True)
class Belief:
    """A user who counts on seats, looked at again and again."""

    user: Surroundings
    pool: str
    grant_id: str
    seats: int
    is_safe: Callable[[], bool]
    """Whether the user's own clock still lets it count on them."""
    since: float
    until: float
    """When it was last seen to count on them."""
    is_over: bool = False

    @property
    def is_held(self) -> bool:
        """Whether the user, asked now, would go on using them."""
        return not self.is_over and self.user.is_alive and self.is_safe()

    def look(self) -> None:
        """See whether it still is so."""
        now = self.user.now()  # first: the process may stand still before the next line
        if self.is_held:
            self.until = now

    def end(self) -> None:
        """Stop counting on them, for good."""
        self.look()
        self.is_over = True

    @property
    def believed(self) -> Believed:
        """What was seen of it."""
        return Believed(
            *(self.user.name, self.pool, self.seats, self.since, self.until, self.grant_id)
        )


@dataclass
class UserRecord(Record):
    """What users received, and what they believe in now."""

    beliefs: list[Belief] = field(default_factory=list)
    borrowed: list[Believed] = field(default_factory=list)
    """What machines count on until a day, whether they are switched on or not."""

    def count_on(self, borrowed: Believed) -> None:
        """Record what a machine has borrowed."""
        self.borrowed.append(borrowed)

    def look(self) -> list[Belief]:
        """Look at all beliefs; forget those that are over, and return them."""
        for belief in self.beliefs:
            belief.look()
        over = [belief for belief in self.beliefs if belief.is_over]
        self.beliefs[:] = [belief for belief in self.beliefs if not belief.is_over]
        return over


class User(ABC):
    """Works until it is stopped, then closes."""

    def __init__(
        self,
        surroundings: Surroundings,
        user_record: UserRecord,
        pools: Sequence[tuple[str, int]],
        rng: random.Random,
        habits: Habits | None = None,
    ) -> None:
        """``pools``: names, and how many seats each has."""
        self.name = surroundings.name
        self.surroundings = surroundings
        self.user_record = user_record
        self.is_done = False
        self.habits = habits or Habits()
        self.ttl = rng.choice(self.habits.ttls)
        user_record.ttls[self.name] = self.ttl
        self.stop_at = float("inf")
        self.asking_since: float | None = None
        """Since when it has waited for seats; None: it does not."""
        self._pools = pools
        self._rng = rng
        self._new_id = IdGenerator(
            now_millis=surroundings.unix_millis, random_bits=rng.getrandbits
        )
        self._set_up()

    @abstractmethod
    def _set_up(self) -> None:
        """Make what this kind of user works with."""

    def begin(self, stop_at: float) -> None:
        """Work until ``stop_at``, which may be changed while it works; then close."""
        self.stop_at = stop_at
        self.surroundings.start(self._work())

    async def _work(self) -> None:
        here = self.surroundings
        while here.now() < self.stop_at:
            await asyncio.sleep(self._rng.expovariate(1 / self.habits.pause))
            if here.now() < self.stop_at:
                await self._cycle()
                self.asking_since = None
        await self._end()
        self.is_done = True
        here.note(f"{self.name}: done")

    @abstractmethod
    async def _cycle(self) -> None:
        """Ask once, and do what comes of it."""

    @abstractmethod
    async def _end(self) -> None:
        """Leave nothing behind."""

    def _note_asking(self) -> float:
        self.user_record.operations += 1
        self.asking_since = now = self.surroundings.now()
        return now

    def _note_prevented(self, attack: Attack, pool: str, grant_id: str, fence: int) -> None:
        now = self.surroundings.now()
        self.user_record.note(Prevented(self.name, attack.value, pool, grant_id, fence, now))

    def _choose(self) -> tuple[str, int, float]:
        """Draw a pool, how many of its seats, and how long to wait for them."""
        pool, capacity = self._rng.choice(self._pools)
        seats = self._rng.choice([1, 1, 1, min(2, capacity)])
        return pool, seats, self._rng.choice(self.habits.waits)

    async def _use(
        self, pool: str, seats: int, grant_id: str, fence: int, is_safe: Callable[[], bool]
    ) -> None:
        """Count on seats for a while."""
        user_record, here = self.user_record, self.surroundings
        here.note(f"{self.name}: holds {grant_id} of {pool} under {fence}")
        now = here.now()
        user_record.note(Acquired(self.name, pool, grant_id, fence, seats, now))
        belief = Belief(here, pool, grant_id, seats, is_safe, since=now, until=now)
        user_record.beliefs.append(belief)
        self.asking_since = None
        held_for = self._rng.expovariate(1 / self._rng.choice(self.habits.holds))
        await asyncio.sleep(min(held_for, self.habits.hold_max))
        belief.end()


WORKS = ("", "", "work-1", "work-2")
"""What a request may name where users name work at all; empty: none."""
CLASSES = ("", "", "t4", "a100", "h100")
"""Cost classes that requests name where some do; no pool lists the last."""
ENDS_WORK = 0.7
"""Share of the releases that say how the work ended; after the others the next one does it."""


class LibraryUser(User):
    """Uses the client library. It gives up early now and then, and has agents build under its seats."""

    agents: Sequence[Agent] = ()
    works: random.Random | None = None
    """What draws the work of a request, and how it ends; None: no request names any."""
    classes: random.Random | None = None
    """What draws the cost class of a request; None: no request names any."""

    def _set_up(self) -> None:
        self._client = self.surroundings.client(
            ClientConfig(
                ttl=timedelta(seconds=self.ttl),
                safety_margin=timedelta(seconds=self._rng.choice([0.2, 1.0])),
                linger=timedelta(seconds=self._rng.choice([0.0, 0.0, 0.5])),
                connect_timeout=timedelta(seconds=self.habits.time_limit),
                call_timeout=timedelta(seconds=self.habits.time_limit),
            ),
        )

    async def _cycle(self) -> None:
        rng, user_record, here = self._rng, self.user_record, self.surroundings
        pool, seats, wait = self._choose()
        asked_at = self._note_asking()
        work_key = self.works.choice(WORKS) if self.works else ""
        asking = asyncio.ensure_future(
            self._client.acquire(
                pool,
                seats=seats,
                priority=rng.choice([0, 0, 0, 1, 2]),
                wait=wait,
                token=bool(self.agents),
                work_key=work_key,
                cost_class=self.classes.choice(CLASSES) if self.classes else "",
            )
        )
        if rng.random() < self.habits.give_up:
            await asyncio.wait({asking}, timeout=rng.uniform(0.0, 0.3))
            asking.cancel()
        try:
            grant = await asking
        except NoSeatFree:
            user_record.note(Denied(self.name, pool, asked_at, here.now(), wait))
            return
        except (SeatError, asyncio.CancelledError) as error:
            here.note(f"{self.name}: failed: {type(error).__name__}")
            if isinstance(error, ServiceUnavailable):
                user_record.unserved.append((self.name, here.now()))
            return
        self._forward(grant)
        await self._use(
            *(pool, grant.seats, grant.grant_id, grant.fence),
            lambda: grant.state is not HoldingState.LOST,
        )
        user_record.operations += 1
        if work_key and self.works and self.works.random() < ENDS_WORK:
            grant.end_work(failure=self.works.choice(["", "", "Failed"]), message="drawn")
        await grant.release()

    def _forward(self, grant: AsyncGrant) -> None:
        """Hand a grant to an agent, now and then; it may come too late."""
        if self.agents and self._rng.random() < 0.6:
            agent = self._rng.choice(self.agents)
            try:
                token = grant.token
            except SeatLost:  # an administrator has taken it back already
                return
            agent.ask(token, grant.pool, grant.grant_id, grant.fence)

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
        self._refusal: grpc.StatusCode | None = None
        """Why the last call was refused for certain; None: it was not."""
        self._renewing: asyncio.Task[None] | None = None

    def _is_safe(self) -> bool:
        return self.surroundings.own_time() < self._safe_until

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
        acquire.wait.FromTimedelta(timedelta(seconds=wait))
        asked_at = self._note_asking()
        if self._rng.random() < self.habits.give_up:
            await self._leave_while_asking(credentials, acquire)
            return
        answer = await self._insist(
            lambda stub: stub.Acquire(
                pb.AcquireRequest(credentials=credentials, acquire=acquire), timeout=wait + 2.0
            )
        )
        if answer is None:
            now = self.surroundings.now()
            if self._refusal is not None:
                self.user_record.note(Refused(self.name, pool, acquire.grant_id, now))
            if self._refusal is Code.RESOURCE_EXHAUSTED:
                self.user_record.note(Denied(self.name, pool, asked_at, now, wait))
            return
        await self._use(
            *(pool, answer.granted.seats, acquire.grant_id, answer.granted.fence),
            lambda: self._credentials is credentials and self._is_safe(),
        )
        self.user_record.operations += 1
        ref = pb.GrantRef(pool=pool, grant_id=acquire.grant_id)
        release = pb.ReleaseRequest(credentials=credentials, release=pb.Release(grant=ref))
        if await self._insist(lambda stub: stub.Release(release, timeout=2.0)) is not None:
            self.user_record.note(
                Returned(self.name, pool, acquire.grant_id, self.surroundings.now())
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
        held = [
            reported
            for reported in self.user_record.acquired[-5:]
            if reported.user != self.name
        ]
        if not held:
            return
        prey = self._rng.choice(held)
        ref = pb.GrantRef(pool=prey.pool, grant_id=prey.grant_id)
        release = pb.ReleaseRequest(credentials=credentials, release=pb.Release(grant=ref))
        self.user_record.operations += 1
        # One that is not there any more is not there: that is no theft.
        await self._insist(lambda stub: stub.Release(release, timeout=2.0))
        if self._refusal is Code.PERMISSION_DENIED:
            self._note_prevented(Attack.THEFT, prey.pool, prey.grant_id, prey.fence)

    async def _open(self) -> None:
        here = self.surroundings
        credentials = pb.SessionCredentials(
            session_id=self._new_id(), secret=self._rng.randbytes(16)
        )
        opening = pb.Open(credentials=credentials, holder=self.name, project=here.project)
        opening.ttl.FromTimedelta(timedelta(seconds=self.ttl))
        sent_at = here.own_time()
        request = pb.OpenSessionRequest(open=opening)
        opened = await self._insist(lambda stub: stub.OpenSession(request, timeout=2.0))
        if opened is None:
            return
        self._credentials = credentials
        self._safe_until = sent_at + self.ttl - self.MARGIN_SECONDS
        if self._renewing is not None:
            self._renewing.cancel()
        self._renewing = here.start(self._renew_loop(credentials))

    async def _renew_loop(self, credentials: pb.SessionCredentials) -> None:
        sequence = 0
        while True:
            await asyncio.sleep(self.ttl / 4)
            sequence += 1
            sent_at = self.surroundings.own_time()
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
        here = self.surroundings
        self._refusal = None
        for _ in range(TRIES_MAX):
            try:
                return await call(self._stub())
            except grpc.aio.AioRpcError as error:
                if _is_for_certain(error):
                    self._refusal = error.code()
                    here.note(f"{self.name}: refused: {error.code()} {error.details()}")
                    return None
                self.user_record.unknown += 1
                await asyncio.sleep(self._rng.uniform(0.05, 0.5))
        self.user_record.unserved.append((self.name, here.now()))
        return None

    async def _end(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
        if (credentials := self._credentials) is not None:
            request = pb.CloseSessionRequest(credentials=credentials)
            await self._insist(lambda stub: stub.CloseSession(request, timeout=2.0))

    def _stub(self) -> pb_grpc.SeatServiceAsyncStub:
        return self.surroundings.stub(self._rng)


class Agent(User):
    """A build agent's seat logic: it claims a grant that it was handed, works, publishes under it."""

    KEYS_COUNT = 3

    def _set_up(self) -> None:
        self._client = self.surroundings.client(
            ClientConfig(ttl=timedelta(seconds=self.ttl), call_timeout=timedelta(seconds=4))
        )
        self._key = Ed25519PrivateKey.from_private_bytes(self._rng.randbytes(32))
        self._jobs: deque[tuple[str, str, str, int]] = deque(maxlen=10)

    def ask(self, token: str, pool: str, grant_id: str, fence: int) -> None:
        """Have it build something under a grant, when it comes to that: perhaps too late."""
        self._jobs.append((token, pool, grant_id, fence))

    async def _cycle(self) -> None:
        if not self._jobs:
            return
        # Not in order, and some more than once: older fences come after newer ones.
        chosen = self._rng.randrange(len(self._jobs))
        token, pool, grant_id, fence = self._jobs[chosen]
        if self._rng.random() < 0.5:
            del self._jobs[chosen]
        self.user_record.operations += 1
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
            key=f"{self._rng.randrange(self._rng.choice([1, self.KEYS_COUNT])):064x}",
            agent_id=self.name,
            pool=pool,
            grant_id=grant_id,
            fence=fence,
        ).SerializeToString()
        signed = build_pb2.SignedManifest(
            manifest=manifest, signature=self._key.sign(manifest), public_key=public_key
        )
        # It goes on though the claim may have ended: the service must not let it.
        try:
            await engines.publish(signed, claim_id=claim_id)
        except SeatLost:
            self._note_prevented(Attack.LATE_PUBLICATION, pool, grant_id, fence)
            raise
        self.user_record.note(
            Published(self.name, pool, grant_id, fence, self.surroundings.now())
        )
        await engines.yield_claim(pool=pool, grant_id=grant_id, claim_id=claim_id)

    async def _end(self) -> None:
        await self._client.close()


def _is_for_certain(error: grpc.aio.AioRpcError) -> bool:
    """Return whether a call was refused by the service. A connection that ends says no reason."""
    if error.code() in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED):
        return False
    return any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata() or ())
