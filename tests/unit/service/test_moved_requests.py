"""An administrator's moves of others' requests, over a socket."""

from __future__ import annotations

import logging

import grpc
import pytest
from tests.unit.kit import POOL, eventually, uuid7
from tests.unit.service.test_administered_requests import (
    INVALID,
    NOT_FOUND,
    PRECONDITION,
    explain,
    holding,
    said,
    waiting,
)
from tests.unit.services import DEADLINE, Services, refused

from seatkeeper.v1 import pool_service_pb2 as pb

WHY = "the release waits for it"


async def move(
    services: Services,
    number: int,
    *,
    before: int = 0,
    first: bool = False,
    last: bool = False,
    pool: str = POOL,
    reason: str = WHY,
    move_id: int = 700,
) -> pb.QueuedTicket:
    request = pb.MoveTicketRequest(
        pool=pool, grant_id=uuid7(number), reason=reason, move_id=uuid7(move_id)
    )
    if before:
        request.before = uuid7(before)
    if first:
        request.first = True
    if last:
        request.last = True
    return (await services.pools.MoveTicket(request, timeout=DEADLINE)).ticket


async def line(services: Services) -> list[str]:
    return [ticket.grant_id for ticket in (await services.look()).tickets]


async def test_a_request_is_moved_and_those_who_wait_are_notified(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    _, anna = await holding(services, 1)
    _, bert = await waiting(services, 2)
    _, cora = await waiting(services, 3)
    assert (await bert.event("queued")).queued.position == 1
    assert (await cora.event("queued")).queued.position == 2
    caplog.set_level(logging.INFO)
    ticket = await move(services, 3, before=2)
    assert (ticket.grant_id, ticket.position, ticket.moved.reason) == (uuid7(3), 1, WHY)
    assert (await cora.event("queued")).queued.position == 1
    assert (await bert.event("queued")).queued.position == 2
    audit = said(caplog, "ticket_moved")
    assert (audit["pool"], audit["grant_id"], audit["before"]) == (POOL, uuid7(3), uuid7(2))
    assert (audit["reason"], audit["holder"], audit["position"]) == (WHY, "anna@host", 1)
    assert "anonymous at" in str(audit["by"])
    shown = (await services.look()).tickets
    assert [each.grant_id for each in shown] == [uuid7(3), uuid7(2)]
    assert (shown[0].moved.reason, shown[1].HasField("moved")) == (WHY, False)
    await anna.release(1)
    assert (await cora.event("granted")).granted.grant_id == uuid7(3)


async def test_why_it_waits_says_that_it_was_moved(services: Services) -> None:
    await holding(services, 1)
    await waiting(services, 2)
    await waiting(services, 3)
    await move(services, 2, last=True)
    reason = await explain(services, 2)
    assert reason.rule == "moved"
    assert "1 that an administrator's move put before it" in reason.message
    assert reason.message.endswith(f"; an administrator moved it: {WHY}")
    assert [(each.rule, each.requests) for each in reason.ahead] == [("moved", 1)]
    assert (await explain(services, 3)).rule == "seats", "of one that was not moved"


async def test_the_same_move_sent_again_moves_it_no_further(services: Services) -> None:
    await holding(services, 1)
    await waiting(services, 2)
    await waiting(services, 3)
    await move(services, 2, last=True)
    await waiting(services, 4)
    await move(services, 2, last=True)
    assert await line(services) == [uuid7(3), uuid7(2), uuid7(4)]
    await move(services, 2, last=True, move_id=701)
    assert await line(services) == [uuid7(3), uuid7(4), uuid7(2)]


async def test_what_makes_no_sense_is_refused_and_changes_nothing(services: Services) -> None:
    await holding(services, 1)
    await waiting(services, 2)
    await waiting(services, 3, priority=4)
    before = await line(services)
    failure = await refused(move(services, 1, first=True))
    assert failure.code is PRECONDITION
    assert "`seatkeeper grant show`" in failure.message
    failure = await refused(move(services, 2, before=3))
    assert failure.code is PRECONDITION
    assert "it has priority 0, and request" in failure.message
    failure = await refused(move(services, 2, before=1))
    assert failure.code is PRECONDITION
    assert "no place before it" in failure.message
    assert (await refused(move(services, 2, before=9))).code is PRECONDITION
    failure = await refused(move(services, 9, first=True))
    assert (failure.code, failure.resource) == (NOT_FOUND, ("request", uuid7(9)))
    assert (await refused(move(services, 2, first=True, pool="absent"))).code is NOT_FOUND
    assert await line(services) == before


@pytest.mark.parametrize("reason", ["", " ", "x" * 201, "a\x1b[2Jb"])
async def test_without_a_proper_reason_nothing_is_done(services: Services, reason: str) -> None:
    await holding(services, 1)
    await waiting(services, 2)
    failure = await refused(move(services, 2, first=True, reason=reason))
    assert (failure.code, failure.fields) == (INVALID, ["reason"])


async def test_a_place_and_an_id_are_required(services: Services) -> None:
    await holding(services, 1)
    await waiting(services, 2)
    failure = await refused(move(services, 2))
    assert (failure.code, failure.fields) == (INVALID, ["to"])
    failure = await refused(move(services, 2, before=2))
    assert (failure.code, failure.fields) == (INVALID, ["before"])
    request = pb.MoveTicketRequest(pool=POOL, grant_id=uuid7(2), reason=WHY, first=True)
    failure = await refused(services.pools.MoveTicket(request, timeout=DEADLINE))
    assert (failure.code, failure.fields) == (INVALID, ["move_id"])
    unset = pb.MoveTicketRequest(
        pool=POOL, grant_id=uuid7(2), reason=WHY, first=False, move_id=uuid7(5)
    )
    failure = await refused(services.pools.MoveTicket(unset, timeout=DEADLINE))
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_one_that_was_granted_meanwhile_keeps_its_seats(services: Services) -> None:
    _, anna = await holding(services, 1)
    _, bert = await waiting(services, 2)
    await move(services, 2, first=True)
    await anna.release(1)
    assert (await bert.event("granted")).granted.grant_id == uuid7(2)

    async def is_granted() -> bool:
        return [grant.grant_id for grant in (await services.look()).grants] == [uuid7(2)]

    await eventually(is_granted)
    assert (await refused(move(services, 2, last=True))).code is PRECONDITION
