"""Measure what sessions, grants and pools cost, and how many sessions one machine holds.

A lightweight driver opens sessions on streams of their own, step by step, takes a seat for each, and
holds all of them for a while; then an ordinary client uses many pools, one after the other. Everything
runs on one machine: nodes, etcd and the driver share its cores, which is what ends first.

``*_bytes`` are resident memory of all nodes together, divided. ``cpu_ms_per_renewal`` is processor
time of the nodes (and ``etcd_cpu_ms_per_renewal`` of etcd) in the time of holding, per renewal
answered. ``lost`` must be 0: a session or a grant that ended although its client renewed it.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import asdict, dataclass
from datetime import timedelta
from time import monotonic

import psutil

from bench.many_sessions import ManySessions
from bench.report import notify, parser, progress, run
from bench.service import IN_PROCESS, Service, running_service
from seatkeeper.client import AsyncSeatClient

POOL = "scale"


@dataclass(frozen=True)
class Step:
    """What so many sessions cost."""

    sessions: int
    open_per_s: float
    bytes_per_session: float
    grant_per_s: float
    bytes_per_grant: float
    held_s: float
    renewals_per_s: float
    cpu_ms_per_renewal: float
    etcd_cpu_ms_per_renewal: float
    lost: int


async def main() -> None:
    """Measure, and print the result."""
    options = parser(__doc__)
    options.add_argument("--sessions", default="1000,10000", help="steps, comma-separated")
    options.add_argument("--pools", type=int, default=200)
    options.add_argument("--hold-s", type=float, default=30.0, help="of each step")
    options.add_argument("--ttl-s", type=float, default=60.0)
    options.add_argument("--nodes", type=int, default=3)
    arguments = options.parse_args()
    steps = [int(step) for step in arguments.sessions.split(",")]
    async with running_service(nodes=arguments.nodes) as service:
        pools = await pools_cost(service, arguments.pools)
        measured = await sessions_cost(service, steps, arguments)
    notify({"steps": [asdict(step) for step in measured], **pools}, arguments.json)


async def sessions_cost(
    service: Service, steps: list[int], arguments: argparse.Namespace
) -> list[Step]:
    """Open sessions step by step; return what each step cost."""
    many = ManySessions(service.addresses, timedelta(seconds=arguments.ttl_s))
    async with AsyncSeatClient(service.addresses, config=IN_PROCESS) as admin:
        await admin.pools.create(POOL, seats=100_000)
    measured = []
    try:
        for step in steps:
            progress(f"{step} sessions")
            measured.append(await one_step(service, many, step, arguments.hold_s))
    finally:
        await many.close()
    return measured


async def one_step(service: Service, many: ManySessions, count: int, hold: float) -> Step:
    """Open sessions until there are ``count``, take a seat for each, hold them."""
    fresh = count - len(many.sessions)
    empty, began = memory(service), monotonic()
    await many.open(fresh)
    opened, with_sessions = monotonic(), memory(service)
    await many.acquire(POOL)
    granted, with_grants = monotonic(), memory(service)
    renewals, cpu, etcd = many.renewals, node_cpu(service), etcd_cpu(service)
    await asyncio.sleep(hold)
    answered = max(1, many.renewals - renewals)
    return Step(
        sessions=count,
        open_per_s=fresh / (opened - began),
        bytes_per_session=(with_sessions - empty) / fresh,
        grant_per_s=count / (granted - opened),
        bytes_per_grant=(with_grants - with_sessions) / count,
        held_s=hold,
        renewals_per_s=answered / hold,
        cpu_ms_per_renewal=1000 * (node_cpu(service) - cpu) / answered,
        etcd_cpu_ms_per_renewal=1000 * (etcd_cpu(service) - etcd) / answered,
        lost=many.lost,
    )


async def pools_cost(service: Service, count: int) -> dict[str, float]:
    """Use so many pools, one after the other; return what one costs."""
    async with AsyncSeatClient(service.addresses, config=IN_PROCESS) as client:
        before, began = memory(service), monotonic()
        for number in range(count):
            await client.pools.create(f"pool-{number}", seats=1)
            grant = await client.acquire(f"pool-{number}")
            await grant.release()
        took = monotonic() - began
        return {
            "pools": count,
            "pools_per_s": count / took,
            "bytes_per_pool": (memory(service) - before) / count,
        }


def memory(service: Service) -> int:
    """Return the resident memory of all nodes, in bytes."""
    return sum(process.memory_info().rss for process in nodes_of(service))


def node_cpu(service: Service) -> float:
    """Return the processor seconds that all nodes have used."""
    return sum(sum(process.cpu_times()[:2]) for process in nodes_of(service))


def etcd_cpu(service: Service) -> float:
    """Return the processor seconds that etcd has used."""
    pids = [member.pid for member in service.etcd.members if member.pid is not None]
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids)


def nodes_of(service: Service) -> list[psutil.Process]:
    """Return the processes of the nodes."""
    return [psutil.Process(node.process.pid) for node in service.nodes]


if __name__ == "__main__":
    run(main)
