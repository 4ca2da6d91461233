"""Measure what an agent adds to the library, and whether a model of more than 2 GiB goes through it.

Everything is one run, on loopback: etcd, a node, an agent as a process, and the library called directly
in a fresh process.

- ``overhead_s``, ``overhead_pct``: a build through the agent, with its seat and the transfer of the
  model, over the same build by the library alone; medians of rounds that alternate.
- ``overhead_cpu_s``: the same in processor time of the agent and its worker, over that of the library
  alone. It says more than the others where the machine is busy with something else.
- ``cached_ms``: the same request again, median. It takes no seat (``cached_seats`` 0) and fetches
  nothing.
- ``builds``, ``seats``: how often it was compiled, and how many grants there were, when
  ``identical`` clients ask for the same new engine at once, with three agents.
- ``agent_mb_max``: most memory that the agent's process ever had (VmHWM), after a model of
  ``large_gib`` with weights in files of their own.
- ``upload_resumed``: the connection is cut in the middle of that upload, once; whether it went on from
  there.
"""

from __future__ import annotations

import asyncio
import resource
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.large_model import GIB, make_large_model
from bench.models.catalog import light_model
from bench.report import median, notify, parser, progress, run
from bench.service import IN_PROCESS, ServerProcess, Service, running_service, spawn
from seatkeeper.chaos.relay import Relay
from seatkeeper.client import AsyncSeatClient
from seatkeeper.v1 import build_pb2
from seatkeeper.v1 import build_service_pb2 as pb

POOL = "tensorrt"
MODEL = "densenet121"
CACHED_REQUESTS = 20
IDENTICAL = 20
AGENTS = 3
CUT_AT_PART = 0.5
WORKSPACE_BYTES = 1 << 30
KNOWN_TRIES_MAX = 300


@dataclass
class Bench:
    """What is measured with."""

    service: Service
    client: AsyncSeatClient
    agent: ServerProcess
    relay: Relay
    """Clients reach the agent through it."""
    folder: Path


async def main() -> None:
    """Measure, and print the result."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=3, help="builds of each kind")
    options.add_argument(
        "--gib", type=float, default=2.2, help="size of the large model; 0: none"
    )
    arguments = options.parse_args()
    async with running_bench() as bench:
        result = await overhead(bench, arguments.rounds)
        result |= await cached(bench)
        result |= await identical(bench)
        if arguments.gib:
            result |= await large(bench, arguments.gib)
    notify(result, arguments.json)


@asynccontextmanager
async def running_bench() -> AsyncIterator[Bench]:
    """Start a service with one pool, and an agent behind a relay."""
    with tempfile.TemporaryDirectory(prefix="seatkeeper-bench-") as scratch:
        async with (
            running_service() as service,
            AsyncSeatClient(service.addresses, holder="bench", config=IN_PROCESS) as client,
        ):
            await client.pools.create(POOL, seats=4)
            listen = f"127.0.0.1:{_free_port()}"
            relay = Relay(listen)
            await relay.start()
            agent = _agent(
                service, "bench-agent", "--listen", listen, "--advertise", relay.endpoint
            )
            try:
                await agent.wait_serving()
                await _until_known(client, 1)
                yield Bench(service, client, agent, relay, Path(scratch))
            finally:
                await agent.stop()
                await relay.close()


async def overhead(bench: Bench, rounds: int) -> dict[str, Any]:
    """Build the same model directly and through the agent, in turns."""
    model = bench.folder / "model.onnx"
    model.write_bytes(light_model(MODEL))
    direct, through_agent = [], []
    cpu: list[float] = []
    agent = psutil.Process(bench.agent.process.pid)
    for number in range(rounds + 1):  # the first of each warms the disk's cache
        # Another scratch size is another engine, which costs the same: the agent finds none.
        workspace_bytes = WORKSPACE_BYTES + number
        progress(f"{MODEL}: round {number} of {rounds}")
        children_before = resource.getrusage(resource.RUSAGE_CHILDREN)
        direct.append(await _direct_s(model, bench.folder / "direct", workspace_bytes))
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        direct_cpu_s = sum(children[:2]) - sum(children_before[:2])
        agent_before, began = agent.cpu_times(), time.perf_counter()
        built = await bench.client.build(model, _options(workspace_bytes))
        through_agent.append(time.perf_counter() - began)
        cpu.append(sum(agent.cpu_times()[:4]) - sum(agent_before[:4]) - direct_cpu_s)
        assert not built.cached
    direct_s, agent_s = median(direct[1:]), median(through_agent[1:])
    return {
        "model": MODEL,
        "direct_s": direct_s,
        "agent_s": agent_s,
        "overhead_s": agent_s - direct_s,
        "overhead_cpu_s": median(cpu[1:]),
        "overhead_pct": 100 * (agent_s - direct_s) / direct_s,
        "engine_mb": (bench.folder / "direct").stat().st_size / 1e6,
    }


async def cached(bench: Bench) -> dict[str, Any]:
    """Ask again for what was built."""
    progress(f"{MODEL}: {CACHED_REQUESTS} times again")
    model, options = bench.folder / "model.onnx", _options(WORKSPACE_BYTES)
    grants_before = (await bench.client.pools.get(POOL)).fence
    times = []
    for _ in range(CACHED_REQUESTS):
        began = time.perf_counter()
        built = await bench.client.build(model, options)
        times.append(1000 * (time.perf_counter() - began))
        assert built.cached
    grants = (await bench.client.pools.get(POOL)).fence - grants_before
    return {"cached_ms": median(times), "cached_seats": grants}


async def identical(bench: Bench) -> dict[str, Any]:
    """Ask for the same engine from many clients at once, with more agents than one."""
    progress(f"{MODEL}: {IDENTICAL} clients at once, {AGENTS} agents")
    model, options = bench.folder / "model.onnx", _options(2 * WORKSPACE_BYTES)
    async with AsyncExitStack() as stack:
        for number in range(1, AGENTS):
            other = _agent(bench.service, f"agent-{number}", "--listen", "127.0.0.1:0")
            stack.push_async_callback(other.stop)
            await other.wait_serving()
        await _until_known(bench.client, AGENTS)
        clients = [
            await stack.enter_async_context(
                AsyncSeatClient(
                    bench.service.addresses, holder=f"pod-{number}", config=IN_PROCESS
                )
            )
            for number in range(IDENTICAL)
        ]
        grants_before = (await bench.client.pools.get(POOL)).fence
        began = time.perf_counter()
        built = await asyncio.gather(*(client.build(model, options) for client in clients))
        seconds = time.perf_counter() - began
        grants = (await bench.client.pools.get(POOL)).fence - grants_before
    return {
        "identical": IDENTICAL,
        "agents": AGENTS,
        "builds": sum(not each.cached for each in built),
        "seats": grants,
        "identical_s": seconds,
    }


def _agent(service: Service, agent_id: str, *arguments: str) -> ServerProcess:
    return spawn(
        service.folder,
        agent_id,
        [
            *("agent", "--agent-id", agent_id, *arguments),
            *("--nodes", ",".join(service.addresses), "--pool", POOL),
            *("--engines", str(Path(service.folder) / "engines" / agent_id)),
        ],
    )


async def large(bench: Bench, gib: float) -> dict[str, Any]:
    """Build a model of more than 2 GiB, over a connection that is cut once."""
    progress(f"a model of {gib:g} GiB: making it")
    model = await asyncio.to_thread(make_large_model, bench.folder / "large", round(gib * GIB))
    whole = sum(each.stat().st_size for each in model.parent.rglob("*") if each.is_file())
    cut_at: list[int] = []
    resumed_at: list[int] = []

    def on_progress(now: pb.BuildProgress) -> None:
        if now.phase != pb.BUILD_PHASE_RECEIVING or not now.steps:
            return
        if cut_at and not resumed_at and now.steps_done != cut_at[0]:
            resumed_at.append(now.steps_done)
        if not cut_at and now.steps_done > CUT_AT_PART * now.steps:
            cut_at.append(now.steps_done)
            progress(f"cut after {now.steps_done} of {now.steps} MiB")
            bench.relay.cut()

    began = time.perf_counter()
    built = await bench.client.build(model, _options(WORKSPACE_BYTES), on_progress=on_progress)
    seconds = time.perf_counter() - began
    direct_s = await _direct_s(model, bench.folder / "direct", WORKSPACE_BYTES)
    shutil.rmtree(model.parent)
    return {
        "large_gib": whole / GIB,
        "large_engine_gib": built.manifest.file.size_bytes / GIB,
        "large_s": seconds,
        "large_direct_s": direct_s,
        "agent_mb_max": _rss_max_mb(bench.agent),
        "upload_resumed": built.upload_resumed,
        "cut_at_mib": cut_at[0] if cut_at else 0,
        "resumed_at_mib": resumed_at[0] if resumed_at else 0,
    }


async def _direct_s(model: Path, engine: Path, workspace_bytes: int) -> float:
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.direct_build"),
        *(str(model), str(engine), str(workspace_bytes)),
    )
    if await process.wait():
        raise RuntimeError(f"the library did not build {model.name}")
    return time.perf_counter() - began


def _options(workspace_bytes: int) -> build_pb2.BuildOptions:
    return build_pb2.BuildOptions(
        backend="tensorrt_rtx", targets=["SM86"], workspace_bytes=workspace_bytes
    )


async def _until_known(client: AsyncSeatClient, agents: int) -> None:
    for _ in range(KNOWN_TRIES_MAX):
        if len(await client.engines.agents()) >= agents:
            return
        await asyncio.sleep(0.1)
    raise RuntimeError("an agent did not become known")


def _rss_max_mb(process: ServerProcess) -> float:
    status = Path(f"/proc/{process.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    run(main)
