"""The session stream, over a socket: commands in, events out, and every way in which it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from tests.unit.kit import POOL, a_grant, eventually, uuid7
from tests.unit.services import (
    STORE_KEYS,
    TTL,
    Command,
    EndOfStream,
    Services,
    Stream,
    Who,
    acquire_of,
    open_of,
    ref_of,
    refused,
    running_services,
)

from seatkeeper.client import AsyncSeatClient, ClientConfig, Overloaded
from seatkeeper.server.domain import Grant
from seatkeeper.server.pool.delivery import Delivery
from seatkeeper.server.service import session_stream
from seatkeeper.server.store import LeaseNotFound
from seatkeeper.server.system_clock import SystemClock
from seatkeeper.server.tokens.signer import TokenSigner
from seatkeeper.v1 import seat_pb2, seat_service_pb2

INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
async def stream(services: Services) -> AsyncIterator[Stream]:
    """A stream of which nothing has been said yet."""
    stream = Stream(services)
    yield stream
    stream.call.cancel()


async def ended(stream: Stream) -> grpc.StatusCode:
    """Read to the end of the stream; return its status."""
    with suppress(EndOfStream, grpc.aio.AioRpcError):
        while True:
            await stream.next()
    return await stream.call.code()


async def waiting(services: Services, number: int) -> None:
    await eventually(lambda: STORE_KEYS.ticket(POOL, uuid7(number)) in services.store._entries)


# The course of a session -----------------------------------------------------------------------


async def test_a_stream_opens_a_session_takes_a_seat_and_gives_it_back(
    services: Services, stream: Stream
) -> None:
    await services.pool(1)
    who = services.stranger()
    opened = await stream.open(who)
    await stream.acquire(1)
    granted = (await stream.event("granted")).granted
    assert (await services.look()).held == 1
    await stream.release(1)
    released = (await stream.event("released")).released

    assert (opened.session_id, opened.node_id) == (who.session_id, "node-1")
    assert opened.ttl.ToTimedelta() == TTL
    assert (granted.grant_id, granted.pool, granted.fence) == (uuid7(1), POOL, 1)
    assert services.verify(granted.token, POOL).fence == 1
    assert released.grant_id == uuid7(1)
    assert (await services.look()).held == 0


async def test_commands_of_one_message_are_applied_in_order(
    services: Services, stream: Stream
) -> None:
    await services.pool(3)
    await stream.send(
        Command(open=open_of(services.stranger())),
        *(Command(acquire=acquire_of(number)) for number in (1, 2, 3)),
    )
    kinds = [(await stream.next()).WhichOneof("event") for _ in range(4)]
    assert kinds == ["opened", "granted", "granted", "granted"]


async def test_a_waiting_stream_gets_its_place_and_then_its_seat(
    services: Services, stream: Stream
) -> None:
    await services.pool(1)
    holder = await services.session()
    await services.acquire(holder, 1)
    await stream.open(services.stranger())
    await stream.acquire(2)
    await stream.acquire(3)
    reported = [(await stream.next()).queued for _ in range(2)]
    await services.release(holder, 1)
    granted = (await stream.event("granted")).granted
    moved = (await stream.event("queued")).queued

    places = {queued.grant_id: queued.position for queued in reported}
    assert places == {uuid7(2): 1, uuid7(3): 2}
    assert granted.grant_id == uuid7(2)
    assert (moved.grant_id, moved.position) == (uuid7(3), 1)
    assert moved.HasField("estimate"), "one hold has been seen to end"


async def test_a_ticket_is_given_up_by_releasing_it(services: Services, stream: Stream) -> None:
    await services.pool(1)
    await services.acquire(await services.session(), 1)
    await stream.open(services.stranger())
    await stream.acquire(2)
    await stream.event("queued")
    await stream.release(2)

    assert (await stream.event("released")).released.grant_id == uuid7(2)
    assert (await services.look()).queued == 0


async def test_each_grant_is_signed_once(
    services: Services, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed: list[str] = []
    sign = TokenSigner.sign

    def counted(signer: TokenSigner, pool: str, *args: object, **kwargs: object) -> str:
        signed.append(pool)
        return sign(signer, pool, *args, **kwargs)  # type: ignore[arg-type]  # forwarded as it came

    monkeypatch.setattr(TokenSigner, "sign", counted)
    await services.pool(2)
    await stream.open(services.stranger())
    for number in (1, 2):
        await stream.acquire(number)
        await stream.event("granted")

    assert len(signed) == 2


@pytest.mark.parametrize(
    "came_to_nothing",
    [("other", a_grant(1, fence=1)), (POOL, a_grant(1, fence=1, seats=5))],
    ids=["in another pool", "of more seats"],
)
async def test_what_was_signed_ahead_and_came_to_nothing_is_not_handed_out(
    came_to_nothing: tuple[str, Grant],
    services: Services,
    stream: Stream,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A token proves a grant offline, so one that was never made must not leave the node."""
    monkeypatch.setattr(Delivery, "presign", lambda *_: None)
    await services.pool(5)
    await stream.open(services.stranger())
    [served] = services.node._seat_service._streams
    served.expect(*came_to_nothing)
    await stream.acquire(1)
    granted = (await stream.event("granted")).granted

    claims = services.verify(granted.token)
    assert (claims.pool, claims.seats, claims.fence) == (POOL, 1, 1)
    assert (granted.pool, granted.seats) == (POOL, 1)


# Renewal ------------------------------------------------------------------------------------------


async def test_a_renewal_is_answered_with_its_number_and_new_tokens(
    services: Services, stream: Stream
) -> None:
    await services.pool(1)
    await stream.open(services.stranger())
    await stream.acquire(1)
    await stream.event("granted")
    services.pass_time(TTL * 0.9)
    renew = seat_service_pb2.Renew(sequence=41, tokens_for=[ref_of(1), ref_of(2)])
    await stream.send(Command(renew=renew))
    renewed = (await stream.event("renewed")).renewed
    services.pass_time(TTL * 0.9)

    assert renewed.sequence == 41
    assert renewed.ttl.ToTimedelta() == TTL
    assert [refresh.grant.grant_id for refresh in renewed.tokens] == [uuid7(1)]
    assert (await services.look()).held == 1


async def test_a_renewal_that_comes_too_late_ends_the_session_and_the_stream(
    services: Services, stream: Stream
) -> None:
    await services.pool(1)
    await stream.open(services.stranger())
    await stream.acquire(1)
    await stream.event("granted")
    services.clock.advance(TTL * 1.1)
    await stream.send(Command(renew=seat_service_pb2.Renew(sequence=1)))
    kinds = {(await stream.next()).WhichOneof("event")}
    while "session_lost" not in kinds:
        kinds.add((await stream.next()).WhichOneof("event"))

    assert kinds <= {"lost", "session_lost"}
    assert await ended(stream) is grpc.StatusCode.OK
    assert (await services.look()).held == 0


async def test_the_end_of_a_session_is_said_once_and_last(
    services: Services, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewal and a look find it in the same moment."""
    who = services.stranger()
    await stream.open(who)
    ended, asked = asyncio.Event(), []

    async def keep_alive(lease_id: int) -> timedelta:
        asked.append("renewal")
        await ended.wait()
        raise LeaseNotFound

    async def lease_remaining(lease_id: int) -> None:
        asked.append("look")
        await ended.wait()

    monkeypatch.setattr(services.store, "keep_alive", keep_alive)
    monkeypatch.setattr(services.store, "lease_remaining", lease_remaining)
    await stream.send(Command(renew=seat_service_pb2.Renew(sequence=1)))
    services.clock.advance(TTL * 2)
    await eventually(lambda: {"renewal", "look"} <= set(asked))
    ended.set()

    await stream.event("session_lost")
    with pytest.raises(EndOfStream):
        await stream.next()


async def test_a_session_that_dies_loses_its_seats_and_its_tickets(
    services: Services, stream: Stream
) -> None:
    await services.pool(1)
    await stream.open(services.stranger())
    await stream.acquire(1)
    await stream.event("granted")
    await stream.acquire(2)
    await stream.event("queued")
    services.pass_time(TTL * 1.1)
    lost = [(await stream.event("lost")).lost for _ in range(2)]

    assert {each.grant_id for each in lost} == {uuid7(1), uuid7(2)}
    assert {each.reason for each in lost} == {seat_pb2.LOST_REASON_SESSION_EXPIRED}


# Refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"pool": "none"}, seat_pb2.DENIAL_REASON_POOL_NOT_FOUND),
        ({"seats": 2}, seat_pb2.DENIAL_REASON_TOO_MANY_SEATS),
        ({"seats": 0}, seat_pb2.DENIAL_REASON_INVALID_ARGUMENT),
        ({"grant_id": "x"}, seat_pb2.DENIAL_REASON_INVALID_ARGUMENT),
        ({"wait": timedelta(0)}, seat_pb2.DENIAL_REASON_NO_SEAT_FREE),
        ({"grant_id": uuid7(1)}, seat_pb2.DENIAL_REASON_NOT_YOURS),
    ],
    ids=str,
)
async def test_a_refused_request_says_why_and_the_stream_goes_on(
    fields: dict[str, object], reason: int, services: Services, stream: Stream
) -> None:
    await services.pool(1)
    holder = await services.session()
    await services.acquire(holder, 1)
    await stream.open(services.stranger())
    await stream.acquire(2, **fields)
    denied = (await stream.event("denied")).denied

    assert denied.reason == reason
    assert denied.grant_id == fields.get("grant_id", uuid7(2))
    assert denied.message
    await services.release(holder, 1)
    await stream.acquire(3)
    await stream.event("granted")


async def test_a_malformed_release_is_refused_and_the_stream_goes_on(
    services: Services, stream: Stream
) -> None:
    await services.pool(1)
    await stream.open(services.stranger())
    ref = seat_service_pb2.GrantRef(pool=POOL, grant_id="x")
    await stream.send(Command(release=seat_service_pb2.Release(grant=ref)))
    denied = (await stream.event("denied")).denied

    assert (denied.grant_id, denied.reason) == ("x", seat_pb2.DENIAL_REASON_INVALID_ARGUMENT)
    await stream.acquire(1)
    await stream.event("granted")


async def test_a_released_id_is_completed(services: Services, stream: Stream) -> None:
    await services.pool(1)
    await stream.open(services.stranger())
    await stream.acquire(1)
    await stream.event("granted")
    await stream.release(1)
    await stream.event("released")
    await stream.acquire(1)

    assert (await stream.event("denied")).denied.reason == seat_pb2.DENIAL_REASON_FINISHED


@pytest.mark.parametrize(
    "command",
    [
        Command(),
        Command(acquire=acquire_of(1)),
        Command(renew=seat_service_pb2.Renew()),
        Command(close=seat_service_pb2.Close()),
    ],
    ids=["nothing", "acquire", "renew", "close"],
)
async def test_the_first_command_must_open_or_resume(command: Command, stream: Stream) -> None:
    await stream.send(command)
    assert await ended(stream) is INVALID


async def test_a_session_is_opened_once_on_a_stream(services: Services, stream: Stream) -> None:
    await stream.open(services.stranger())
    await stream.send(Command(open=open_of(services.stranger())))
    assert await ended(stream) is INVALID


async def test_too_many_commands_at_once_end_the_stream_and_not_the_session(
    services: Services, stream: Stream
) -> None:
    await services.pool(1)
    who = services.stranger()
    await stream.open(who)
    await stream.acquire(1)
    await stream.event("granted")
    renew = Command(renew=seat_service_pb2.Renew())
    await stream.send(*[renew] * 1025)

    assert await ended(stream) is INVALID
    assert (await services.look()).held == 1


async def test_as_many_commands_at_once_as_are_allowed_are_applied(
    services: Services, stream: Stream
) -> None:
    await services.pool(1024)
    await stream.send(
        Command(open=open_of(services.stranger())),
        *(Command(acquire=acquire_of(number)) for number in range(1, 1024)),
    )
    await stream.event("opened")
    fences = [(await stream.event("granted")).granted.fence for _ in range(1023)]
    assert sorted(fences) == list(range(1, 1024))


@pytest.mark.parametrize(
    ("impostor", "code"),
    [(True, grpc.StatusCode.PERMISSION_DENIED), (False, grpc.StatusCode.NOT_FOUND)],
    ids=["wrong secret", "no such session"],
)
async def test_only_the_owner_of_a_living_session_resumes_it(
    impostor: bool,
    code: grpc.StatusCode,
    services: Services,
    stream: Stream,
) -> None:
    who = (await services.session()).impostor if impostor else services.stranger()
    resume = seat_service_pb2.Resume(credentials=who.credentials)
    await stream.send(Command(resume=resume))
    assert await ended(stream) is code


async def test_a_session_that_has_ended_is_not_resumed(
    services: Services, stream: Stream
) -> None:
    who = await services.session()
    services.pass_time(TTL * 1.1)
    await stream.send(Command(resume=seat_service_pb2.Resume(credentials=who.credentials)))
    assert await ended(stream) is grpc.StatusCode.NOT_FOUND


async def test_a_client_that_does_not_read_is_cut_off_and_keeps_its_session(
    services: Services, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_stream, "PENDING_MAX", 3)
    await services.pool(1)
    who = await services.session()
    await services.acquire(who, 1)
    # Refused where they are read, so all answers are there before the first can be sent.
    refused_at_once = [Command(acquire=acquire_of(number, seats=0)) for number in range(2, 9)]
    await stream.send(
        Command(resume=seat_service_pb2.Resume(credentials=who.credentials)), *refused_at_once
    )
    assert await ended(stream) is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await services.look()).held == 1


# Breaking off and going on ----------------------------------------------------------------------


async def test_a_session_goes_on_with_its_grants_and_its_place_on_another_stream(
    services: Services, stream: Stream
) -> None:
    await services.pool(1)
    who = services.stranger()
    await stream.open(who)
    for number in (1, 2):
        await stream.acquire(number)
    await stream.event("granted")
    await stream.event("queued")
    await stream.break_off()

    other = Stream(services)
    await other.resume(who)
    for number in (1, 2):
        await other.acquire(number)
    granted = (await other.event("granted")).granted
    queued = (await other.event("queued")).queued
    await other.release(1)
    update = [await other.next(), await other.next()]
    other.call.cancel()

    assert (granted.grant_id, granted.fence) == (uuid7(1), 1)
    assert (queued.grant_id, queued.position) == (uuid7(2), 1)
    kinds = {event.WhichOneof("event") for event in update}
    assert kinds == {"released", "granted"}
    pool = await services.look()
    assert [grant.grant_id for grant in pool.grants] == [uuid7(2)]


async def test_a_stream_that_breaks_frees_nothing(services: Services, stream: Stream) -> None:
    await services.pool(1)
    await stream.open(services.stranger())
    await stream.acquire(1)
    await stream.event("granted")
    streams = services.node._seat_service._streams
    assert len(streams) == 1
    await stream.break_off()
    await eventually(lambda: not streams)

    assert (await services.look()).held == 1


async def test_a_grant_made_without_a_stream_is_found(
    services: Services, stream: Stream
) -> None:
    await services.pool(1)
    holder, who = await services.session(), services.stranger()
    await services.acquire(holder, 1)
    await stream.open(who)
    await stream.acquire(2)
    await stream.event("queued")
    await stream.break_off()
    await eventually(lambda: not services.node._seat_service._streams)
    await services.release(holder, 1)
    await eventually(lambda: STORE_KEYS.grant(POOL, uuid7(2)) in services.store._entries)
    other = Stream(services)
    await other.resume(who)
    await other.acquire(2)

    assert (await other.event("granted")).granted.grant_id == uuid7(2)
    other.call.cancel()


async def test_one_session_through_both_doors(services: Services, stream: Stream) -> None:
    await services.pool(2)
    who = await services.session()
    await stream.resume(who)
    await stream.acquire(1)
    await stream.event("granted")

    assert (await services.acquire(who, 1)).fence == 1
    await services.release(who, 1)
    assert (await stream.event("released")).released.grant_id == uuid7(1)
    assert (await services.look()).held == 0


async def test_a_seat_released_through_another_service_is_reported(
    services: Services, stream: Stream
) -> None:
    await services.pool(1)
    who = await services.session()
    await stream.resume(who)
    await stream.acquire(1)
    await stream.event("granted")
    await services.release(who, 1)

    assert (await stream.event("released")).released.grant_id == uuid7(1)


async def test_closing_frees_everything_and_ends_the_stream(
    services: Services, stream: Stream
) -> None:
    await services.pool(3)
    who = services.stranger()
    await stream.open(who)
    for number in (1, 2):
        await stream.acquire(number)
        await stream.event("granted")
    seen = services.node._core.seats._loops[POOL].state

    async def watch_is_faster(call: str) -> None:
        if call == "revoke_lease":
            await eventually(lambda: not seen.grants)

    services.store.after_call = watch_is_faster
    await stream.send(Command(close=seat_service_pb2.Close()))
    await stream.event("session_lost")  # and no seat: it was given up, not lost

    assert await ended(stream) is grpc.StatusCode.OK
    assert (await services.look()).held == 0
    assert (await refused(services.acquire(who, 3))).code is grpc.StatusCode.NOT_FOUND


async def test_a_client_that_says_no_more_gets_its_answers_and_a_clean_end(
    services: Services, stream: Stream
) -> None:
    await services.pool(1)
    await stream.open(services.stranger())
    await stream.call.done_writing()
    assert await ended(stream) is grpc.StatusCode.OK


async def test_a_node_that_stops_asks_its_streams_to_go_and_keeps_the_seats(
    services: Services, stream: Stream
) -> None:
    await services.pool(1)
    await stream.open(services.stranger())
    await stream.acquire(1)
    await stream.event("granted")
    stopping = asyncio.create_task(services.node.stop())
    away = (await stream.event("go_away")).go_away

    assert away.within.ToTimedelta() == timedelta(seconds=0.5)
    await ended(stream)
    await stopping
    assert STORE_KEYS.grant(POOL, uuid7(1)) in services.store._entries


async def test_what_these_tests_know_of_a_session_is_its_secret() -> None:
    assert Who("x", b"1").impostor.credentials.secret != b"1"


async def test_one_holder_may_open_so_many_streams_and_resume_any(tmp_path: Path) -> None:
    async with running_services(tmp_path, holder_streams_max=1) as services:
        first, second = services.stranger(), services.stranger()
        stream = Stream(services)
        await stream.open(first)
        too_many = Stream(services)
        failure = await refused(too_many.open(second))
        assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert failure.retry_after >= timedelta(seconds=1)
        again = Stream(services)
        await again.resume(first)
        for open_stream in (stream, again):
            open_stream.call.cancel()
        await eventually(lambda: not services.node._seat_service._holders)
        await Stream(services).open(second)


async def test_a_library_user_with_a_stream_too_many_gets_an_error(tmp_path: Path) -> None:
    config = ClientConfig(connect_timeout=timedelta(seconds=1))
    async with (
        running_services(tmp_path, now=SystemClock().now(), holder_streams_max=1) as services,
        AsyncSeatClient(services.node.address, holder="anna", config=config) as first,
        AsyncSeatClient(services.node.address, holder="anna", config=config) as second,
    ):
        await services.pool(2)
        await first.acquire(POOL)
        with pytest.raises(Overloaded, match="anna has 1 session streams on this node"):
            await second.acquire(POOL)


async def test_who_comes_to_a_node_that_is_leaving_is_let_in_and_sent_on(
    services: Services,
) -> None:
    """A balancer may not have noticed yet."""
    services.node._seat_service.go_away("the node is stopping", timedelta(seconds=1))
    stream = Stream(services)
    await stream.open(services.stranger())
    assert (await stream.event("go_away")).go_away.message == "the node is stopping"
