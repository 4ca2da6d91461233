"""Tokens: with a grant unless the request says that it needs none, and from then on when asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.kit import POOL, a_grant
from tests.unit.service.test_seat_service import renew
from tests.unit.services import Services, Stream, Who, ref_of, running_services


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    async with running_services(tmp_path) as services:
        await services.pool(3)
        yield services


@pytest.fixture
async def who(services: Services) -> Who:
    return await services.session()


async def test_a_call_that_needs_none_gets_none_and_can_ask_for_one(
    services: Services, who: Who
) -> None:
    granted = await services.acquire(who, 1, without_token=True)
    renewed = (await renew(services, who, ref_of(1))).renewed

    assert granted.token == ""
    (refresh,) = renewed.tokens
    claims = services.verify(refresh.token, POOL)
    assert (claims.grant_id, claims.fence) == (granted.grant_id, granted.fence)
    assert (claims.holder, claims.project) == (granted.holder, granted.project)


async def test_on_a_stream_each_request_says_for_itself(services: Services) -> None:
    who = services.stranger()
    stream = Stream(services)
    await stream.open(who)
    await stream.acquire(1, without_token=True)
    first = (await stream.event("granted")).granted
    await stream.acquire(2)
    second = (await stream.event("granted")).granted
    await stream.acquire(1)  # the same request again, by a program that needs one now
    again = (await stream.event("granted")).granted

    assert (first.token, bool(second.token), bool(again.token)) == ("", True, True)
    assert (first.holder, first.project) == (again.holder, again.project)
    assert services.verify(again.token, POOL).fence == 1


async def test_a_token_is_signed_from_the_store_and_never_from_the_view_alone(
    services: Services, who: Who
) -> None:
    """Another node may have decided since: what a view still shows may be gone."""
    await services.acquire(who, 1)
    loop = await services.node._core.seats.loop(POOL)
    assert loop is not None
    loop.state.put_grant(a_grant(2, fence=2, session=who.session_id))
    renewed = (await renew(services, who, ref_of(1), ref_of(2))).renewed

    assert [refresh.grant for refresh in renewed.tokens] == [ref_of(1)]


async def test_more_grants_than_fit_a_transaction_get_their_tokens(
    services: Services, who: Who
) -> None:
    await services.pool(300, "wide")
    for number in range(1, 301):
        await services.acquire(who, number, pool="wide", without_token=True)
    refs = [ref_of(number, "wide") for number in range(1, 301)]
    renewed = (await renew(services, who, *refs)).renewed

    assert [refresh.grant for refresh in renewed.tokens] == refs
