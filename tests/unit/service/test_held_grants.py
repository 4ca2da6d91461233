"""Grants that administrators call back or extend, and those held for too long, over a socket."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from tests.unit.kit import POOL, eventually, uuid7
from tests.unit.service.test_administered_requests import said
from tests.unit.service.test_pool_service import create, spec, update
from tests.unit.service.test_reclaims import event, heeding, pass_time, renewed
from tests.unit.services import (
    DEADLINE,
    STORE_KEYS,
    TTL,
    Command,
    Services,
    Stream,
    Who,
    ref_of,
    refused,
    running_services,
)

from seatkeeper.core.tokens import unverified_claims
from seatkeeper.server.pool.reclaim_timers import DRIFT
from seatkeeper.v1 import pool_service_pb2 as pb
from seatkeeper.v1 import seat_pb2, seat_service_pb2

NOTICE = timedelta(seconds=20)
WITHIN = NOTICE + TTL
WHY = "for the release"
HOUR = timedelta(hours=1)
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    async with running_services(tmp_path) as services:
        await create(services, spec(seats=2))
        yield services


async def bounded(services: Services, **rule: timedelta) -> None:
    """Let the seats of the pool be held for a while only."""
    wanted = spec(seats=2)
    rule = {"longest": HOUR, "warning": NOTICE} | rule
    for name, length in rule.items():
        getattr(wanted.policy.hold, name).FromTimedelta(length)
    await update(services, wanted)


async def revoke(
    services: Services, number: int = 1, *, reason: str = WHY, notice: timedelta = NOTICE
) -> pb.HeldGrant:
    request = pb.RevokeGrantRequest(pool=POOL, grant_id=uuid7(number), reason=reason)
    request.notice.FromTimedelta(notice)
    return (await services.pools.RevokeGrant(request, timeout=DEADLINE)).grant


async def withdraw(services: Services, number: int = 1) -> pb.HeldGrant:
    request = pb.WithdrawRevokeRequest(pool=POOL, grant_id=uuid7(number), reason=WHY)
    return (await services.pools.WithdrawRevoke(request, timeout=DEADLINE)).grant


async def extend(
    services: Services, extended: timedelta, seen: timedelta = timedelta(0), number: int = 1
) -> pb.HeldGrant:
    request = pb.ExtendGrantRequest(pool=POOL, grant_id=uuid7(number), reason=WHY)
    request.extended.FromTimedelta(extended)
    request.seen.FromTimedelta(seen)
    return (await services.pools.ExtendGrant(request, timeout=DEADLINE)).grant


async def holder(services: Services, number: int = 1) -> tuple[Who, Stream]:
    who = services.stranger()
    stream = await heeding(services, who)
    await stream.acquire(number)
    await event(stream, "granted")
    return who, stream


async def shown(services: Services, number: int = 1) -> pb.HeldGrant:
    (found,) = (
        each for each in (await services.look()).grants if each.grant_id == uuid7(number)
    )
    return found


async def is_running(services: Services, number: int = 1) -> bool:
    loop = await services.node._core.seats.loop(POOL)
    assert loop is not None
    return uuid7(number) in loop.state.guard.reclaims.running


async def test_a_revoke_begins_when_its_holder_has_said_that_it_knows(
    services: Services,
) -> None:
    who, stream = await holder(services)
    answer = await revoke(services)
    assert answer.hold.revoke.is_unanswered
    notified = (await event(stream, "reclaiming")).reclaiming
    assert notified.within.ToTimedelta() == WITHIN
    assert WHY in notified.message
    for _ in range(4):  # however long it takes: nothing runs yet
        await pass_time(services, TTL / 2)
        renew = seat_service_pb2.Renew(tokens_for=[ref_of(1)])
        request = seat_service_pb2.RenewRequest(credentials=who.credentials, renew=renew)
        await services.seats.Renew(request, timeout=DEADLINE)
        assert not await is_running(services)
        assert (await shown(services)).hold.revoke.is_unanswered

    (held,) = (await renewed(services, who, 1)).held
    assert held.reclaiming.within.ToTimedelta() == WITHIN
    await eventually(lambda: is_running(services))
    assert (await event(stream, "reclaiming")).reclaiming == notified, "it begins"
    assert not (await shown(services)).hold.revoke.is_unanswered
    for _ in range(4):
        await pass_time(services, WITHIN / 4)
        assert len((await renewed(services, who, 1)).held) == 1
    await pass_time(services, 2 * DRIFT * WITHIN)
    lost = (await event(stream, "lost")).lost
    assert lost.reason == seat_pb2.LOST_REASON_RECLAIMED
    assert WHY in lost.message


async def test_where_seats_may_be_called_back_anyway_the_notice_begins_at_once(
    services: Services,
) -> None:
    await bounded(services)
    await holder(services)
    await revoke(services)
    await eventually(lambda: is_running(services))


async def test_no_token_outlives_a_revoke(services: Services) -> None:
    who, stream = await holder(services)
    await revoke(services)
    await event(stream, "reclaiming")
    await renewed(services, who, 1)
    await eventually(lambda: is_running(services))
    called_at = services.clock.now()
    for _ in range(3):
        await pass_time(services, WITHIN / 4)
        (token,) = (await renewed(services, who, 1, tokens=True)).tokens
    ends = unverified_claims(token.token)["exp"]
    assert ends <= (called_at + WITHIN / timedelta(milliseconds=1)) / 1000


async def test_it_is_withdrawn(services: Services, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    who, stream = await holder(services)
    await revoke(services)
    await event(stream, "reclaiming")
    await renewed(services, who, 1)
    await eventually(lambda: is_running(services))
    assert not (await withdraw(services)).hold.HasField("revoke")
    while (await event(stream, "reclaiming")).reclaiming.HasField("within"):
        pass  # what was said before
    (held,) = (await renewed(services, who, 1)).held
    assert not held.HasField("reclaiming")
    assert said(caplog, "grant_revoked")["reason"] == WHY
    assert said(caplog, "grant_revoked")["notice_s"] == NOTICE.total_seconds()
    assert said(caplog, "revoke_withdrawn")["grant_id"] == uuid7(1)
    await withdraw(services)


async def test_a_client_that_does_not_know_it_is_not_called_back(services: Services) -> None:
    who = await services.session()
    await services.acquire(who, 1)
    failure = await refused(revoke(services))
    assert failure.code is PRECONDITION
    assert "--now" in failure.message
    assert not (await shown(services)).hold.HasField("revoke")


async def test_what_a_unary_call_took_is_not_taken_without_an_answer(
    services: Services,
) -> None:
    """Who has a session's secret may not be who renews it."""
    who = services.stranger()
    stream = await heeding(services, who)
    await services.acquire(who, 1)
    await revoke(services)
    for _ in range(4):
        await pass_time(services, TTL / 2)
        await stream.send(Command(renew=seat_service_pb2.Renew()))
        await event(stream, "renewed")
    assert not await is_running(services)
    assert (await shown(services)).hold.revoke.is_unanswered


async def test_it_is_said_again_to_a_second_connection(services: Services) -> None:
    who, stream = await holder(services)
    await revoke(services)
    await event(stream, "reclaiming")
    second = Stream(services)
    await second.resume(who)
    await second.acquire(1)
    await event(second, "granted")
    assert (await event(second, "reclaiming")).reclaiming.grant_id == uuid7(1)


async def test_another_revoke_is_refused_and_the_same_is_not(services: Services) -> None:
    await holder(services)
    await revoke(services)
    await revoke(services)
    assert (await refused(revoke(services, notice=2 * NOTICE))).code is PRECONDITION
    assert (await refused(revoke(services, 7))).code is grpc.StatusCode.NOT_FOUND
    for bad in (timedelta(0), timedelta(days=2)):
        assert (await refused(revoke(services, notice=bad))).fields == ["notice"]
    assert (await refused(revoke(services, reason=" "))).fields == ["reason"]


async def test_what_is_held_for_too_long_is_called_back(services: Services) -> None:
    await bounded(services)
    who = services.stranger()
    stream = await heeding(services, who)
    await stream.acquire(1)
    granted = (await event(stream, "granted")).granted
    assert granted.reclaimable
    assert granted.longest_hold.ToTimedelta() == HOUR
    found = await shown(services)
    ends = found.hold.ends_at.ToMilliseconds() - found.granted_at.ToMilliseconds()
    assert timedelta(milliseconds=ends) == HOUR

    step = TTL / 2
    for _ in range(int((HOUR - WITHIN) / step) - 1):
        services.pass_time(step)
        await renewed(services, who, 1)
    assert not await is_running(services)
    await pass_time(services, step)
    await eventually(lambda: is_running(services))
    notified = (await event(stream, "reclaiming")).reclaiming
    assert "1 h 0 min" in notified.message

    await extend(services, HOUR)
    await eventually(lambda: _is_over(services))
    assert (await shown(services)).hold.extended.ToTimedelta() == HOUR


async def _is_over(services: Services) -> bool:
    return not await is_running(services)


async def test_an_extension_says_what_it_saw(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await bounded(services)
    await holder(services)
    assert (await extend(services, HOUR)).hold.extended.ToTimedelta() == HOUR
    await extend(services, HOUR)
    failure = await refused(extend(services, 3 * HOUR))
    assert failure.code is PRECONDITION
    await extend(services, 3 * HOUR, seen=HOUR)
    events = [each for each in caplog.records if each.getMessage() == "grant_extended"]
    assert [each.__dict__["extended_s"] for each in events] == [3600, 3600, 10_800]
    bad = await refused(extend(services, timedelta(days=91)))
    assert (bad.code, bad.fields) == (INVALID, ["extended"])


async def test_a_pool_without_a_longest_hold_extends_none(services: Services) -> None:
    await holder(services)
    failure = await refused(extend(services, HOUR))
    assert failure.code is PRECONDITION
    assert "no longest hold" in failure.message


async def test_an_idle_holder_is_called_back_and_keeps_its_seats_when_it_works_again(
    services: Services,
) -> None:
    await bounded(services, idle=timedelta(minutes=10))
    who, stream = await holder(services)
    await holder(services, 2)

    async def report(idle_for: timedelta) -> None:
        activity = seat_service_pb2.GrantActivity(grant=ref_of(1))
        activity.idle_for.FromTimedelta(idle_for)
        renew = seat_service_pb2.Renew(reclaimable=[ref_of(1)], activity=[activity])
        request = seat_service_pb2.RenewRequest(credentials=who.credentials, renew=renew)
        await services.seats.Renew(request, timeout=DEADLINE)

    await report(timedelta(minutes=9))
    assert not (await shown(services)).hold.HasField("idle_for")
    await report(timedelta(minutes=10))
    await eventually(lambda: is_running(services))
    assert "nothing was done" in (await event(stream, "reclaiming")).reclaiming.message
    assert not await is_running(services, 2), "it reports nothing"
    await report(timedelta(0))
    await eventually(lambda: _is_over(services))
    assert not (await event(stream, "reclaiming")).reclaiming.HasField("within")


async def test_an_older_node_refuses_a_pool_with_such_a_rule(services: Services) -> None:
    await bounded(services)
    entry = await services.store.get(STORE_KEYS.pool(POOL))
    assert entry is not None
    assert pb.PoolSpec.FromString(entry.value).format == 4
    await update(services, spec(seats=2))
    wanted = spec(seats=2)
    wanted.policy.SetInParent()
    await update(services, wanted)
    entry = await services.store.get(STORE_KEYS.pool(POOL))
    assert entry is not None
    assert pb.PoolSpec.FromString(entry.value).format == 0


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"longest": timedelta(seconds=1)}, "spec.policy.hold.longest"),
        ({"longest": timedelta(days=91)}, "spec.policy.hold.longest"),
        ({"warning": timedelta(0)}, "spec.policy.hold.warning"),
        ({"warning": HOUR}, "spec.policy.hold.warning"),
        ({"idle": timedelta(0)}, "spec.policy.hold.idle"),
    ],
)
async def test_a_rule_that_makes_no_sense_is_refused(
    services: Services, rule: dict[str, timedelta], field: str
) -> None:
    failure = await refused(bounded(services, **rule))
    assert failure.code is INVALID
    assert failure.fields == [field]


async def test_a_rule_without_a_length_or_a_warning_is_refused(services: Services) -> None:
    wanted = spec(seats=2)
    wanted.policy.hold.longest.FromTimedelta(HOUR)
    assert (await refused(update(services, wanted))).fields == ["spec.policy.hold.warning"]
    wanted.policy.hold.warning.FromTimedelta(NOTICE)
    wanted.policy.hold.ClearField("longest")
    assert (await refused(update(services, wanted))).fields == ["spec.policy.hold"]
