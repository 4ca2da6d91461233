"""What an administrator sees and does of others' requests, over a socket."""

from __future__ import annotations

import logging
from datetime import timedelta

import grpc
import pytest
from tests.unit.kit import POOL, eventually, uuid7
from tests.unit.service.test_engine_service import a_holder, an_agent
from tests.unit.services import (
    DEADLINE,
    Command,
    Services,
    Stream,
    Who,
    acquire_of,
    ref_of,
    refused,
)

from seatkeeper.v1 import pool_service_pb2 as pb
from seatkeeper.v1 import seat_pb2, seat_service_pb2

NOT_FOUND = grpc.StatusCode.NOT_FOUND
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
INVALID = grpc.StatusCode.INVALID_ARGUMENT
WHY = "the licence server is moved"
WAIT = timedelta(minutes=5)


async def explain(services: Services, number: int, pool: str = POOL) -> pb.WaitReason:
    request = pb.ExplainTicketRequest(pool=pool, grant_id=uuid7(number))
    return (await services.pools.ExplainTicket(request, timeout=DEADLINE)).reason


async def remove(
    services: Services, number: int, *, pool: str = POOL, reason: str = WHY
) -> pb.QueuedTicket:
    request = pb.RemoveTicketRequest(pool=pool, grant_id=uuid7(number), reason=reason)
    return (await services.pools.RemoveTicket(request, timeout=DEADLINE)).ticket


async def free(
    services: Services,
    number: int,
    *,
    pool: str = POOL,
    reason: str = WHY,
    now: bool = True,
    fence: int = 0,
) -> pb.HeldGrant:
    request = pb.ReleaseGrantRequest(
        pool=pool, grant_id=uuid7(number), reason=reason, now=now, fence=fence
    )
    return (await services.pools.ReleaseGrant(request, timeout=DEADLINE)).grant


async def holding(services: Services, *numbers: int, seats: int = 1) -> tuple[Who, Stream]:
    """Open a stream whose session holds seats under these numbers."""
    await services.pool(seats)
    who, stream = services.stranger(), Stream(services)
    await stream.open(who)
    for number in numbers:
        await stream.acquire(number)
        await stream.event("granted")
    return who, stream


async def waiting(services: Services, number: int, **fields: object) -> tuple[Who, Stream]:
    who, stream = services.stranger(), Stream(services)
    await stream.open(who)
    await stream.acquire(number, wait=WAIT, **fields)
    await eventually(lambda: _is_queued(services, number))
    return who, stream


async def _is_queued(services: Services, number: int) -> bool:
    pool = await services.look()
    return any(each.grant_id == uuid7(number) for each in pool.tickets)


def said(caplog: pytest.LogCaptureFixture, event: str) -> dict[str, object]:
    (record,) = (each for each in caplog.records if each.getMessage() == event)
    return record.__dict__


# Why it waits ----------------------------------------------------------------------------------


async def test_why_a_request_waits_is_said_by_rule_and_in_words(services: Services) -> None:
    await holding(services, 1)
    await waiting(services, 2)
    await waiting(services, 3, seats=1)
    await waiting(services, 4, priority=3)
    reason = await explain(services, 3)
    assert reason.rule == "priority"
    assert "1 of a higher priority, 1 that came before it" in reason.message
    assert [(each.rule, each.requests, each.seats) for each in reason.ahead] == [
        ("priority", 1, 1),
        ("arrival", 1, 1),
    ]
    assert (await explain(services, 4)).rule == "seats"


async def test_what_does_not_wait_has_no_reason(services: Services) -> None:
    await holding(services, 1)
    failure = await refused(explain(services, 1))
    assert failure.code is PRECONDITION
    assert "holds seats" in failure.message
    failure = await refused(explain(services, 9))
    assert (failure.code, failure.resource) == (NOT_FOUND, ("request", uuid7(9)))
    failure = await refused(explain(services, 1, pool="absent"))
    assert (failure.code, failure.resource) == (NOT_FOUND, ("pool", "absent"))
    request = pb.ExplainTicketRequest(pool=POOL, grant_id="no-id")
    failure = await refused(services.pools.ExplainTicket(request, timeout=DEADLINE))
    assert (failure.code, failure.fields) == (INVALID, ["grant_id"])


# Taken out of the queue ------------------------------------------------------------------------


async def test_one_taken_out_is_notified_and_its_id_is_completed(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    _, anna = await holding(services, 1)
    _, bert = await waiting(services, 2)
    caplog.set_level(logging.INFO)
    ticket = await remove(services, 2)
    assert (ticket.grant_id, ticket.holder, ticket.seats) == (uuid7(2), "anna@host", 1)
    denied = (await bert.event("denied")).denied
    assert (denied.grant_id, denied.reason) == (uuid7(2), seat_pb2.DENIAL_REASON_REMOVED)
    assert denied.message == f"an administrator took the request out of the queue: {WHY}"
    assert not (await services.look()).tickets
    await bert.acquire(2, wait=WAIT)  # a late duplicate
    assert (await bert.event("denied")).denied.reason == seat_pb2.DENIAL_REASON_REMOVED
    await bert.acquire(3, wait=WAIT)  # the session lives on, and may ask anew
    await anna.release(1)
    assert (await bert.event("granted")).granted.grant_id == uuid7(3)
    audit = said(caplog, "ticket_removed")
    assert (audit["pool"], audit["grant_id"], audit["reason"]) == (POOL, uuid7(2), WHY)
    assert audit["holder"] == "anna@host"
    assert "anonymous at" in str(audit["by"])


async def test_a_unary_call_that_waits_is_answered(services: Services) -> None:
    await holding(services, 1)
    who = await services.session()
    request = seat_service_pb2.AcquireRequest(
        credentials=who.credentials, acquire=acquire_of(2, wait=WAIT)
    )
    call = services.seats.Acquire(request, timeout=DEADLINE)
    await eventually(lambda: _is_queued(services, 2))
    await remove(services, 2)
    failure = await refused(call)
    assert failure.code is grpc.StatusCode.ABORTED
    assert failure.reason == "DENIAL_REASON_REMOVED"
    assert WHY in failure.message


async def test_those_behind_it_are_served_at_once(services: Services) -> None:
    await holding(services, 1, seats=2)
    await waiting(services, 2, seats=2)
    _, cora = await waiting(services, 3)
    await remove(services, 2)
    assert (await cora.event("granted")).granted.grant_id == uuid7(3)


async def test_what_does_not_wait_is_not_taken_out(services: Services) -> None:
    await holding(services, 1)
    failure = await refused(remove(services, 1))
    assert failure.code is PRECONDITION
    assert [grant.grant_id for grant in (await services.look()).grants] == [uuid7(1)]
    assert (await refused(remove(services, 9))).code is NOT_FOUND
    assert (await refused(remove(services, 1, pool="absent"))).code is NOT_FOUND


@pytest.mark.parametrize("reason", ["", " ", "x" * 201, "a\x1b[2Jb"])
async def test_without_a_proper_reason_nothing_is_done(services: Services, reason: str) -> None:
    await holding(services, 1)
    await waiting(services, 2)
    for call in (remove(services, 2, reason=reason), free(services, 1, reason=reason)):
        failure = await refused(call)
        assert (failure.code, failure.fields) == (INVALID, ["reason"])
    pool = await services.look()
    assert (pool.held, pool.queued) == (1, 1)


# Freed by force --------------------------------------------------------------------------------


async def test_a_holder_is_notified_and_its_other_grants_live_on(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    who, anna = await holding(services, 1, 2, seats=2)
    _, bert = await waiting(services, 3)
    caplog.set_level(logging.INFO)
    grant = await free(services, 1)
    assert (grant.grant_id, grant.holder, grant.fence) == (uuid7(1), "anna@host", 1)
    lost = (await anna.event("lost")).lost
    assert (lost.grant_id, lost.reason) == (uuid7(1), seat_pb2.LOST_REASON_FORCED)
    assert lost.message == f"an administrator took the seats back: {WHY}"
    assert (await bert.event("granted")).granted.fence == 3
    renew = seat_service_pb2.Renew(sequence=1, tokens_for=[ref_of(1), ref_of(2)])
    await anna.send(Command(renew=renew))
    renewed = (await anna.event("renewed")).renewed
    assert [each.grant.grant_id for each in renewed.tokens] == [uuid7(2)], "no token any more"
    assert {each.grant_id for each in (await services.look()).grants} == {uuid7(2), uuid7(3)}
    failure = await refused(services.acquire(who, 1))
    assert failure.reason == "DENIAL_REASON_REMOVED"
    audit = said(caplog, "grant_released")
    assert (audit["grant_id"], audit["fence"], audit["reason"]) == (uuid7(1), 1, WHY)
    assert said(caplog, "reclaimed")["grant_id"] == uuid7(1)


async def test_nothing_is_published_under_a_grant_that_was_freed(services: Services) -> None:
    agent = await an_agent(services)
    _, token = await a_holder(services)
    claim = await agent.claim(token)
    await free(services, 1)
    failure = await refused(agent.publish(agent.manifest(1)))
    assert failure.code is grpc.StatusCode.ABORTED
    assert await claim.end()


async def test_a_holder_that_was_away_learns_it_when_it_asks_again(services: Services) -> None:
    who, anna = await holding(services, 1)
    await anna.break_off()
    await free(services, 1)
    again = Stream(services)
    await again.resume(who)
    await again.acquire(1)
    assert (await again.event("denied")).denied.reason == seat_pb2.DENIAL_REASON_REMOVED
    await again.acquire(2)
    assert (await again.event("granted")).granted.fence == 2


async def test_what_holds_no_seat_is_not_freed(services: Services) -> None:
    await holding(services, 1)
    await waiting(services, 2)
    failure = await refused(free(services, 2))
    assert failure.code is PRECONDITION
    assert "`seatkeeper queue remove`" in failure.message
    failure = await refused(free(services, 1, fence=7))
    assert failure.code is PRECONDITION
    assert "has fence 1, not 7" in failure.message
    failure = await refused(free(services, 9))
    assert (failure.code, failure.resource) == (NOT_FOUND, ("request", uuid7(9)))
    assert (await refused(free(services, 1, pool="absent"))).code is NOT_FOUND
    pool = await services.look()
    assert (pool.held, pool.queued) == (1, 1)


async def test_without_now_it_is_refused_and_says_what_there_is(services: Services) -> None:
    await holding(services, 1)
    failure = await refused(free(services, 1, now=False))
    assert (failure.code, failure.fields) == (INVALID, ["now"])
    assert "seatkeeper grant revoke" in failure.message
    assert (await services.look()).held == 1
