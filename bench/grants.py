"""Measure how many seats a second are given out and taken back, against what etcd itself does.

All in one run, from one client process, over one gRPC stack, against one etcd and one node, with 64
requests in flight:

- ``raw_txn_per_s``: guarded transactions of one comparison and one put, by our own etcd layer.
- ``limit_txn_per_s``: the same transactions by a load generator written in C (``bench.limit``): what
  etcd can do here, where the other figures have Python in them. Left out where there is no generator.
- ``session_ops_per_s``: an acquire or a release each, over one session stream.
- ``sessions64_ops_per_s``: the same with a session, a stream and a connection for each request in
  flight, as 64 pods have it.
- ``unary_ops_per_s``: the same as unary calls.
- ``echo_calls_per_s`` and ``echo64_messages_per_s``: unary calls, and messages over 64 streams with a
  connection each, to a server that only says them again (``bench.echo``): what the gRPC stack itself
  does here. ``unary_over_raw`` and ``sessions64_over_raw`` cannot exceed ``echo_over_raw`` and
  ``echo64_over_raw``.
- ``recipe_cycles_per_s``: what a user would write with etcd's lock recipe: grant a lease, lock, unlock,
  revoke. ``cycles_per_s`` is our acquire and release.

The recipe and we are compared twice: with as many seats (locks) as workers, so that no worker ever
waits, and ``contended_``, with 20 seats (locks) for 64 workers, where waiting is part of the job.

The rounds are interleaved, and each figure is the median of its rounds, because a shared machine
drifts. ``*_over_*`` are medians of the ratios within a round.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from time import perf_counter

import grpc.aio

from bench.echo import running_echo
from bench.limit import NO_LOAD_GENERATOR, EtcdLimit
from bench.report import median, notify, parser, percentile, progress, run
from bench.service import IN_PROCESS, running_service
from seatkeeper.client import AsyncSeatClient
from seatkeeper.core.channels import dial
from seatkeeper.core.ids import new_id
from seatkeeper.server.store import Delete, Put, Store, Unchanged
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore
from seatkeeper.v1 import pool_service_pb2, seat_pb2, seat_service_pb2, seat_service_pb2_grpc

IN_FLIGHT = 64
CONTENDED_SEATS = 20
RAW_VALUE = b"x" * 120
"""About the size of a grant."""

Job = Callable[[int], Awaitable[None]]
Rate = Callable[[float], Awaitable[float]]
"""Measures for so many seconds; returns how often a second something was done."""


async def main() -> None:
    """Measure, and print the result."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=5, help="rounds of each kind")
    options.add_argument("--seconds", type=float, default=1.5, help="length of a round")
    options.add_argument("--latency-samples", type=int, default=600)
    options.add_argument(
        "--projects",
        type=int,
        default=0,
        metavar="N",
        help="projects that share the pools; default: 0",
    )
    arguments = options.parse_args()
    async with running_service() as service, AsyncExitStack() as stack:
        store = EtcdStore(EtcdConfig(endpoints=service.etcd.endpoints))
        stack.push_async_callback(store.close)
        address = service.addresses[0]
        clients = [
            await stack.enter_async_context(AsyncSeatClient(address, config=IN_PROCESS))
            for _ in range(1 + IN_FLIGHT)
        ]
        client = clients.pop()
        projects = [f"project-{number}" for number in range(arguments.projects)]
        shares = [pool_service_pb2.ProjectShare(project=each, weight=1) for each in projects]
        await client.pools.create("wide", seats=IN_FLIGHT, projects=shares)
        await client.pools.create("narrow", seats=CONTENDED_SEATS, projects=shares)

        def project_of(worker: int) -> str:
            return projects[worker % len(projects)] if projects else ""

        unary = await Unary.open(await stack.enter_async_context(dial(address)))
        echo = await stack.enter_async_context(running_echo(service.folder, IN_FLIGHT))
        jobs: dict[str, Job] = {
            "raw": lambda worker: raw(store, worker),
            "session": lambda worker: session_cycle(client, "wide", project_of(worker)),
            "sessions64": lambda worker: session_cycle(
                clients[worker], "wide", project_of(worker)
            ),
            "unary": lambda _: unary.cycle("wide"),
            "echo": lambda _: echo.call(),
            "echo64": echo.message,
            "recipe": lambda worker: recipe_cycle(store, f"wide/{worker}"),
            "contended": lambda worker: session_cycle(client, "narrow", project_of(worker)),
            "contended_recipe": lambda worker: recipe_cycle(
                store, f"narrow/{worker % CONTENDED_SEATS}"
            ),
        }
        measures: dict[str, Rate] = {name: partial(rate_of, job) for name, job in jobs.items()}
        limit = EtcdLimit.of(service.etcd.endpoints[0], store, IN_FLIGHT)
        if limit is None:
            progress(NO_LOAD_GENERATOR)
        else:
            measures["limit"] = partial(limit.transactions_per_s, RAW_VALUE)
        rates = await measure_rates(measures, arguments.rounds, arguments.seconds)
        latencies = await measure_latencies(store, client, arguments.latency_samples)
    notify(summary(rates) | latencies, arguments.json)


async def measure_rates(
    measures: Mapping[str, Rate], rounds: int, seconds: float
) -> list[dict[str, float]]:
    """Return, for each round, how often a second each thing was done."""
    for measure in measures.values():  # connections, pools and caches come up outside of it
        await measure(seconds / 5)
    results = []
    for number in range(rounds):
        results.append({name: await measure(seconds) for name, measure in measures.items()})
        progress(f"round {number + 1} of {rounds}: {_shown(results[-1])}")
    return results


async def rate_of(job: Job, seconds: float) -> float:
    """Return how often a second ``job`` is done by workers that each do one at a time."""
    started = perf_counter()
    ends = started + seconds
    done = 0

    async def work(worker: int) -> None:
        nonlocal done
        while perf_counter() < ends:
            await job(worker)
            done += 1

    await asyncio.gather(*(work(worker) for worker in range(IN_FLIGHT)))
    return done / (perf_counter() - started)


async def measure_latencies(
    store: Store, client: AsyncSeatClient, samples: int
) -> dict[str, float]:
    """Return latencies of one client without other load, measured in turns."""
    raw_seconds, acquire_seconds, release_seconds = [], [], []
    for _ in range(samples):
        started = perf_counter()
        await raw(store, 0)
        raw_seconds.append(perf_counter() - started)
        started = perf_counter()
        grant = await client.acquire("wide")
        acquire_seconds.append(perf_counter() - started)
        started = perf_counter()
        await grant.release()
        release_seconds.append(perf_counter() - started)
    result = {}
    for name, seconds in (
        ("raw_txn", raw_seconds),
        ("acquire", acquire_seconds),
        ("release", release_seconds),
    ):
        result[f"{name}_p50_ms"] = 1000 * percentile(seconds, 50)
        result[f"{name}_p99_ms"] = 1000 * percentile(seconds, 99)
    result["acquire_p50_over_raw_p50"] = result["acquire_p50_ms"] / result["raw_txn_p50_ms"]
    return result


def summary(rates: list[dict[str, float]]) -> dict[str, float]:
    """Return the figures of all rounds together."""

    def over(first: str, second: str, factor: float = 1.0) -> float:
        return median([factor * rate[first] / rate[second] for rate in rates])

    def middle(name: str, factor: float = 1.0) -> float:
        return factor * median([rate[name] for rate in rates])

    result = {
        "in_flight": IN_FLIGHT,
        "raw_txn_per_s": middle("raw"),
        "session_ops_per_s": middle("session", 2),
        "sessions64_ops_per_s": middle("sessions64", 2),
        "unary_ops_per_s": middle("unary", 2),
        "cycles_per_s": middle("session"),
        "recipe_cycles_per_s": middle("recipe"),
        "contended_cycles_per_s": middle("contended"),
        "contended_recipe_cycles_per_s": middle("contended_recipe"),
        "session_over_raw": over("session", "raw", 2),
        "sessions64_over_raw": over("sessions64", "raw", 2),
        "unary_over_raw": over("unary", "raw", 2),
        "echo_calls_per_s": middle("echo"),
        "echo64_messages_per_s": middle("echo64"),
        "echo_over_raw": over("echo", "raw"),
        "echo64_over_raw": over("echo64", "raw"),
        "sessions64_over_echo64": over("sessions64", "echo64", 2),
        "unary_over_echo": over("unary", "echo", 2),
        "cycles_over_recipe": over("session", "recipe"),
        "contended_cycles_over_recipe": over("contended", "contended_recipe"),
    }
    if "limit" in rates[0]:
        result |= {
            "limit_txn_per_s": middle("limit"),
            "raw_over_limit": over("raw", "limit"),
            "session_over_limit": over("session", "limit", 2),
            "sessions64_over_limit": over("sessions64", "limit", 2),
        }
    return result


async def raw(store: Store, worker: int) -> None:
    """Do one guarded transaction."""
    key = f"bench/raw/{worker}"
    committed = await store.commit(
        [Put(key, RAW_VALUE)], only_if=[Unchanged(f"bench/never/{worker}", 0)]
    )
    assert committed.succeeded


async def session_cycle(client: AsyncSeatClient, pool: str, project: str = "") -> None:
    """Take a seat and give it back, over the session stream."""
    grant = await client.acquire(pool, project=project)
    await grant.release()


class Unary:
    """Takes seats by unary calls."""

    def __init__(
        self,
        stub: seat_service_pb2_grpc.SeatServiceAsyncStub,
        credentials: seat_service_pb2.SessionCredentials,
    ) -> None:
        self._stub = stub
        self._credentials = credentials

    @classmethod
    async def open(cls, channel: grpc.aio.Channel) -> Unary:
        """Open a session."""
        stub = seat_service_pb2_grpc.SeatServiceStub(channel)
        credentials = seat_service_pb2.SessionCredentials(
            session_id=new_id(), secret=secrets.token_bytes(32)
        )
        opening = seat_service_pb2.Open(credentials=credentials, holder="bench")
        opening.ttl.FromTimedelta(timedelta(minutes=30))
        await stub.OpenSession(seat_service_pb2.OpenSessionRequest(open=opening), timeout=10)
        return cls(stub, credentials)

    async def cycle(self, pool: str) -> None:
        """Take a seat and give it back."""
        grant_id = new_id()
        acquire = seat_pb2.Acquire(pool=pool, grant_id=grant_id, seats=1)
        await self._stub.Acquire(
            seat_service_pb2.AcquireRequest(credentials=self._credentials, acquire=acquire),
            timeout=10,
        )
        ref = seat_service_pb2.GrantRef(pool=pool, grant_id=grant_id)
        await self._stub.Release(
            seat_service_pb2.ReleaseRequest(
                credentials=self._credentials, release=seat_service_pb2.Release(grant=ref)
            ),
            timeout=10,
        )


async def recipe_cycle(store: Store, lock: str) -> None:
    """Do what etcd's lock recipe does: lease, lock, (work,) unlock, revoke.

    As ``concurrency.Mutex`` of etcd's own client: a key of one's own under the lock's prefix, attached
    to a fresh lease; the oldest key has the lock; the others wait for the one before them to go.
    """
    lease_id = secrets.randbits(62) + 1
    await store.grant_lease(lease_id, timedelta(seconds=30))
    prefix = f"bench/lock/{lock}/"
    key = f"{prefix}{lease_id:x}"
    mine = await store.commit([Put(key, b"", lease_id)], only_if=[Unchanged(key, 0)])
    while True:
        listing = await store.list(prefix)
        before = [e for e in listing.entries if e.mod_revision < mine.revision]
        if not before:
            break
        last = max(before, key=lambda entry: entry.mod_revision)
        watch = store.watch(last.key, from_revision=listing.revision + 1)
        async with contextlib.aclosing(watch):
            async for batch in watch:
                if any(change.entry is None for change in batch.changes):
                    break
    await store.commit([Delete(key)])
    await store.revoke_lease(lease_id)


def _shown(rates: dict[str, float]) -> str:
    return ", ".join(f"{name} {rate:,.0f}/s" for name, rate in rates.items())


if __name__ == "__main__":
    run(main)
