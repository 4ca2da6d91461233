"""``PoolService`` over a socket: the administration of pools, and how it is refused."""

from __future__ import annotations

import asyncio
from datetime import UTC, timedelta
from typing import Any

import grpc
import pytest
from tests.unit.kit import POOL, eventually, uuid7
from tests.unit.services import DEADLINE, STORE_KEYS, TTL, Services, Stream, open_of, refused

from seatkeeper.v1 import pool_service_pb2 as pb
from seatkeeper.v1 import seat_pb2, seat_service_pb2

NOT_FOUND = grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def spec(name: str = POOL, seats: int = 1, description: str = "") -> pb.PoolSpec:
    return pb.PoolSpec(name=name, seats=seats, description=description)


async def create(services: Services, wanted: pb.PoolSpec) -> pb.Pool:
    request = pb.CreatePoolRequest(spec=wanted)
    return (await services.pools.CreatePool(request, timeout=DEADLINE)).pool


async def update(
    services: Services, wanted: pb.PoolSpec, expected_revision: int = 0
) -> pb.Pool:
    request = pb.UpdatePoolRequest(spec=wanted, expected_revision=expected_revision)
    return (await services.pools.UpdatePool(request, timeout=DEADLINE)).pool


async def delete(services: Services, name: str = POOL) -> None:
    await services.pools.DeletePool(pb.DeletePoolRequest(name=name), timeout=DEADLINE)


async def test_a_new_pool_is_empty_and_as_it_was_asked_for(services: Services) -> None:
    pool = await create(services, spec(seats=3, description="for CI"))

    assert pool == await services.look()
    assert pool.spec == spec(seats=3, description="for CI")
    assert (pool.held, pool.free, pool.queued, pool.fence) == (0, 3, 0, 0)
    assert pool.revision > 0


async def test_a_pool_is_created_once(services: Services) -> None:
    await create(services, spec(seats=3))
    failure = await refused(create(services, spec(seats=4)))

    assert failure.code is grpc.StatusCode.ALREADY_EXISTS
    assert (await services.look()).spec.seats == 3


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (spec(name="Not a name"), "spec.name"),
        (pb.PoolSpec(name=POOL), "spec.seats"),
        (spec(seats=-1), "spec.seats"),
        (spec(seats=100_001), "spec.seats"),
        (spec(description="x" * 501), "spec.description"),
    ],
    ids=["name", "unsaid", "negative", "too many", "description"],
)
async def test_a_malformed_specification_is_refused_by_its_field(
    wanted: pb.PoolSpec, field: str, services: Services
) -> None:
    for call in (create(services, wanted), update(services, wanted)):
        failure = await refused(call)
        assert failure.code is INVALID
        assert failure.fields == [field]


async def test_a_pool_shows_who_holds_and_who_waits(services: Services) -> None:
    await create(services, spec(seats=2))
    who = await services.session()
    await services.acquire(who, 1, seats=2)
    stream = Stream(services)
    await stream.open(services.stranger())
    await stream.acquire(2, priority=-1)
    await stream.acquire(3, project="nlp")
    await stream.event("queued")
    await eventually(lambda: STORE_KEYS.ticket(POOL, uuid7(3)) in services.store._entries)
    pool = await services.look()
    stream.call.cancel()

    [grant] = pool.grants
    assert (grant.grant_id, grant.session_id, grant.seats) == (uuid7(1), who.session_id, 2)
    assert (grant.holder, grant.project, grant.fence) == ("anna@host", "cv", 1)
    assert grant.granted_at.ToMilliseconds() == services.clock.now()
    first, second = pool.tickets
    assert (first.grant_id, first.position, first.project) == (uuid7(3), 1, "nlp")
    assert (second.grant_id, second.position, second.priority) == (uuid7(2), 2, -1)
    assert (pool.held, pool.free, pool.queued, pool.fence) == (2, 0, 2, 1)


async def test_holders_are_shown_with_what_their_programs_say(services: Services) -> None:
    await create(services, spec(seats=1))
    who = services.stranger()
    says = seat_pb2.ClientInfo(host="host7", pid=4711, command="train.py", library="x/1")
    opening = open_of(who)
    opening.client.CopyFrom(says)
    request = seat_service_pb2.OpenSessionRequest(open=opening)
    await services.seats.OpenSession(request, timeout=10)
    await services.acquire(who, 1, priority=5)
    stream = Stream(services)
    await stream.open(services.stranger())
    await stream.acquire(2)
    await stream.event("queued")
    pool = await services.look()
    stream.call.cancel()

    [grant] = pool.grants
    assert (grant.client, grant.priority) == (says, 5)
    ends = grant.expires_at.ToDatetime(UTC) - grant.granted_at.ToDatetime(UTC)
    assert TTL - timedelta(seconds=1) <= ends <= TTL + timedelta(seconds=1)
    [ticket] = pool.tickets
    assert not ticket.HasField("client"), "it has said nothing"


@pytest.mark.parametrize(
    ("says", "field"),
    [
        ({"host": "h" * 254}, "open.client.host"),
        ({"command": "x" * 101}, "open.client.command"),
        ({"command": "x\ny"}, "open.client.command"),
        ({"library": "\u202e"}, "open.client.library"),
        ({"pid": -1}, "client.pid"),
        ({"pid": 1 << 31}, "client.pid"),
    ],
    ids=("host", "command", "line", "direction", "negative", "large"),
)
async def test_what_a_program_says_is_checked(
    says: dict[str, Any], field: str, services: Services
) -> None:
    opening = open_of(services.stranger())
    opening.client.CopyFrom(seat_pb2.ClientInfo(**says))
    request = seat_service_pb2.OpenSessionRequest(open=opening)
    failure = await refused(services.seats.OpenSession(request, timeout=10))
    assert failure.code is INVALID
    assert failure.fields[0].removeprefix("open.") == field.removeprefix("open.")


async def test_an_estimate_that_turns_out_wrong_is_taken_back(services: Services) -> None:
    await create(services, spec(seats=1))
    who = await services.session()
    await services.acquire(who, 1)
    services.pass_time(timedelta(seconds=1))
    await services.release(who, 1)
    await services.acquire(who, 2)
    stream = Stream(services)
    await stream.open(services.stranger())
    await stream.acquire(3)
    first = (await stream.event("queued")).queued
    assert first.estimate.ToTimedelta() == timedelta(seconds=1)
    assert (first.basis.holds, first.basis.holders_overdue) == (1, 0)
    services.clock.advance(timedelta(seconds=5))
    second = (await stream.event("queued")).queued
    assert not second.HasField("estimate")
    assert second.basis.holders_overdue == 1
    [ticket] = (await services.look()).tickets
    assert not ticket.HasField("estimate")
    assert ticket.basis == second.basis
    stream.call.cancel()


async def test_an_estimate_has_an_interval_once_some_holds_have_ended(
    services: Services,
) -> None:
    await create(services, spec(seats=1))
    who = await services.session()
    for number, held in enumerate((1, 2, 3, 4, 5), start=1):
        await services.acquire(who, number)
        services.pass_time(timedelta(seconds=held))
        await services.release(who, number)
    await services.acquire(who, 6)
    stream = Stream(services)
    await stream.open(services.stranger())
    await stream.acquire(7)
    queued = (await stream.event("queued")).queued
    found = [each.ToTimedelta() for each in (queued.estimate_low, queued.estimate_high)]
    assert found[0] < queued.estimate.ToTimedelta() == timedelta(seconds=3) < found[1]
    [ticket] = (await services.look()).tickets
    assert [ticket.estimate_low.ToTimedelta(), ticket.estimate_high.ToTimedelta()] == found
    stream.call.cancel()


async def test_the_capacity_is_changed_only_as_it_was_seen(services: Services) -> None:
    seen = await create(services, spec(seats=1))
    changed = await update(services, spec(seats=2), seen.revision)
    failure = await refused(update(services, spec(seats=3), seen.revision))

    assert changed.spec.seats == 2
    assert changed.revision > seen.revision
    assert failure.code is grpc.StatusCode.ABORTED
    assert (await services.look()).spec.seats == 2
    assert (await update(services, spec(seats=4))).spec.seats == 4


async def test_lowering_the_capacity_takes_no_seat(services: Services) -> None:
    await create(services, spec(seats=2))
    who = await services.session()
    for number in (1, 2):
        await services.acquire(who, number)
    pool = await update(services, spec(seats=1))

    assert (pool.held, pool.free) == (2, 0)


async def test_raising_the_capacity_serves_the_queue(services: Services) -> None:
    await create(services, spec(seats=1))
    who = await services.session()
    await services.acquire(who, 1)
    waiting = asyncio.create_task(services.acquire(who, 2))
    await eventually(lambda: STORE_KEYS.ticket(POOL, uuid7(2)) in services.store._entries)
    await update(services, spec(seats=2))

    assert (await waiting).fence == 2


async def test_a_pool_in_use_is_not_deleted(services: Services) -> None:
    await create(services, spec(seats=1))
    who = await services.session()
    await services.acquire(who, 1)
    failure = await refused(delete(services))

    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert "1 seat held" in failure.message
    await services.release(who, 1)
    await delete(services)
    assert (await refused(services.look())).code is NOT_FOUND


async def test_a_pool_that_was_deleted_and_created_again_goes_on_with_its_fence(
    services: Services,
) -> None:
    await create(services, spec(seats=1))
    who = await services.session()
    await services.acquire(who, 1)
    await services.release(who, 1)
    await delete(services)
    assert (await refused(services.acquire(who, 2))).reason == "DENIAL_REASON_POOL_NOT_FOUND"
    pool = await create(services, spec(seats=1))

    assert pool.fence == 1
    assert (await services.acquire(who, 3)).fence == 2


async def test_what_does_not_exist_is_named(services: Services) -> None:
    calls = [services.look("none"), update(services, spec("none")), delete(services, "none")]
    for call in calls:
        failure = await refused(call)
        assert failure.code is NOT_FOUND
        assert failure.resource == ("pool", "none")


async def test_a_malformed_name_is_refused_and_not_looked_up(services: Services) -> None:
    for call in (services.look("a/b"), delete(services, "a/b")):
        failure = await refused(call)
        assert (failure.code, failure.fields) == (INVALID, ["name"])


async def test_pools_are_listed_by_name_and_without_their_holders(services: Services) -> None:
    for name in ("b", "a", "c"):
        await create(services, spec(name, seats=2))
    await services.acquire(await services.session(), 1, pool="b")
    response = await services.pools.ListPools(pb.ListPoolsRequest(), timeout=DEADLINE)

    assert [pool.spec.name for pool in response.pools] == ["a", "b", "c"]
    assert [pool.held for pool in response.pools] == [0, 1, 0]
    assert not any(pool.grants for pool in response.pools)


# WatchPool --------------------------------------------------------------------------------------


async def test_a_watched_pool_is_shown_as_it_is_and_as_it_changes(services: Services) -> None:
    await create(services, spec(seats=2))
    watch = services.pools.WatchPool(pb.WatchPoolRequest(name=POOL), timeout=DEADLINE)
    messages = aiter(watch)
    assert (await anext(messages)).pool.held == 0
    await services.acquire(await services.session(), 1)
    assert (await anext(messages)).pool.held == 1
    await update(services, spec(seats=5))
    pool = (await anext(messages)).pool
    assert (pool.spec.seats, pool.free) == (5, 4)
    watch.cancel()


async def test_a_watch_ends_when_the_pool_is_deleted(services: Services) -> None:
    await create(services, spec(seats=2))
    watch = services.pools.WatchPool(pb.WatchPoolRequest(name=POOL), timeout=DEADLINE)
    messages = aiter(watch)
    await anext(messages)
    await delete(services)
    failure = await refused(anext(messages))

    assert failure.code is NOT_FOUND
    assert failure.resource == ("pool", POOL)


async def test_a_pool_that_does_not_exist_is_not_watched(services: Services) -> None:
    for name, code in (("none", NOT_FOUND), ("a/b", INVALID)):
        watch = services.pools.WatchPool(pb.WatchPoolRequest(name=name), timeout=DEADLINE)
        assert (await refused(anext(aiter(watch)))).code is code


async def test_a_watch_that_is_cancelled_leaves_nothing_behind(services: Services) -> None:
    await create(services, spec(seats=2))
    watch = services.pools.WatchPool(pb.WatchPoolRequest(name=POOL), timeout=DEADLINE)
    await anext(aiter(watch))
    loop = services.node._core.seats._loops[POOL]
    assert not loop.idle
    watch.cancel()
    await eventually(lambda: loop.idle)
