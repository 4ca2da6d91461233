"""A process of users, run under each version: ``python program.py CONFIG``, a JSON object.

It imports of Seatkeeper what users import, and nothing else of this repository, so that the same file
runs with the client of any version. It speaks to the harness as `seatkeeper.chaos.worker` does, in
lines of JSON: what users were answered, what they believe, and how things are. It also says which calls
failed, that is, raised an error that is not the right answer, after all tries that the client makes.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from seatkeeper.client import (
    AsyncGrant,
    AsyncSeatClient,
    BuildFailed,
    ClientConfig,
    HoldingState,
    NoSeatFree,
    SeatError,
    SeatLost,
    TlsConfig,
    new_id,
)
from seatkeeper.v1 import build_pb2, build_service_pb2, seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

T = TypeVar("T")
HEARTBEAT_SECONDS = 0.05
STOP_SECONDS_MAX = 25.0
PAUSE_SECONDS = 0.15
"""Between two requests of a user, on average."""
HOLDS = (0.05, 0.2, 0.5, 2.0)
WAITS = (0.0, 1.0, 3.0, 5.0)
BUILD_PAUSE_SECONDS = 6.0
REOPEN_SHARE = 0.05
"""How often a user closes its session and begins another."""


@dataclass(frozen=True)
class Config:
    """What such a process has to know."""

    name: str
    version: str
    """``old`` or ``new``: for people."""
    seed: int
    nodes: list[str]
    pools: list[tuple[str, int]]
    """Those that users share, and their seats."""
    agent_pool: str
    """Under whose seats the agent without a compiler publishes."""
    admin_pool: str
    """A pool of its own, which its administrator changes."""
    build_pool: str
    """Under whose seats engines are compiled; empty: none are."""
    model: str
    """The file of a small model."""
    ttl: float
    tls: dict[str, str]
    """Files of the CA, the certificate and its key; empty: without TLS."""


@dataclass
class Belief:
    """Seats that a user counts on."""

    user: str
    pool: str
    seats: int
    since: float
    until: float
    is_safe: Callable[[], bool]
    is_over: bool = False

    def look(self) -> None:
        """See whether it still does."""
        now = time.monotonic()  # first: the process may stand still before the next line
        if not self.is_over and self.is_safe():
            self.until = now

    def fields(self) -> dict[str, object]:
        """Return it as the harness reads it."""
        return {
            name: getattr(self, name) for name in ("user", "pool", "seats", "since", "until")
        }


def tls_of(files: Mapping[str, str]) -> TlsConfig | None:
    """Return the client's side of TLS; None: without."""
    if not files:
        return None
    return TlsConfig(ca=Path(files["ca"]), cert=Path(files["cert"]), key=Path(files["key"]))


def say(**fields: object) -> None:
    """Write one line to the harness."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


class Program:
    """The users of this process, and what they share."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.is_stopping = False
        self.operations = 0
        self.beliefs: list[Belief] = []
        self.asking: dict[str, float] = {}
        users: list[User] = [
            LibraryUser(self, "library-1"),
            LibraryUser(self, "library-2", keeper="helper"),
            LibraryUser(self, "library-3", follow_ring=False),
            UnaryUser(self, "unary-1"),
            UnaryUser(self, "unary-2"),
            AgentUser(self, "agent"),
            Administrator(self, "admin"),
        ]
        if config.build_pool:
            users.append(Builder(self, "builder"))
        self.users = users

    async def work(self) -> None:
        """Let users work until the harness says stop, then wait until they have closed."""
        say(ttls={user.name: self.config.ttl for user in self.users})
        working = {user.name: asyncio.create_task(user.work()) for user in self.users}
        sending = asyncio.create_task(self._send_heartbeats())
        await _until_stopped()
        self.is_stopping = True
        await asyncio.wait(working.values(), timeout=STOP_SECONDS_MAX)
        sending.cancel()
        self._say_beliefs()
        say(done=[name for name, task in working.items() if task.done()])

    async def _send_heartbeats(self) -> None:
        while True:
            believed = self._say_beliefs()
            now = time.monotonic()
            say(
                at=now,
                believed=believed,
                asking=len(self.asking),
                longest=now - min(self.asking.values(), default=now),
                operations=self.operations,
                unknown=0,
            )
            await asyncio.sleep(HEARTBEAT_SECONDS)

    def _say_beliefs(self) -> list[dict[str, object]]:
        for belief in self.beliefs:
            belief.look()
        for belief in [each for each in self.beliefs if each.is_over]:
            self.beliefs.remove(belief)
            say(over=belief.fields())
        return [each.fields() for each in self.beliefs if each.until > each.since]


async def _until_stopped() -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    while line := await reader.readline():
        if "stop" in json.loads(line):
            return
    os._exit(1)  # the harness has gone


class User:
    """Does its work again and again, until the program stops."""

    def __init__(self, program: Program, role: str) -> None:
        self.program = program
        self.config = program.config
        self.name = f"{program.config.name}-{program.config.version}-{role}"
        self.rng = random.Random(f"{program.config.seed} {role}")
        self.pause = PAUSE_SECONDS

    async def work(self) -> None:
        """Work; report every error that the cycle does not expect."""
        while not self.program.is_stopping:
            await asyncio.sleep(self.rng.expovariate(1 / self.pause))
            try:
                await self.cycle()
            except SeatError as error:
                self.failed(type(self).__name__, error)
            except Exception as error:  # the user's program would have died of it
                self.failed(type(self).__name__, error)
            self.program.asking.pop(self.name, None)
        with suppress(SeatError):
            await self.close()

    async def cycle(self) -> None:
        """Do one piece of work."""
        raise NotImplementedError

    async def close(self) -> None:
        """Give everything back."""
        raise NotImplementedError

    def client(
        self, *, keeper: Literal["helper", "process"] = "process", follow_ring: bool = True
    ) -> AsyncSeatClient:
        """Return a client; its session is kept in this process unless ``keeper`` says otherwise."""
        return AsyncSeatClient(
            self.config.nodes,
            holder=self.name,
            project=f"project-{self.rng.randrange(3)}",
            tls=tls_of(self.config.tls),
            config=ClientConfig(
                ttl=timedelta(seconds=self.config.ttl), keeper=keeper, follow_ring=follow_ring
            ),
        )

    def note(self, kind: str, **fields: object) -> None:
        """Report what the service has answered."""
        say(event=kind, user=self.name, at=time.monotonic(), **fields)

    def failed(self, call: str, error: object) -> None:
        """Say that a call failed for good."""
        reason = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else error
        self.note("Failed", call=call, reason=str(reason)[:500])

    def choose(self) -> tuple[str, int, float]:
        """Draw a pool, how many of its seats, and how long to wait for them."""
        pool, capacity = self.rng.choice(self.config.pools)
        return pool, self.rng.choice([1, 1, 1, min(2, capacity)]), self.rng.choice(WAITS)

    def begin_asking(self) -> float:
        """Note that a request is under way."""
        self.program.operations += 1
        self.program.asking[self.name] = now = time.monotonic()
        return now

    async def use(
        self, pool: str, grant_id: str, fence: int, seats: int, is_safe: Callable[[], bool]
    ) -> bool:
        """Count on seats for a while; return whether they were ours all the time."""
        self.note("Acquired", pool=pool, grant_id=grant_id, fence=fence, seats=seats)
        self.program.asking.pop(self.name, None)
        now = time.monotonic()
        belief = Belief(self.name, pool, seats, now, now, is_safe)
        self.program.beliefs.append(belief)
        until = now + min(self.rng.expovariate(1 / self.rng.choice(HOLDS)), 6.0)
        was_safe = True
        while was_safe and time.monotonic() < until:
            await asyncio.sleep(min(0.1, max(0.0, until - time.monotonic())))
            was_safe = is_safe()
        belief.look()
        belief.is_over = True
        return was_safe


class LibraryUser(User):
    """Uses the session that the client keeps; it survives nodes that come and go."""

    def __init__(
        self,
        program: Program,
        role: str,
        *,
        keeper: Literal["helper", "process"] = "process",
        follow_ring: bool = True,
    ) -> None:
        super().__init__(program, role)
        self._keeper = keeper
        self._follow_ring = follow_ring
        self._client = self._begin()
        self._labels = self._accepted({"labels": {"job": self.name}})

    def _accepted(self, argument: dict[str, Any]) -> dict[str, Any]:
        """Return an argument of a request; empty: this version does not have it."""
        try:
            self._client.seat("any", **argument)
        except TypeError:
            return {}
        return argument

    def _begin(self) -> AsyncSeatClient:
        return self.client(keeper=self._keeper, follow_ring=self._follow_ring)

    async def cycle(self) -> None:
        """Take seats, check what proves them, hold them, and give them back."""
        pool, seats, wait = self.choose()
        asked_at = self.begin_asking()
        try:
            grant = await self._client.acquire(
                pool,
                seats=seats,
                priority=self.rng.choice([0, 0, 0, 1, 2]),
                project=self.rng.choice(["", "project-of-request"]),
                wait=wait,
                **self._labels,
            )
        except NoSeatFree:
            self.note("Denied", pool=pool, asked_at=asked_at, wait=wait)
            return
        is_safe = lambda: grant.state is not HoldingState.LOST  # noqa: E731  # one of two ways to ask
        if not await self.use(pool, grant.grant_id, grant.fence, seats, is_safe):
            self.failed("hold", f"{seats} seats of {pool} were lost")
            return
        token = await token_of(grant)
        claims = await self._client.cluster.verify_token(token, pool=pool)
        if (claims.grant_id, claims.fence) != (grant.grant_id, grant.fence):
            self.failed("verify_token", f"{claims} is not of {grant!r}")
        self.program.operations += 1
        await grant.release()
        if self.rng.random() < REOPEN_SHARE:
            await self._client.close()
            self._client = self._begin()

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()


class UnaryUser(User):
    """Keeps its own session, by unary calls; each may be answered by another node."""

    MARGIN_SECONDS = 1.0

    def __init__(self, program: Program, role: str) -> None:
        super().__init__(program, role)
        self._client = self.client(follow_ring=False)
        self._credentials: pb.SessionCredentials | None = None
        self._safe_until = 0.0
        self._renewing: asyncio.Task[None] | None = None

    async def cycle(self) -> None:
        """Take seats, hold them, and give them back."""
        if self._credentials is None:
            await self._open()
        credentials = self._credentials
        assert credentials is not None
        pool, seats, wait = self.choose()
        acquire = seat_pb2.Acquire(pool=pool, grant_id=new_id(), seats=seats)
        acquire.wait.FromTimedelta(timedelta(seconds=wait))
        asked_at = self.begin_asking()
        try:
            granted = await self._client.seats.acquire(credentials, acquire)
        except NoSeatFree:
            self.note("Denied", pool=pool, asked_at=asked_at, wait=wait)
            self.note("Refused", pool=pool, grant_id=acquire.grant_id)
            return
        except SeatLost:  # it was denied before, and the answer was lost with its node
            self.note("Refused", pool=pool, grant_id=acquire.grant_id)
            return
        is_safe = lambda: time.monotonic() < self._safe_until  # noqa: E731  # one of two ways to ask
        if not await self.use(pool, acquire.grant_id, granted.fence, seats, is_safe):
            self.failed("renew", f"{seats} seats of {pool} were not renewed in time")
        self.program.operations += 1
        grant = pb.GrantRef(pool=pool, grant_id=acquire.grant_id)
        await self._client.seats.release(credentials, grant)
        self.note("Returned", pool=pool, grant_id=acquire.grant_id)
        if self.rng.random() < REOPEN_SHARE:
            await self._close_session()

    async def close(self) -> None:
        """End the session and close the client."""
        await self._close_session()
        await self._client.close()

    async def _open(self) -> None:
        self.program.operations += 1
        credentials = pb.SessionCredentials(session_id=new_id(), secret=os.urandom(16))
        sent_at = time.monotonic()
        await self._client.seats.open_session(
            credentials,
            holder=self.name,
            project=f"project-{self.rng.randrange(3)}",
            ttl=timedelta(seconds=self.config.ttl),
        )
        self._safe_until = sent_at + self.config.ttl - self.MARGIN_SECONDS
        self._credentials = credentials
        self._renewing = asyncio.create_task(self._renew(credentials))

    async def _renew(self, credentials: pb.SessionCredentials) -> None:
        while True:
            await asyncio.sleep(self.config.ttl / 5)
            sent_at = time.monotonic()
            try:
                await self._client.seats.renew(credentials)
            except SeatError as error:
                self.failed("renew", error)
            else:
                self._safe_until = sent_at + self.config.ttl - self.MARGIN_SECONDS

    async def _close_session(self) -> None:
        credentials, self._credentials = self._credentials, None
        if credentials is None:
            return
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await self._client.seats.close_session(credentials)


class AgentUser(User):
    """A build agent without a compiler: it claims a grant, publishes under it, and lets go of it.

    Its engines have few keys, so that most of them replace one that another version has published.
    """

    KEYS_COUNT = 2

    def __init__(self, program: Program, role: str) -> None:
        super().__init__(program, role)
        self.pause = 1.0
        self._client = self.client()
        self._agent = self.client()
        self._key = Ed25519PrivateKey.generate()

    async def cycle(self) -> None:
        """Build nothing under a seat, and publish it."""
        pool = self.config.agent_pool
        self.begin_asking()
        try:
            grant = await self._client.acquire(pool, wait=5.0)
        except NoSeatFree:
            return
        self.note("Acquired", pool=pool, grant_id=grant.grant_id, fence=grant.fence, seats=1)
        try:
            await self._publish(grant)
        finally:
            await grant.release()

    async def _publish(self, grant: AsyncGrant) -> None:
        pool = grant.pool
        public_key = self._key.public_key().public_bytes_raw()
        engines, claim_id = self._agent.engines, new_id()
        await engines.register_agent(
            build_service_pb2.AgentInfo(
                agent_id=self.name, address="agent:1", public_key=public_key
            )
        )
        token = await token_of(grant)
        claim = engines.claim(token, agent_id=self.name, claim_id=claim_id)
        answer = await anext(claim)
        if not answer.HasField("made"):
            self.failed("claim", f"the claim ended at once: {answer}")
        manifest = build_pb2.EngineManifest(
            key=f"{self.rng.randrange(self.KEYS_COUNT):064x}",
            agent_id=self.name,
            pool=pool,
            grant_id=grant.grant_id,
            fence=grant.fence,
        ).SerializeToString()
        await engines.publish(
            build_pb2.SignedManifest(
                manifest=manifest, signature=self._key.sign(manifest), public_key=public_key
            ),
            claim_id=claim_id,
        )
        say(
            event="Published",
            agent=self.name,
            pool=pool,
            grant_id=grant.grant_id,
            fence=grant.fence,
            at=time.monotonic(),
        )
        await engines.yield_claim(pool=pool, grant_id=grant.grant_id, claim_id=claim_id)
        await claim.aclose()

    async def close(self) -> None:
        """Close its clients."""
        await self._client.close()
        await self._agent.close()


class Administrator(User):
    """Changes a pool of its own, and reads everything that there is to read."""

    def __init__(self, program: Program, role: str) -> None:
        super().__init__(program, role)
        self.pause = 0.5
        self._client = self.client()
        self._numbers = itertools.count(1)

    async def cycle(self) -> None:
        """Change one thing, and see that it is so."""
        number, pool = next(self._numbers), self.config.admin_pool
        seats, description = 1 + number % 5, f"change {number}"
        await self._call(
            "update",
            lambda: self._client.pools.update(pool, seats=seats, description=description),
        )
        found = await self._call("get", lambda: self._client.pools.get(pool))
        if (found.spec.seats, found.spec.description) != (seats, description):
            self.failed("get", f"{pool} is {found.spec}, and was set to {seats}, {description}")
        names = {each.spec.name for each in await self._call("list", self._client.pools.list)}
        if missing := {name for name, _ in self.config.pools} - names:
            self.failed("list", f"the listing is without {sorted(missing)}")
        await self._call("nodes", self._client.cluster.nodes)
        await self._call("report", self._client.cluster.report)
        await self._call("agents", self._client.engines.agents)

    async def _call(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        self.program.operations += 1
        try:
            return await call()
        except SeatError as error:
            error.args = (f"{name}: {error}",)
            raise

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()


class Builder(User):
    """Has real engines compiled, each another one, by the agent that the ring names; fetches old ones.

    An agent that is stopped ends its builds, and has its clients ask again.
    """

    OPTIONS = build_pb2.BuildOptions(backend="tensorrt_rtx", targets=["SM86"])
    TRIES_MAX = 5
    RETRY_SECONDS = 2.0

    def __init__(self, program: Program, role: str) -> None:
        super().__init__(program, role)
        self.pause = BUILD_PAUSE_SECONDS
        self._client = self.client(keeper="helper")
        self._keys: list[str] = []

    async def cycle(self) -> None:
        """Have one engine compiled, and fetch one that was compiled before."""
        self.program.operations += 1
        model = await asyncio.to_thread(self._model)
        try:
            manifest = await self._retried(lambda: self._build(model))
        except NoSeatFree:
            return
        say(
            event="Published",
            agent=manifest.agent_id,
            pool=manifest.pool,
            grant_id=manifest.grant_id,
            fence=manifest.fence,
            at=time.monotonic(),
        )
        self._keys.append(manifest.key)
        key, file = self.rng.choice(self._keys), Path(f"{self.config.model}.{self.name}")
        fetched = await self._retried(lambda: self._client.fetch(key, file))
        if fetched.key != key:
            self.failed("fetch", f"{fetched.key} came for {key}")

    async def _build(self, model: bytes) -> build_pb2.EngineManifest:
        pool = self.config.build_pool
        return (await self._client.build(model, self.OPTIONS, pool=pool, wait=20.0)).manifest

    async def _retried(
        self, call: Callable[[], Awaitable[build_pb2.EngineManifest]]
    ) -> build_pb2.EngineManifest:
        for tries_left in reversed(range(self.TRIES_MAX)):
            try:
                return await call()
            except BuildFailed as error:
                if not (error.retryable and tries_left):
                    raise
            await asyncio.sleep(self.RETRY_SECONDS)
        raise AssertionError("the loop returns or raises")

    def _model(self) -> bytes:
        import onnx  # only here: it is large

        made = onnx.load_from_string(Path(self.config.model).read_bytes())
        made.producer_name = f"{self.name}-{self.rng.getrandbits(64)}"
        made.graph.name = f"graph-{self.rng.getrandbits(64)}"
        return bytes(made.SerializeToString())

    async def close(self) -> None:
        """Close the client."""
        await self._client.close()


def main() -> None:
    """Run the users that the argument describes."""
    given = json.loads(sys.argv[1])
    given["pools"] = [(name, seats) for name, seats in given["pools"]]

    async def work() -> None:
        await Program(Config(**given)).work()

    asyncio.run(work())


async def token_of(grant: AsyncGrant) -> str:
    """Return a grant's token. A release before this one always had it at hand."""
    fetch = getattr(grant, "fetch_token", None)
    return grant.token if fetch is None else str(await fetch())


if __name__ == "__main__":
    main()
