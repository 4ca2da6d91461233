"""What can go wrong: each fault has a name and a place.

A fault is a method that returns a context: entering it injects the fault and says what was
affected, leaving it recovers. Its name is that of its class and its own: ``Network.slow``.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)

from seatkeeper.chaos.relay import Relay, Way
from seatkeeper.chaos.worker_pool import WorkerPool

Fault = Callable[[], AbstractAsyncContextManager[str]]
SLOW_SECONDS = 0.075
SOME_ANSWERS = 0.1
HOLDING_SECONDS_MAX = 10.0
"""How long to wait for a process of users to hold seats; then it is done to it all the same."""


def faults_of(*groups: object) -> dict[str, Fault]:
    """Return all faults of these, by name."""
    return {
        f"{type(group).__name__}.{name}": getattr(group, name)
        for group in groups
        for name in _names(type(group))
    }


def described(*groups: type) -> dict[str, str]:
    """Return what each fault of these groups does, in one sentence, by name."""
    return {
        f"{group.__name__}.{name}": (getattr(group, name).__doc__ or "").partition("\n")[0]
        for group in groups
        for name in _names(group)
    }


def _names(group: type) -> list[str]:
    return [name for name in vars(group) if not name.startswith("_")]


class Network:
    """Between users and nodes, where relays stand."""

    def __init__(self, relays: Sequence[Relay], rng: random.Random) -> None:
        self._relays = relays
        self._rng = rng

    @asynccontextmanager
    async def cut_users_off(self) -> AsyncIterator[str]:
        """Nothing gets from users to nodes or back, silently."""
        with self._all() as relays:
            for relay in relays:
                relay.stall()
            yield "all nodes"

    @asynccontextmanager
    async def cut_one_node_off(self) -> AsyncIterator[str]:
        """Nothing gets from users to one node or back, silently."""
        with self._one() as relay:
            relay.stall()
            yield relay.target

    @asynccontextmanager
    async def requests_stall(self) -> AsyncIterator[str]:
        """What users send does not arrive; what nodes send does."""
        with self._all() as relays:
            for relay in relays:
                relay.stall(Way.REQUESTS)
            yield "all nodes"

    @asynccontextmanager
    async def answers_stall(self) -> AsyncIterator[str]:
        """What nodes send does not arrive; what users send does."""
        with self._all() as relays:
            for relay in relays:
                relay.stall(Way.ANSWERS)
            yield "all nodes"

    @asynccontextmanager
    async def slow(self) -> AsyncIterator[str]:
        """Everything between users and nodes takes 75 ms longer, each way."""
        with self._all() as relays:
            for relay in relays:
                relay.slow(SLOW_SECONDS)
            yield "all nodes"

    @asynccontextmanager
    async def connections_break(self) -> AsyncIterator[str]:
        """Every connection between users and nodes breaks, once."""
        with self._all() as relays:
            for relay in relays:
                relay.cut()
            yield "all nodes"

    @asynccontextmanager
    async def one_node_refuses(self) -> AsyncIterator[str]:
        """Connections to one node break, and it takes no new ones."""
        with self._one() as relay:
            relay.refuse()
            relay.cut()
            yield relay.target

    @asynccontextmanager
    async def answers_lost(self) -> AsyncIterator[str]:
        """Requests arrive; instead of an answer comes the end of the connection."""
        with self._all() as relays:
            for relay in relays:
                relay.lose_answers(1.0)
            yield "all nodes"

    @asynccontextmanager
    async def some_answers_lost(self) -> AsyncIterator[str]:
        """One answer in ten is the end of its connection instead."""
        with self._all() as relays:
            for relay in relays:
                relay.lose_answers(SOME_ANSWERS)
            yield "all nodes"

    @contextmanager
    def _all(self) -> Iterator[Sequence[Relay]]:
        try:
            yield self._relays
        finally:
            for relay in self._relays:
                relay.recover()

    @contextmanager
    def _one(self) -> Iterator[Relay]:
        relay = self._rng.choice(self._relays)
        try:
            yield relay
        finally:
            relay.recover()


class Users:
    """Those who use the service, in processes of their own."""

    def __init__(self, worker_pool: WorkerPool, rng: random.Random) -> None:
        self._worker_pool = worker_pool
        self._rng = rng

    @asynccontextmanager
    async def die(self) -> AsyncIterator[str]:
        """A process of users is killed; then others come."""
        worker = self._rng.choice(self._worker_pool.alive)
        self._worker_pool.kill(worker)
        yield worker.name
        await self._worker_pool.replace()

    @asynccontextmanager
    async def all_die(self) -> AsyncIterator[str]:
        """All users are killed at once; then as many others come, at once."""
        workers = list(self._worker_pool.alive)
        for worker in workers:
            self._worker_pool.kill(worker)
        yield f"{len(workers)} processes"
        await self._worker_pool.replace()

    @asynccontextmanager
    async def freeze(self) -> AsyncIterator[str]:
        """A process of users with seats stands still, then goes on as if nothing had been."""
        worker = self._rng.choice(self._worker_pool.alive)
        with suppress(TimeoutError):
            async with asyncio.timeout(HOLDING_SECONDS_MAX):
                while not worker.heartbeat.held:
                    await asyncio.sleep(0)
        worker.pause()
        try:
            yield f"{worker.name} with {worker.heartbeat.held} seats"
        finally:
            worker.resume()

    @asynccontextmanager
    async def ask_twice(self) -> AsyncIterator[str]:
        """Every request is sent to two nodes, one a little later, so copies overtake each other."""
        with self._all_do(twice=True):
            yield "all users"

    @asynccontextmanager
    async def give_up_early(self) -> AsyncIterator[str]:
        """Every other request is given up before it is answered."""
        with self._all_do(hasty=0.5):
            yield "all users"

    @contextmanager
    def _all_do(self, **wish: float | bool) -> Iterator[None]:
        workers = list(self._worker_pool.alive)
        for worker in workers:
            worker.notify(**wish)
        try:
            yield
        finally:
            for worker in workers:
                worker.notify(**dict.fromkeys(wish, False))
