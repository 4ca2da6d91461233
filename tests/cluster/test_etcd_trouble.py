"""Real nodes while a real etcd is in trouble: what users see, and what operators read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from bench.failover import leader_of
from bench.service import Service, start_node
from tests import processes
from tests.cluster.holder import holder
from tests.conftest import add_users
from tests.contract.conftest import call_etcd

from seatkeeper.client import AsyncSeatClient, ClientConfig, HoldingState, ServiceUnavailable
from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdOptions
from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.oracle.history import read_history, replay
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore
from seatkeeper.server.store.etcd.calls import COMPACT, STATUS

POOL = "p"
TIME_LIMIT = 30.0
LONG = ClientConfig(ttl=timedelta(seconds=60), call_timeout=timedelta(seconds=15))
HOLDER_TTL = 3.0
FLAGS = ("--stop-grace", "1", "--etcd-timeout", "1")


@pytest.fixture
async def service(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path: Path
) -> AsyncIterator[Service]:
    """Two nodes over an etcd of three members."""
    etcd = EtcdCluster(etcd_program, tmp_path / "etcd", members=3, options=etcd_options)
    await etcd.start()
    service = Service(tmp_path, etcd)
    try:
        for number in (1, 2):
            await start_node(service, f"node-{number}", FLAGS)
        async with AsyncSeatClient(service.addresses[0]) as client:
            await client.pools.create(POOL, seats=1)
        yield service
    finally:
        await asyncio.gather(*(node.stop() for node in service.nodes))
        etcd.kill()


async def checked(service: Service) -> int:
    """Replay etcd's own history, which must be without fault; return the grants in it."""
    store = EtcdStore(EtcdConfig(endpoints=service.etcd.endpoints))
    try:
        history = replay(await read_history(store))[POOL]
    finally:
        await store.close()
    assert history.is_correct, history.faults
    return history.grants


eventually = processes.eventually


async def take_turns(service: Service, turns: int) -> None:
    """Take the only seat and give it back, through either node."""
    for turn in range(turns):
        address = service.addresses[turn % 2]
        async with (
            AsyncSeatClient(address, config=LONG) as client,
            client.seat(POOL, wait=TIME_LIMIT),
        ):
            pass


async def waiting(client: AsyncSeatClient) -> asyncio.Task[int]:
    """Return a request that waits in the queue, and gives the seat back when it had it."""
    queued = asyncio.Event()

    async def wait() -> int:
        async with client.seat(POOL, wait=120, on_queued=lambda _: queued.set()) as grant:
            return grant.fence

    task = asyncio.create_task(wait())
    async with asyncio.timeout(TIME_LIMIT):
        await queued.wait()
    return task


async def test_a_new_leader_costs_no_seat_and_no_place(service: Service) -> None:
    async with (
        AsyncSeatClient(service.addresses[0], config=LONG) as holder,
        AsyncSeatClient(service.addresses[1], config=LONG) as waiter,
    ):
        grant = await holder.acquire(POOL)
        place = await waiting(waiter)
        leader = await leader_of(service.etcd)
        leader.kill()
        await grant.release()
        async with asyncio.timeout(TIME_LIMIT):
            assert await place == grant.fence + 1
        await leader.start()
    assert await checked(service) == 2


@pytest.mark.parametrize("which", ["the leader", "a follower"])
async def test_a_paused_member_is_left_and_seats_go_on(service: Service, which: str) -> None:
    leader = await leader_of(service.etcd)
    followers = [member for member in service.etcd.members if member is not leader]
    paused = leader if which == "the leader" else followers[0]
    paused.pause()
    try:
        await take_turns(service, 6)
    finally:
        paused.resume()
    await take_turns(service, 2)
    assert await checked(service) == 8


async def test_without_a_quorum_calls_fail_in_time_and_afterwards_all_goes_on(
    service: Service,
) -> None:
    impatient = replace(LONG, call_timeout=timedelta(seconds=5))
    async with (
        AsyncSeatClient(service.addresses[0], config=LONG) as holder,
        AsyncSeatClient(service.addresses[1], config=LONG) as waiter,
        AsyncSeatClient(service.addresses[0], config=impatient) as newcomer,
    ):
        grant = await holder.acquire(POOL)
        place = await waiting(waiter)
        await newcomer.session()
        for member in service.etcd.members[:2]:
            member.kill()
        with pytest.raises(ServiceUnavailable):
            await newcomer.acquire(POOL, wait=0)
        report = await holder.cluster.report()
        assert not report.store.HasField("read_time")
        grant.raise_if_lost()
        assert not place.done()

        for member in service.etcd.members[:2]:
            member.launch()
        await service.etcd.members[0].wait_healthy()
        await grant.release()
        async with asyncio.timeout(TIME_LIMIT):
            assert await place == grant.fence + 1
    assert await checked(service) == 2
    logs = "".join(node.log.read_text() for node in service.nodes)
    assert "commit_failed" in logs


async def test_without_a_quorum_for_longer_than_the_lease_the_holder_lets_go_first(
    service: Service,
) -> None:
    states: list[HoldingState] = []
    short = ClientConfig(ttl=timedelta(seconds=3), safety_margin=timedelta(milliseconds=500))
    async with AsyncSeatClient(service.addresses[0], config=short) as client:
        grant = await client.acquire(POOL, on_state=states.append)
        for member in service.etcd.members[:2]:
            member.kill()

        async def lost() -> bool:
            return HoldingState.LOST in states

        await eventually(lost)
        assert grant.state is HoldingState.LOST
        assert states[:2] == [HoldingState.JEOPARDY, HoldingState.LOST]
        for member in service.etcd.members[:2]:
            member.launch()
        await service.etcd.members[0].wait_healthy()
    await take_turns(service, 2)
    assert await checked(service) == 3


async def test_a_node_that_slept_through_a_compaction_reads_all_again(
    service: Service,
) -> None:
    sleeper = service.nodes[1]
    async with AsyncSeatClient(sleeper.address, config=LONG) as client:
        async with client.seat(POOL):
            before = await client.pools.get(POOL)
        sleeper.pause()
        try:
            async with AsyncSeatClient(service.addresses[0], config=LONG) as other:
                for _ in range(20):
                    async with other.seat(POOL, wait=TIME_LIMIT):
                        pass
            endpoint = service.etcd.endpoints[0]
            status = await call_etcd(endpoint, STATUS, pb.StatusRequest())
            grants = await checked(service)
            compaction = pb.CompactionRequest(revision=status.header.revision, physical=True)
            await call_etcd(endpoint, COMPACT, compaction)
        finally:
            sleeper.resume()
        assert grants == before.fence + 20

        async def caught_up() -> bool:
            return (await client.pools.get(POOL)).fence == before.fence + 20

        await eventually(caught_up)
        async with client.seat(POOL, wait=TIME_LIMIT) as grant:
            assert grant.fence == before.fence + 21


async def test_leases_that_a_new_leader_restarted_end_one_ttl_later(service: Service) -> None:
    """A holder that died just before the election is outlived by its seat for two leases."""
    async with (
        AsyncSeatClient(service.addresses[1], config=LONG) as waiter,
        holder(service.addresses[0], POOL, HOLDER_TTL) as process,
    ):
        place = await waiting(waiter)
        leader = await leader_of(service.etcd)
        process.kill()
        killed_at = time.monotonic()
        leader.kill()
        async with asyncio.timeout(TIME_LIMIT):
            assert await place == 2
        print(f"free {time.monotonic() - killed_at:.2f} s after (ttl {HOLDER_TTL:g} s)")
        await leader.start()
    assert await checked(service) == 2


async def test_tokens_of_etcds_users_expire_unnoticed_by_clients(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path: Path
) -> None:
    options = replace(etcd_options, auth_token_ttl=timedelta(seconds=1))
    async with EtcdCluster(etcd_program, tmp_path / "etcd", options=options) as etcd:
        await add_users(etcd_program, etcd, "seatkeeper/")
        password = tmp_path / "password"
        password.write_text("hush\n")
        service = Service(tmp_path, etcd)
        flags = ("--etcd-username", "node", "--etcd-password-file", str(password))
        node = await start_node(service, "node-1", (*FLAGS, *flags))
        try:
            async with AsyncSeatClient(node.address, config=LONG) as client:
                await client.pools.create(POOL, seats=1)
                fence = 0
                for _ in range(3):
                    async with client.seat(POOL, wait=TIME_LIMIT) as grant:
                        assert grant.fence == fence + 1
                        fence = grant.fence
                    # Tokens of its simple kind are in a member's memory: all of them end.
                    etcd.members[0].kill()
                    await etcd.members[0].start()
        finally:
            await node.stop()
