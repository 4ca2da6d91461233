"""What is left of a session that has ended: enough to know a late copy of its opening."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import grpc
import pytest
from tests.unit.faults import FaultyStore
from tests.unit.kit import KEYS, FakeClock
from tests.unit.services import (
    DEADLINE,
    STORE_KEYS,
    TTL,
    Services,
    Who,
    acquire_of,
    open_of,
    refused,
)

from seatkeeper.server.sessions.sessions import (
    REMEMBERED_MIN,
    REMEMBERED_TOGETHER,
    NotYourSession,
    SessionLost,
    Sessions,
)
from seatkeeper.server.store import MemoryStore, StoreUnavailable
from seatkeeper.v1 import seat_service_pb2

NOT_FOUND = grpc.StatusCode.NOT_FOUND
DENIED = grpc.StatusCode.PERMISSION_DENIED
ANNA = Who("018c0000-0000-7000-8000-000000000001", b"a" * 16)
BORIS = Who("018c0000-0000-7000-8000-000000000002", b"b" * 16)


async def open_again(services: Services, who: Who) -> None:
    request = seat_service_pb2.OpenSessionRequest(open=open_of(who))
    await services.seats.OpenSession(request, timeout=DEADLINE)


async def close(services: Services, who: Who) -> None:
    request = seat_service_pb2.CloseSessionRequest(credentials=who.credentials)
    await services.seats.CloseSession(request, timeout=DEADLINE)


async def test_copies_that_come_after_the_close_open_nothing_and_take_nothing(
    services: Services,
) -> None:
    await services.pool(1)
    who = await services.session()
    await services.acquire(who, 1)
    await services.release(who, 1)
    await close(services, who)

    assert (await refused(open_again(services, who))).code is NOT_FOUND
    assert (await refused(services.acquire(who, 1))).code is NOT_FOUND
    assert (await services.look()).held == 0
    assert STORE_KEYS.session(who.session_id) not in services.store._entries


async def test_a_copy_on_a_stream_opens_nothing_either(services: Services) -> None:
    await services.pool(1)
    who = await services.session()
    await close(services, who)
    copy = seat_service_pb2.SessionRequest(
        commands=[
            seat_service_pb2.SessionCommand(open=open_of(who)),
            seat_service_pb2.SessionCommand(acquire=acquire_of(1)),
        ]
    )
    stream = services.seats.Session(timeout=DEADLINE)
    await stream.write(copy)

    assert (await refused(stream.read())).code is NOT_FOUND
    assert (await services.look()).held == 0


async def test_a_session_closed_on_its_stream_is_remembered_too(services: Services) -> None:
    who = services.stranger()
    stream = services.seats.Session(timeout=DEADLINE)
    commands = [
        seat_service_pb2.SessionCommand(open=open_of(who)),
        seat_service_pb2.SessionCommand(close=seat_service_pb2.Close()),
    ]
    await stream.write(seat_service_pb2.SessionRequest(commands=commands))
    await stream.done_writing()
    while await stream.read() is not grpc.aio.EOF:
        pass

    assert (await refused(open_again(services, who))).code is NOT_FOUND


async def test_a_close_that_overtakes_its_opening_prevents_it(services: Services) -> None:
    """A client whose opening was not answered closes what may come of it."""
    who = services.stranger()
    await close(services, who)
    await close(services, who)

    assert (await refused(open_again(services, who))).code is NOT_FOUND
    assert (await refused(open_again(services, who.impostor))).code is DENIED


async def test_another_secret_does_not_reveal_that_a_session_was_closed(
    services: Services,
) -> None:
    who = await services.session()
    await close(services, who)

    assert (await refused(open_again(services, who.impostor))).code is DENIED


async def test_copies_that_come_after_the_session_ran_out_take_nothing(
    services: Services,
) -> None:
    """Its client died, and what was on its way still arrives."""
    await services.pool(1)
    who = await services.session()
    await services.acquire(who, 1)
    services.pass_time(TTL * 1.1)

    assert (await refused(open_again(services, who))).code is NOT_FOUND
    assert (await refused(services.acquire(who, 1))).code is NOT_FOUND
    assert (await refused(open_again(services, who.impostor))).code is DENIED
    assert (await services.look()).held == 0
    assert STORE_KEYS.session(who.session_id) not in services.store._entries


async def test_what_has_ended_is_forgotten_in_the_end(services: Services) -> None:
    who = await services.session(ttl=timedelta(hours=1))
    services.pass_time(REMEMBERED_MIN * 2)
    assert STORE_KEYS.opened(who.session_id) not in services.store._entries
    await close(services, who)
    services.pass_time(REMEMBERED_MIN * 0.9)
    assert STORE_KEYS.opened(who.session_id) in services.store._entries

    services.pass_time(REMEMBERED_MIN)
    assert STORE_KEYS.opened(who.session_id) not in services.store._entries


async def test_sessions_of_a_short_while_share_a_lease_to_be_remembered_by(
    services: Services,
) -> None:
    several = [await services.session() for _ in range(3)]
    leases = {
        services.store._entries[STORE_KEYS.opened(w.session_id)].lease_id for w in several
    }
    assert len(leases) == 1
    services.pass_time(REMEMBERED_TOGETHER)
    late = await services.session()
    assert services.store._entries[STORE_KEYS.opened(late.session_id)].lease_id not in leases


# Through the store's faults ---------------------------------------------------------------------


class Harness:
    """Two nodes' sessions over one store; faults are on the first node's way to it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(now=self.clock.monotonic)
        self.faulty = FaultyStore(self.store)
        ttl = timedelta(seconds=10)
        self.here = Sessions(self.faulty, KEYS, self.clock, default_ttl=ttl)
        self.there = Sessions(self.store, KEYS, self.clock, default_ttl=ttl)

    async def is_alive(self, who: Who) -> bool:
        return await self.store.get(KEYS.session(who.session_id)) is not None


@pytest.fixture
def harness() -> Harness:
    return Harness()


async def test_another_node_finds_it_closed_though_it_knew_it_open(harness: Harness) -> None:
    await harness.there.open(open_of(ANNA))
    await harness.here.close(await harness.here.find(ANNA.credentials))

    with pytest.raises(SessionLost):
        await harness.there.open(open_of(ANNA))
    with pytest.raises(SessionLost):
        await harness.there.find(ANNA.credentials)
    with pytest.raises(NotYourSession):
        await harness.there.open(open_of(ANNA.impostor))
    assert not await harness.is_alive(ANNA)


async def test_closing_works_where_the_store_is_full(harness: Harness) -> None:
    session = await harness.here.open(open_of(ANNA))
    harness.faulty.is_full = True
    await harness.here.close(session)

    assert not await harness.is_alive(ANNA)


async def test_a_close_that_was_cut_short_is_finished_by_the_next(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await harness.here.open(open_of(ANNA))
    with monkeypatch.context() as broken:

        async def fails(lease_id: int) -> None:
            raise StoreUnavailable("no member answers")

        broken.setattr(harness.faulty, "revoke_lease", fails)
        with pytest.raises(StoreUnavailable):
            await harness.here.close(session)
    assert await harness.is_alive(ANNA)

    await harness.there.close(await harness.there.find(ANNA.credentials))
    assert not await harness.is_alive(ANNA)
    with pytest.raises(SessionLost):
        await harness.there.open(open_of(ANNA))


async def test_the_shared_lease_is_made_anew_when_somebody_ended_it(harness: Harness) -> None:
    await harness.here.open(open_of(ANNA))
    entry = await harness.store.get(KEYS.opened(ANNA.session_id))
    assert entry is not None
    await harness.store.revoke_lease(entry.lease_id)
    session = await harness.here.open(open_of(BORIS))
    await harness.store.revoke_lease(session.lease_id)

    with pytest.raises(SessionLost):
        await harness.there.open(open_of(BORIS))


@pytest.mark.parametrize("turns", range(12))
async def test_an_opening_that_meets_the_close_never_outlives_it(
    harness: Harness, turns: int
) -> None:
    async def open_late() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await harness.there.open(open_of(ANNA))

    session = await harness.here.open(open_of(ANNA))
    await asyncio.gather(harness.here.close(session), open_late(), return_exceptions=True)

    assert not await harness.is_alive(ANNA)
    with pytest.raises(SessionLost):
        await harness.there.open(open_of(ANNA))
