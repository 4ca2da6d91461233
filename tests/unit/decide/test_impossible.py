"""Tickets that can never be served: denied when that becomes so, wherever their client is."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest
from tests.unit.kit import KEYS, NOW, POOL, a_grant, a_ticket, acquire, eventually, uuid7
from tests.unit.loops import Loops, granted, received, refusals
from tests.unit.services import DEADLINE, STORE_KEYS, Services, Stream, refused

from seatkeeper.server.decide import decide
from seatkeeper.server.domain import (
    Denied,
    Instant,
    Limits,
    PoolSpec,
    PoolState,
    Queued,
    Refusal,
)
from seatkeeper.server.pool.subscribers import Position
from seatkeeper.server.store import Delete
from seatkeeper.v1 import pool_service_pb2, seat_pb2

TOO_MANY = seat_pb2.DENIAL_REASON_TOO_MANY_SEATS


# Deciding ---------------------------------------------------------------------------------------


def a_pool(seats: int | None, *wanted: int, held: int = 0) -> PoolState:
    """A pool with a ticket for each number of seats wanted, the first accepted first."""
    state = PoolState(spec=None if seats is None else PoolSpec(POOL, seats))
    if held:
        state.put_grant(a_grant(900, seats=held))
    for number, seats_wanted in enumerate(wanted, start=1):
        state.put_ticket(a_ticket(number, seats=seats_wanted))
    return state


def test_a_ticket_for_more_than_a_lowered_capacity_is_denied_and_the_next_is_served() -> None:
    decision = decide(a_pool(2, 3, 1), [], Instant(NOW), Limits())

    assert sorted(decision.tickets_ended) == [uuid7(1), uuid7(2)]
    assert [grant.grant_id for grant in decision.grants] == [uuid7(2)]
    [denied] = decision.marks["anna"].denied
    assert (denied.grant_id, denied.reason) == (uuid7(1), Refusal.TOO_MANY_SEATS)
    assert "pool of 2" in denied.message


def test_a_deleted_pool_denies_every_ticket() -> None:
    decision = decide(a_pool(None, 1, 2), [], Instant(NOW), Limits())
    assert [d.reason for d in decision.marks["anna"].denied] == 2 * [Refusal.POOL_NOT_FOUND]
    assert not decision.grants


def test_a_closed_pool_denies_no_ticket_and_grants_nothing() -> None:
    commands = [acquire(10, seats=5), acquire(11, may_wait=False)]
    decision = decide(a_pool(0, 3, 1), commands, Instant(NOW), Limits())

    assert not decision.tickets_ended
    assert not decision.grants
    waits, denied = (
        outcome for _, outcome in sorted(decision.outcomes, key=lambda pair: pair[0].grant_id)
    )
    assert isinstance(waits, Queued)
    assert isinstance(denied, Denied)
    assert denied.reason is Refusal.NO_SEAT_FREE
    assert "closed" in denied.message


def test_what_does_not_fit_into_one_transaction_is_denied_in_the_next() -> None:
    state = a_pool(1, *[2] * 20)
    decision = decide(state, [], Instant(NOW), Limits(writes_max=9))
    assert decision.unserved
    assert 0 < len(decision.tickets_ended) < 20
    assert decision.writes <= 9


def test_a_copy_of_a_denied_request_is_denied_for_the_same_reason() -> None:
    state = a_pool(2, 3)
    decision = decide(state, [acquire(1, seats=3)], Instant(NOW), Limits())
    [(_, outcome)] = decision.outcomes
    assert isinstance(outcome, Denied)
    assert outcome.reason is Refusal.TOO_MANY_SEATS


def test_an_id_that_was_denied_is_completed_when_the_capacity_is_raised_again() -> None:
    state = a_pool(2)
    decision = decide(state, [acquire(5, seats=3)], Instant(NOW), Limits())
    assert decision.marks["anna"].highest == uuid7(5)


# One pool on several nodes ------------------------------------------------------------------------


async def test_every_node_notifies_its_own_client_and_the_next_is_served(loops: Loops) -> None:
    await loops.pool(seats=3)
    near, far = await loops.node(), await loops.node()
    holder = near.submit(acquire(1, "anna", seats=3))
    await received(holder)
    large = far.submit(acquire(2, "bert", seats=3))
    await eventually(lambda: large.received)
    small = near.submit(acquire(3, "cora", seats=1, wait=timedelta(hours=1)))
    await eventually(lambda: small.received)

    await loops.pool(seats=2)
    await received(large)
    assert refusals(large) == [Refusal.TOO_MANY_SEATS]

    await loops.store.commit([Delete(KEYS.grant(POOL, uuid7(1)))])
    await received(small)
    assert granted(small) == [uuid7(3)]
    assert (await loops.checked()).waiting == 0


async def test_a_wait_that_would_end_later_is_cut_short(loops: Loops) -> None:
    await loops.pool(seats=2)
    node = await loops.node()
    holder = node.submit(acquire(1, seats=2))
    await received(holder)
    waiting = node.submit(acquire(2, "bert", seats=2, wait=timedelta(hours=1)))
    await eventually(lambda: waiting.received)
    await loops.pool(seats=1)
    await received(waiting)
    assert refusals(waiting) == [Refusal.TOO_MANY_SEATS]


async def test_a_pool_that_is_closed_and_opened_again_keeps_its_queue(loops: Loops) -> None:
    await loops.pool(seats=0)
    node = await loops.node()
    first = node.submit(acquire(1, "anna", seats=2))
    second = node.submit(acquire(2, "bert", seats=1))
    await eventually(lambda: first.received and second.received)
    assert all(isinstance(update, Position) for update in (*first.received, *second.received))

    await loops.pool(seats=1)

    await received(first)
    await received(second)
    assert refusals(first) == [Refusal.TOO_MANY_SEATS]
    assert granted(second) == [uuid7(2)]
    await loops.checked()


async def test_a_pool_whose_record_is_gone_denies_every_ticket(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    holder = node.submit(acquire(1))
    await received(holder)
    waiting = node.submit(acquire(2, "bert"))
    await eventually(lambda: waiting.received)
    await loops.store.commit([Delete(KEYS.pool(POOL))])
    await received(waiting)
    assert refusals(waiting) == [Refusal.POOL_NOT_FOUND]


async def test_nothing_is_decided_again_and_again_for_who_keeps_waiting(loops: Loops) -> None:
    await loops.pool(seats=0)
    node = await loops.node()
    waiting = node.submit(acquire(1, seats=2))
    await eventually(lambda: waiting.received)
    before = len(node.store.commits)
    await loops.pool(seats=0)
    other = node.submit(acquire(2, "bert"))
    await eventually(lambda: other.received)
    assert len(node.store.commits) <= before + 2


# Over the wire -------------------------------------------------------------------------------------


async def resize(services: Services, seats: int) -> None:
    spec = pool_service_pb2.PoolSpec(name=POOL, seats=seats)
    request = pool_service_pb2.UpdatePoolRequest(spec=spec)
    await services.pools.UpdatePool(request, timeout=DEADLINE)


async def test_a_stream_and_a_call_that_wait_get_the_reason(services: Services) -> None:
    await services.pool(2)
    who = await services.session()
    await services.acquire(who, 1, seats=2)
    stream = Stream(services)
    await stream.open(services.stranger())
    await stream.acquire(2, seats=2)
    await stream.event("queued")

    await resize(services, 1)

    denied = (await stream.event("denied")).denied
    assert (denied.grant_id, denied.reason) == (uuid7(2), TOO_MANY)
    failure = await refused(services.acquire(who, 3, seats=2))
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.reason.endswith("TOO_MANY_SEATS")
    await stream.break_off()


@pytest.mark.parametrize("seats", [0, 1])
async def test_a_pool_may_be_created_closed(services: Services, seats: int) -> None:
    await services.pool(seats)
    assert (await services.look()).spec.seats == seats
    await resize(services, 0)
    pool = await services.look()
    assert (pool.spec.seats, pool.free) == (0, 0)
    failure = await refused(services.acquire(await services.session(), 1, wait=timedelta(0)))
    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.reason.endswith("NO_SEAT_FREE")
    assert "closed" in failure.message


async def test_a_cancelled_ticket_is_not_reported_as_timed_out(
    services: Services,
) -> None:
    await services.pool(1)
    holder, who = await services.session(), await services.session()
    await services.acquire(holder, 1)
    waiting = asyncio.create_task(refused(services.acquire(who, 2, wait=timedelta(hours=1))))
    await eventually(lambda: STORE_KEYS.ticket(POOL, uuid7(2)) in services.store._entries)
    await services.release(who, 2)
    failure = await waiting
    assert failure.code is grpc.StatusCode.ABORTED
    assert failure.reason == "DENIAL_REASON_FINISHED"
