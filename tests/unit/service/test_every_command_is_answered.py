"""Commands on a stream, also the strangest: each is answered, or ends the stream and says why."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta

import grpc
import grpc.aio
import pytest
from tests.unit.kit import POOL, eventually, uuid7
from tests.unit.services import (
    TTL,
    Command,
    EndOfStream,
    Services,
    Stream,
    acquire_of,
    open_of,
    ref_of,
    refused,
)

from seatkeeper.client.transport.status import FirstStatus
from seatkeeper.server.service import session_stream
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

Code = grpc.StatusCode
INVALID = seat_pb2.DENIAL_REASON_INVALID_ARGUMENT
MALFORMED = [
    pb.GrantRef(),
    pb.GrantRef(pool=POOL, grant_id="x" * 100_000),
    pb.GrantRef(pool="a/b", grant_id=uuid7(1)),
    pb.GrantRef(pool="\0", grant_id=uuid7(1)),
]


@pytest.fixture
async def stream(services: Services) -> AsyncIterator[Stream]:
    stream = Stream(services)
    yield stream
    await stream.break_off()


def renew(sequence: int, *refs: pb.GrantRef) -> Command:
    return Command(renew=pb.Renew(sequence=sequence, tokens_for=refs))


async def test_renewals_sent_at_once_are_all_answered(
    services: Services, stream: Stream
) -> None:
    await stream.open(services.stranger())
    await stream.send(*(renew(number) for number in range(1, 1024)))
    answered = [(await stream.event("renewed")).renewed.sequence for _ in range(1, 1024)]
    assert answered == list(range(1, 1024))


async def test_very_many_renewals_are_all_answered(services: Services, stream: Stream) -> None:
    await stream.open(services.stranger())
    for frame in range(4):
        await stream.send(*(renew(1000 * frame + number) for number in range(1000)))
    for number in range(4000):
        assert (await stream.event("renewed")).renewed.sequence == number


@pytest.mark.parametrize("ref", MALFORMED, ids=["empty", "long id", "pool", "NUL"])
async def test_a_malformed_renewal_is_denied_and_renews(
    services: Services, stream: Stream, ref: pb.GrantRef
) -> None:
    await stream.open(services.stranger())
    services.pass_time(TTL * 0.9)
    await stream.send(renew(7, ref))
    denied = (await stream.event("denied")).denied
    assert (denied.reason, denied.grant_id) == (INVALID, ref.grant_id[:64])
    assert (await stream.event("renewed")).renewed.sequence == 7
    services.pass_time(TTL * 0.9)
    await stream.send(renew(8))
    assert (await stream.event("renewed")).renewed.sequence == 8


async def test_tokens_are_given_for_own_grants_alone(
    services: Services, stream: Stream
) -> None:
    await services.pool(2)
    await services.acquire(await services.session(), 1)
    await stream.open(services.stranger())
    await stream.acquire(2)
    await stream.event("granted")
    unknown = pb.GrantRef(pool="nowhere", grant_id=uuid7(3))
    await stream.send(renew(1, ref_of(1), ref_of(2), ref_of(2), ref_of(9), unknown))
    tokens = (await stream.event("renewed")).renewed.tokens
    assert [token.grant.grant_id for token in tokens] == [uuid7(2)]


async def test_a_renewal_is_tried_again_while_the_store_is_silent(
    services: Services, stream: Stream
) -> None:
    await stream.open(services.stranger())
    await stream.send(renew(1))
    await stream.event("renewed")
    await services.store.close()  # for good
    await stream.send(renew(2))

    def is_over_as_time_goes_by() -> bool:
        services.clock.advance(timedelta(milliseconds=100))
        return stream.call.done()

    await eventually(is_over_as_time_goes_by)
    assert await stream.call.code() is Code.UNAVAILABLE


async def test_an_idle_stream_of_an_expired_session_is_reported(
    services: Services, stream: Stream
) -> None:
    await stream.open(services.stranger())
    services.pass_time(TTL + timedelta(seconds=2))
    await stream.event("session_lost")
    with pytest.raises(EndOfStream):
        await stream.next()
    assert await stream.call.code() is Code.OK


async def test_a_stream_is_notified_that_its_session_was_closed_by_another_call(
    services: Services, stream: Stream
) -> None:
    who = services.stranger()
    await stream.open(who)
    again = pb.OpenSessionRequest(open=open_of(who))
    await services.seats.OpenSession(again, timeout=10)
    await services.seats.CloseSession(
        pb.CloseSessionRequest(credentials=who.credentials), timeout=10
    )
    await stream.event("session_lost")
    assert await stream.call.read() is grpc.aio.EOF


@pytest.mark.parametrize("seats", [1, 2])
async def test_a_stream_that_loses_a_grant_is_notified_that_its_session_has_ended(
    services: Services, stream: Stream, seats: int
) -> None:
    """As when it is closed through another node: a seat is lost, or a place in the queue."""
    await services.pool(2)
    await services.acquire(await services.session(), 7)
    who = services.stranger()
    await stream.open(who)
    await stream.acquire(1, seats=seats)
    await stream.event("granted" if seats == 1 else "queued")
    session = await services.node._core.sessions.look(who.session_id)
    assert session is not None
    await services.store.revoke_lease(session.lease_id)
    await stream.event("lost")
    await stream.event("session_lost")
    assert await stream.call.read() is grpc.aio.EOF


async def test_a_session_renewed_elsewhere_keeps_its_stream(
    services: Services, stream: Stream
) -> None:
    who = services.stranger()
    await stream.open(who)
    for sequence in range(3):
        services.pass_time(TTL * 0.9)
        request = pb.RenewRequest(
            credentials=who.credentials, renew=pb.Renew(sequence=sequence)
        )
        await services.seats.Renew(request, timeout=10)
        await asyncio.sleep(0)
    await stream.send(renew(9))
    assert (await stream.event("renewed")).renewed.sequence == 9


async def test_a_stream_without_a_first_command_ends(
    services: Services, stream: Stream
) -> None:
    reading = asyncio.create_task(refused(stream.next()))
    await eventually(lambda: len(services.node._server.gate) == 1)
    services.clock.advance(timedelta(seconds=session_stream.FIRST_COMMAND_SECONDS + 1))
    failure = await reading
    assert (failure.code, failure.reason) == (Code.DEADLINE_EXCEEDED, "FIRST_COMMAND_TIMEOUT")


@pytest.mark.parametrize(
    "first",
    [
        Command(),
        renew(1),
        Command(acquire=acquire_of(1)),
        Command(release=pb.Release(grant=ref_of(1))),
        Command(close=pb.Close()),
        Command.FromString(b"\xfa\x3f\x00"),  # a command of a later version
    ],
    ids=["empty", "renew", "acquire", "release", "close", "unknown"],
)
async def test_a_first_command_that_opens_nothing_ends_the_stream(
    stream: Stream, first: Command
) -> None:
    await stream.send(first)
    failure = await refused(stream.next())
    assert (failure.code, failure.fields) == (Code.INVALID_ARGUMENT, ["command"])


@pytest.mark.parametrize("kind", ["open", "resume", "empty", "unknown"])
async def test_a_later_command_that_is_none_ends_the_stream_and_not_the_session(
    services: Services, stream: Stream, kind: str
) -> None:
    who = services.stranger()
    await stream.open(who)
    await stream.send(
        {
            "open": Command(open=open_of(who)),
            "resume": Command(resume=pb.Resume(credentials=who.credentials)),
            "empty": Command(),
            "unknown": Command.FromString(b"\xfa\x3f\x00"),
        }[kind]
    )
    failure = await refused(stream.next())
    assert (failure.code, failure.fields) == (Code.INVALID_ARGUMENT, ["command"])
    again = Stream(services)
    await again.resume(who)
    await again.break_off()


async def everything(stream: Stream) -> AsyncIterator[pb.SessionEvent]:
    """All events until the stream ends."""
    with suppress(EndOfStream):
        while True:
            yield await stream.next()


async def test_what_a_half_closed_stream_has_asked_is_answered(
    services: Services, stream: Stream
) -> None:
    await services.pool(1)
    await stream.send(
        Command(open=open_of(services.stranger())),
        Command(acquire=acquire_of(1)),
        Command(acquire=acquire_of(2)),
        Command(release=pb.Release(grant=ref_of(9))),
        renew(1),
        renew(2),
    )
    await stream.call.done_writing()
    kinds = {event.WhichOneof("event") async for event in everything(stream)}
    assert kinds - {"ring"} == {"opened", "granted", "queued", "released", "renewed"}
    assert await stream.call.code() is Code.OK


async def test_what_follows_a_close_is_not_done(services: Services, stream: Stream) -> None:
    await services.pool(1)
    await stream.open(services.stranger())
    await stream.send(Command(close=pb.Close()), Command(acquire=acquire_of(1)))
    await stream.event("session_lost")
    with pytest.raises(EndOfStream):
        await stream.next()
    assert (await services.look()).held == 0


async def read_all(stream: Stream) -> None:
    status = FirstStatus(stream.call)  # gRPC forgets it when a message was on its way
    try:
        async for _ in everything(stream):
            pass
    except grpc.aio.AioRpcError as error:
        raise status.of(error) from None


async def test_a_client_that_does_not_read_is_cut_off_and_its_session_lives_on(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_stream, "PENDING_MAX", 2_000)
    await services.pool(1)
    who = services.stranger()
    stream = Stream(services)
    await stream.open(who)
    wrong = Command(acquire=acquire_of(1, project="?"))
    served = services.node._seat_service._streams
    async with asyncio.timeout(60):
        while not any(each._failure for each in served):
            await stream.send(*([wrong] * 100))

    failure = await refused(read_all(stream))
    assert (failure.code, failure.reason) == (
        Code.RESOURCE_EXHAUSTED,
        "DENIAL_REASON_OVERLOADED",
    )
    again = Stream(services)
    await again.resume(who)
    await again.break_off()


async def test_a_frame_of_too_many_commands_ends_the_stream(
    services: Services, stream: Stream
) -> None:
    await stream.open(services.stranger())
    await stream.send(*(renew(number) for number in range(1025)))
    failure = await refused(stream.next())
    assert (failure.code, failure.fields) == (Code.INVALID_ARGUMENT, ["commands"])
