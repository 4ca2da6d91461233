"""Which pools a node follows, and when it stops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from tests.unit.kit import KEYS, Ear, FakeClock, create_pool, eventually, open_lease, uuid7

from seatkeeper.core.validate import Malformed
from seatkeeper.server.domain import Denied, Instant, Refusal
from seatkeeper.server.events.observer import Observer
from seatkeeper.server.pool import router as seats_module
from seatkeeper.server.pool.catalogue import PoolCatalogue
from seatkeeper.server.pool.context import LoopConfig
from seatkeeper.server.pool.loop import PoolLoop
from seatkeeper.server.pool.router import PoolRouter
from seatkeeper.server.sessions.sessions import Session, lease_id_of
from seatkeeper.server.store import Delete, MemoryStore
from seatkeeper.v1 import seat_pb2, seat_service_pb2

SESSION = Session(
    session_id="anna",
    lease_id=lease_id_of("anna"),
    holder="anna@host",
    project="cv",
    ttl=timedelta(hours=1),
    secret_sha256=b"",
    identity="",
    alive_until=Instant(0),
)

DAY_TENTHS = 864_000
"""``uuid7`` counts tenths of a second."""


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def seats(store: MemoryStore) -> AsyncIterator[PoolRouter]:
    """The seats of a node that looks for idle pools when the test says so."""
    await open_lease(store, "anna")
    observer = Observer()
    catalogue = PoolCatalogue(store, KEYS, observer)
    seats = PoolRouter(
        store, KEYS, catalogue, FakeClock(), config=LoopConfig(), observer=observer
    )
    await seats.start()
    yield seats
    await seats.stop()
    await store.close()


@pytest.fixture
def sweeping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes look for idle pools all the time."""
    monkeypatch.setattr(seats_module, "IDLE_SWEEP", timedelta(milliseconds=5))


def acquire_in(pool: str, number: int = 1) -> seat_pb2.Acquire:
    return seat_pb2.Acquire(pool=pool, grant_id=uuid7(number), seats=1)


async def test_an_unused_pool_is_not_followed_forever(
    sweeping: None, seats: PoolRouter, store: MemoryStore
) -> None:
    await create_pool(store, 1, "a")
    ear = Ear()
    await seats.acquire(SESSION, acquire_in("a"), ear)
    await eventually(lambda: ear.answers)
    followed = seats._loops["a"]
    ref = seat_service_pb2.GrantRef(pool="a", grant_id=uuid7(1))
    await seats.release(SESSION, seat_service_pb2.Release(grant=ref), ear)
    await eventually(lambda: "a" not in seats._loops)
    await seats.acquire(SESSION, acquire_in("a", 2), ear)
    await eventually(lambda: len(ear.answers) == 3)

    assert seats._loops["a"] is not followed


async def test_a_pool_that_comes_into_use_while_others_are_put_away_is_kept(
    seats: PoolRouter, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request that waits there would never be notified."""
    for name in ("a", "b"):
        await create_pool(store, 1, name)
        loop = await seats.loop(name)
        assert loop is not None
        await loop.listed()
        assert loop.idle
    ears: dict[str, Ear] = {}
    stop = PoolLoop.stop

    async def stop_slowly(loop: PoolLoop) -> None:
        await stop(loop)
        for name in {"a", "b"} - {loop.pool} - set(ears):
            ears[name] = Ear()
            await seats.acquire(SESSION, acquire_in(name), ears[name])

    monkeypatch.setattr(PoolLoop, "stop", stop_slowly)
    await seats.sweep()
    followed = dict(seats._loops)
    assert set(followed) == {"a", "b"}
    await seats.sweep()
    [(name, ear)] = ears.items()
    assert seats._loops == {name: followed[name]}
    await eventually(lambda: ear.answers)

    assert not isinstance(ear.answers[0], Denied), ear.answers
    for _ in range(2):
        await seats.sweep()
    assert seats._loops == {name: followed[name]}


async def test_a_pool_that_is_not_there_is_looked_up_once_more(
    seats: PoolRouter, store: MemoryStore
) -> None:
    ear = Ear()
    await seats.acquire(SESSION, acquire_in("a"), ear)
    await create_pool(store, 1, "a")
    await seats.acquire(SESSION, acquire_in("a"), ear)
    await eventually(lambda: len(ear.answers) == 2)

    refused, granted = ear.answers
    assert isinstance(refused, Denied)
    assert refused.reason is Refusal.POOL_NOT_FOUND
    assert "'a'" in refused.message
    assert not isinstance(granted, Denied)


async def test_an_id_of_the_future_is_refused_and_finishes_nothing(
    seats: PoolRouter, store: MemoryStore
) -> None:
    await create_pool(store, 1, "a")
    ear = Ear()
    tomorrow = acquire_in("a", DAY_TENTHS)
    await seats.acquire(SESSION, tomorrow, ear)  # a day: a clock may be so far ahead
    late = acquire_in("a", DAY_TENTHS + 1)
    ref = seat_service_pb2.GrantRef(pool="a", grant_id=late.grant_id)
    with pytest.raises(Malformed, match=r"^grant_id: the time in .* is 1 days ahead"):
        await seats.acquire(SESSION, late, ear)
    with pytest.raises(Malformed, match=r"^grant\.grant_id: "):
        await seats.release(SESSION, seat_service_pb2.Release(grant=ref), ear)


async def test_the_catalogue_forgets_a_deleted_pool_and_an_old_rumour_of_it(
    seats: PoolRouter, store: MemoryStore
) -> None:
    await create_pool(store, 1, "a")
    await eventually(lambda: seats.catalogue.names() == ["a"])
    await create_pool(store, 2, "b")
    await store.commit([Delete(KEYS.pool("a"))])
    await seats.catalogue.refresh("a")
    assert seats.catalogue.spec("a") == (None, 0)
    await eventually(lambda: seats.catalogue.names() == ["b"])
    store.end_watches("cut")
    await create_pool(store, 3, "c")
    await eventually(lambda: seats.catalogue.names() == ["b", "c"])
