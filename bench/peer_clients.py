"""Clients of the peers, each as its library's users write it, behind one interface.

``take`` waits until the client has the lock (or a seat), ``give_back`` returns it. Each client has a
connection and a session of its own.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import perf_counter, sleep, time
from typing import Any, Protocol

from bench.lock_recipe import LockClient
from bench.peer_programs import UnavailableError
from bench.peer_rounds import OURS, Round
from bench.peer_servers import postgres_server, redis_server, zookeeper_server
from bench.service import IN_PROCESS, Service
from seatkeeper.client import AsyncGrant, AsyncSeatClient

SEATS = {"lock": 1, "seats": 4}
"""How many hold at a time, by pool."""
POLL_SECONDS = 0.1
"""How often a waiting client of Redis or of rows tries again: the default of redis-py's lock."""
TTL_SECONDS = 60
"""After which a dead holder's lock is free, where there is such a time."""
WAIT_SECONDS_MAX = 60.0


Connected = Any
"""A client or a connection of a library that most installs do not have."""


class Client(Protocol):
    """One client of a peer."""

    async def turns(self, shown: Round, me: int, pool: str, ends: float, hold: float) -> None:
        """Take turns until ``ends``; each holds for ``hold`` seconds."""


class _AsyncClient:
    """A client whose library has coroutines."""

    async def take(self, pool: str) -> None:
        raise NotImplementedError

    async def give_back(self, pool: str) -> None:
        raise NotImplementedError

    async def turns(self, shown: Round, me: int, pool: str, ends: float, hold: float) -> None:
        """Take turns until ``ends``."""
        while (requested_at := perf_counter()) < ends:
            await self.take(pool)
            shown.took(me, requested_at)
            if hold:
                await asyncio.sleep(hold)
            shown.returns()
            await self.give_back(pool)


Opened = AbstractAsyncContextManager[Sequence[Client]]
Peer = Callable[[Service, Path, int], Opened]
"""Given the service (and its etcd), an empty folder and how many clients: connects them."""


# Seatkeeper, and etcd's recipe --------------------------------------------------------------------


class _SeatClient(_AsyncClient):
    def __init__(self, client: AsyncSeatClient) -> None:
        self._client = client
        self._grant: AsyncGrant | None = None

    async def take(self, pool: str) -> None:
        self._grant = await self._client.acquire(pool)

    async def give_back(self, pool: str) -> None:
        if self._grant is not None:
            await self._grant.release()


@asynccontextmanager
async def seatkeeper(
    service: Service, folder: Path, count: int
) -> AsyncIterator[Sequence[Client]]:
    """Connect clients of the library to the service's first node."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                AsyncSeatClient(service.addresses[0], config=IN_PROCESS)
            )
            for _ in range(count)
        ]
        for pool, seats in SEATS.items():
            await clients[0].pools.create(pool, seats=seats)
        yield [_SeatClient(client) for client in clients]


class _RecipeClient(_AsyncClient):
    def __init__(self, client: LockClient) -> None:
        self._client = client

    async def take(self, pool: str) -> None:
        await self._client.lock(f"peers-{pool}")

    async def give_back(self, pool: str) -> None:
        await self._client.unlock(f"peers-{pool}")


@asynccontextmanager
async def etcd(service: Service, folder: Path, count: int) -> AsyncIterator[Sequence[Client]]:
    """Connect clients of etcd's lock recipe to the service's etcd."""
    address = service.etcd.endpoints[0]
    async with AsyncExitStack() as stack:
        yield [
            _RecipeClient(await stack.enter_async_context(LockClient.connected(address)))
            for _ in range(count)
        ]


# Redis --------------------------------------------------------------------------------------------

TAKE_SEAT = """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[1])
if redis.call('ZCARD', KEYS[1]) < tonumber(ARGV[4]) then
    redis.call('ZADD', KEYS[1], ARGV[2], ARGV[3])
    return 1
end
return 0
"""
"""A semaphore: a sorted set of holders by the time at which each expires, by the client's clock."""


class _RedisClient(_AsyncClient):
    def __init__(self, client: Connected, me: int) -> None:
        self._client, self._me = client, me
        self._lock = client.lock("lock", timeout=TTL_SECONDS, sleep=POLL_SECONDS)
        self._take_seat = client.register_script(TAKE_SEAT)

    async def take(self, pool: str) -> None:
        if pool == "lock":
            if not await self._lock.acquire(blocking_timeout=WAIT_SECONDS_MAX):
                raise TimeoutError("redis-py's lock was not had in time")
            return
        await poll(self._try_seat)

    async def _try_seat(self) -> bool:
        now = time()
        arguments = [now, now + TTL_SECONDS, self._me, SEATS["seats"]]
        return bool(await self._take_seat(keys=["seats"], args=arguments))

    async def give_back(self, pool: str) -> None:
        if pool == "lock":
            await self._lock.release()
        else:
            await self._client.zrem("seats", self._me)


@asynccontextmanager
async def redis(service: Service, folder: Path, count: int) -> AsyncIterator[Sequence[Client]]:
    """Run Redis, and connect redis-py's asyncio clients."""
    need_library("redis")
    from redis.asyncio import Redis

    async with redis_server(folder) as address, AsyncExitStack() as stack:
        yield [
            _RedisClient(
                await stack.enter_async_context(Redis(unix_socket_path=str(address))), number
            )
            for number in range(count)
        ]


# ZooKeeper ----------------------------------------------------------------------------------------


class _ZooKeeperClient:
    """kazoo blocks, so each client takes its turns in a thread of its own."""

    def __init__(self, client: Connected, me: int, threads: ThreadPoolExecutor) -> None:
        self._threads = threads
        self._recipes = {
            "lock": client.Lock("/peers/lock", str(me)),
            "seats": client.Semaphore("/peers/seats", str(me), max_leases=SEATS["seats"]),
        }

    async def turns(self, shown: Round, me: int, pool: str, ends: float, hold: float) -> None:
        """Take turns until ``ends``."""
        await asyncio.get_running_loop().run_in_executor(
            self._threads, self._turns, shown, me, pool, ends, hold
        )

    def _turns(self, shown: Round, me: int, pool: str, ends: float, hold: float) -> None:
        recipe = self._recipes[pool]
        while (requested_at := perf_counter()) < ends:
            recipe.acquire(timeout=WAIT_SECONDS_MAX)
            shown.took(me, requested_at)
            if hold:
                sleep(hold)
            shown.returns()
            recipe.release()


@asynccontextmanager
async def zookeeper(
    service: Service, folder: Path, count: int
) -> AsyncIterator[Sequence[Client]]:
    """Run ZooKeeper, and connect kazoo's clients."""
    need_library("kazoo")
    from kazoo.client import KazooClient

    logging.getLogger("kazoo").setLevel(
        logging.ERROR
    )  # every connection that ends is a warning
    async with zookeeper_server(folder) as address:
        threads = ThreadPoolExecutor(count)
        clients = [KazooClient(address) for _ in range(count)]
        try:
            for client in clients:
                await asyncio.to_thread(client.start, WAIT_SECONDS_MAX)
            yield [_ZooKeeperClient(each, me, threads) for me, each in enumerate(clients)]
        finally:
            for client in clients:
                await asyncio.to_thread(client.stop)
                await asyncio.to_thread(client.close)
            threads.shutdown()


# PostgreSQL ---------------------------------------------------------------------------------------

TAKE_ROW = """
UPDATE seats SET holder = %s, until = now() + %s * interval '1 s' WHERE id = (
    SELECT id FROM seats WHERE pool = %s AND (holder IS NULL OR until < now())
    LIMIT 1 FOR UPDATE SKIP LOCKED
) RETURNING id
"""


class _AdvisoryClient(_AsyncClient):
    """A lock that lasts as long as the connection: nothing is written."""

    def __init__(self, connection: Connected, me: int) -> None:
        self._connection = connection

    async def take(self, pool: str) -> None:
        await self._connection.execute("SELECT pg_advisory_lock(1)")

    async def give_back(self, pool: str) -> None:
        await self._connection.execute("SELECT pg_advisory_unlock(1)")


class _RowsClient(_AsyncClient):
    """A row for each seat, with its holder and until when: a commit to take, one to give back."""

    def __init__(self, connection: Connected, me: int) -> None:
        self._connection, self._me, self._row = connection, me, 0

    async def take(self, pool: str) -> None:
        await poll(lambda: self._try_row(pool))

    async def _try_row(self, pool: str) -> bool:
        cursor = await self._connection.execute(TAKE_ROW, (self._me, TTL_SECONDS, pool))
        row = await cursor.fetchone()
        self._row = row[0] if row else 0
        return row is not None

    async def give_back(self, pool: str) -> None:
        statement = "UPDATE seats SET holder = NULL WHERE id = %s AND holder = %s"
        await self._connection.execute(statement, (self._row, self._me))


def postgres(client_class: type[_AdvisoryClient] | type[_RowsClient]) -> Peer:
    """Return a peer: PostgreSQL, with clients of psycopg that take turns in one way or the other."""

    @asynccontextmanager
    async def opened(
        service: Service, folder: Path, count: int
    ) -> AsyncIterator[Sequence[Client]]:
        need_library("psycopg")
        from psycopg import AsyncConnection

        async with postgres_server(folder) as address, AsyncExitStack() as stack:
            where = f"host={address} user=bench dbname=postgres"
            connections = [
                await stack.enter_async_context(
                    await AsyncConnection.connect(where, autocommit=True)
                )
                for _ in range(count)
            ]
            await connections[0].execute(
                "CREATE TABLE seats (id serial PRIMARY KEY, pool text, holder int, until timestamptz)"
            )
            for pool, seats in SEATS.items():
                for _ in range(seats):
                    await connections[0].execute(
                        "INSERT INTO seats (pool) VALUES (%s)", (pool,)
                    )
            milliseconds = round(1000 * WAIT_SECONDS_MAX)
            for connection in connections:
                await connection.execute(f"SET statement_timeout = {milliseconds}")
            yield [client_class(each, number) for number, each in enumerate(connections)]

    return opened


PEERS: dict[str, tuple[Peer, tuple[str, ...]]] = {
    OURS: (seatkeeper, ("lock", "seats")),
    "etcd": (etcd, ("lock",)),
    "redis": (redis, ("lock", "seats")),
    "zookeeper": (zookeeper, ("lock", "seats")),
    "postgres_advisory": (postgres(_AdvisoryClient), ("lock",)),
    "postgres_rows": (postgres(_RowsClient), ("lock", "seats")),
}
"""Each with the pools that it has a way to do."""


async def poll(attempt: Callable[[], Awaitable[bool]]) -> None:
    """Try again and again, as a client does that is not notified. Raises ``TimeoutError``."""
    for _ in range(round(WAIT_SECONDS_MAX / POLL_SECONDS)):
        if await attempt():
            return
        await asyncio.sleep(POLL_SECONDS)
    raise TimeoutError(f"no seat within {WAIT_SECONDS_MAX:g} s of polling")


def need_library(name: str) -> None:
    """Raise ``UnavailableError`` where a client library is not installed."""
    if importlib.util.find_spec(name) is None:
        raise UnavailableError(
            f"the library {name} is not installed: `make peers`, or pip install '.[peers]'"
        )
