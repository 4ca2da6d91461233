"""The unary calls of ``SeatService``, over a socket: what they do and how they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import jwt
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.unit.kit import POOL, eventually, uuid7
from tests.unit.services import (
    DEADLINE,
    STORE_KEYS,
    TTL,
    Refused,
    Services,
    Who,
    acquire_of,
    open_of,
    ref_of,
    refused,
    running_services,
)

from seatkeeper.server.wire.validate import check_acquire
from seatkeeper.v1 import seat_pb2, seat_service_pb2

NOT_FOUND = grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT
DENIED = grpc.StatusCode.PERMISSION_DENIED
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
ABORTED = grpc.StatusCode.ABORTED


def open_session(
    services: Services, request: seat_service_pb2.Open
) -> grpc.aio.UnaryUnaryCall[
    seat_service_pb2.OpenSessionRequest, seat_service_pb2.OpenSessionResponse
]:
    message = seat_service_pb2.OpenSessionRequest(open=request)
    return services.seats.OpenSession(message, timeout=DEADLINE)


def renew(
    services: Services, who: Who, *tokens_for: seat_service_pb2.GrantRef, sequence: int = 1
) -> grpc.aio.UnaryUnaryCall[seat_service_pb2.RenewRequest, seat_service_pb2.RenewResponse]:
    request = seat_service_pb2.RenewRequest(
        credentials=who.credentials,
        renew=seat_service_pb2.Renew(sequence=sequence, tokens_for=tokens_for),
    )
    return services.seats.Renew(request, timeout=DEADLINE)


def close(
    services: Services, who: Who
) -> grpc.aio.UnaryUnaryCall[
    seat_service_pb2.CloseSessionRequest, seat_service_pb2.CloseSessionResponse
]:
    request = seat_service_pb2.CloseSessionRequest(credentials=who.credentials)
    return services.seats.CloseSession(request, timeout=DEADLINE)


def exists(services: Services, who: Who) -> bool:
    return STORE_KEYS.session(who.session_id) in services.store._entries


# OpenSession ------------------------------------------------------------------------------------


async def test_opening_a_session_says_how_long_it_lives_and_when_to_renew(
    services: Services,
) -> None:
    who = services.stranger()
    opened = (await open_session(services, open_of(who))).opened

    assert (opened.session_id, opened.node_id) == (who.session_id, "node-1")
    assert opened.ttl.ToTimedelta() == TTL
    # Spread out: many open or resume at one moment, when a node has died.
    assert TTL / 3 * 0.8 * 0.2 <= opened.renew_in.ToTimedelta() <= TTL / 3


async def test_those_who_open_at_one_moment_renew_at_different_ones(services: Services) -> None:
    answers = [await open_session(services, open_of(services.stranger())) for _ in range(40)]
    moments = sorted(answer.opened.renew_in.ToTimedelta() / (TTL / 3) for answer in answers)
    assert moments[30] - moments[10] > 0.1


async def test_without_a_ttl_the_session_has_the_nodes_default(services: Services) -> None:
    request = open_of(services.stranger())
    request.ClearField("ttl")
    assert (await open_session(services, request)).opened.ttl.seconds == 15


async def test_opening_twice_is_opening_once(services: Services) -> None:
    who = await services.session()
    await services.pool(1)
    await services.acquire(who, 1)
    services.pass_time(TTL * 0.9)
    opened = (await open_session(services, open_of(who, holder="other"))).opened
    services.pass_time(TTL * 0.9)

    assert opened.session_id == who.session_id
    assert (await services.look()).held == 1, "it was the same session, and was renewed"
    assert (await services.look()).grants[0].holder == "anna@host"


async def test_a_session_cannot_be_opened_with_another_secret(services: Services) -> None:
    who = await services.session()
    failure = await refused(open_session(services, open_of(who.impostor)))
    assert failure.code is DENIED


async def test_a_wrong_secret_keeps_no_session_alive(services: Services) -> None:
    who = await services.session()
    services.pass_time(TTL * 0.9)
    await refused(open_session(services, open_of(who.impostor)))
    services.pass_time(TTL * 0.2)

    assert not exists(services, who)


async def test_opening_twice_leaves_one_lease(services: Services) -> None:
    who = await services.session()
    before = (await services.store.health()).leases
    await open_session(services, open_of(who))
    await refused(open_session(services, open_of(who.impostor)))
    assert (await services.store.health()).leases == before


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
    change: Callable[[seat_service_pb2.Open], None], field: str, services: Services
) -> None:
    request = open_of(services.stranger())
    change(request)
    failure = await refused(open_session(services, request))

    assert failure.code is INVALID
    [named] = failure.fields
    assert named.endswith(field)
    assert not [key for key in services.store._entries if "/sessions/" in key]


# Acquire ----------------------------------------------------------------------------------------


async def test_a_granted_seat_comes_with_a_token_that_proves_it(services: Services) -> None:
    await services.pool(2)
    who = await services.session()
    granted = await services.acquire(who, 1, seats=2, project="nlp")

    assert (granted.grant_id, granted.pool, granted.seats) == (uuid7(1), POOL, 2)
    assert granted.fence == 1
    claims = services.verify(granted.token, POOL)
    assert (claims.grant_id, claims.fence, claims.seats) == (uuid7(1), 1, 2)
    assert (claims.holder, claims.project) == ("anna@host", "nlp")
    lease_ends = datetime.fromtimestamp((services.clock.now() + 10_000) / 1000, UTC)
    assert claims.expires_at <= lease_ends
    held = (await services.look()).grants[0]
    assert (held.grant_id, held.session_id, held.project) == (uuid7(1), who.session_id, "nlp")


async def test_without_a_project_the_sessions_is_charged(services: Services) -> None:
    await services.pool(1)
    await services.acquire(await services.session(), 1)
    assert (await services.look()).grants[0].project == "cv"


async def test_asking_again_returns_the_same_grant(services: Services) -> None:
    await services.pool(2)
    who = await services.session()
    first, again = await services.acquire(who, 1), await services.acquire(who, 1)

    assert (first.fence, again.fence) == (1, 1)
    assert (await services.look()).held == 1


async def test_a_call_waits_in_the_queue_until_a_seat_is_free(services: Services) -> None:
    await services.pool(1)
    first, second = await services.session(), await services.session()
    await services.acquire(first, 1)
    waiting = asyncio.create_task(services.acquire(second, 2))
    await eventually(lambda: STORE_KEYS.ticket(POOL, uuid7(2)) in services.store._entries)
    await services.release(first, 1)

    assert (await waiting).fence == 2


async def test_a_call_that_would_not_wait_is_denied_at_once(services: Services) -> None:
    await services.pool(1)
    await services.acquire(await services.session(), 1)
    failure = await refused(services.acquire(await services.session(), 2, wait=timedelta(0)))

    assert (failure.code, failure.reason) == (EXHAUSTED, "DENIAL_REASON_NO_SEAT_FREE")
    assert failure.retry_after > timedelta(0)
    assert (await services.look()).queued == 0


async def test_a_call_is_answered_before_its_deadline_and_leaves_no_ticket(
    services: Services,
) -> None:
    await services.pool(1)
    await services.acquire(await services.session(), 1)
    failure = await _refused_while_time_passes(services, timeout=0.7)

    assert (failure.code, failure.reason) == (EXHAUSTED, "DENIAL_REASON_NO_SEAT_FREE")
    assert (await services.look()).queued == 0


async def test_a_place_outlives_the_deadline_of_a_call_that_says_how_long_to_wait(
    services: Services,
) -> None:
    await services.pool(1)
    holder, who = await services.session(), await services.session()
    await services.acquire(holder, 1)
    failure = await refused(services.acquire(who, 2, timeout=0.5, wait=timedelta(hours=1)))
    assert failure.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert (await services.look()).queued == 1
    later = asyncio.create_task(services.acquire(await services.session(), 3))
    await eventually(lambda: STORE_KEYS.ticket(POOL, uuid7(3)) in services.store._entries)

    again = asyncio.create_task(services.acquire(who, 2, wait=timedelta(hours=1)))
    await services.release(holder, 1)

    assert (await again).grant_id == uuid7(2)
    await services.release(who, 2)
    assert (await later).grant_id == uuid7(3)


async def test_two_equal_calls_get_the_same_answer(services: Services) -> None:
    await services.pool(1)
    holder, who = await services.session(), await services.session()
    await services.acquire(holder, 1)
    calls = [asyncio.create_task(services.acquire(who, 2)) for _ in range(3)]
    await eventually(lambda: STORE_KEYS.ticket(POOL, uuid7(2)) in services.store._entries)
    await eventually(lambda: len(services.node._server.gate) == 3)
    await services.release(holder, 1)
    granted = await asyncio.gather(*calls)
    assert {(one.grant_id, one.fence) for one in granted} == {(uuid7(2), 2)}


async def test_a_call_waits_no_longer_than_it_says(services: Services) -> None:
    await services.pool(1)
    await services.acquire(await services.session(), 1)
    failure = await _refused_while_time_passes(services, wait=timedelta(milliseconds=100))

    assert (failure.code, failure.reason) == (EXHAUSTED, "DENIAL_REASON_NO_SEAT_FREE")


async def _refused_while_time_passes(services: Services, **fields: object) -> Refused:
    who = await services.session()
    call = asyncio.create_task(refused(services.acquire(who, 2, **fields)))  # type: ignore[arg-type]  # the test gives fields by name
    await eventually(lambda: STORE_KEYS.ticket(POOL, uuid7(2)) in services.store._entries)
    services.clock.advance(timedelta(seconds=1))
    return await call


async def test_an_unknown_pool_is_named(services: Services) -> None:
    failure = await refused(services.acquire(await services.session(), 1, pool="none"))

    assert (failure.code, failure.reason) == (NOT_FOUND, "DENIAL_REASON_POOL_NOT_FOUND")
    assert failure.resource == ("pool", "none")
    assert "pool list" in failure.message


async def test_more_seats_than_the_pool_has_are_refused(services: Services) -> None:
    await services.pool(2)
    failure = await refused(services.acquire(await services.session(), 1, seats=3))

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
    fields: dict[str, object], field: str, services: Services
) -> None:
    await services.pool(2)
    failure = await refused(services.acquire(await services.session(), 1, **fields))  # type: ignore[arg-type]  # the test gives fields by name

    assert failure.code is INVALID
    assert failure.fields == [field]
    assert (await services.look()).held == 0


@pytest.mark.parametrize(
    "labels", [{f"k{n}": "" for n in range(17)}, {"k": "v" * 64}, {"K": "v"}], ids=str
)
async def test_labels_that_are_none_are_refused_before_anything_is_taken(
    labels: dict[str, str], services: Services
) -> None:
    await services.pool(2)
    attributes = seat_pb2.Attributes(labels=labels)
    failure = await refused(
        services.acquire(await services.session(), 1, attributes=attributes)
    )
    assert failure.code is INVALID
    assert failure.fields == ["attributes.labels"]
    assert (await services.look()).held == 0


async def test_labels_are_shown_with_the_seat_and_with_the_place(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "seatkeeper.events")
    await services.pool(1)
    anna, bert = await services.session(), await services.session()
    one = seat_pb2.Attributes(labels={"team": "cv", "job": "7"})
    granted = await services.acquire(anna, 1, attributes=one)
    other = seat_pb2.Attributes(labels={"team": "nlp"})
    waiting = asyncio.ensure_future(services.acquire(bert, 2, attributes=other))
    async with asyncio.timeout(DEADLINE):
        while not (pool := await services.look()).tickets:
            pass
    assert dict(pool.grants[0].attributes.labels) == {"team": "cv", "job": "7"}
    assert dict(pool.tickets[0].attributes.labels) == {"team": "nlp"}
    said = jwt.decode(granted.token, options={"verify_signature": False})
    assert said["labels"] == {"team": "cv", "job": "7"}
    assert [r.__dict__["labels"] for r in caplog.records if r.getMessage() == "granted"] == [
        {"job": "7", "team": "cv"}
    ]
    # The same request, as another client would send it: the first one's labels stay.
    again = await services.acquire(anna, 1)
    assert again.fence == granted.fence
    await services.release(anna, 1)
    await waiting


async def test_quotes_of_a_request_in_errors_are_short(
    services: Services,
) -> None:
    """Trailing metadata has room for 8 KiB; above that the client would receive no reason."""
    await services.pool(1)
    failure = await refused(services.acquire(await services.session(), 1, project="p" * 20_000))
    assert (failure.code, failure.fields) == (INVALID, ["project"])
    failure = await refused(services.acquire(await services.session(), 2, pool="p" * 20_000))
    assert (failure.code, failure.fields) == (INVALID, ["pool"])


async def test_an_id_that_was_released_is_not_granted_again(services: Services) -> None:
    await services.pool(1)
    who = await services.session()
    await services.acquire(who, 1)
    await services.release(who, 1)
    failure = await refused(services.acquire(who, 1))

    assert (failure.code, failure.reason) == (ABORTED, "DENIAL_REASON_FINISHED")
    assert "new" in failure.message
    assert (await services.look()).held == 0


async def test_the_request_of_another_session_is_refused(services: Services) -> None:
    await services.pool(2)
    await services.acquire(await services.session(), 1)
    failure = await refused(services.acquire(await services.session(), 1))

    assert (failure.code, failure.reason) == (DENIED, "DENIAL_REASON_NOT_YOURS")


async def test_a_wrong_secret_takes_no_seat(services: Services) -> None:
    await services.pool(1)
    who = await services.session()
    failure = await refused(services.acquire(who.impostor, 1))

    assert failure.code is DENIED
    assert (await services.look()).held == 0


async def test_a_session_that_never_was_takes_no_seat(services: Services) -> None:
    await services.pool(1)
    stranger = services.stranger()
    failure = await refused(services.acquire(stranger, 1))

    assert failure.code is NOT_FOUND
    assert failure.resource == ("session", stranger.session_id)


@pytest.mark.parametrize("how_long", [TTL * 0.4, TTL * 2], ids=["unnoticed", "noticed"])
async def test_a_session_that_has_ended_takes_no_seat(
    how_long: timedelta, services: Services
) -> None:
    await services.pool(1)
    who = await services.session()
    await services.acquire(who, 1)
    await close(
        services, who
    )  # through another service, as far as the session's memory is concerned
    services.pass_time(how_long)
    failure = await refused(services.acquire(who, 2))

    assert failure.code is NOT_FOUND
    assert (await services.look()).held == 0


async def test_a_session_that_dies_while_it_waits_is_reported(services: Services) -> None:
    await services.pool(1)
    holder, waiter = await services.session(ttl=timedelta(hours=1)), await services.session()
    await services.acquire(holder, 1)
    call = asyncio.create_task(refused(services.acquire(waiter, 2)))
    await eventually(lambda: STORE_KEYS.ticket(POOL, uuid7(2)) in services.store._entries)
    services.pass_time(TTL * 1.1)
    failure = await call

    assert failure.code is NOT_FOUND
    assert failure.resource == ("session", waiter.session_id)


async def test_a_request_that_is_given_up_while_it_waits_is_reported(
    services: Services,
) -> None:
    await services.pool(1)
    await services.acquire(await services.session(), 1)
    who = await services.session()
    call = asyncio.create_task(refused(services.acquire(who, 2)))
    await eventually(lambda: STORE_KEYS.ticket(POOL, uuid7(2)) in services.store._entries)
    await services.release(who, 2)
    failure = await call

    assert failure.code in {ABORTED, EXHAUSTED}
    assert (await services.look()).queued == 0


async def test_a_store_that_is_down_is_unavailable_and_says_when_to_try_again(
    services: Services,
) -> None:
    who = await services.session()
    await services.store.close()
    failure = await refused(renew(services, who))

    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert failure.retry_after > timedelta(0)


# Renew ------------------------------------------------------------------------------------------


async def test_a_renewed_session_lives_for_another_ttl_and_its_tokens_too(
    services: Services,
) -> None:
    await services.pool(1)
    who = await services.session()
    granted = await services.acquire(who, 1)
    services.pass_time(TTL * 0.6)
    renewed = (await renew(services, who, ref_of(1), sequence=7)).renewed
    services.pass_time(TTL * 0.9)

    assert renewed.sequence == 7
    assert renewed.ttl.ToTimedelta() == TTL
    [refresh] = renewed.tokens
    assert refresh.grant == ref_of(1)
    old, new = services.verify(granted.token), services.verify(refresh.token)
    assert new.fence == old.fence
    assert timedelta(seconds=5) <= new.expires_at - old.expires_at <= timedelta(seconds=7)
    assert (await services.look()).held == 1


async def test_a_renewal_signs_no_token_for_what_is_not_held(services: Services) -> None:
    await services.pool(1)
    other = await services.session()
    await services.acquire(other, 1)
    who = await services.session()
    renewed = (await renew(services, who, ref_of(1), ref_of(2), ref_of(3, "none"))).renewed

    assert not renewed.tokens


async def test_a_session_that_was_not_renewed_in_time_is_gone_with_its_seats(
    services: Services,
) -> None:
    await services.pool(1)
    who = await services.session()
    await services.acquire(who, 1)
    services.pass_time(TTL)
    failure = await refused(renew(services, who))

    assert failure.code is NOT_FOUND
    assert failure.resource == ("session", who.session_id)
    assert (await services.look()).held == 0


async def test_a_renewal_with_a_wrong_secret_keeps_nothing_alive(services: Services) -> None:
    who = await services.session()
    services.pass_time(TTL * 0.9)
    failure = await refused(renew(services, who.impostor))
    services.pass_time(TTL * 0.2)

    assert failure.code is DENIED
    assert not exists(services, who)


async def test_a_renewal_with_a_malformed_reference_is_refused(services: Services) -> None:
    failure = await refused(
        renew(services, await services.session(), seat_service_pb2.GrantRef(pool="?"))
    )
    assert failure.fields == ["renew.tokens_for.pool"]


# Release and CloseSession ---------------------------------------------------------------------


async def test_a_released_seat_is_free_and_releasing_again_succeeds(services: Services) -> None:
    await services.pool(1)
    who = await services.session()
    await services.acquire(who, 1)

    assert (await services.release(who, 1)).grant_id == uuid7(1)
    assert (await services.look()).held == 0
    assert (await services.release(who, 1)).grant_id == uuid7(1)


async def test_releasing_what_never_was_succeeds(services: Services) -> None:
    await services.pool(1)
    assert (await services.release(await services.session(), 9)).grant_id == uuid7(9)


async def test_the_seat_of_another_session_is_not_released(services: Services) -> None:
    await services.pool(1)
    holder = await services.session()
    await services.acquire(holder, 1)
    failure = await refused(services.release(await services.session(), 1))

    assert (failure.code, failure.reason) == (DENIED, "DENIAL_REASON_NOT_YOURS")
    assert (await services.look()).held == 1
    assert (await refused(services.release(holder.impostor, 1))).code is DENIED


async def test_releasing_in_a_pool_that_does_not_exist_says_so(services: Services) -> None:
    failure = await refused(services.release(await services.session(), 1, "none"))
    assert (failure.code, failure.reason) == (NOT_FOUND, "DENIAL_REASON_POOL_NOT_FOUND")


async def test_closing_a_session_frees_all_it_holds_and_closing_again_succeeds(
    services: Services,
) -> None:
    await services.pool(3)
    who = await services.session()
    for number in (1, 2):
        await services.acquire(who, number)
    await close(services, who)

    assert (await services.look()).held == 0
    await close(services, who)
    await close(services, services.stranger())


async def test_a_wrong_secret_closes_nothing(services: Services) -> None:
    await services.pool(1)
    who = await services.session()
    await services.acquire(who, 1)
    failure = await refused(close(services, who.impostor))

    assert failure.code is DENIED
    assert (await services.look()).held == 1


async def test_a_crowd_of_calls_is_served_one_seat_each(services: Services) -> None:
    await services.pool(5)
    who = await services.session()

    async def cycle(number: int) -> int:
        granted: seat_pb2.Granted = await services.acquire(who, number)
        await services.release(who, number)
        return granted.fence

    fences = await asyncio.gather(*(cycle(number) for number in range(1, 101)))

    assert sorted(fences) == list(range(1, 101))
    assert (await services.look()).held == 0


async def test_the_acquire_message_of_these_tests_is_well_formed() -> None:
    """Else every refusal above might have another cause."""
    check_acquire(acquire_of(1))


# Too much ---------------------------------------------------------------------------------------


async def test_a_call_too_many_is_refused_with_a_retry_time(tmp_path: Path) -> None:
    async with running_services(tmp_path, calls_max=2) as services:
        await services.pool(seats=1)
        who, another = await services.session(), await services.session()
        await services.acquire(who, 1)
        waiting = [asyncio.create_task(services.acquire(another, number)) for number in (2, 3)]
        await eventually(lambda: len(services.node._seat_service._callers) == 2)
        failure = await refused(services.acquire(another, 4))
        assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert failure.reason == "DENIAL_REASON_OVERLOADED"
        assert failure.retry_after >= timedelta(seconds=1)
        # What they wait for is let in.
        await services.release(who, 1)
        for call in waiting:
            call.cancel()


async def test_who_waits_in_a_call_is_sent_elsewhere_by_a_node_that_stops(
    services: Services,
) -> None:
    await services.pool(seats=1)
    who, another = await services.session(), await services.session()
    await services.acquire(who, 1)
    waiting = asyncio.create_task(services.acquire(another, 2))
    await eventually(lambda: services.node._seat_service._callers)
    services.node._seat_service.go_away("the node is stopping", timedelta(seconds=1))
    failure = await refused(waiting)
    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert "send the same request to another node" in failure.message
    assert (await services.look()).queued == 1, "its place stays"
