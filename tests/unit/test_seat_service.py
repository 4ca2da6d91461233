"""The unary calls of ``SeatService``, over a socket: what they do and how they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.unit.doors import (
    DEADLINE,
    STORE_KEYS,
    TTL,
    Doors,
    Refused,
    Who,
    acquire_of,
    open_of,
    ref_of,
    refused,
    running_doors,
)
from tests.unit.kit import POOL, eventually, uuid7

from seatkeeper.client.tokens import verify_token
from seatkeeper.server.tokens import jwks
from seatkeeper.server.validate import check_acquire
from seatkeeper.v1 import seat_pb2, seat_service_pb2

NOT_FOUND = grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT
DENIED = grpc.StatusCode.PERMISSION_DENIED
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
ABORTED = grpc.StatusCode.ABORTED


def open_session(
    doors: Doors, request: seat_service_pb2.Open
) -> grpc.aio.UnaryUnaryCall[
    seat_service_pb2.OpenSessionRequest, seat_service_pb2.OpenSessionResponse
]:
    message = seat_service_pb2.OpenSessionRequest(open=request)
    return doors.seats.OpenSession(message, timeout=DEADLINE)


def renew(
    doors: Doors, who: Who, *tokens_for: seat_service_pb2.GrantRef, sequence: int = 1
) -> grpc.aio.UnaryUnaryCall[seat_service_pb2.RenewRequest, seat_service_pb2.RenewResponse]:
    request = seat_service_pb2.RenewRequest(
        credentials=who.credentials,
        renew=seat_service_pb2.Renew(sequence=sequence, tokens_for=tokens_for),
    )
    return doors.seats.Renew(request, timeout=DEADLINE)


def close(
    doors: Doors, who: Who
) -> grpc.aio.UnaryUnaryCall[
    seat_service_pb2.CloseSessionRequest, seat_service_pb2.CloseSessionResponse
]:
    request = seat_service_pb2.CloseSessionRequest(credentials=who.credentials)
    return doors.seats.CloseSession(request, timeout=DEADLINE)


def exists(doors: Doors, who: Who) -> bool:
    return STORE_KEYS.session(who.session_id) in doors.store._entries


# OpenSession ------------------------------------------------------------------------------------


async def test_opening_a_session_says_how_long_it_lives_and_when_to_renew(doors: Doors) -> None:
    who = doors.stranger()
    opened = (await open_session(doors, open_of(who))).opened

    assert (opened.session_id, opened.node_id) == (who.session_id, "node-1")
    assert opened.ttl.ToTimedelta() == TTL
    # Spread out: many open or resume at one moment, when a node has died.
    assert TTL / 3 * 0.8 * 0.2 <= opened.renew_in.ToTimedelta() <= TTL / 3


async def test_those_who_open_at_one_moment_renew_at_different_ones(doors: Doors) -> None:
    answers = [await open_session(doors, open_of(doors.stranger())) for _ in range(40)]
    moments = sorted(answer.opened.renew_in.ToTimedelta() / (TTL / 3) for answer in answers)
    assert moments[30] - moments[10] > 0.1


async def test_without_a_ttl_the_session_has_the_nodes_default(doors: Doors) -> None:
    request = open_of(doors.stranger())
    request.ClearField("ttl")
    assert (await open_session(doors, request)).opened.ttl.seconds == 15


async def test_opening_twice_is_opening_once(doors: Doors) -> None:
    who = await doors.session()
    await doors.pool(1)
    await doors.acquire(who, 1)
    doors.pass_time(TTL * 0.9)
    opened = (await open_session(doors, open_of(who, holder="other"))).opened
    doors.pass_time(TTL * 0.9)

    assert opened.session_id == who.session_id
    assert (await doors.look()).held == 1, "it was the same session, and was renewed"
    assert (await doors.look()).grants[0].holder == "anna@host"


async def test_a_session_cannot_be_opened_with_another_secret(doors: Doors) -> None:
    who = await doors.session()
    failure = await refused(open_session(doors, open_of(who.impostor)))
    assert failure.code is DENIED


async def test_whoever_has_the_wrong_secret_keeps_no_session_alive(doors: Doors) -> None:
    who = await doors.session()
    doors.pass_time(TTL * 0.9)
    await refused(open_session(doors, open_of(who.impostor)))
    doors.pass_time(TTL * 0.2)

    assert not exists(doors, who)


async def test_opening_twice_leaves_one_lease(doors: Doors) -> None:
    who = await doors.session()
    before = (await doors.store.health()).leases
    await open_session(doors, open_of(who))
    await refused(open_session(doors, open_of(who.impostor)))
    assert (await doors.store.health()).leases == before


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda m: m.credentials.CopyFrom(Who("x", b"s" * 16).credentials), "session_id"),
        (lambda m: m.credentials.CopyFrom(Who(uuid7(1), b"s").credentials), "secret"),
        (lambda m: m.ttl.CopyFrom(Duration(seconds=1)), "ttl"),
        (lambda m: setattr(m, "holder", ""), "holder"),
        (lambda m: setattr(m, "project", "Not A Name"), "project"),
    ],
    ids=["session_id", "secret", "ttl", "holder", "project"],
)
async def test_a_malformed_session_is_refused_by_its_field(
    change: Callable[[seat_service_pb2.Open], None], field: str, doors: Doors
) -> None:
    request = open_of(doors.stranger())
    change(request)
    failure = await refused(open_session(doors, request))

    assert failure.code is INVALID
    [named] = failure.fields
    assert named.endswith(field)
    assert not [key for key in doors.store._entries if "/sessions/" in key]


# Acquire ----------------------------------------------------------------------------------------


async def test_a_granted_seat_comes_with_a_token_that_proves_it(doors: Doors) -> None:
    await doors.pool(2)
    who = await doors.session()
    granted = await doors.acquire(who, 1, seats=2, project="nlp")

    assert (granted.grant_id, granted.pool, granted.seats) == (uuid7(1), POOL, 2)
    assert granted.fence == 1
    claims = verify_token(granted.token, jwks([doors.signer.jwk_json]), pool=POOL)
    assert (claims.grant_id, claims.fence, claims.seats) == (uuid7(1), 1, 2)
    assert (claims.holder, claims.project) == ("anna@host", "nlp")
    lease_ends = datetime.fromtimestamp((doors.clock.now() + 10_000) / 1000, UTC)
    assert claims.expires_at <= lease_ends
    held = (await doors.look()).grants[0]
    assert (held.grant_id, held.session_id, held.project) == (uuid7(1), who.session_id, "nlp")


async def test_without_a_project_the_sessions_is_charged(doors: Doors) -> None:
    await doors.pool(1)
    await doors.acquire(await doors.session(), 1)
    assert (await doors.look()).grants[0].project == "cv"


async def test_asking_again_returns_the_same_grant(doors: Doors) -> None:
    await doors.pool(2)
    who = await doors.session()
    first, again = await doors.acquire(who, 1), await doors.acquire(who, 1)

    assert (first.fence, again.fence) == (1, 1)
    assert (await doors.look()).held == 1


async def test_a_call_waits_in_the_queue_until_a_seat_is_free(doors: Doors) -> None:
    await doors.pool(1)
    first, second = await doors.session(), await doors.session()
    await doors.acquire(first, 1)
    waiting = asyncio.create_task(doors.acquire(second, 2))
    await eventually(lambda: STORE_KEYS.ticket(POOL, uuid7(2)) in doors.store._entries)
    await doors.release(first, 1)

    assert (await waiting).fence == 2


async def test_a_call_that_would_not_wait_is_denied_at_once(doors: Doors) -> None:
    await doors.pool(1)
    await doors.acquire(await doors.session(), 1)
    failure = await refused(doors.acquire(await doors.session(), 2, wait=timedelta(0)))

    assert (failure.code, failure.reason) == (EXHAUSTED, "DENIAL_REASON_NO_SEAT_FREE")
    assert failure.retry_after > timedelta(0)
    assert (await doors.look()).queued == 0


async def test_a_call_is_answered_before_its_deadline_and_leaves_no_ticket(
    doors: Doors,
) -> None:
    await doors.pool(1)
    await doors.acquire(await doors.session(), 1)
    failure = await _refused_while_time_passes(doors, timeout=0.7)

    assert (failure.code, failure.reason) == (EXHAUSTED, "DENIAL_REASON_NO_SEAT_FREE")
    assert (await doors.look()).queued == 0


async def test_a_place_outlives_the_deadline_of_a_call_that_says_how_long_to_wait(
    doors: Doors,
) -> None:
    await doors.pool(1)
    holder, who = await doors.session(), await doors.session()
    await doors.acquire(holder, 1)
    failure = await refused(doors.acquire(who, 2, timeout=0.5, wait=timedelta(hours=1)))
    assert failure.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await doors.look()).queued == 1
    later = asyncio.create_task(doors.acquire(await doors.session(), 3))
    await eventually(lambda: STORE_KEYS.ticket(POOL, uuid7(3)) in doors.store._entries)

    again = asyncio.create_task(doors.acquire(who, 2, wait=timedelta(hours=1)))
    await doors.release(holder, 1)

    assert (await again).grant_id == uuid7(2)
    await doors.release(who, 2)
    assert (await later).grant_id == uuid7(3)


async def test_both_of_two_equal_calls_are_told_the_same(doors: Doors) -> None:
    await doors.pool(1)
    holder, who = await doors.session(), await doors.session()
    await doors.acquire(holder, 1)
    calls = [asyncio.create_task(doors.acquire(who, 2)) for _ in range(3)]
    await eventually(lambda: STORE_KEYS.ticket(POOL, uuid7(2)) in doors.store._entries)
    await eventually(lambda: len(doors.node._gate) == 3)
    await doors.release(holder, 1)
    granted = await asyncio.gather(*calls)
    assert {(one.grant_id, one.fence) for one in granted} == {(uuid7(2), 2)}


async def test_a_call_waits_no_longer_than_it_says(doors: Doors) -> None:
    await doors.pool(1)
    await doors.acquire(await doors.session(), 1)
    failure = await _refused_while_time_passes(doors, wait=timedelta(milliseconds=100))

    assert (failure.code, failure.reason) == (EXHAUSTED, "DENIAL_REASON_NO_SEAT_FREE")


async def _refused_while_time_passes(doors: Doors, **fields: object) -> Refused:
    who = await doors.session()
    call = asyncio.create_task(refused(doors.acquire(who, 2, **fields)))  # type: ignore[arg-type]  # the test gives fields by name
    await eventually(lambda: STORE_KEYS.ticket(POOL, uuid7(2)) in doors.store._entries)
    doors.clock.advance(timedelta(seconds=1))
    return await call


async def test_an_unknown_pool_is_named(doors: Doors) -> None:
    failure = await refused(doors.acquire(await doors.session(), 1, pool="none"))

    assert (failure.code, failure.reason) == (NOT_FOUND, "DENIAL_REASON_POOL_NOT_FOUND")
    assert failure.resource == ("pool", "none")
    assert "pool list" in failure.message


async def test_more_seats_than_the_pool_has_are_refused(doors: Doors) -> None:
    await doors.pool(2)
    failure = await refused(doors.acquire(await doors.session(), 1, seats=3))

    assert (failure.code, failure.reason) == (INVALID, "DENIAL_REASON_TOO_MANY_SEATS")
    assert failure.fields == ["acquire.seats"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"seats": 0}, "seats"),
        ({"seats": -1}, "seats"),
        ({"grant_id": "one"}, "grant_id"),
        ({"pool": "../pools"}, "pool"),
        ({"project": "x y"}, "project"),
        ({"priority": 1001}, "priority"),
        ({"wait": timedelta(seconds=-1)}, "wait"),
    ],
    ids=str,
)
async def test_a_malformed_request_is_refused_by_its_field(
    fields: dict[str, object], field: str, doors: Doors
) -> None:
    await doors.pool(2)
    failure = await refused(doors.acquire(await doors.session(), 1, **fields))  # type: ignore[arg-type]  # the test gives fields by name

    assert failure.code is INVALID
    assert failure.fields == [field]
    assert (await doors.look()).held == 0


async def test_what_is_quoted_of_a_request_is_short_enough_to_be_told(doors: Doors) -> None:
    """Trailing metadata has room for 8 KiB; above that the client would hear of no reason."""
    await doors.pool(1)
    failure = await refused(doors.acquire(await doors.session(), 1, project="p" * 20_000))
    assert (failure.code, failure.fields) == (INVALID, ["project"])
    failure = await refused(doors.acquire(await doors.session(), 2, pool="p" * 20_000))
    assert (failure.code, failure.fields) == (INVALID, ["pool"])


async def test_an_id_that_was_released_is_not_granted_again(doors: Doors) -> None:
    await doors.pool(1)
    who = await doors.session()
    await doors.acquire(who, 1)
    await doors.release(who, 1)
    failure = await refused(doors.acquire(who, 1))

    assert (failure.code, failure.reason) == (ABORTED, "DENIAL_REASON_FINISHED")
    assert "new" in failure.message
    assert (await doors.look()).held == 0


async def test_the_request_of_another_session_is_refused(doors: Doors) -> None:
    await doors.pool(2)
    await doors.acquire(await doors.session(), 1)
    failure = await refused(doors.acquire(await doors.session(), 1))

    assert (failure.code, failure.reason) == (DENIED, "DENIAL_REASON_NOT_YOURS")


async def test_a_wrong_secret_takes_no_seat(doors: Doors) -> None:
    await doors.pool(1)
    who = await doors.session()
    failure = await refused(doors.acquire(who.impostor, 1))

    assert failure.code is DENIED
    assert (await doors.look()).held == 0


async def test_a_session_that_never_was_takes_no_seat(doors: Doors) -> None:
    await doors.pool(1)
    stranger = doors.stranger()
    failure = await refused(doors.acquire(stranger, 1))

    assert failure.code is NOT_FOUND
    assert failure.resource == ("session", stranger.session_id)


@pytest.mark.parametrize("how_long", [TTL * 0.4, TTL * 2], ids=["unnoticed", "noticed"])
async def test_a_session_that_has_ended_takes_no_seat(
    how_long: timedelta, doors: Doors
) -> None:
    await doors.pool(1)
    who = await doors.session()
    await doors.acquire(who, 1)
    await close(doors, who)  # through another door, as far as the session's memory is concerned
    doors.pass_time(how_long)
    failure = await refused(doors.acquire(who, 2))

    assert failure.code is NOT_FOUND
    assert (await doors.look()).held == 0


async def test_a_session_that_dies_while_it_waits_is_told(doors: Doors) -> None:
    await doors.pool(1)
    holder, waiter = await doors.session(ttl=timedelta(hours=1)), await doors.session()
    await doors.acquire(holder, 1)
    call = asyncio.create_task(refused(doors.acquire(waiter, 2)))
    await eventually(lambda: STORE_KEYS.ticket(POOL, uuid7(2)) in doors.store._entries)
    doors.pass_time(TTL * 1.1)
    failure = await call

    assert failure.code is NOT_FOUND
    assert failure.resource == ("session", waiter.session_id)


async def test_a_request_that_is_given_up_while_it_waits_is_told(doors: Doors) -> None:
    await doors.pool(1)
    await doors.acquire(await doors.session(), 1)
    who = await doors.session()
    call = asyncio.create_task(refused(doors.acquire(who, 2)))
    await eventually(lambda: STORE_KEYS.ticket(POOL, uuid7(2)) in doors.store._entries)
    await doors.release(who, 2)
    failure = await call

    assert failure.code in {ABORTED, EXHAUSTED}
    assert (await doors.look()).queued == 0


async def test_a_store_that_is_down_is_unavailable_and_says_when_to_try_again(
    doors: Doors,
) -> None:
    who = await doors.session()
    await doors.store.close()
    failure = await refused(renew(doors, who))

    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert failure.retry_after > timedelta(0)


# Renew ------------------------------------------------------------------------------------------


async def test_a_renewed_session_lives_for_another_ttl_and_its_tokens_too(doors: Doors) -> None:
    await doors.pool(1)
    who = await doors.session()
    granted = await doors.acquire(who, 1)
    doors.pass_time(TTL * 0.6)
    renewed = (await renew(doors, who, ref_of(1), sequence=7)).renewed
    doors.pass_time(TTL * 0.9)

    assert renewed.sequence == 7
    assert renewed.ttl.ToTimedelta() == TTL
    [refresh] = renewed.tokens
    assert refresh.grant == ref_of(1)
    keys = jwks([doors.signer.jwk_json])
    old, new = verify_token(granted.token, keys), verify_token(refresh.token, keys)
    assert new.fence == old.fence
    assert timedelta(seconds=5) <= new.expires_at - old.expires_at <= timedelta(seconds=7)
    assert (await doors.look()).held == 1


async def test_a_renewal_signs_no_token_for_what_is_not_held(doors: Doors) -> None:
    await doors.pool(1)
    other = await doors.session()
    await doors.acquire(other, 1)
    who = await doors.session()
    renewed = (await renew(doors, who, ref_of(1), ref_of(2), ref_of(3, "none"))).renewed

    assert not renewed.tokens


async def test_a_session_that_was_not_renewed_in_time_is_gone_with_its_seats(
    doors: Doors,
) -> None:
    await doors.pool(1)
    who = await doors.session()
    await doors.acquire(who, 1)
    doors.pass_time(TTL)
    failure = await refused(renew(doors, who))

    assert failure.code is NOT_FOUND
    assert failure.resource == ("session", who.session_id)
    assert (await doors.look()).held == 0


async def test_a_renewal_with_a_wrong_secret_keeps_nothing_alive(doors: Doors) -> None:
    who = await doors.session()
    doors.pass_time(TTL * 0.9)
    failure = await refused(renew(doors, who.impostor))
    doors.pass_time(TTL * 0.2)

    assert failure.code is DENIED
    assert not exists(doors, who)


async def test_a_renewal_with_a_malformed_reference_is_refused(doors: Doors) -> None:
    failure = await refused(
        renew(doors, await doors.session(), seat_service_pb2.GrantRef(pool="?"))
    )
    assert failure.fields == ["renew.tokens_for.pool"]


# Release and CloseSession ---------------------------------------------------------------------


async def test_a_released_seat_is_free_and_releasing_again_succeeds(doors: Doors) -> None:
    await doors.pool(1)
    who = await doors.session()
    await doors.acquire(who, 1)

    assert (await doors.release(who, 1)).grant_id == uuid7(1)
    assert (await doors.look()).held == 0
    assert (await doors.release(who, 1)).grant_id == uuid7(1)


async def test_releasing_what_never_was_succeeds(doors: Doors) -> None:
    await doors.pool(1)
    assert (await doors.release(await doors.session(), 9)).grant_id == uuid7(9)


async def test_the_seat_of_another_session_is_not_released(doors: Doors) -> None:
    await doors.pool(1)
    holder = await doors.session()
    await doors.acquire(holder, 1)
    failure = await refused(doors.release(await doors.session(), 1))

    assert (failure.code, failure.reason) == (DENIED, "DENIAL_REASON_NOT_YOURS")
    assert (await doors.look()).held == 1
    assert (await refused(doors.release(holder.impostor, 1))).code is DENIED


async def test_releasing_in_a_pool_that_does_not_exist_says_so(doors: Doors) -> None:
    failure = await refused(doors.release(await doors.session(), 1, "none"))
    assert (failure.code, failure.reason) == (NOT_FOUND, "DENIAL_REASON_POOL_NOT_FOUND")


async def test_closing_a_session_frees_all_it_holds_and_closing_again_succeeds(
    doors: Doors,
) -> None:
    await doors.pool(3)
    who = await doors.session()
    for number in (1, 2):
        await doors.acquire(who, number)
    await close(doors, who)

    assert (await doors.look()).held == 0
    await close(doors, who)
    await close(doors, doors.stranger())


async def test_a_wrong_secret_closes_nothing(doors: Doors) -> None:
    await doors.pool(1)
    who = await doors.session()
    await doors.acquire(who, 1)
    failure = await refused(close(doors, who.impostor))

    assert failure.code is DENIED
    assert (await doors.look()).held == 1


async def test_a_crowd_of_calls_is_served_one_seat_each(doors: Doors) -> None:
    await doors.pool(5)
    who = await doors.session()

    async def cycle(number: int) -> int:
        granted: seat_pb2.Granted = await doors.acquire(who, number)
        await doors.release(who, number)
        return granted.fence

    fences = await asyncio.gather(*(cycle(number) for number in range(1, 101)))

    assert sorted(fences) == list(range(1, 101))
    assert (await doors.look()).held == 0


async def test_the_acquire_message_of_these_tests_is_well_formed() -> None:
    """Else every refusal above might have another cause."""
    check_acquire(acquire_of(1))


# Too much ---------------------------------------------------------------------------------------


async def test_a_call_too_many_is_refused_and_told_when_to_come_again(tmp_path: Path) -> None:
    async with running_doors(tmp_path, calls_max=2) as doors:
        await doors.pool(seats=1)
        who, another = await doors.session(), await doors.session()
        await doors.acquire(who, 1)
        waiting = [asyncio.create_task(doors.acquire(another, number)) for number in (2, 3)]
        await eventually(lambda: len(doors.node._seat_service._callers) == 2)
        failure = await refused(doors.acquire(another, 4))
        assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert failure.reason == "DENIAL_REASON_OVERLOADED"
        assert failure.retry_after >= timedelta(seconds=1)
        # What they wait for is let in.
        await doors.release(who, 1)
        for call in waiting:
            call.cancel()


async def test_who_waits_in_a_call_is_sent_elsewhere_by_a_node_that_stops(doors: Doors) -> None:
    await doors.pool(seats=1)
    who, another = await doors.session(), await doors.session()
    await doors.acquire(who, 1)
    waiting = asyncio.create_task(doors.acquire(another, 2))
    await eventually(lambda: doors.node._seat_service._callers)
    doors.node._seat_service.go_away("the node is stopping", timedelta(seconds=1))
    failure = await refused(waiting)
    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert "send the same request to another node" in failure.message
    assert (await doors.look()).queued == 1, "its place stays"
