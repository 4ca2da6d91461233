"""The main job, on real input: six clients, two seats, six TensorRT engines, one node killed.

Three nodes over one etcd serve a pool of two seats. Six clients come at once, each with another real
architecture (from the ``onnx`` package's own test data), and each wants an engine for SM86. They queue,
two at a time hold a seat, the agent compiles for the holders, and in the middle a node is killed.
Then the store's own history is replayed to see whether there were ever more than two seats out, and
one model is built again to see that this takes no seat. At last a network is built in FP16 and in INT8,
with the accuracy of each; these two are not among the engines that are counted.

The last line is one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import onnx
from rich.console import Console
from rich.live import Live
from rich.table import Table

from bench.demo_precision import accuracy_table, build_both
from bench.report import run
from bench.service import ServerProcess, Service, running_service, spawn
from seatkeeper.client import AsyncSeatClient, QueuePosition
from seatkeeper.client.builds.builds import BuiltEngine
from seatkeeper.oracle.history import PoolHistory, read_history, replay
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore
from seatkeeper.v1 import build_pb2, build_service_pb2

_T = TypeVar("_T")

POOL = "tensorrt"
SEATS = 2
MODELS = ("resnet50", "vgg19", "densenet121", "inception_v1", "shufflenet", "squeezenet")
OPTIONS = build_pb2.BuildOptions(backend="tensorrt_rtx", targets=["SM86"])
KILL_AFTER = 2
"""Engines finished when a node is killed: two are being built then, and two wait."""

QUIET_SECONDS_MAX = 5.0
"""Longest silence where there is no terminal to draw on."""

console = Console(stderr=False, soft_wrap=True)


@dataclass
class Job:
    """One client and its model."""

    model: Path
    state: str = "connecting"
    detail: str = ""
    began: float = field(default_factory=time.monotonic)
    took: float = 0.0
    built: BuiltEngine | None = None

    @property
    def name(self) -> str:
        """The architecture's name."""
        return self.model.stem.removeprefix("light_")


async def main() -> None:
    """Show it."""
    starting = saying("[1/6] Starting etcd and three nodes, as processes on loopback.")
    async with (
        started(running_service(nodes=3), starting) as service,
        AsyncSeatClient(service.addresses, holder="demo") as admin,
    ):
        await admin.pools.create(POOL, seats=SEATS, description="TensorRT engine builds")
        loading = saying(f"[2/6] A pool of {SEATS} seats. Starting an agent with its compiler.")
        async with started(running_agent(service), loading):
            await until_agent_is_known(admin)
            jobs = [Job(model_file(name)) for name in MODELS]
            console.print(
                f"[3/6] {len(jobs)} clients want an engine each, {SEATS} at a time. After "
                f"{KILL_AFTER} engines a node is killed."
            )
            killed = await run_jobs(service, jobs)
            async with saying("[4/6] Building one again: it is found, and takes no seat."):
                hits = await build_again(service, jobs[0])
            async with (
                saying(
                    "[5/6] The same seats for FP16 and INT8, measured before they are published."
                ),
                AsyncSeatClient(service.addresses[1:], holder="precise@demo") as client,
            ):
                converted = await build_both(client)
        async with saying("[6/6] Replaying etcd's history of the pool."):
            history = await history_of(service)
    console.print(table_of(jobs))
    console.print(accuracy_table(converted))
    show_proof(history)
    result = {
        "demo": "ok" if is_good(jobs, history, hits, killed) else "failed",
        "clients": len(jobs),
        "seats": SEATS,
        "max_out": history.max_out,
        "engines": len({job.built.key for job in jobs if job.built}),
        "cache_hits": hits,
        "nodes_killed": killed,
    }
    print(json.dumps(result), flush=True)
    sys.exit(0 if result["demo"] == "ok" else 1)


@asynccontextmanager
async def saying(step: str) -> AsyncIterator[None]:
    """Say what is done, and for how long already, now and then while it is."""
    began = time.monotonic()

    async def say_on() -> None:
        while True:
            await asyncio.sleep(QUIET_SECONDS_MAX)
            console.print(f"      {time.monotonic() - began:.0f} s", markup=False)

    console.print(step, markup=False)
    task = asyncio.create_task(say_on())
    try:
        yield
    finally:
        task.cancel()


@asynccontextmanager
async def started(
    thing: AbstractAsyncContextManager[_T], step: AbstractAsyncContextManager[None]
) -> AsyncIterator[_T]:
    """Enter ``thing`` during ``step``."""
    async with AsyncExitStack() as stack:
        async with step:
            entered = await stack.enter_async_context(thing)
        yield entered


@asynccontextmanager
async def running_agent(service: Service) -> AsyncIterator[ServerProcess]:
    """Start a build agent; stop it at the end."""
    agent = spawn(
        service.folder,
        "agent",
        [
            *("agent", "--agent-id", "demo-agent", "--listen", "127.0.0.1:0"),
            *("--nodes", ",".join(service.addresses)),
            *("--engines", str(service.folder / "engines")),
            *("--pool", POOL, "--builds-max", str(SEATS)),
        ],
    )
    try:
        await agent.wait_serving()
        yield agent
    finally:
        await agent.stop()


async def until_agent_is_known(admin: AsyncSeatClient) -> None:
    """Wait for the agent's registration, and print what it can build."""
    agents: Sequence[build_service_pb2.AgentInfo] = ()
    for _ in range(300):
        if agents := await admin.engines.agents():
            break
        await asyncio.sleep(0.1)
    for backend in agents[0].backends:
        targets = " ".join(backend.targets)
        console.print(
            f"Agent {agents[0].agent_id}: {backend.name} {backend.version}, {targets}."
        )


async def run_jobs(service: Service, jobs: list[Job]) -> int:
    """Run all jobs at once, and kill a node in the middle; return how many were killed."""
    killed = 0
    finished = asyncio.Semaphore(0)
    shown: dict[str, str] = {}

    async def kill_a_node() -> None:
        nonlocal killed
        for _ in range(KILL_AFTER):
            await finished.acquire()
        service.nodes[0].kill()
        killed += 1
        console.print(f"[bold red]killed node-1[/] (pid {service.nodes[0].process.pid})")

    with Live(console=console, refresh_per_second=8, transient=not console.is_terminal) as live:

        async def show() -> None:
            reported_at = time.monotonic()
            while True:
                live.update(queue_table(jobs))
                if not console.is_terminal:
                    now = time.monotonic()
                    if print_changes(jobs, shown):
                        reported_at = now
                    elif now >= reported_at + QUIET_SECONDS_MAX:
                        print_all(jobs)
                        reported_at = now
                await asyncio.sleep(0.1)

        async with asyncio.TaskGroup() as group:
            display = group.create_task(show())
            killer = group.create_task(kill_a_node())
            # Each knows all nodes and begins with another, as clients behind a balancer would.
            work = [
                group.create_task(run_job(rotated(service.addresses, number), job, finished))
                for number, job in enumerate(jobs)
            ]
            await asyncio.wait(work)
            display.cancel()
            await killer
        live.update(queue_table(jobs))
    if not console.is_terminal:
        print_changes(jobs, shown)
    return killed


async def run_job(addresses: list[str], job: Job, finished: asyncio.Semaphore) -> None:
    """Build one engine, noting how it goes; count it as finished."""

    def on_queued(place: QueuePosition) -> None:
        job.state = f"queued, position {place.position}"
        job.detail = f"about {place.estimate.total_seconds():.0f} s" if place.estimate else ""

    def on_progress(progress: build_service_pb2.BuildProgress) -> None:
        job.state = build_service_pb2.BuildPhase.Name(progress.phase)[12:].lower()
        job.detail = f"{progress.step} {progress.steps_done}/{progress.steps}".strip(" 0/")

    async with AsyncSeatClient(addresses, holder=f"{job.name}@demo", project="demo") as client:
        job.built = await client.build(
            job.model, OPTIONS, on_queued=on_queued, on_progress=on_progress
        )
        fetched = job.model.name.replace(".onnx", ".engine")
        with tempfile.TemporaryDirectory() as folder:
            await client.fetch(job.built.key, Path(folder) / fetched)  # verifies it
    job.took = time.monotonic() - job.began
    job.state, job.detail = "done", "fetched and verified"
    finished.release()


async def build_again(service: Service, job: Job) -> int:
    """Build a model that was built before; return 1 if no seat was used, else 0."""
    async with AsyncSeatClient(service.addresses[1:], holder="again@demo") as client:
        fence = (await client.pools.get(POOL)).fence
        again = await client.build(job.model, OPTIONS)
        used = (await client.pools.get(POOL)).fence - fence
    console.print(
        f"Built {job.name} again: {'found' if again.cached else 'BUILT ANEW'}, {used} seats used."
    )
    return int(again.cached and used == 0)


async def history_of(service: Service) -> PoolHistory:
    """Replay the store's own history of the pool."""
    store = EtcdStore(EtcdConfig(endpoints=service.etcd.endpoints))
    try:
        return replay(await read_history(store))[POOL]
    finally:
        await store.close()


def queue_table(jobs: list[Job]) -> Table:
    """Return the picture of what every client is at."""
    table = Table(box=None, pad_edge=False)
    for column in ("client", "state", ""):
        table.add_column(column)
    for job in jobs:
        table.add_row(job.name, job.state, job.detail)
    return table


def print_all(jobs: list[Job]) -> None:
    """Print what every client is at, in one line."""
    states = ", ".join(f"{job.name} {job.state} {job.detail}".strip() for job in jobs)
    console.print(f"{time.monotonic() - jobs[0].began:6.2f} s  {states}")


def print_changes(jobs: list[Job], shown: dict[str, str]) -> bool:
    """Print what has changed since the last time, where there is no terminal; return whether any."""
    changed = False
    for job in jobs:
        if shown.get(job.name) != job.state:
            shown[job.name] = job.state
            changed = True
            seconds = time.monotonic() - job.began
            console.print(f"{seconds:6.2f} s  {job.name:13} {job.state} {job.detail}")
    return changed


def table_of(jobs: list[Job]) -> Table:
    """Return what became of every job."""
    table = Table(title="Engines for SM86")
    table.add_column("model")
    for column in ("waited", "built in", "engine size", "fence"):
        table.add_column(column, justify="right")
    table.add_column("sha256")
    for job in jobs:
        if job.built is None:
            table.add_row(job.name, "-", "-", "-", "-", "not built")
            continue
        manifest = job.built.manifest
        table.add_row(
            job.name,
            f"{job.built.waited.total_seconds():.2f} s",
            f"{timedelta(milliseconds=manifest.build_millis).total_seconds():.2f} s",
            f"{manifest.file.size_bytes / 1e6:.1f} MB",
            str(manifest.fence),
            manifest.file.sha256[:16],
        )
    return table


def show_proof(history: PoolHistory) -> None:
    """Print the result of the history."""
    console.print(
        f"etcd's own history: {history.grants} grants, {history.tickets} tickets, fences up to "
        f"{history.fence}; never more than {history.max_out} of {SEATS} seats out at any revision; "
        f"{'nothing wrong' if history.is_correct else history.faults}."
    )


def is_good(jobs: list[Job], history: PoolHistory, hits: int, killed: int) -> bool:
    """Return whether everything that was promised happened."""
    return (
        all(job.built is not None for job in jobs)
        and history.is_correct
        and history.max_out <= SEATS
        and hits == 1
        and killed == 1
    )


def model_file(name: str) -> Path:
    """Return a model of the onnx package's test data."""
    return Path(onnx.__file__).parent / "backend/test/data/light" / f"light_{name}.onnx"


def rotated(addresses: list[str], by: int) -> list[str]:
    """Return the addresses, beginning with another."""
    by %= len(addresses)
    return addresses[by:] + addresses[:by]


if __name__ == "__main__":
    run(main)
