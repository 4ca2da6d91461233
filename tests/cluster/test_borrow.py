"""Borrowed seats over a real etcd: hosts that are switched off, nodes that are killed."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.cluster.conftest import Cluster
from tests.processes import eventually

from seatkeeper.client import AsyncSeatClient, BorrowRefused, NotYours
from seatkeeper.client.admin.borrows import parse_borrow
from seatkeeper.core.ids import new_id
from seatkeeper.core.machine_statement import BORROW_KIND, RETURN_KIND, signed_statement
from seatkeeper.core.tokens import verify_token
from seatkeeper.v1 import seat_pb2, seat_service_pb2

TTL, LENGTH = timedelta(seconds=2), timedelta(seconds=8)
LATE_SECONDS = 5.0
"""How much later than its day and skew a seat may be free on a busy machine."""


@dataclass
class Machine:
    """A machine that takes a seat, and is switched off at once: nothing renews its session."""

    client: AsyncSeatClient
    pool: str
    key: Ed25519PrivateKey
    grant_id: str = ""
    fence: int = 0

    async def take(self, length: timedelta = LENGTH) -> float:
        """Borrow a seat; return when it is free at the earliest, by the time of day."""
        credentials = seat_service_pb2.SessionCredentials(
            session_id=new_id(), secret=secrets.token_bytes(16)
        )
        seats = self.client.seats
        await seats.open_session(credentials, holder="bench@hall", ttl=TTL)
        acquire = seat_pb2.Acquire(pool=self.pool, grant_id=new_id(), seats=1)
        granted = await seats.acquire(credentials, acquire)
        self.grant_id, self.fence = granted.grant_id, granted.fence
        answer = await self.client.borrowing.borrow(
            credentials,
            seat_service_pb2.GrantRef(pool=self.pool, grant_id=granted.grant_id),
            length=length,
            machine_key=self.key.public_key().public_bytes_raw(),
            proof=signed_statement(self.key, BORROW_KIND, self.pool, self.grant_id, self.fence),
        )
        assert verify_token(answer.token, answer.jwks, pool=self.pool).machine
        return answer.grant.borrowed.free_at.ToMilliseconds() / 1000

    async def give_back(self, key: Ed25519PrivateKey | None = None) -> bool:
        """Give it back; return whether it was borrowed still."""
        said = signed_statement(
            key or self.key, RETURN_KIND, self.pool, self.grant_id, self.fence
        )
        found = await self.client.borrowing.return_grant(
            self.pool, self.grant_id, statement=said
        )
        return found is not None


async def lending(cluster: Cluster, seats: int = 1) -> str:
    pool = await cluster.pool(seats=seats)
    async with AsyncSeatClient(cluster.addresses[0]) as client:
        await client.pools.update(pool, borrow=parse_borrow("longest=1d,seats=1,skew=1"))
    return pool


async def test_a_machine_that_is_switched_off_keeps_its_seat_until_its_day(
    cluster: Cluster,
) -> None:
    pool = await lending(cluster)
    async with (
        AsyncSeatClient(cluster.addresses[0]) as client,
        AsyncSeatClient(cluster.addresses[1]) as other,
    ):
        machine = Machine(client, pool, Ed25519PrivateKey.generate())
        free_at = await machine.take()
        waiting = asyncio.create_task(other.acquire(pool, wait=60))
        await asyncio.sleep(2 * TTL.total_seconds() + 1)  # its session's lease has ended
        shown = await cluster.look(pool, cluster.addresses[2])
        assert (shown.held, shown.borrowed, shown.queued) == (1, 1, 1)
        grant = await waiting
        assert free_at - 0.05 <= time.time() <= free_at + LATE_SECONDS
        assert grant.fence > machine.fence
        assert not await machine.give_back(), "it was free already"
        await grant.release()
    assert (await cluster.checked(pool)).out == 0


async def test_the_node_that_lent_it_is_killed_at_the_day(cluster: Cluster) -> None:
    pool = await lending(cluster)
    extra = await cluster.another_node()
    async with (
        AsyncSeatClient(extra.address) as client,
        AsyncSeatClient(cluster.addresses[1]) as other,
    ):
        machine = Machine(client, pool, Ed25519PrivateKey.generate())
        free_at = await machine.take(timedelta(seconds=4))
        waiting = asyncio.create_task(other.acquire(pool, wait=60))
        await asyncio.sleep(max(0.0, free_at - time.time() - 0.05))
        extra.kill()
        grant = await waiting
        assert free_at - 0.05 <= time.time() <= free_at + LATE_SECONDS
        await grant.release()
    history = await cluster.checked(pool)
    assert (history.out, history.grants) == (0, 2)


async def test_it_is_given_back_through_several_nodes_at_once(cluster: Cluster) -> None:
    pool = await lending(cluster)
    async with (
        AsyncSeatClient(cluster.addresses[0]) as first,
        AsyncSeatClient(cluster.addresses[1]) as second,
    ):
        machine = Machine(first, pool, Ed25519PrivateKey.generate())
        await machine.take(timedelta(hours=1))
        with pytest.raises(NotYours):
            await machine.give_back(Ed25519PrivateKey.generate())
        there = Machine(second, pool, machine.key, machine.grant_id, machine.fence)
        await asyncio.gather(machine.give_back(), there.give_back(), machine.give_back())
        assert (await cluster.look(pool)).held == 0

        again = Machine(second, pool, machine.key)
        await again.take(timedelta(hours=1))
        assert not await machine.give_back(), "an old statement gives nothing back"
        assert (await cluster.look(pool)).borrowed == 1
        assert await again.give_back()
    assert (await cluster.checked(pool)).out == 0


async def test_one_too_many_is_refused_on_every_node(cluster: Cluster) -> None:
    pool = await lending(cluster, seats=3)
    async with (
        AsyncSeatClient(cluster.addresses[0]) as first,
        AsyncSeatClient(cluster.addresses[1]) as second,
        AsyncSeatClient(cluster.addresses[2]) as third,
    ):
        machines = [
            Machine(client, pool, Ed25519PrivateKey.generate())
            for client in (first, second, third)
        ]
        taken = await asyncio.gather(
            *(each.take(timedelta(hours=1)) for each in machines), return_exceptions=True
        )
        refused = [each for each in taken if isinstance(each, BorrowRefused)]
        assert len(refused) == 2
        assert all(str(each).startswith("borrow.seats") for each in refused)

        async def is_settled() -> bool:
            shown = await cluster.look(pool)
            return (shown.held, shown.borrowed) == (1, 1)

        await eventually(is_settled, "the others' sessions have ended")
        for machine, answer in zip(machines, taken, strict=True):
            if not isinstance(answer, BaseException):
                assert await machine.give_back()
    await cluster.checked(pool)
