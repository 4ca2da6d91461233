"""Advisory pools and costs over a socket: set, shown, kept, refused, and counted by."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest
from tests.unit.kit import POOL, uuid7
from tests.unit.service.test_pool_service import create, spec, update
from tests.unit.services import STORE_KEYS, Services, Stream, refused

from seatkeeper.server.store import Put
from seatkeeper.v1 import pool_service_pb2 as pb
from seatkeeper.v1 import seat_pb2

ADVISORY = pb.Counting(advisory=True)
COSTS = pb.Counting(
    costs=[pb.ClassCost(name="a100", seats=4), pb.ClassCost(name="t4", seats=1)]
)


def counting(said: pb.Counting, seats: int = 1) -> pb.PoolSpec:
    wanted = spec(seats=seats)
    wanted.policy.counting.CopyFrom(said)
    return wanted


async def stored(services: Services) -> pb.PoolSpec:
    entry = await services.store.get(STORE_KEYS.pool(POOL))
    assert entry is not None
    return pb.PoolSpec.FromString(entry.value)


@pytest.mark.parametrize("said", [ADVISORY, COSTS])
async def test_it_is_stored_and_shown_and_an_older_node_must_not_overlook_it(
    said: pb.Counting, services: Services
) -> None:
    await create(services, spec(seats=4))
    plain = await services.store.get(STORE_KEYS.pool(POOL))
    pool = await update(services, counting(said, seats=4))
    assert pool.spec.policy.counting == said
    assert (await stored(services)).format == 4
    # One that says nothing of it leaves it; an empty policy takes it away.
    assert (await update(services, spec(seats=5))).spec.policy.counting == said
    none = spec(seats=4)
    none.policy.SetInParent()
    await update(services, none)
    again = await services.store.get(STORE_KEYS.pool(POOL))
    assert plain is not None
    assert again is not None
    assert again.value == plain.value


async def test_a_drained_pool_keeps_the_format(services: Services) -> None:
    await create(services, counting(ADVISORY))
    await services.pools.DrainPool(pb.DrainPoolRequest(name=POOL, reason="moved"))
    assert (await stored(services)).format == 4
    anna = await services.session()
    failure = await refused(services.acquire(anna, 1, wait=timedelta(0)))
    assert failure.reason == "DENIAL_REASON_POOL_DRAINED"


async def test_what_a_newer_version_says_of_it_stays(services: Services) -> None:
    await create(services, counting(COSTS))
    newer = await stored(services)
    newer.policy.counting.MergeFromString(b"\xf8\x3f\x07")  # field 1023
    await services.store.commit([Put(STORE_KEYS.pool(POOL), newer.SerializeToString())])
    await update(services, spec(seats=5))
    assert (await stored(services)).policy == newer.policy


@pytest.mark.parametrize(
    ("costs", "field"),
    [
        ([pb.ClassCost(name="a100", seats=0)], "[0].seats"),
        ([pb.ClassCost(name="a100", seats=1001)], "[0].seats"),
        ([pb.ClassCost(name="t4", seats=1), pb.ClassCost(name="A 1", seats=1)], "[1].name"),
        ([pb.ClassCost(name="t4", seats=1)] * 2, "[1].name"),
        ([pb.ClassCost(name=f"c{n}", seats=1) for n in range(101)], ""),
    ],
)
async def test_costs_that_make_no_sense_are_refused_by_their_field(
    costs: list[pb.ClassCost], field: str, services: Services
) -> None:
    failure = await refused(create(services, counting(pb.Counting(costs=costs))))
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"spec.policy.counting.costs{field}" in failure.message
    assert await services.store.get(STORE_KEYS.pool(POOL)) is None


async def test_an_advisory_pool_grants_marks_and_counts(services: Services) -> None:
    await create(services, counting(ADVISORY))
    anna, bert, carl = [await services.session() for _ in range(3)]
    assert (await services.acquire(anna, 1)).seats == 1
    assert (await services.acquire(bert, 2, wait=timedelta(minutes=1))).seats == 1
    assert (await services.acquire(carl, 3, seats=5)).seats == 5
    pool = await services.look()
    assert (pool.held, pool.free, pool.queued) == (7, 0, 0)
    first, second, third = pool.grants
    assert not first.HasField("advisory")
    assert (second.advisory.rule, second.advisory.seats_beyond) == ("seats", 1)
    assert second.advisory.message == "it wants 1 seat, and 1 of 1 were held"
    assert (third.advisory.rule, third.advisory.refused) == ("capacity", True)
    assert "5 seats asked of a pool of 1" in third.advisory.message
    counted = pool.advisory
    assert (counted.waited, counted.refused, counted.seats_most) == (1, 1, 6)
    assert not counted.HasField("until")

    # It binds: nothing is granted until what is beyond has been given back.
    bound = await update(services, counting(pb.Counting(), seats=1))
    assert (bound.held, bound.free) == (7, 0)
    failure = await refused(services.acquire(anna, 4, wait=timedelta(0)))
    assert failure.reason == "DENIAL_REASON_NO_SEAT_FREE"
    await services.release(bert, 2)
    await services.release(carl, 3)
    pool = await services.look()
    assert (pool.held, pool.free) == (1, 0)
    assert pool.advisory.waited == 1
    assert pool.advisory.HasField("until")


async def test_what_waits_is_granted_when_a_pool_begins_to_count_only(
    services: Services,
) -> None:
    await create(services, spec(seats=1))
    stream, anna = Stream(services), services.stranger()
    await stream.open(anna)
    await stream.acquire(1)
    await stream.event("granted")
    await stream.acquire(2, wait=timedelta(minutes=1))
    await stream.event("queued")
    await update(services, counting(ADVISORY))
    assert (await stream.event("granted")).granted.grant_id == uuid7(2)


async def test_seats_are_counted_by_class(services: Services) -> None:
    await create(services, counting(COSTS, seats=10))
    anna = await services.session()
    of_a100 = seat_pb2.Attributes(cost_class="a100", cost=1_000)
    granted = await services.acquire(anna, 1, seats=2, attributes=of_a100)
    assert granted.seats == 8
    (held,) = (await services.look()).grants
    assert (held.seats, held.attributes.cost_class, held.attributes.cost) == (8, "a100", 4)
    again = await services.acquire(anna, 1, seats=2, attributes=of_a100)
    assert again.fence == granted.fence
    unknown = seat_pb2.Attributes(cost_class="h100")
    failure = await refused(services.acquire(anna, 2, attributes=unknown))
    assert (failure.code, failure.reason) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "DENIAL_REASON_UNKNOWN_COST_CLASS",
    )
    assert "it has: a100, t4" in failure.message
    malformed = seat_pb2.Attributes(cost_class="No Name")
    failure = await refused(services.acquire(anna, 3, attributes=malformed))
    assert "attributes.cost_class" in failure.message
