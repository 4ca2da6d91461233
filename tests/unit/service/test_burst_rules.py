"""Bursts that a pool's rule starts, over a socket: when waits are long, once, and within the month."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest
from tests.unit.faults import Fault, FaultyStore
from tests.unit.kit import KEYS, POOL, FakeClock, a_ticket, eventually
from tests.unit.service.test_lots import events, with_lots
from tests.unit.service.test_pool_service import create, spec, update
from tests.unit.services import DEADLINE, STORE_KEYS, Services, Stream, refused

from seatkeeper.core.burst_rule import NO_RULE, BurstRule
from seatkeeper.core.lot_messages import decode_lots, encode_lots
from seatkeeper.core.lots import Lot, LotKind, LotState, PoolLots, Price, PriceUnit
from seatkeeper.core.rule_bursts import left
from seatkeeper.server.domain import Drain, Instant, PoolSpec
from seatkeeper.server.pool import burst_rules
from seatkeeper.server.pool import lots as pool_lots
from seatkeeper.server.pool.burst_rules import start_due
from seatkeeper.server.store import MemoryStore, Put, StoreUnavailable, records
from seatkeeper.v1 import pool_service_pb2 as pb

INVALID = grpc.StatusCode.INVALID_ARGUMENT
SECOND = timedelta(seconds=1)
RULE = BurstRule(
    seats=2,
    length=60_000,
    p95_wait=2_000,
    within=8_000,
    hours_per_month=1,
    price=Price("60", "EUR", PriceUnit.SEAT_HOUR),
    budget="4",
)


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of a test is moved, and no timer notices that."""
    monkeypatch.setattr(pool_lots, "LOOK_MAX", 0.02)
    monkeypatch.setattr(pool_lots, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(burst_rules, "PAUSE_MIN", 0.02)
    monkeypatch.setattr(burst_rules, "PAUSE_MAX", 0.02)


def ruled(seats: int, rule: BurstRule, *lots: Lot) -> pb.PoolSpec:
    wanted = spec(seats=seats)
    wanted.lots.CopyFrom(encode_lots(PoolLots(lots, seats, rule=rule)))
    return wanted


async def seats_become(services: Services, seats: int) -> pb.Pool:
    for _ in range(500):
        if (pool := await services.look()).spec.seats == seats:
            return pool
        await asyncio.sleep(0.01)
    raise AssertionError(f"the pool has {(await services.look()).spec.seats} seats")


async def one_holds_and_one_waits(services: Services) -> Stream:
    stream = Stream(services)
    await stream.resume(await services.session())
    await stream.acquire(1)
    await stream.event("granted")
    await stream.acquire(2, wait=timedelta(hours=1))
    await stream.event("queued")
    return stream


async def test_a_burst_begins_when_waits_are_long_and_ends_on_time(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "seatkeeper.events")
    await create(services, ruled(1, RULE))
    stream = await one_holds_and_one_waits(services)
    services.clock.advance(8 * SECOND)
    looked = services.node._core.seats.bursts._looked
    slot = services.clock.now() // 1000
    await eventually(lambda: looked[POOL] == slot)
    assert (await services.look()).spec.seats == 1, "in the first second it was not long yet"
    services.clock.advance(3 * SECOND)
    await stream.event("granted")
    pool = await services.look()
    (burst,) = pool.spec.lots.lots
    assert (pool.spec.seats, burst.is_by_rule, burst.owner) == (3, True, "rule burst")
    assert left(decode_lots(pool.spec.lots), services.clock.now()) == (1 - 1 / 60, "2.00 EUR")
    marks = {each.fence: [lot.lot for lot in each.lots] for each in pool.grants}
    assert marks == {1: [], 2: ["rule-1"]}
    assert [(each.lot, each.seats) for each in pool.lot_use.lots] == [("rule-1", 1)]
    (began,), (said,) = events(caplog, "lot_began"), events(caplog, "burst_by_rule")
    assert vars(began)["owner"] == "rule burst"
    assert vars(said)["budget_left"] == "2.00 EUR"
    services.clock.advance(timedelta(minutes=1))
    pool = await seats_become(services, 1)
    assert (pool.held, pool.free) == (2, 0), "nothing that runs is ended"
    await stream.break_off()


async def a_pool_that_waits(store: MemoryStore, clock: FakeClock, rule: BurstRule) -> None:
    """Make a pool, one of whose requests has waited since long before."""
    made = PoolSpec(POOL, 1).with_lots(PoolLots(seats=1, rule=rule))
    waits = replace(a_ticket(1), queued_at=Instant(clock.now() - 60_000))
    await store.commit(
        [
            Put(KEYS.pool(POOL), records.encode_spec(made)),
            Put(KEYS.ticket(POOL, waits.grant_id), records.encode_ticket(waits)),
        ]
    )


async def lots_in(store: MemoryStore) -> PoolLots:
    entry = await store.get(KEYS.pool(POOL))
    assert entry is not None
    return records.decode_spec(entry.value).lots


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def test_one_burst_is_started_whatever_the_number_of_nodes_and_their_clocks(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "seatkeeper.events")
    clocks = [FakeClock(FakeClock().unix_millis + 1000 * ahead) for ahead in range(-5, 6)]
    await a_pool_that_waits(store, clocks[0], RULE)
    started = await asyncio.gather(*(start_due(store, KEYS, each, POOL) for each in clocks))
    assert sum(started) == 1
    assert len((await lots_in(store)).lots) == len(events(caplog, "burst_by_rule")) == 1


async def test_no_more_is_started_than_a_month_has(store: MemoryStore) -> None:
    clock = FakeClock()
    await a_pool_that_waits(store, clock, RULE)
    started = 0
    for _ in range(6):
        started += await start_due(store, KEYS, clock, POOL)
        clock.advance(timedelta(minutes=1))
        await pool_lots.write_due(store, KEYS, clock, POOL)
    assert started == 2, "two minutes of two seats at 1 EUR a minute are 4 EUR"
    assert (await lots_in(store)).in_force == 1


@pytest.mark.parametrize("fault", [Fault.ANSWER_LOST, Fault.REQUEST_LOST])
async def test_a_lost_answer_starts_no_second_one_and_is_one_event(
    fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "seatkeeper.events")
    clock, memory = FakeClock(), MemoryStore()
    await a_pool_that_waits(memory, clock, RULE)
    faulty = FaultyStore(memory)
    faulty.faults.append(fault)
    assert await start_due(faulty, KEYS, clock, POOL)
    assert len((await lots_in(memory)).lots) == len(events(caplog, "burst_by_rule")) == 1


async def test_a_pool_that_changes_all_the_time_is_left_for_the_next_look(
    store: MemoryStore,
) -> None:
    clock = FakeClock()
    await a_pool_that_waits(store, clock, RULE)
    faulty = FaultyStore(store)
    faulty.faults.extend([Fault.REQUEST_LOST] * 20)
    with pytest.raises(StoreUnavailable, match="changes faster than its rule"):
        await start_due(faulty, KEYS, clock, POOL)
    assert not (await lots_in(store)).lots


@pytest.mark.parametrize("why", ["drained", "no pool", "no rule", "no waits"])
async def test_where_nothing_is_started(store: MemoryStore, why: str) -> None:
    clock = FakeClock()
    await a_pool_that_waits(store, clock, RULE)
    key = KEYS.pool(POOL)
    made = PoolSpec(POOL, 1).with_lots(PoolLots(seats=1, rule=RULE))
    match why:
        case "drained":
            drained = replace(made, drain=Drain("moved", "ada", 1))
            await store.commit([Put(key, records.encode_spec(drained))])
        case "no rule":
            await store.commit([Put(key, records.encode_spec(PoolSpec(POOL, 1)))])
        case "no waits":
            clock.advance(-timedelta(seconds=55))
    name = "other" if why == "no pool" else POOL
    assert not await start_due(store, KEYS, clock, name)


async def test_a_node_looks_again_after_a_failure_of_the_store(
    services: Services, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing = True
    start = burst_rules.start_due

    async def fails_once(*args: object) -> bool:
        nonlocal failing
        if failing:
            failing = False
            raise StoreUnavailable("no quorum")
        return await start(*args)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(burst_rules, "start_due", fails_once)
    await create(services, ruled(1, RULE))
    stream = await one_holds_and_one_waits(services)
    services.clock.advance(20 * SECOND)
    await seats_become(services, 3)
    assert any(each.getMessage() == "burst_not_started" for each in caplog.records)
    await stream.break_off()


async def test_an_older_node_must_not_overlook_a_rule_or_an_overdraft(
    services: Services,
) -> None:
    await create(services, ruled(1, RULE))
    assert (await services.look()).spec.format == 4
    await update(services, ruled(1, NO_RULE, Lot(name="acme", seats=1, overdraft=1)))
    assert (await services.look()).spec.format == 4
    await update(services, with_lots(1, Lot(name="acme", seats=1)))
    assert (await services.look()).spec.format == 3
    plain = spec(seats=2)
    plain.lots.SetInParent()
    await update(services, plain)
    entry = await services.store.get(STORE_KEYS.pool(POOL))
    assert entry is not None
    assert entry.value == pb.PoolSpec(name=POOL, seats=2).SerializeToString()


async def test_a_rule_stays_where_a_change_says_nothing_of_it(services: Services) -> None:
    await create(services, ruled(1, RULE))
    for change in (spec(seats=4), with_lots(4, Lot(name="acme", seats=2)), with_lots(4)):
        await update(services, change)
        assert decode_lots((await services.look()).spec.lots).rule == RULE
    assert (await services.look()).spec.seats == 4
    await update(services, ruled(5, NO_RULE))
    pool = await services.look()
    assert (pool.spec.seats, pool.spec.HasField("lots")) == (5, False)


async def test_a_change_that_has_not_seen_the_burst_does_not_end_it(services: Services) -> None:
    before = await create(services, ruled(1, RULE))
    stream = await one_holds_and_one_waits(services)
    services.clock.advance(20 * SECOND)
    await seats_become(services, 3)
    request = pb.UpdatePoolRequest(spec=ruled(2, RULE), expected_revision=before.revision)
    failure = await refused(services.pools.UpdatePool(request, timeout=DEADLINE))
    assert failure.code is grpc.StatusCode.ABORTED
    assert (await services.look()).spec.seats == 3
    await stream.break_off()


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (replace(RULE, hours_per_month=0), "burst_rule.hours_per_month"),
        (replace(RULE, budget="1"), "burst_rule.budget"),
        (replace(RULE, length=1), "burst_rule.length"),
    ],
)
async def test_what_is_refused(services: Services, rule: BurstRule, field: str) -> None:
    failure = await refused(create(services, ruled(1, rule)))
    assert failure.code is INVALID
    assert failure.fields == [f"spec.lots.{field}"]


async def test_a_rule_without_a_unit_of_its_price_and_a_burst_with_an_overdraft_are_refused(
    services: Services,
) -> None:
    wanted = ruled(1, RULE)
    wanted.lots.burst_rule.price.per = pb.LOT_PRICE_UNIT_UNSPECIFIED
    assert (await refused(create(services, wanted))).fields == [
        "spec.lots.burst_rule.price.per"
    ]
    wanted = ruled(1, RULE)
    wanted.lots.burst_rule.seats = 0
    assert (await refused(create(services, wanted))).fields == ["spec.lots.burst_rule.seats"]
    ends = services.clock.now() + 1000
    burst = Lot(name="b", seats=1, ends=ends, kind=LotKind.BURST, overdraft=1)
    assert (await refused(create(services, with_lots(1, burst)))).fields == [
        "spec.lots.lots[0].overdraft"
    ]


async def test_an_overdraft_is_marked_counted_and_an_event(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "seatkeeper.events")
    await create(services, with_lots(0, Lot(name="acme", seats=1, overdraft=1)))
    who = await services.session()
    await services.acquire(who, 1)
    await services.acquire(who, 2)
    pool = await services.look()
    assert (pool.spec.seats, pool.held, pool.free) == (1, 2, 0)
    assert (pool.lot_use.overdraft, pool.lot_use.overdraft_held) == (1, 1)
    assert [(each.overdraft, len(each.lots)) for each in pool.grants] == [(0, 1), (1, 0)]
    (said,) = events(caplog, "overdraft_granted")
    assert (vars(said)["overdraft"], vars(said)["seats"]) == (1, 1)
    (count,) = services.node._core.seats.counts()
    assert (count.overdraft_held, count.lots[0].held, count.lots[0].kind) == (1, 1, "base")
    failure = await refused(services.acquire(who, 3, wait=timedelta(0)))
    assert failure.reason == "DENIAL_REASON_NO_SEAT_FREE"
    assert LotState.IN_FORCE is decode_lots(pool.spec.lots).lots[0].state
