"""A process of users: ``python -m seatkeeper.chaos.worker CONFIG``; the worker pool starts it.

Lines of JSON go both ways. It says what users observed, when a belief in seats is over, and, twenty
times a second, how things are; it receives how users are to behave, and when to stop. It ends when
its input does, so it does not outlive who started it. Times are of the machine's monotonic clock,
which all processes share.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from zlib import crc32

import grpc.aio

from seatkeeper.chaos.joint_users import Chooser, Ganger
from seatkeeper.chaos.policy_users import Again, Borrower, Hoarder, Returner
from seatkeeper.chaos.users import Agent, Habits, LibraryUser, StubUser, User, UserRecord
from seatkeeper.client import AsyncSeatClient, ClientConfig, TlsConfig
from seatkeeper.client.transport.channels import open_channel
from seatkeeper.oracle.record import Believed, Observed
from seatkeeper.v1 import seat_service_pb2_grpc as pb_grpc

HEARTBEAT_SECONDS = 0.05
COPY_SECONDS_MAX = 0.1
"""How much later the second copy of a request is sent, at most."""
STOP_SECONDS_MAX = 25.0
KINDS: Mapping[str, type[User]] = {
    "library": LibraryUser,
    "stub": StubUser,
    "hoarder": Hoarder,
    "ganger": Ganger,
    "chooser": Chooser,
    "again": Again,
    "returner": Returner,
    "borrower": Borrower,
}
"""Who there is."""
PROJECTS = ("chaos", "chaos-2")
"""What users are charged to, by their names: where a pool is shared, they lend each other seats."""


@dataclass(frozen=True)
class Member:
    """One user of a kind."""

    kind: str
    """One of ``KINDS``."""
    pools: Sequence[tuple[str, int]]
    """Those that it uses, and their seats."""
    project: str = ""
    """What it is charged to; empty: by its name."""
    pause: float = 0.0
    """Seconds between two requests, on average; 0: as its habits say."""


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """What a worker has to know."""

    name: str
    seed: int
    users: int
    agents: int = 0
    """Build agents that compile nothing: they claim users' grants, and publish, perhaps too late."""
    nodes: Sequence[str]
    """Where each node is reached, through whatever stands in between."""
    ring: Sequence[str] = ()
    """Where nodes are themselves. Given: some users learn of the others from them."""
    pools: Sequence[tuple[str, int]] = ()
    mix: Sequence[Member] = ()
    """Who there is besides ``users``."""
    habits: Habits = field(default_factory=Habits)
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_name: str = ""
    """Name that all nodes' certificates carry."""

    @property
    def tls(self) -> TlsConfig | None:
        """The client's side of TLS; None: without."""
        if not (self.tls_ca or self.tls_cert):
            return None
        ca, cert, key = (
            Path(file) if file else None for file in (self.tls_ca, self.tls_cert, self.tls_key)
        )
        return TlsConfig(ca=ca, cert=cert, key=key, server_name=self.tls_name or None)

    def to_json(self) -> str:
        """Return it as one word of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WorkerConfig:
        """Return what ``to_json`` wrote."""
        given = json.loads(text)
        given["habits"] = Habits(**given["habits"])
        given["pools"] = [(name, seats) for name, seats in given["pools"]]
        given["mix"] = [Member(**each) for each in given["mix"]]
        return cls(**given)


class Talkative(UserRecord):
    """A user record that is reported while it happens."""

    def note(self, reported: Observed) -> None:
        """Report what a user received; the last acquired grants are kept for attacks."""
        super().note(reported)
        del self.acquired[:-10], self.returned[:], self.refused[:], self.denied[:]
        del self.published[:], self.prevented[:]
        say(event=type(reported).__name__, **asdict(reported))

    def count_on(self, borrowed: Believed) -> None:
        """Report what a machine has borrowed: nothing that becomes of its user changes that."""
        say(over=asdict(borrowed))


def say(**fields: object) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


class HereSurroundings:
    """A process of the operating system: the one that this runs in."""

    is_alive = True

    def __init__(
        self, worker: Worker, name: str, *, follows_ring: bool, project: str = ""
    ) -> None:
        self.name = name
        self.project = project or PROJECTS[crc32(name.encode()) % len(PROJECTS)]
        self._worker = worker
        self._follows_ring = follows_ring
        self._tasks: set[asyncio.Task[None]] = set()

    def now(self) -> float:
        """Return the machine's monotonic time."""
        return time.monotonic()

    def own_time(self) -> float:
        """Return the same: that is the clock that clients use."""
        return time.monotonic()

    def unix_millis(self) -> int:
        """Return the time of day."""
        return int(time.time() * 1000)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task, and keep it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def client(self, config: ClientConfig) -> AsyncSeatClient:
        """Return a client."""
        settings = self._worker.config
        nodes = settings.ring if self._follows_ring else settings.nodes
        return AsyncSeatClient(
            nodes,
            holder=self.name,
            project=self.project,
            tls=settings.tls,
            config=replace(config, follow_ring=self._follows_ring, keeper="process"),
        )

    def stub(self, rng: random.Random) -> pb_grpc.SeatServiceAsyncStub:
        """Return the stub of any node, or of any two."""
        first, second = (pb_grpc.SeatServiceStub(self._worker.channel(rng)) for _ in range(2))
        if self._worker.asks_twice:
            return cast("pb_grpc.SeatServiceAsyncStub", _TwoStubs(first, second, rng))
        return first

    def note(self, text: str) -> None:
        """Log it."""
        logging.debug(text)


class _TwoStubs:
    """Sends every request to two nodes, one a little later; the first answer counts.

    The other copy is not recalled: it arrives whenever it arrives.
    """

    def __init__(
        self,
        first: pb_grpc.SeatServiceAsyncStub,
        second: pb_grpc.SeatServiceAsyncStub,
        rng: random.Random,
    ) -> None:
        self._stubs = (first, second)
        self._rng = rng

    def __getattr__(self, name: str) -> Callable[..., Awaitable[object]]:
        async def call(request: object, *, timeout: float) -> object:
            async def send(stub: object, delay: float) -> object:
                await asyncio.sleep(delay)
                return await getattr(stub, name)(request, timeout=timeout)

            delays = (0.0, self._rng.uniform(0, COPY_SECONDS_MAX))
            copies = [
                asyncio.ensure_future(send(stub, delay))
                for stub, delay in zip(self._stubs, delays, strict=True)
            ]
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
            first, other = sorted(copies, key=lambda copy: not copy.done())
            other.add_done_callback(lambda copy: copy.cancelled() or copy.exception())
            return await first

        return call


class Worker:
    """The users of this process."""

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self.asks_twice = False
        self._rng = random.Random(config.seed)
        self._user_record = Talkative()
        self._channels = [
            open_channel(node, ClientConfig(), config.tls) for node in config.nodes
        ]
        self._users = [self._user(number) for number in range(config.users)]
        self._users += [
            self._member(number, member)
            for number, member in enumerate(config.mix, start=config.users)
        ]
        agents = [self._agent(number) for number in range(config.agents)]
        for user in self._users:
            if type(user) is LibraryUser:
                user.agents = agents
        self._users += agents

    def channel(self, rng: random.Random) -> grpc.aio.Channel:
        """Return a channel to any node."""
        return rng.choice(self._channels)

    async def work(self) -> None:
        """Let users work until asked to stop, then wait until they have closed."""
        say(ttls=self._user_record.ttls)
        for user in self._users:
            user.begin(float("inf"))
        sending_heartbeats = asyncio.create_task(self._heartbeat())
        await self._listen()
        for user in self._users:
            user.stop_at = 0.0
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS_MAX):
                while not all(user.is_done for user in self._users):
                    await asyncio.sleep(HEARTBEAT_SECONDS)
        sending_heartbeats.cancel()
        self._say_beliefs_over()
        say(done=[user.name for user in self._users if user.is_done])

    def _user(self, number: int) -> User:
        config = self.config
        kind = ("library", "stub", "library")[number % 3]
        return self._member(number, Member(kind, config.pools))

    def _member(self, number: int, member: Member) -> User:
        config = self.config
        follows_ring = bool(config.ring) and number % 3 == 0
        name = f"{config.name}-{number}"
        here = HereSurroundings(self, name, follows_ring=follows_ring, project=member.project)
        rng = random.Random(self._rng.getrandbits(64))
        pause = member.pause or config.habits.pause
        habits = replace(config.habits, pause=pause)
        return KINDS[member.kind](here, self._user_record, member.pools, rng, habits)

    def _agent(self, number: int) -> Agent:
        here = HereSurroundings(self, f"{self.config.name}-agent-{number}", follows_ring=False)
        rng = random.Random(self._rng.getrandbits(64))
        return Agent(here, self._user_record, (), rng, self.config.habits)

    async def _listen(self) -> None:
        """Follow the commands, until asked to stop or the input ends."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
        )
        while line := await reader.readline():
            wish = json.loads(line)
            if "stop" in wish:
                return
            self.asks_twice = bool(wish.get("twice", self.asks_twice))
            if "hasty" in wish:
                share = float(wish["hasty"]) or self.config.habits.give_up
                for user in self._users:
                    user.habits = replace(user.habits, give_up=share)
        os._exit(1)  # no reader is left, and users do not stop by themselves

    async def _heartbeat(self) -> None:
        user_record = self._user_record
        while True:
            self._say_beliefs_over()
            now = time.monotonic()
            asking = [user.asking_since for user in self._users if user.asking_since]
            say(
                at=now,
                believed=[asdict(b.believed) for b in user_record.beliefs if b.until > b.since],
                asking=len(asking),
                longest=now - min(asking, default=now),
                operations=user_record.operations,
                unknown=user_record.unknown,
            )
            await asyncio.sleep(HEARTBEAT_SECONDS)

    def _say_beliefs_over(self) -> None:
        for belief in self._user_record.look():
            say(over=asdict(belief.believed))


def main() -> None:
    """Run a worker."""
    # What happens to clients in a storm shows in what they observed.
    logging.getLogger("seatkeeper").addHandler(logging.NullHandler())

    async def work() -> None:
        await Worker(WorkerConfig.from_json(sys.argv[1])).work()

    asyncio.run(work())


if __name__ == "__main__":
    main()
