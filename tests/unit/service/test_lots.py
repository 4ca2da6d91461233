"""A pool's lots over a socket: in force when a node writes it, once, and by whom it was changed."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest
from tests.unit.faults import Fault, FaultyStore
from tests.unit.kit import KEYS, POOL, FakeClock, eventually
from tests.unit.service.test_apply_pools import apply, to
from tests.unit.service.test_pool_service import create, spec, update
from tests.unit.services import DEADLINE, STORE_KEYS, Services, Stream, refused

from seatkeeper.core.lot_messages import decode_lots, encode_lots
from seatkeeper.core.lots import DAY_MILLIS, Lot, LotKind, LotState, PoolLots
from seatkeeper.server.domain import PoolSpec
from seatkeeper.server.pool import lots as pool_lots
from seatkeeper.server.pool.lots import write_due
from seatkeeper.server.store import MemoryStore, Put, StoreUnavailable, records
from seatkeeper.v1 import pool_service_pb2 as pb

ABORTED, INVALID = grpc.StatusCode.ABORTED, grpc.StatusCode.INVALID_ARGUMENT
SECOND = timedelta(seconds=1)
ACME = Lot(name="acme", seats=2)


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of a test is moved, and no timer notices that."""
    monkeypatch.setattr(pool_lots, "LOOK_MAX", 0.02)
    monkeypatch.setattr(pool_lots, "RETRY_SECONDS", 0.02)


def never_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_lots.LotKeeper, "start", lambda self: None)


def with_lots(seats: int, *lots: Lot) -> pb.PoolSpec:
    wanted = spec(seats=seats)
    wanted.lots.CopyFrom(encode_lots(PoolLots(lots, seats)))
    return wanted


async def stored(services: Services) -> pb.PoolSpec:
    entry = await services.store.get(STORE_KEYS.pool(POOL))
    assert entry is not None
    return pb.PoolSpec.FromString(entry.value)


async def state_of(services: Services, name: str = "acme") -> LotState:
    lots = decode_lots((await services.look()).spec.lots).lots
    return next(lot.state for lot in lots if lot.name == name)


async def reaches(services: Services, state: LotState) -> None:
    for _ in range(500):
        if await state_of(services) is state:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"the lot is {await state_of(services)}, not {state}")


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage() == name]


async def test_what_is_due_is_in_force_at_once_and_an_older_node_must_not_overlook_it(
    services: Services,
) -> None:
    later = replace(ACME, name="later", begins=services.clock.now() + 1000)
    pool = await create(services, with_lots(1, ACME, later))
    assert (pool.spec.seats, pool.free) == (3, 3)
    assert [each.state for each in pool.spec.lots.lots] == [
        pb.LOT_STATE_IN_FORCE,
        pb.LOT_STATE_PENDING,
    ]
    assert (await stored(services)).format == 3


async def test_a_pool_without_lots_is_written_as_before(services: Services) -> None:
    await create(services, with_lots(1, ACME))
    none = spec(seats=4)
    none.lots.SetInParent()
    await update(services, none)
    entry = await services.store.get(STORE_KEYS.pool(POOL))
    assert entry is not None
    assert entry.value == pb.PoolSpec(name=POOL, seats=4).SerializeToString()


async def test_a_lot_begins_and_ends_when_a_node_writes_it_and_each_is_one_event(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    """Also in a pool that no client uses."""
    caplog.set_level(logging.INFO, "seatkeeper.events")
    now = services.clock.now()
    lot = replace(ACME, begins=now + 1000, ends=now + 2000, owner="ml")
    assert (await create(services, with_lots(1, lot))).spec.seats == 1
    services.clock.advance(SECOND)
    await reaches(services, LotState.IN_FORCE)
    assert (await services.look()).spec.seats == 3
    services.clock.advance(SECOND)
    await reaches(services, LotState.ENDED)
    assert (await services.look()).spec.seats == 1
    (began,), (ended,) = events(caplog, "lot_began"), events(caplog, "lot_ended")
    assert (vars(began)["lot"], vars(began)["seats"], vars(began)["owner"]) == ("acme", 3, "ml")
    assert (vars(ended)["lot"], vars(ended)["seats"]) == ("acme", 1)


async def test_who_waits_is_served_when_a_lot_begins(services: Services) -> None:
    lot = replace(ACME, begins=services.clock.now() + 1000)
    await create(services, with_lots(0, lot))
    stream = Stream(services)
    await stream.resume(await services.session())
    await stream.acquire(1, wait=timedelta(minutes=1))
    assert (await stream.next()).WhichOneof("event") == "queued"
    services.clock.advance(SECOND)
    assert (await stream.event("granted")).granted.fence == 1
    await stream.break_off()


async def test_an_end_takes_no_seat_and_nothing_is_granted_until_the_surplus_is_back(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision itself writes the end, where nothing else has looked."""
    never_looks(monkeypatch)
    await services.node._core.seats.lots.stop()
    await create(services, with_lots(1, replace(ACME, ends=services.clock.now() + 1000)))
    who = await services.session()
    for number in (1, 2):
        await services.acquire(who, number)
    services.clock.advance(SECOND)
    assert (await services.look()).spec.seats == 3, "nothing has been written"
    failure = await refused(services.acquire(who, 3, wait=timedelta(0)))
    assert failure.reason == "DENIAL_REASON_NO_SEAT_FREE"
    pool = await services.look()
    assert (pool.spec.seats, pool.held, pool.free) == (1, 2, 0)
    await services.release(who, 1)
    assert (await services.look()).free == 0
    await services.release(who, 2)
    assert (await services.acquire(who, 4)).fence == 3


async def test_a_contract_is_announced_once_and_is_a_metric(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "seatkeeper.events")
    ends = services.clock.now() + 20 * DAY_MILLIS
    burst = replace(ACME, name="burst", kind=LotKind.BURST, ends=ends)
    await create(services, with_lots(1, replace(ACME, ends=ends), burst))
    (said,) = events(caplog, "lot_ends_soon")
    assert said.levelno == logging.WARNING
    assert (vars(said)["days"], vars(said)["ends_at_millis"]) == (30, ends)
    services.clock.advance(timedelta(days=14))
    await eventually(lambda: len(events(caplog, "lot_ends_soon")) == 2)
    assert [vars(each)["days"] for each in events(caplog, "lot_ends_soon")] == [30, 7]
    found = {each.lot: each for each in services.node._core.seats.lots.ends()}
    assert found["acme"].seconds == found["burst"].seconds == 6 * 86_400
    pool = await services.look()
    assert [each.announced_days for each in pool.spec.lots.lots] == [7, 0]


async def test_a_change_by_what_was_seen_is_not_refused_because_a_lot_began(
    services: Services,
) -> None:
    lot = replace(ACME, begins=services.clock.now() + 1000)
    seen = await create(services, with_lots(1, lot))
    services.clock.advance(SECOND)
    await reaches(services, LotState.IN_FORCE)
    assert (await services.look()).revision > seen.revision

    asked = seen.spec
    asked.description = "as it was seen"
    changed = await update(services, asked, seen.revision)
    assert (changed.spec.description, changed.spec.seats) == ("as it was seen", 3)
    assert changed.spec.lots.lots[0].state == pb.LOT_STATE_IN_FORCE

    failure = await refused(update(services, asked, seen.revision))
    assert failure.code is ABORTED, "that was an administrator"


async def test_a_drain_is_an_administrators_change_also_after_a_lot_began(
    services: Services,
) -> None:
    """As it is in a pool of which nodes have written nothing."""
    lot = replace(ACME, begins=services.clock.now() + 1000)
    await create(services, with_lots(1, lot))
    services.clock.advance(SECOND)
    await reaches(services, LotState.IN_FORCE)
    seen = await services.look()
    request = pb.DrainPoolRequest(name=POOL, reason="moved")
    drained = (await services.pools.DrainPool(request, timeout=DEADLINE)).pool
    assert (drained.spec.seats, drained.spec.lots.lots[0].state) == (3, pb.LOT_STATE_IN_FORCE)
    failure = await refused(update(services, seen.spec, seen.revision))
    assert failure.code is ABORTED
    assert (await update(services, drained.spec, drained.revision)).spec.HasField("drain")


async def test_a_change_leaves_what_was_written_of_lots_also_by_a_clock_that_is_behind(
    services: Services,
) -> None:
    lot = replace(ACME, ends=services.clock.now() + 1000)
    await create(services, with_lots(1, lot, replace(ACME, name="open")))
    services.clock.advance(SECOND)
    await reaches(services, LotState.ENDED)
    before = decode_lots((await services.look()).spec.lots).lots
    services.clock.advance(-60 * SECOND)
    for asked in (with_lots(1, lot, replace(ACME, name="open")), (await services.look()).spec):
        asked.description += "changed"
        changed = await update(services, asked)
        assert decode_lots(changed.spec.lots).lots == before
        assert changed.spec.seats == 3


async def test_so_is_none_of_many_pools_at_once(services: Services) -> None:
    lot = replace(ACME, begins=services.clock.now() + 1000)
    seen = await create(services, with_lots(1, lot))
    services.clock.advance(SECOND)
    await reaches(services, LotState.IN_FORCE)
    asked = with_lots(2, lot)
    assert await apply(services, to(asked, seen.revision))
    assert (await services.look()).spec.seats == 4
    failure = await refused(apply(services, to(asked, seen.revision)))
    assert failure.code is ABORTED


async def test_a_client_that_knows_no_lots_keeps_them_and_changes_no_seats(
    services: Services,
) -> None:
    await create(services, with_lots(1, ACME))
    changed = await update(services, spec(seats=3, description="new"))
    assert (changed.spec.description, changed.spec.seats) == ("new", 3)
    assert [each.name for each in changed.spec.lots.lots] == ["acme"]
    failure = await refused(update(services, spec(seats=5)))
    assert failure.code is INVALID
    assert "lots" in failure.message
    echoed = changed.spec
    echoed.seats = 5
    failure = await refused(update(services, echoed))
    assert failure.fields == ["spec.seats"]


async def test_guarantees_are_bounded_by_the_most_seats_and_do_not_hold_up_an_end(
    services: Services,
) -> None:
    wanted = with_lots(1, replace(ACME, ends=services.clock.now() + 1000))
    wanted.policy.projects.add(project="cv", guaranteed=3)
    await create(services, wanted)
    services.clock.advance(SECOND)
    await reaches(services, LotState.ENDED)
    assert (await services.look()).spec.seats == 1
    wanted.policy.projects[0].guaranteed = 4
    failure = await refused(update(services, wanted))
    assert failure.code is INVALID


async def test_no_guarantee_builds_on_a_burst(services: Services) -> None:
    """It could not be stopped then, and the pool's file, which has no bursts, would be refused."""
    burst = replace(ACME, name="more", kind=LotKind.BURST, ends=services.clock.now() + 90_000)
    wanted = with_lots(1, replace(ACME, ends=None), burst)
    wanted.policy.projects.add(project="cv", guaranteed=1 + ACME.seats + 1)
    failure = await refused(create(services, wanted))
    assert failure.code is INVALID
    wanted.policy.projects[0].guaranteed = 1 + ACME.seats
    await create(services, wanted)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "Acme"}, "name"),
        ({"seats": 0}, "seats"),
        ({"seats": -1}, "seats"),
        ({"begins": 5, "ends": 5}, "ends_at"),
        ({"kind": LotKind.BURST}, "ends_at"),
        ({"owner": "x" * 101}, "owner"),
    ],
)
async def test_lots_that_make_no_sense_are_refused_by_name(
    services: Services, change: dict[str, object], field: str
) -> None:
    wrong = replace(ACME, **change)  # type: ignore[arg-type]  # of any field
    failure = await refused(create(services, with_lots(1, wrong)))
    assert failure.code is INVALID
    assert failure.fields == [f"spec.lots.lots[0].{field}"]


async def test_a_doubled_name_and_too_many_are_refused(services: Services) -> None:
    failure = await refused(create(services, with_lots(1, ACME, ACME)))
    assert failure.fields == ["spec.lots.lots[1].name"]
    many = [replace(ACME, name=f"lot-{n}") for n in range(33)]
    failure = await refused(create(services, with_lots(1, *many)))
    assert failure.fields == ["spec.lots"]
    wrong = with_lots(1, ACME)
    wrong.lots.lots[0].price.amount = "1.5"
    failure = await refused(create(services, wrong))
    assert failure.fields == ["spec.lots.lots[0].price.per"]


# Straight in the store -----------------------------------------------------------------------


async def in_store(clock: FakeClock, *lots: Lot) -> MemoryStore:
    store = MemoryStore(now=clock.monotonic)
    made = PoolSpec(POOL, 0).with_lots(PoolLots(lots, 1))
    await store.commit([Put(KEYS.pool(POOL), records.encode_spec(made))])
    return store


async def lots_in(store: MemoryStore) -> PoolLots:
    entry = await store.get(KEYS.pool(POOL))
    assert entry is not None
    return records.decode_spec(entry.value).lots


async def test_many_nodes_with_other_clocks_write_it_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "seatkeeper.events")
    clock = FakeClock()
    store = await in_store(clock, replace(ACME, ends=clock.now() + 60_000))
    clocks = [FakeClock(clock.now() + ahead) for ahead in (0, 61_000, 62_000, -60_000)]
    await write_due(store, KEYS, clocks[0], POOL)
    await asyncio.gather(*(write_due(store, KEYS, each, POOL) for each in clocks))
    assert [each.state for each in (await lots_in(store)).lots] == [LotState.ENDED]
    assert (len(events(caplog, "lot_began")), len(events(caplog, "lot_ended"))) == (1, 1)


@pytest.mark.parametrize(
    "fault",
    [
        Fault.ANSWER_LOST,
        Fault.REQUEST_LOST,
        Fault.APPLIED_AFTER_THE_NEXT_READ,
        Fault.APPLIED_AFTER_THE_NEXT_COMMIT,
    ],
)
async def test_a_write_whose_answer_is_lost_is_one_event(
    fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "seatkeeper.events")
    clock = FakeClock()
    store = await in_store(clock, ACME)
    faulty = FaultyStore(store)
    faulty.faults.append(fault)
    await write_due(faulty, KEYS, clock, POOL)
    assert (await lots_in(store)).lots[0].state is LotState.IN_FORCE
    assert len(events(caplog, "lot_began")) == 1


async def test_a_store_that_is_not_there_is_tried_again(services: Services) -> None:
    lot = replace(ACME, begins=services.clock.now() + 1000)
    await create(services, with_lots(1, lot))
    keeper = services.node._core.seats.lots
    store = keeper._store

    class Down:
        failures = 0

        async def get(self, key: str) -> None:
            Down.failures += 1
            raise StoreUnavailable("down")

    keeper._store = Down()  # type: ignore[assignment]  # only what is called
    services.clock.advance(SECOND)
    await eventually(lambda: Down.failures > 1)
    keeper._store = store
    await reaches(services, LotState.IN_FORCE)


async def test_a_pool_that_is_gone_or_changes_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = FakeClock()
    await write_due(MemoryStore(now=clock.monotonic), KEYS, clock, POOL)
    store = await in_store(clock, ACME)
    faulty = FaultyStore(store)
    faulty.faults.extend([Fault.REQUEST_LOST] * 20)
    with pytest.raises(StoreUnavailable, match="changes faster"):
        await write_due(faulty, KEYS, clock, POOL)
