"""A seat that is lost on the way publishes nothing, whenever it is lost and whichever part knows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from tests.agent.site import (
    OPTIONS,
    POOL,
    TIME_LIMIT_SECONDS,
    Site,
    build,
    eventually,
    is_idle,
    key_of,
    mute_claims,
    workers,
)
from tests.builder.models import relu, relu_chain

from seatkeeper.agent.claim import Claim
from seatkeeper.agent.main import Agent
from seatkeeper.client import AsyncGrant, SeatLost
from seatkeeper.core.ids import new_id
from seatkeeper.v1 import build_service_pb2 as pb

LONG = relu_chain(10_000)
"""Compiles for more than a minute, so whatever ends sooner was ended."""
Loss = Callable[[Site, AsyncGrant], Awaitable[None]]


async def sessions_end(site: Site, grant: AsyncGrant) -> None:
    await asyncio.to_thread(site.service.lose_sessions)


async def holder_releases(site: Site, grant: AsyncGrant) -> None:
    await grant.release()


async def released_and_given_anew(site: Site, grant: AsyncGrant) -> None:
    await grant.release()
    assert (await site.grant("bob")).fence > grant.fence


async def has_another_fence(site: Site, grant: AsyncGrant) -> None:
    site.rewrite(grant.grant_id, fence=grant.fence + 1, agent_id="", claim_id="")


async def claimed_by_another(site: Site, grant: AsyncGrant) -> None:
    site.rewrite(grant.grant_id, agent_id="agent-9", claim_id=new_id())


async def assert_nothing_is_left(site: Site, agent: Agent) -> None:
    await eventually(lambda: is_idle(agent))
    assert await site.published() == []
    assert agent.build_runner.store.keys() == []
    assert "agent-1" not in [agent_id for _, agent_id in site.claims]


LOSSES = [
    sessions_end,
    holder_releases,
    released_and_given_anew,
    has_another_fence,
    claimed_by_another,
]


@pytest.mark.parametrize("lose", LOSSES)
async def test_a_build_is_stopped_when_its_seat_is_lost(
    site: Site, agent: Agent, lose: Loss
) -> None:
    grant = await site.grant()
    call = build(agent, grant.token, LONG)
    await call.until(pb.BUILD_PHASE_CHECKING)
    (worker,) = workers(agent)

    await lose(site, grant)
    refusal = await call.refused()
    assert refusal.code is grpc.StatusCode.ABORTED, refusal
    assert not worker.is_running()
    await assert_nothing_is_left(site, agent)


@pytest.mark.parametrize("lose", LOSSES)
@pytest.mark.parametrize("reported", [True, False], ids=["reported", "not_reported"])
async def test_an_engine_that_was_finished_under_a_lost_seat_is_not_published(
    site: Site, agent: Agent, monkeypatch: pytest.MonkeyPatch, lose: Loss, *, reported: bool
) -> None:
    """The transaction finds out, whether or not the agent knows it before it tries."""
    grant = await site.grant()
    if not reported:
        mute_claims(agent, monkeypatch)
    compile_engine = agent.build_runner.compile

    async def compile_then_lose(*arguments: Any) -> object:
        engine = await compile_engine(*arguments)
        await lose(site, grant)
        return engine

    monkeypatch.setattr(agent.build_runner, "compile", compile_then_lose)
    refusal = await build(agent, grant.token, relu()).refused()
    assert refusal.code is grpc.StatusCode.ABORTED, refusal
    await assert_nothing_is_left(site, agent)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_seat_that_is_lost_while_the_engine_goes_to_the_disk(
    site: Site, agent: Agent, claims: list[Claim], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """An unpublished engine does not stay on the disk either."""
    grant = await site.grant()
    store, loop = agent.build_runner.store, asyncio.get_running_loop()
    publish = store.publish

    async def lose() -> None:
        await grant.release()
        await until_lost(claims[0])

    def publish_and_lose(*arguments: Any) -> None:
        if when == "before":
            asyncio.run_coroutine_threadsafe(lose(), loop).result(TIME_LIMIT_SECONDS)
        publish(*arguments)
        if when == "after":
            asyncio.run_coroutine_threadsafe(lose(), loop).result(TIME_LIMIT_SECONDS)

    monkeypatch.setattr(store, "publish", publish_and_lose)
    refusal = await build(agent, grant.token, relu()).refused()
    assert refusal.code is grpc.StatusCode.ABORTED, refusal
    await assert_nothing_is_left(site, agent)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_seat_that_is_lost_while_the_catalogue_is_written(
    site: Site, agent: Agent, claims: list[Claim], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """What the client receives, what is on the disk, and what is in the catalogue agree."""
    grant = await site.grant()
    publish = agent.client.engines.publish

    async def publish_and_lose(*arguments: Any, **named: Any) -> None:
        if when == "after":
            await publish(*arguments, **named)
        await asyncio.shield(asyncio.ensure_future(grant.release()))
        await asyncio.shield(asyncio.ensure_future(until_lost(claims[0])))
        if when == "before":
            await publish(*arguments, **named)

    monkeypatch.setattr(agent.client.engines, "publish", publish_and_lose)
    call = build(agent, grant.token, relu())
    if when == "before":
        assert (await call.refused()).code is grpc.StatusCode.ABORTED
        await assert_nothing_is_left(site, agent)
    else:
        key = key_of(await call.result())
        assert await site.published() == agent.build_runner.store.keys() == [key]


async def test_a_wait_for_another_build_ends_at_once_when_the_seat_is_lost(
    site: Site, agent: Agent
) -> None:
    alice, bob = [await site.grant(name) for name in ("alice", "bob")]
    first = build(agent, alice.token, LONG)
    await first.until(pb.BUILD_PHASE_CHECKING)
    second = build(agent, bob.token, LONG)
    await eventually(lambda: len(site.claims) == 2)

    await bob.release()
    assert (await second.refused()).code is grpc.StatusCode.ABORTED
    assert len(workers(agent)) == 1
    first.cancel()
    await eventually(lambda: is_idle(agent))


async def test_a_client_whose_session_is_lost_learns_that_the_seat_is(
    site: Site, agent: Agent
) -> None:
    lost: list[object] = []

    def lose(progress: pb.BuildProgress) -> None:
        if progress.phase == pb.BUILD_PHASE_CHECKING and not lost:
            lost.append(progress)
            site.service.lose_sessions()

    with pytest.raises(SeatLost):
        await site.client().build(LONG, OPTIONS, on_progress=lose)
    assert lost
    await assert_nothing_is_left(site, agent)
    assert site.service.held(POOL) == 0


async def until_lost(claim: Claim) -> None:
    """Wait until the agent knows, and has acted on it."""
    await eventually(claim.lost.done)
    for _ in range(5):
        await asyncio.sleep(0)
