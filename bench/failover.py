"""Measure what clients see when nodes are killed, paused and restarted, and when etcd loses its leader.

Three etcd members, three nodes, and clients that all know all of them. 40 take turns with the seats
that three others do not hold all the time, for 50 ms each, so that somebody always waits; four more
do so with unary calls. Half of the 40 go to the node that owns the pool, half stay where they are
(``bench.waiters``). Under this load, again and again:

- *kill*: the node that owns the pool is killed (SIGKILL), measured, and started again at its address;
- *freeze*: the node that owns the pool is stopped (SIGSTOP), measured, and let go on (SIGCONT);
- *etcd_leader*: the member that leads is killed, measured, and started again on its data;
- *rolling*: each node in turn gets SIGTERM, ends, and is started again at its address.

The next one comes only when all nodes are listed, the node that was affected has served a client of its
own, and everybody who waited has been served; turn-takers are spread over nodes again before it.

What is measured, in seconds from just before the signal is sent. *Waiting* is a turn-taker whose
``acquire`` had been called and had not returned at that moment.

- ``<kind>_first_*``: until the first of those waiting has a seat (its ``acquire`` returns) that a node
  decided to grant after that moment. A grant that was decided before and arrives after does not count.
- ``<kind>_there_*``: the same, of those waiting whose stream was to the node that was affected.
- ``<kind>_p50_s``, ``_p99_s``, ``_max_s``: the later of the two; where no client waited there, the
  first.
- ``<kind>_everyone_*``: until every one of those waiting has a seat, however long its queue was.
- ``calm_*``: the same with nothing done at all, before each of them: what to subtract.

One that takes longer than ``MEASURE_SECONDS_MAX`` counts as that, and ``<kind>_unserved`` counts the
clients that had no seat by then. p99 of less than 100 measurements is the slowest.

``<kind>_failed_calls`` are calls that raised, unconfirmed releases, and grants lost, from
before the first of its kind to after the last; ``<kind>_slowest_unary_s`` is how long the slowest unary
call took then. ``unary_denied`` are unary acquires that waited in vain for as long as they may, and
``jeopardies`` counts how often a grant was in doubt for a while. From etcd's history: seats given out
beyond the capacity, grants out of order within a project and priority, and tickets lost
(``bench.departures``).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from time import perf_counter
from typing import Any

import grpc.aio

from bench.departures import Departures, Fate, departures
from bench.recovery import Recovery
from bench.report import median, notify, parser, percentile, progress, run
from bench.service import (
    IN_PROCESS,
    STOP_SECONDS_MAX,
    ServerProcess,
    Service,
    running_service,
    start_node,
)
from bench.waiters import Waiters, WaitersConfig, running_waiters
from seatkeeper.client import AsyncSeatClient, SeatError
from seatkeeper.core.channels import dial
from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdProcess
from seatkeeper.etcd.v3 import etcd_pb2
from seatkeeper.oracle.history import FaultKind, PoolHistory, read_history, replay
from seatkeeper.server.store import Change
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore
from seatkeeper.server.store.etcd.calls import STATUS

POOL = "failover"
NODES = 3
MEMBERS = 3
SPREAD_SECONDS = 0.5
"""A fault comes at any moment within this, so that it does not keep step with the load."""
MEASURE_SECONDS_MAX = 30.0
SETTLE_SECONDS_MAX = 30.0
"""How long the service may take to be as before, once what was affected runs again."""
STATUS_SECONDS_MAX = 2.0
POLL_SECONDS = 0.05
KINDS = ("calm", "kill", "freeze", "etcd_leader", "rolling")


class NotSettledError(Exception):
    """The service did not come back to what it was before a fault."""


@dataclass
class Trial:
    """A service under load, and what was measured on it."""

    service: Service
    admin: AsyncSeatClient
    waiters: Waiters
    recoveries: dict[str, list[Recovery]] = field(
        default_factory=lambda: {kind: [] for kind in KINDS}
    )
    failed_calls: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    slowest_unary: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    bad_exits: int = 0
    """Nodes that did not end with 0 when asked to."""
    stop_seconds: list[float] = field(default_factory=list)

    async def kill(self) -> None:
        """Kill the owner; start it again when that has been measured."""
        node = await self._owner()
        await self._inject("kill", node.kill, node.address)
        await self._start_again(node)

    async def pause(self) -> None:
        """Pause the owner; resume it when that has been measured."""
        node = await self._owner()
        await self._inject("freeze", node.pause, node.address)
        node.resume()
        await self._serves(node)

    async def kill_etcd_leader(self) -> None:
        """Kill etcd's leader; start it again when that has been measured."""
        leader = await leader_of(self.service.etcd)
        await self._inject("etcd_leader", leader.kill)
        await leader.start()

    async def restart_each(self) -> None:
        """Restart every node in turn, as an operator does."""
        for name in [node.name for node in self.service.nodes]:
            await self.settle()
            node = next(node for node in self.service.nodes if node.name == name)
            asked = partial(node.process.send_signal, signal.SIGTERM)
            async with asyncio.TaskGroup() as together:
                injected = together.create_task(self._inject("rolling", asked, node.address))
                ended = together.create_task(self._ended(node))
            self.stop_seconds.append(ended.result() - injected.result())
            self.bad_exits += node.process.returncode != 0
            await self._start_again(node)

    async def repeat(self, kind: str, times: int, fault: Callable[[], Awaitable[None]]) -> None:
        """Let a kind of fault happen again and again, each time to a service that is whole."""
        failed, self.waiters.slowest_unary = len(self.waiters.failures), 0.0
        for number in range(1, times + 1):
            self.waiters.spread()
            await self.settle()
            await fault()
            reported = self.recoveries[kind][-1]
            progress(
                f"{kind} {number} of {times}: {reported.seconds:.2f} s, "
                f"everyone {reported.everyone_s:.2f} s"
            )
        await self.settle()
        self.failed_calls[kind] = len(self.waiters.failures) - failed
        self.slowest_unary[kind] = self.waiters.slowest_unary

    async def settle(self) -> None:
        """Wait until all is well: nodes listed, turn-takers connected, waiting requests served."""
        deadline = perf_counter() + SETTLE_SECONDS_MAX
        while not (await self._is_whole()):
            if perf_counter() > deadline:
                raise NotSettledError(f"not whole after {SETTLE_SECONDS_MAX:g} s")
            await asyncio.sleep(POLL_SECONDS)
        await asyncio.sleep(random.uniform(0, SPREAD_SECONDS))
        calm = await self.waiters.recovery(self.waiters.fault(), MEASURE_SECONDS_MAX)
        self.recoveries["calm"].append(calm)
        if calm.unserved:
            raise NotSettledError(f"{calm.unserved} clients are not served")

    async def _is_whole(self) -> bool:
        running = {(node.name, node.address) for node in self.service.nodes}
        try:
            listed = {(node.node_id, node.address) for node in await self.admin.cluster.nodes()}
        except SeatError:
            return False
        unsettled = self.waiters.moving or self.waiters.connected()[""]
        return running == listed and not unsettled

    async def _inject(self, kind: str, inject: Callable[[], None], address: str = "") -> float:
        """Measure the effect of ``inject`` on waiting clients; return when it was done."""
        await asyncio.sleep(random.uniform(0, SPREAD_SECONDS))
        fault = self.waiters.fault(address)
        inject()
        recovery = await self.waiters.recovery(fault, MEASURE_SECONDS_MAX)
        self.recoveries[kind].append(recovery)
        return fault.at

    async def _ended(self, node: ServerProcess) -> float:
        """Return when the node has ended by itself, or was killed because it did not."""
        deadline = perf_counter() + SPREAD_SECONDS + STOP_SECONDS_MAX
        while node.process.poll() is None:
            if perf_counter() > deadline:
                node.kill()
            await asyncio.sleep(POLL_SECONDS)
        return perf_counter()

    async def _start_again(self, node: ServerProcess) -> None:
        again = await start_node(self.service, node.name, listen=node.address)
        await self._serves(again)

    async def _serves(self, node: ServerProcess) -> None:
        """Wait until a client that knows only this node has had a seat."""
        async with (
            asyncio.timeout(SETTLE_SECONDS_MAX),
            AsyncSeatClient(node.address, config=IN_PROCESS) as probe,
        ):
            async with probe.seat(POOL):
                pass
            self.waiters.closed_sessions.add((await probe.session()).session_id)

    async def _owner(self) -> ServerProcess:
        return await owner_of(self.service, self.admin, self.waiters)


async def owner_of(service: Service, admin: AsyncSeatClient, waiters: Waiters) -> ServerProcess:
    """Return the node that decides for the pool; where none is named, that with most clients."""
    # Services that do not route name no owner.
    owner = getattr(await admin.pools.get(POOL), "owner", "")
    for node in service.nodes:
        if owner in {node.name, node.address}:
            return node
    connected = waiters.connected()
    return max(service.nodes, key=lambda node: connected[node.address])


async def leader_of(etcd: EtcdCluster) -> EtcdProcess:
    """Return the member that leads."""
    deadline = perf_counter() + SETTLE_SECONDS_MAX
    while perf_counter() < deadline:
        for member in etcd.members:
            async with dial(member.endpoint) as channel:
                ask = channel.unary_unary(
                    STATUS.path,
                    request_serializer=etcd_pb2.StatusRequest.SerializeToString,
                    response_deserializer=etcd_pb2.StatusResponse.FromString,
                )
                try:
                    answer = await ask(etcd_pb2.StatusRequest(), timeout=STATUS_SECONDS_MAX)
                except grpc.aio.AioRpcError:
                    continue
            if answer.leader == answer.header.member_id:
                return member
        await asyncio.sleep(POLL_SECONDS)
    raise NotSettledError(f"etcd has had no leader for {SETTLE_SECONDS_MAX:g} s")


async def main() -> None:
    """Measure, and print the result."""
    arguments = parse_arguments()
    config = WaitersConfig(
        pool=POOL,
        clients=arguments.clients,
        keepers=arguments.keepers,
        callers=arguments.callers,
        hold=timedelta(milliseconds=arguments.hold_ms),
        ttl=timedelta(seconds=arguments.ttl),
    )
    async with (
        running_service(nodes=NODES, etcd_members=MEMBERS) as service,
        AsyncSeatClient(service.addresses, config=IN_PROCESS) as admin,
    ):
        await admin.pools.create(POOL, seats=arguments.seats)
        async with running_waiters(service.addresses, config) as waiters:
            trial = Trial(service, admin, waiters)
            kills, rounds = arguments.kills, arguments.rounds or -(-arguments.kills // 10)
            for kind, times, fault in (
                ("kill", kills, trial.kill),
                ("freeze", kills, trial.pause),
                ("etcd_leader", kills, trial.kill_etcd_leader),
                ("rolling", rounds, trial.restart_each),
            ):
                if arguments.only in (None, kind):
                    await trial.repeat(kind, times, fault)
        store = EtcdStore(EtcdConfig(endpoints=service.etcd.endpoints))
        changes = await read_history(store)
        await store.close()
    notify(result_of(trial, changes, arguments), arguments.json)


def parse_arguments() -> argparse.Namespace:
    """Return what the command line says."""
    options = parser(__doc__)
    options.formatter_class = argparse.RawDescriptionHelpFormatter
    options.add_argument("--kills", type=int, default=30, help="of each kind")
    options.add_argument("--rounds", type=int, help="rolling restarts; default: kills / 10")
    options.add_argument("--only", choices=KINDS[1:], help="one kind; default: all, in turn")
    options.add_argument("--clients", type=int, default=40)
    options.add_argument("--keepers", type=int, default=3)
    options.add_argument("--callers", type=int, default=4)
    options.add_argument("--seats", type=int, default=8)
    options.add_argument("--hold-ms", type=float, default=50.0)
    options.add_argument("--ttl", type=float, default=12.0)
    return options.parse_args()


def result_of(
    trial: Trial, changes: Sequence[Change], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Return the result: times, calls, and what etcd's history shows."""
    waiters = trial.waiters
    reported: dict[str, Any] = {"kills": arguments.kills, "clients": arguments.clients}
    reported |= {"seats": arguments.seats, "ttl_s": arguments.ttl}
    for kind in KINDS:
        reported |= times_of(kind, trial.recoveries[kind])
        if kind != "calm" and trial.recoveries[kind]:
            reported[f"{kind}_failed_calls"] = trial.failed_calls[kind]
            reported[f"{kind}_slowest_unary_s"] = trial.slowest_unary[kind]
    reported |= {
        "rolling_bad_exits": trial.bad_exits,
        "rolling_stop_max_s": max(trial.stop_seconds, default=0.0),
        "failed_calls": len(waiters.failures),
        "calls_never_returned": waiters.never_returned,
        "unary_denied": waiters.denied,
        "jeopardies": waiters.jeopardies,
        "calls": waiters.calls.total(),
        "turns": len(waiters.served),
    }
    history = replay(changes)[POOL]
    gone = departures(changes, POOL, closed_sessions=waiters.closed_sessions)
    return reported | outcome_of(history, gone)


def times_of(kind: str, recoveries: Sequence[Recovery]) -> dict[str, Any]:
    """Return the times of one kind of fault."""
    if not recoveries:
        return {}
    there = [each.there_s for each in recoveries if each.there_s is not None]
    reported: dict[str, Any] = {f"{kind}_count": len(recoveries)}
    if kind != "calm":
        reported[f"{kind}_there_count"] = len(there)
    for name, values in (
        ("", [each.seconds for each in recoveries]),
        ("first_", [each.first_s for each in recoveries]),
        ("there_", there),
        ("everyone_", [each.everyone_s for each in recoveries]),
    ):
        if values:
            reported[f"{kind}_{name}p50_s"] = median(values)
            reported[f"{kind}_{name}p99_s"] = percentile(values, 99)
            reported[f"{kind}_{name}max_s"] = max(values)
    reported[f"{kind}_unserved"] = sum(each.unserved for each in recoveries)
    return reported


def outcome_of(history: PoolHistory, gone: Departures) -> dict[str, Any]:
    """Return what etcd's history says."""
    return {
        "over_grants": history.count(FaultKind.OVER_GRANT),
        "max_out": history.max_out,
        "fence_faults": history.count(FaultKind.FENCE),
        "granted_twice": history.count(FaultKind.GRANTED_TWICE),
        "order_inversions": gone.order_inversions,
        "lost_tickets": len(gone.lost_tickets),
        "lost_grants": len(gone.lost_grants),
        "grants": history.grants,
        "tickets": history.tickets,
        "tickets_given_up": gone.fates[Fate.GIVEN_UP],
        "left_behind": history.out + history.waiting,
    }


if __name__ == "__main__":
    run(main)
