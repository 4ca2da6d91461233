"""A company's day on real processes: etcd, nodes, and what dies among them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil

from bench.company_clients import DayClients, DayRecord
from bench.company_day import Day, Death
from bench.report import progress
from bench.scale import etcd_cpu
from bench.service import IN_PROCESS, Service, running_service, start_node
from seatkeeper.client import AsyncSeatClient, ClientConfig
from seatkeeper.oracle.history import FaultKind, read_history, replay
from seatkeeper.oracle.stored import PREFIX, read_grant
from seatkeeper.server.store import Entry, StoreError
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore

ETCD_MEMBERS = 3
LOOK_SECONDS = 2.0
"""Time between two looks at the grants in etcd."""
NOTICE_SECONDS = 0.05
PROGRESS_STEPS = 20


@dataclass(frozen=True)
class Cpu:
    """Processor seconds since the nodes and etcd began, and transactions done by then."""

    nodes: float
    etcd: float
    transactions: int


@dataclass
class RealDay:
    """What came of a day."""

    record: DayRecord
    looks: int = 0
    over_at_looks: int = 0
    """Seats that etcd had given out beyond those of a pool, over all looks."""
    over_in_history: int = 0
    """Revisions at which it had, by etcd's own history."""
    other_faults: Counter[str] = field(default_factory=Counter)
    """What else the history shows that is promised never to be."""
    killed: int = 0
    late_max: float = 0.0
    """Longest that the clients' own loop was held up, in seconds."""
    elsewhere: float = 0.0
    """Processors that were busy with something else than this, on average."""
    cpu: list[Cpu] = field(default_factory=list)
    """At the beginning, at the begin and the end of the window, and at the end."""


@dataclass
class Meter:
    """Counts the processor time of nodes, those that were killed included."""

    service: Service
    record: DayRecord
    of_the_dead: float = 0.0

    def everything(self) -> tuple[float, float]:
        """Return the processor seconds that the machine has spent, and that all this has."""
        spent, ours = psutil.cpu_times(), self.read()
        busy = sum(spent) - spent.idle - spent.iowait - spent.guest - spent.guest_nice
        return busy, ours.nodes + ours.etcd + time.process_time()

    def read(self) -> Cpu:
        """Return what was used so far."""
        alive = [node.process for node in self.service.nodes if node.process.poll() is None]
        used = self.of_the_dead + sum(cpu_of(process.pid) for process in alive)
        return Cpu(used, etcd_cpu(self.service), self.record.done)


def cpu_of(pid: int) -> float:
    """Return the processor seconds of a process that lives."""
    return float(sum(psutil.Process(pid).cpu_times()[:2]))


async def real_day(
    day: Day, speedup: float, nodes: int, deaths: Sequence[Death], window: tuple[float, float]
) -> RealDay:
    """Play ``day``, which is compressed by ``speedup`` already, and measure ``window`` of it."""
    async with running_service(nodes=nodes, etcd_members=ETCD_MEMBERS) as service:
        async with AsyncSeatClient(service.addresses, config=IN_PROCESS) as admin:
            for pool in day.pools:
                await admin.pools.create(pool.name, seats=pool.seats)

        def make_client(holder: str, config: ClientConfig) -> AsyncSeatClient:
            return AsyncSeatClient(service.addresses, holder=holder, config=config)

        clients = DayClients(day, speedup, make_client)
        result, meter = RealDay(clients.record), Meter(service, clients.record)
        progress(f"{len(day.asks)} transactions in {day.seconds:.0f} s, on {nodes} nodes")
        store = store_of(service)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(store.close)
            stack.push_async_callback(clients.close)
            await clients.open()
            result.cpu.append(meter.read())
            before = meter.everything()
            async with beside(
                look_again_and_again(store, day, result),
                notice_lateness(result),
                kill_and_start(meter, deaths, result),
                measure(meter, window, result),
                say_how_far(day, clients.record),
            ):
                await clients.play()
            result.cpu.append(meter.read())
            busy, ours = (b - a for a, b in zip(before, meter.everything(), strict=True))
            result.elsewhere = max(0.0, busy - ours) / clients.record.took
            await check_history(store, result)
    return result


@asynccontextmanager
async def beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run coroutines beside the body; where one fails, so does the body. Cancel them at its end."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in work]
        yield
        for task in tasks:
            task.cancel()


def store_of(service: Service) -> EtcdStore:
    """Return a store of our own."""
    return EtcdStore(EtcdConfig(endpoints=service.etcd.endpoints))


async def look_again_and_again(store: EtcdStore, day: Day, result: RealDay) -> None:
    """Read all grants out of etcd at intervals."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            listing = await store.list(f"{PREFIX}/seats/")
        except StoreError as error:
            progress(f"  etcd does not answer: {error}")
            continue
        result.looks += 1
        held = seats_held(listing.entries)
        result.over_at_looks += sum(
            max(0, count - day.seats[pool]) for pool, count in held.items()
        )


def seats_held(entries: Iterable[Entry]) -> Counter[str]:
    """Return how many seats of each pool the grants among ``entries`` have."""
    held: Counter[str] = Counter()
    for entry in entries:
        pool, kind, *rest = entry.key.removeprefix(f"{PREFIX}/seats/").split("/")
        if kind == "grants":
            held[pool] += read_grant(rest[0], entry.value).seats
    return held


async def kill_and_start(meter: Meter, deaths: Sequence[Death], result: RealDay) -> None:
    """Kill nodes, each at its moment, and start each again under its id and address."""
    began = asyncio.get_running_loop().time()

    async def one(death: Death) -> None:
        await until(began + death.at)
        node = meter.service.nodes[death.node]
        progress(f"  {node.name} is killed")
        meter.of_the_dead += cpu_of(node.process.pid)
        node.kill()
        result.killed += 1
        await until(began + death.back_at)
        await start_node(meter.service, node.name, listen=node.address)

    await asyncio.gather(*map(one, deaths))


async def measure(meter: Meter, window: tuple[float, float], result: RealDay) -> None:
    """Read what was used at both ends of the window."""
    began = asyncio.get_running_loop().time()
    for moment in window:
        await until(began + moment)
        result.cpu.append(meter.read())


async def notice_lateness(result: RealDay) -> None:
    """Note how late the loop is: what a machine with too few processors does to its clients."""
    clock = asyncio.get_running_loop()
    while True:
        due = clock.time() + NOTICE_SECONDS
        await asyncio.sleep(NOTICE_SECONDS)
        result.late_max = max(result.late_max, clock.time() - due)


async def say_how_far(day: Day, record: DayRecord) -> None:
    """Report progress now and then."""
    while True:
        await asyncio.sleep(day.seconds / PROGRESS_STEPS)
        progress(
            f"  {record.done} done, {record.beliefs.held_now} held, "
            f"{record.failures.total()} failed"
        )


async def until(moment: float) -> None:
    """Sleep until a moment of the loop's clock."""
    await asyncio.sleep(max(0.0, moment - asyncio.get_running_loop().time()))


async def check_history(store: EtcdStore, result: RealDay) -> None:
    """Replay what happened in etcd, revision by revision."""
    for pool in replay(await read_history(store)).values():
        for kind, count in pool.fault_counts.items():
            if kind is FaultKind.OVER_GRANT:
                result.over_in_history += count
            else:
                result.other_faults[kind.value] += count
