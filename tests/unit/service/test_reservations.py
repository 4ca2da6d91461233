"""Reservations over a socket: windows open when a node writes it, once; who is refused meanwhile."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from tests.unit.faults import Fault, FaultyStore
from tests.unit.kit import KEYS, NOW, POOL, FakeClock
from tests.unit.service.test_apply_pools import apply, to
from tests.unit.service.test_pool_service import create, spec, update
from tests.unit.services import DEADLINE, STORE_KEYS, Services, Stream, refused

from seatkeeper.core import recurrence
from seatkeeper.core.pool_rules import Who
from seatkeeper.core.recurrence import ZoneUnknown
from seatkeeper.core.reservation_messages import decode_windows, encode_reservation
from seatkeeper.core.reservations import (
    PoolWindows,
    Reservation,
    Schedule,
    Window,
    WindowState,
)
from seatkeeper.server.domain import PoolPolicy, PoolSpec
from seatkeeper.server.pool import lots as pool_lots
from seatkeeper.server.pool.windows import write_due
from seatkeeper.server.store import MemoryStore, Put, StoreUnavailable, records
from seatkeeper.v1 import pool_service_pb2 as pb

ABORTED, INVALID = grpc.StatusCode.ABORTED, grpc.StatusCode.INVALID_ARGUMENT
MINUTE, SECOND = timedelta(minutes=1), timedelta(seconds=1)
DAY = 24 * 3_600_000
OPENS = (NOW // 60_000 + 1) % 1440
"""The minute of the day that begins next, in 40 s."""
UNTIL = timedelta(seconds=40)
SOON = Schedule("FREQ=DAILY", opens=OPENS, closes=OPENS + 1)
CI = Reservation("ci", 2, Who(projects=("ci",)), SOON)


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of a test is moved, and no timer notices that."""
    monkeypatch.setattr(pool_lots, "LOOK_MAX", 0.02)
    monkeypatch.setattr(pool_lots, "RETRY_SECONDS", 0.02)


@pytest.fixture
def services(services: Services) -> Services:
    """A node at the time of the day of ``NOW``, on whatever day."""
    services.clock.unix_millis += (NOW - services.clock.unix_millis) % 86_400_000
    return services


def never_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_lots.LotKeeper, "start", lambda self: None)


def keeping(*reservations: Reservation, seats: int = 3) -> pb.PoolSpec:
    wanted = spec(seats=seats)
    wanted.policy.reservations.extend(map(encode_reservation, reservations))
    return wanted


async def window_of(services: Services, name: str = "ci") -> Window:
    return decode_windows((await services.look()).spec.windows).by_name[name]


async def reaches(services: Services, state: WindowState) -> None:
    for _ in range(500):
        if (await window_of(services)).state is state:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"the window is {await window_of(services)}, not {state}")


def events(caplog: pytest.LogCaptureFixture, name: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.getMessage() == name]


async def test_a_window_is_planned_with_its_instants_and_an_older_node_must_not_overlook_it(
    services: Services,
) -> None:
    pool = await create(services, keeping(CI))
    (window,) = decode_windows(pool.spec.windows).windows
    assert window.state is WindowState.PLANNED
    opens = datetime.fromtimestamp(window.begins / 1000, UTC)
    assert opens.hour * 60 + opens.minute == OPENS
    assert (window.ends - window.begins, window.begins > NOW) == (60_000, True)
    entry = await services.store.get(STORE_KEYS.pool(POOL))
    assert entry is not None
    assert pb.PoolSpec.FromString(entry.value).format == 4


async def test_a_pool_without_reservations_is_written_as_before(services: Services) -> None:
    await create(services, keeping(CI))
    none = spec(seats=4)
    none.policy.SetInParent()
    await update(services, none)
    entry = await services.store.get(STORE_KEYS.pool(POOL))
    assert entry is not None
    assert entry.value == pb.PoolSpec(name=POOL, seats=4).SerializeToString()


async def test_windows_open_and_close_when_a_node_writes_it_and_each_is_one_event(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    """Also in a pool that no client uses."""
    caplog.set_level(logging.INFO, "seatkeeper.events")
    await create(services, keeping(CI))
    planned = await window_of(services)
    services.clock.advance(UNTIL)
    await reaches(services, WindowState.OPEN)
    pool = await services.look()
    (state,) = pool.reservations
    assert (state.name, state.held, state.kept) == ("ci", 0, 2)
    services.clock.advance(MINUTE)
    await reaches(services, WindowState.PLANNED)
    then = await window_of(services)
    assert then.begins == planned.begins + 24 * 3_600_000
    (opened,), (closed,) = (
        events(caplog, "reservation_opened"),
        events(caplog, "reservation_closed"),
    )
    assert vars(opened)["reservation"] == vars(closed)["reservation"] == "ci"
    assert (vars(opened)["seats"], vars(opened)["kept_for"]) == (2, "project ci")
    assert vars(closed)["was_open"] is True
    assert (await services.look()).reservations[0].kept == 0


async def test_while_it_is_open_others_are_refused_by_its_name_and_those_it_is_for_are_not(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision itself writes that it opens, where nothing else has looked."""
    never_looks(monkeypatch)
    await services.node._core.seats.lots.stop()
    services.clock.advance(UNTIL - SECOND)
    await create(services, keeping(CI))
    who = await services.session()
    await services.acquire(who, 1)
    services.clock.advance(SECOND)
    assert (await window_of(services)).state is WindowState.PLANNED, "nothing has been written"
    failure = await refused(services.acquire(who, 2, wait=timedelta(0)))
    assert failure.reason == "DENIAL_REASON_NO_SEAT_FREE"
    assert "2 of the 2 free seats are kept for project ci for another" in failure.message
    assert "(rule `reservation ci`)" in failure.message
    for number in (3, 4):
        await services.acquire(who, number, project="ci", wait=timedelta(0))
    pool = await services.look()
    assert (pool.held, pool.reservations[0].held, pool.reservations[0].kept) == (3, 2, 0)


async def test_who_is_granted_what_a_window_will_want_is_warned(services: Services) -> None:
    services.clock.advance(-30 * MINUTE)
    await create(services, keeping(CI))
    who = await services.session()
    assert (await services.acquire(who, 1)).notice == "", "two others are free"
    said = (await services.acquire(who, 2)).notice
    assert "2 seats of pool tensorrt are kept for project ci (reservation ci)" in said
    assert (await services.acquire(who, 3, project="ci")).notice == "", "it is for this one"
    await services.release(who, 2)
    services.clock.advance(-60 * MINUTE)
    assert (await services.acquire(await services.session(), 4)).notice == "", "not that soon"


async def test_who_waits_is_shown_the_rule_and_served_when_the_window_closes(
    services: Services,
) -> None:
    await create(services, keeping(replace(CI, seats=3)))
    services.clock.advance(UNTIL)
    await reaches(services, WindowState.OPEN)
    stream = Stream(services)
    await stream.resume(await services.session())
    await stream.acquire(1, wait=timedelta(minutes=5))
    queued = await stream.next()
    assert queued.WhichOneof("event") == "queued"
    request = pb.ExplainTicketRequest(pool=POOL, grant_id=queued.queued.grant_id)
    said = await services.pools.ExplainTicket(request, timeout=DEADLINE)
    assert said.reason.rule == "reservation ci"
    services.clock.advance(MINUTE)
    assert (await stream.event("granted")).granted.fence == 1
    await stream.break_off()


async def test_an_administrators_change_is_not_refused_because_a_window_opened(
    services: Services,
) -> None:
    seen = await create(services, keeping(CI))
    services.clock.advance(UNTIL)
    await reaches(services, WindowState.OPEN)
    is_open = await window_of(services)
    asked = seen.spec
    asked.description = "as it was seen"
    changed = await update(services, asked, seen.revision)
    assert changed.spec.description == "as it was seen"
    assert await window_of(services) == is_open, (
        "what the request says of windows is not looked at"
    )
    failure = await refused(update(services, asked, seen.revision))
    assert failure.code is ABORTED, "that was an administrator"


async def test_nor_is_one_of_many_pools_or_one_after_a_lot_and_a_window_moved(
    services: Services,
) -> None:
    wanted = keeping(CI)
    wanted.lots.seats = 3
    lot = wanted.lots.lots.add(name="acme", seats=1)
    lot.begins_at.FromMilliseconds(services.clock.now() + 1000)
    seen = await create(services, wanted)
    services.clock.advance(UNTIL)
    await reaches(services, WindowState.OPEN)
    for _ in range(500):
        if (await services.look()).spec.seats == 4:
            break
        await asyncio.sleep(0.01)
    assert await apply(services, to(seen.spec, seen.revision))
    assert (await window_of(services)).state is WindowState.OPEN
    failure = await refused(apply(services, to(seen.spec, seen.revision)))
    assert failure.code is ABORTED


async def test_a_drain_is_an_administrators_change_and_the_window_stays(
    services: Services,
) -> None:
    await create(services, keeping(CI))
    services.clock.advance(UNTIL)
    await reaches(services, WindowState.OPEN)
    seen = await services.look()
    request = pb.DrainPoolRequest(name=POOL, reason="moved")
    await services.pools.DrainPool(request, timeout=DEADLINE)
    assert (await window_of(services)).state is WindowState.OPEN
    failure = await refused(update(services, seen.spec, seen.revision))
    assert failure.code is ABORTED


async def test_a_clock_that_is_behind_does_not_undo_what_was_written(
    services: Services,
) -> None:
    await create(services, keeping(CI))
    services.clock.advance(UNTIL)
    await reaches(services, WindowState.OPEN)
    is_open = await window_of(services)
    services.clock.advance(-30 * MINUTE)
    changed = await update(services, keeping(replace(CI, seats=1)))
    assert decode_windows(changed.spec.windows).windows == (is_open,)


async def test_a_client_that_knows_no_reservations_keeps_them(services: Services) -> None:
    await create(services, keeping(CI))
    before = await window_of(services)
    changed = await update(services, spec(seats=5))
    assert [each.name for each in changed.spec.policy.reservations] == ["ci"]
    assert await window_of(services) == before
    failure = await refused(update(services, spec(seats=1)))
    assert failure.code is INVALID
    assert "its reservation ci keeps 2" in failure.message


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "C I"}, "name"),
        ({"seats": 4}, "seats"),
        ({"who": Who()}, "who"),
        ({"who": Who(groups=("none",))}, "who.groups[0]"),
        ({"when": replace(SOON, rule="FREQ=DAILY;UNTIL=20200101")}, "schedule.rule"),
        ({"when": replace(SOON, zone="Europe/Atlantis")}, "schedule.zone"),
        ({"when": replace(SOON, closes=OPENS + 1_441)}, "schedule.closes_minute"),
        ({"when": replace(SOON, first_day="soon")}, "schedule.first_day"),
    ],
)
async def test_reservations_that_make_no_sense_are_refused_by_name(
    services: Services, change: dict[str, object], field: str
) -> None:
    wrong = replace(CI, **change)  # type: ignore[arg-type]  # of any field
    failure = await refused(create(services, keeping(wrong)))
    assert failure.code is INVALID
    assert failure.fields == [f"spec.policy.reservations[0].{field}"]
    failure = await refused(apply(services, to(keeping(wrong))))
    assert failure.fields == [f"changes[0].spec.policy.reservations[0].{field}"]


# Straight in the store -----------------------------------------------------------------------


async def in_store(clock: FakeClock, *windows: Window) -> MemoryStore:
    store = MemoryStore(now=clock.monotonic)
    policy = PoolPolicy(reservations=(CI,))
    made = PoolSpec(POOL, 3, policy=policy, windows=PoolWindows(windows))
    await store.commit([Put(KEYS.pool(POOL), records.encode_spec(made))])
    return store


async def in_it(store: MemoryStore) -> Window:
    entry = await store.get(KEYS.pool(POOL))
    assert entry is not None
    return records.decode_spec(entry.value).windows.by_name["ci"]


async def test_many_nodes_with_other_clocks_write_it_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "seatkeeper.events")
    clock = FakeClock()
    store = await in_store(clock, Window("ci", NOW + 1000, NOW + 9_000_000))
    clocks = [FakeClock(NOW + ahead) for ahead in (0, 1000, 5000, -60_000)]
    await asyncio.gather(*(write_due(store, KEYS, each, POOL) for each in clocks))
    assert (await in_it(store)).state is WindowState.OPEN
    assert len(events(caplog, "reservation_opened")) == 1


async def test_two_nodes_whose_zones_differ_keep_to_what_the_first_has_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Newer data of time zones move the next window, not the one that is planned, or open."""
    clock = FakeClock()
    store = await in_store(clock)
    await write_due(store, KEYS, clock, POOL)
    planned = await in_it(store)
    known = recurrence.following

    def an_hour_later(when: Schedule, after: int | None, now: int) -> tuple[int, int] | None:
        found = known(when, after, now)
        return None if found is None else (found[0] + 3_600_000, found[1] + 3_600_000)

    monkeypatch.setattr(recurrence, "following", an_hour_later)
    await write_due(store, KEYS, clock, POOL)
    assert await in_it(store) == planned
    clock.advance(UNTIL)
    await write_due(store, KEYS, clock, POOL)
    is_open = await in_it(store)
    assert (is_open.begins, is_open.ends) == (planned.begins, planned.ends)
    assert is_open.state is WindowState.OPEN
    clock.advance(MINUTE)
    await write_due(store, KEYS, clock, POOL)
    assert (await in_it(store)).begins == planned.begins + 25 * 3_600_000


async def test_a_node_that_does_not_know_the_zone_opens_closes_and_leaves_the_next_to_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "seatkeeper.events")
    clock = FakeClock(NOW + 1000)
    store = await in_store(clock, Window("ci", NOW, NOW + 60_000))
    known = recurrence.following

    def unknown(when: Schedule, after: int | None, now: int) -> None:
        raise ZoneUnknown("zone", f"there is no time zone {when.zone}")

    monkeypatch.setattr(recurrence, "following", unknown)
    await write_due(store, KEYS, clock, POOL)
    assert (await in_it(store)).state is WindowState.OPEN
    assert events(caplog, "reservation_not_planned") == []
    clock.advance(MINUTE)
    await write_due(store, KEYS, clock, POOL)
    assert (await in_it(store)).state is WindowState.CLOSED
    (said, *_) = events(caplog, "reservation_not_planned")
    assert (said.levelno, vars(said)["zone"]) == (logging.WARNING, "UTC")
    monkeypatch.setattr(recurrence, "following", known)
    await write_due(store, KEYS, clock, POOL)
    planned = await in_it(store)
    assert (planned.state, planned.begins) == (WindowState.PLANNED, NOW + DAY + 40_000)


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
    store = await in_store(clock, Window("ci", NOW - 1000, NOW + 9_000_000))
    faulty = FaultyStore(store)
    faulty.faults.append(fault)
    await write_due(faulty, KEYS, clock, POOL)
    assert (await in_it(store)).state is WindowState.OPEN
    assert len(events(caplog, "reservation_opened")) == 1


async def test_a_pool_that_is_gone_or_changes_all_the_time() -> None:
    clock = FakeClock()
    await write_due(MemoryStore(now=clock.monotonic), KEYS, clock, POOL)
    faulty = FaultyStore(await in_store(clock))
    faulty.faults.extend([Fault.REQUEST_LOST] * 20)
    with pytest.raises(StoreUnavailable, match="changes faster"):
        await write_due(faulty, KEYS, clock, POOL)
