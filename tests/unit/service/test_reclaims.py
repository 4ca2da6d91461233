"""Seats that are called back, over a socket: the event, what renewals say, tokens, and the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from tests.unit.kit import POOL, uuid7
from tests.unit.service.test_pool_service import create, spec, update
from tests.unit.services import (
    DEADLINE,
    STORE_KEYS,
    TTL,
    Command,
    Services,
    Stream,
    Who,
    acquire_of,
    open_of,
    ref_of,
    refused,
    running_services,
)

from seatkeeper.core.tokens import unverified_claims
from seatkeeper.server.pool.reclaim_timers import DRIFT
from seatkeeper.v1 import pool_service_pb2 as pools
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

NOTICE = timedelta(seconds=20)
WITHIN = NOTICE + TTL


def shared(**rule: float) -> pools.PoolSpec:
    wanted = spec(seats=2)
    for project in ("cv", "nlp"):
        wanted.policy.projects.add(project=project, guaranteed=1)
    wanted.policy.reclaim.notice.FromTimedelta(NOTICE)
    wanted.policy.reclaim.minimum_hold.FromTimedelta(timedelta(0))
    wanted.policy.reclaim.hourly = 10
    for name, value in rule.items():
        if name == "hourly":
            wanted.policy.reclaim.hourly = int(value)
        else:
            getattr(wanted.policy.reclaim, name).FromTimedelta(timedelta(seconds=value))
    return wanted


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    async with running_services(tmp_path) as services:
        await create(services, shared())
        yield services


async def heeding(services: Services, who: Who) -> Stream:
    """Open a session that heeds reclaims."""
    stream = Stream(services)
    await stream.send(Command(open=open_of(who, heeds_reclaim=True)))
    await event(stream, "opened")
    return stream


async def renewed(
    services: Services, who: Who, *numbers: int, tokens: bool = False
) -> pb.Renewed:
    refs = [ref_of(number) for number in numbers]
    renew = pb.Renew(reclaimable=refs, tokens_for=refs if tokens else [])
    request = pb.RenewRequest(credentials=who.credentials, renew=renew)
    return (await services.seats.Renew(request, timeout=DEADLINE)).renewed


async def event(stream: Stream, kind: str) -> pb.SessionEvent:
    """Return the next event of a kind; nodes may come and go as time is moved."""
    while True:
        found = await stream.next()
        if found.WhichOneof("event") == kind:
            return found
        assert found.WhichOneof("event") in {"ring", "queued", "renewed"}, found


async def pass_time(services: Services, by: timedelta) -> None:
    services.pass_time(by)
    loop = await services.node._core.seats.loop(POOL)
    assert loop is not None
    loop._wake_for_work()  # its timers are real ones


async def lend_and_ask(services: Services) -> tuple[Who, Stream, Stream]:
    """Have one hold both seats, and another ask for its own."""
    lender, asker = services.stranger(), services.stranger()
    stream, asking = await heeding(services, lender), await heeding(services, asker)
    for number in (1, 2):
        await stream.acquire(number, project="cv")
        assert (await event(stream, "granted")).granted.reclaimable
    await asking.acquire(9, project="nlp")
    return lender, stream, asking


async def test_a_holder_has_an_event_and_every_renewal_says_so(services: Services) -> None:
    lender, stream, _ = await lend_and_ask(services)
    said = (await event(stream, "reclaiming")).reclaiming
    assert (said.pool, said.grant_id, said.within.ToTimedelta()) == (POOL, uuid7(2), WITHIN)
    assert "nlp" in said.message

    found = {each.grant.grant_id: each for each in (await renewed(services, lender, 1, 2)).held}
    assert not found[uuid7(1)].HasField("reclaiming")
    assert found[uuid7(2)].reclaiming == said


async def test_nothing_is_taken_before_the_notice_is_over(services: Services) -> None:
    lender, stream, asking = await lend_and_ask(services)
    await event(stream, "reclaiming")
    step = WITHIN / 8
    for _ in range(7):
        await pass_time(services, step)
        assert len((await renewed(services, lender, 1, 2)).held) == 2
        await asking.send(Command(renew=pb.Renew()))
        await event(asking, "renewed")
    await pass_time(services, step)
    said = (await renewed(services, lender, 1, 2)).held
    assert len(said) == 2, "the clock of its holder may be a little slower"
    await pass_time(services, 2 * DRIFT * WITHIN)
    lost = (await event(stream, "lost")).lost
    assert lost.reason == seat_pb2.LOST_REASON_RECLAIMED
    assert (await event(asking, "granted")).granted.fence == 3
    held = (await renewed(services, lender, 1, 2)).held
    assert [each.grant for each in held] == [ref_of(1)]


async def test_no_token_outlives_it(services: Services) -> None:
    lender, stream, asking = await lend_and_ask(services)
    await event(stream, "reclaiming")
    called_at = services.clock.now()
    for _ in range(3):
        await pass_time(services, WITHIN / 4)
        await asking.send(Command(renew=pb.Renew()))
        await event(asking, "renewed")
        tokens = (await renewed(services, lender, 1, 2, tokens=True)).tokens
    ends = {each.grant.grant_id: unverified_claims(each.token)["exp"] for each in tokens}
    assert ends[uuid7(2)] <= (called_at + WITHIN / timedelta(milliseconds=1)) / 1000
    assert ends[uuid7(1)] > ends[uuid7(2)]


async def test_the_token_of_a_grant_that_may_be_called_back_lasts_no_longer_than_is_sure(
    services: Services,
) -> None:
    who = services.stranger()
    stream = await heeding(services, who)
    await stream.acquire(1, project="cv")
    first = (await event(stream, "granted")).granted
    await pass_time(services, TTL / 2)
    await renewed(services, who)
    await stream.acquire(1, project="cv")
    again = (await event(stream, "granted")).granted
    exp = unverified_claims(first.token)["exp"]
    assert unverified_claims(again.token)["exp"] == exp
    await pass_time(services, TTL / 2)
    await renewed(services, who)
    await stream.acquire(1, project="cv")
    assert not (await event(stream, "granted")).granted.token, "a renewal signs one"


async def test_it_is_withdrawn_when_the_asker_leaves(services: Services) -> None:
    lender, stream, asking = await lend_and_ask(services)
    await event(stream, "reclaiming")
    await asking.release(9)
    said = (await event(stream, "reclaiming")).reclaiming
    assert said.grant_id == uuid7(2)
    assert not said.HasField("within")
    held = (await renewed(services, lender, 2)).held
    assert not held[0].HasField("reclaiming")


async def test_a_client_that_does_not_know_it_is_never_a_victim(services: Services) -> None:
    who = await services.session()
    for number in (1, 2):
        assert not (await services.acquire(who, number, project="cv")).reclaimable
    asking = await heeding(services, services.stranger())
    await asking.acquire(9, project="nlp")
    await event(asking, "queued")
    loop = await services.node._core.seats.loop(POOL)
    assert loop is not None
    assert not loop.state.guard.reclaims.running


async def test_what_a_unary_call_takes_is_never_called_back(services: Services) -> None:
    """Who has a session's secret may not be who renews it."""
    who = services.stranger()
    await heeding(services, who)
    for number in (1, 2):
        assert not (await services.acquire(who, number, project="cv")).reclaimable
    asking = await heeding(services, services.stranger())
    await asking.acquire(9, project="nlp")
    await event(asking, "queued")
    loop = await services.node._core.seats.loop(POOL)
    assert loop is not None
    assert not loop.state.guard.reclaims.running


async def test_a_unary_call_that_waits_is_not_answered_by_an_event(services: Services) -> None:
    lender, stream, _ = await lend_and_ask(services)
    await event(stream, "reclaiming")
    again = await services.acquire(lender, 2, project="cv")
    assert again.fence == 2


async def test_an_older_node_refuses_such_a_pool(services: Services) -> None:
    entry = await services.store.get(STORE_KEYS.pool(POOL))
    assert entry is not None
    assert pools.PoolSpec.FromString(entry.value).format == 3


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"notice": 0.5}, "spec.policy.reclaim.notice"),
        ({"notice": 86_401}, "spec.policy.reclaim.notice"),
        ({"minimum_hold": -1}, "spec.policy.reclaim.minimum_hold"),
        ({"hourly": 0}, "spec.policy.reclaim.hourly"),
        ({"hourly": 1_001}, "spec.policy.reclaim.hourly"),
    ],
)
async def test_a_rule_that_makes_no_sense_is_refused(
    services: Services, rule: dict[str, float], field: str
) -> None:
    failure = await refused(update(services, shared(**rule)))
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert failure.fields == [field]
    assert (await services.look()).spec.policy.reclaim.hourly == 10


async def test_a_rule_without_a_guarantee_is_refused(services: Services) -> None:
    wanted = shared()
    for share in wanted.policy.projects:
        share.guaranteed = 0
    failure = await refused(update(services, wanted))
    assert failure.fields == ["spec.policy.reclaim"]


async def test_a_malformed_name_is_refused_and_the_session_lives(services: Services) -> None:
    who = services.stranger()
    stream = await heeding(services, who)
    bad = pb.GrantRef(pool=POOL, grant_id="x")
    await stream.send(Command(renew=pb.Renew(sequence=7, reclaimable=[bad])))
    assert (await event(stream, "denied")).denied.grant_id == "x"
    assert (await event(stream, "renewed")).renewed.sequence == 7
    request = pb.RenewRequest(credentials=who.credentials, renew=pb.Renew(reclaimable=[bad]))
    failure = await refused(services.seats.Renew(request, timeout=DEADLINE))
    assert failure.fields == ["renew.reclaimable.grant_id"]


async def test_another_sessions_grant_is_not_confirmed(services: Services) -> None:
    await lend_and_ask(services)
    stranger = await services.session()
    assert not (await renewed(services, stranger, 1, 2)).held


async def test_a_node_that_comes_later_measures_from_when_it_saw_it(
    services: Services,
) -> None:
    """The loop begun anew: no seat is taken sooner for that."""
    lender, stream, asking = await lend_and_ask(services)
    await event(stream, "reclaiming")
    await pass_time(services, WITHIN / 4)
    await renewed(services, lender)
    await asking.send(Command(renew=pb.Renew()))
    await event(asking, "renewed")
    loop = await services.node._core.seats.loop(POOL)
    assert loop is not None
    before = loop._reclaims.next_end()
    loop._reclaims._ends.clear()
    loop._changed(set())
    after = loop._reclaims.next_end()
    assert before is not None
    assert after == pytest.approx(before + (WITHIN / 4).total_seconds())


async def test_what_is_asked_for_again_by_a_second_connection_learns_of_it_too(
    services: Services,
) -> None:
    lender, stream, _ = await lend_and_ask(services)
    await event(stream, "reclaiming")
    second = Stream(services)
    await second.resume(lender)
    await second.send(Command(acquire=acquire_of(2, project="cv")))
    await event(second, "granted")
    assert (await event(second, "reclaiming")).reclaiming.grant_id == uuid7(2)
