"""A build outlives the service's absence, and the agent's own session."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from tests.agent.site import (
    OPTIONS,
    TIME_LIMIT_SECONDS,
    Site,
    build,
    eventually,
    is_idle,
    key_of,
    workers,
)
from tests.builder.models import relu, relu_chain

from seatkeeper.agent.claim import Claim
from seatkeeper.agent.main import Agent
from seatkeeper.core.errors import ServiceUnavailable
from seatkeeper.core.ids import new_id
from seatkeeper.server.tokens.signer import TokenSigner
from seatkeeper.v1 import build_service_pb2 as pb

LONG = relu_chain(10_000)
"""Compiles for more than a minute, so whatever ends sooner was ended."""


class Gate:
    """Holds every build of an agent after it was compiled."""

    def __init__(self, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()
        compile_engine = agent.build_runner.compile

        async def compile_and_wait(*arguments: Any) -> object:
            engine = await compile_engine(*arguments)
            self.reached.set()
            await self.open.wait()
            return engine

        monkeypatch.setattr(agent.build_runner, "compile", compile_and_wait)


async def away(site: Site) -> None:
    await asyncio.to_thread(site.service.go_away)


async def back(site: Site) -> None:
    await asyncio.to_thread(site.service.come_back)


async def test_a_build_outlives_an_absence_of_the_service(
    retrying_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = retrying_site
    agent = await site.start_agent()
    gate = Gate(agent, monkeypatch)
    grant = await site.grant()
    call = build(agent, grant.token, relu())
    await eventually(lambda: workers(agent))
    await away(site)
    await gate.reached.wait()
    await back(site)
    gate.open.set()
    done = await call.result()
    assert await site.published() == [key_of(done)]
    assert site.claims == []


async def test_an_engine_that_no_node_takes_is_offered_again(
    site: Site, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of work are not thrown away because the nodes were away at the end."""
    grant = await site.grant()
    publish = agent.client.engines.publish
    tries: list[object] = []

    async def publish_in_vain_at_first(*arguments: Any, **named: Any) -> None:
        tries.append(arguments)
        if len(tries) == 1:
            raise ServiceUnavailable("no node answered")
        await publish(*arguments, **named)

    monkeypatch.setattr(agent.client.engines, "publish", publish_in_vain_at_first)
    done = await build(agent, grant.token, relu()).result()
    assert len(tries) == 2
    assert await site.published() == [key_of(done)]


async def test_a_client_may_give_up_while_no_node_answers(
    retrying_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is unknown whether it was published, so the engine stays where it is."""
    site = retrying_site
    agent = await site.start_agent()
    grant = await site.grant()
    tries: list[object] = []

    async def publish_in_vain(*arguments: object, **named: object) -> None:
        tries.append(arguments)
        raise ServiceUnavailable("no node answered")

    monkeypatch.setattr(agent.client.engines, "publish", publish_in_vain)
    call = build(agent, grant.token, relu())
    await eventually(lambda: tries)
    call.cancel()
    await eventually(lambda: is_idle(agent) and not site.claims)
    assert len(agent.build_runner.store.keys()) == 1


async def test_an_engine_whose_publishing_was_not_answered_is_published(
    site: Site, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was; the answer was lost, then the seat. The catalogue knows."""
    grant = await site.grant()
    publish = agent.client.engines.publish
    tries: list[object] = []

    async def publish_unheard(*arguments: Any, **named: Any) -> None:
        tries.append(arguments)
        await publish(*arguments, **named)
        await grant.release()
        raise ServiceUnavailable("the answer was lost")

    monkeypatch.setattr(agent.client.engines, "publish", publish_unheard)
    done = await build(agent, grant.token, relu()).result()
    assert tries
    assert await site.published() == agent.build_runner.store.keys() == [key_of(done)]


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_publication_of_unknown_outcome_is_not_reported_as_failed(
    site: Site,
    agent: Agent,
    claims: list[Claim],
    monkeypatch: pytest.MonkeyPatch,
    is_known: bool,
) -> None:
    """The agent learns of the seat's end while the answer to its publishing is still on the way."""
    grant = await site.grant()
    engines = agent.client.engines
    publish = engines.publish

    async def publish_unheard(*arguments: Any, **named: Any) -> None:
        await publish(*arguments, **named)
        await grant.release()
        await asyncio.wait({claims[0].lost})
        for _ in range(10):  # What waits for the same has its turn before us.
            await asyncio.sleep(0)
        if not is_known:
            monkeypatch.setattr(engines, "get", no_answer)
        raise ServiceUnavailable("the answer was lost")

    async def no_answer(key: str) -> None:
        raise ServiceUnavailable("nor does anybody know of the engine")

    monkeypatch.setattr(engines, "publish", publish_unheard)
    call = build(agent, grant.token, relu())
    if is_known:
        keys = [key_of(await call.result())]
    else:
        refusal = await call.refused()
        assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert "no node said whether" in refusal.message
        keys = agent.build_runner.store.keys()
    assert await site.published() == agent.build_runner.store.keys() == keys != []


async def test_a_claim_is_followed_again_though_its_token_is_worth_nothing_by_then(
    retrying_site: Site, claims: list[Claim]
) -> None:
    site = retrying_site
    agent = await site.start_agent()
    grant = await site.grant()
    signer = TokenSigner.generate()
    site.publish_key(signer)
    call = build(agent, site.token(grant, signer=signer), LONG)
    await call.until(pb.BUILD_PHASE_CHECKING)
    (worker,) = workers(agent)

    site.forget_key(signer)
    await away(site)
    await back(site)
    await eventually(lambda: site.claims_followed == 1)
    assert worker.is_running()
    assert not claims[0].lost.done()
    # That it is followed shows in what the agent does when the grant ends.
    await grant.release()
    assert (await call.refused()).code is grpc.StatusCode.ABORTED
    assert not worker.is_running()


async def test_a_seat_that_was_lost_while_the_service_was_away_is_noticed(
    retrying_site: Site,
) -> None:
    site = retrying_site
    agent = await site.start_agent()
    grant = await site.grant()
    call = build(agent, grant.token, LONG)
    await call.until(pb.BUILD_PHASE_CHECKING)
    await away(site)
    site.drop(grant.grant_id)
    await back(site)
    assert (await call.refused()).code is grpc.StatusCode.ABORTED
    await eventually(lambda: is_idle(agent))
    assert await site.published() == []


async def test_a_build_outlives_the_agent_s_own_session(
    site: Site, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seat is the client's, and stands."""
    gate = Gate(agent, monkeypatch)
    grant = await site.grant()
    call = build(agent, grant.token, relu())
    await gate.reached.wait()
    await site.lose_session_of(agent.client)
    gate.open.set()
    done = await call.result()
    assert await site.published() == [key_of(done)]
    assert site.claims == []


async def test_a_claim_is_followed_again_under_the_agent_s_next_session(
    retrying_site: Site,
) -> None:
    """The agent's host was cut off for longer than its session lives."""
    site = retrying_site
    agent = await site.start_agent()
    grant = await site.grant()
    call = build(agent, grant.token, LONG)
    await call.until(pb.BUILD_PHASE_CHECKING)
    (worker,) = workers(agent)
    await site.lose_session_of(agent.client)
    await away(site)
    await back(site)
    await eventually(lambda: site.claims_followed == 1)
    assert worker.is_running()
    assert site.claims == [(grant.grant_id, "agent-1")]
    call.cancel()
    await eventually(lambda: is_idle(agent) and not site.claims)


async def test_a_claim_that_another_agent_took_meanwhile_is_not_taken_back(
    retrying_site: Site,
) -> None:
    site = retrying_site
    agent = await site.start_agent()
    await site.start_agent("agent-2")
    grant = await site.grant()
    call = build(agent, grant.token, LONG)
    await call.until(pb.BUILD_PHASE_CHECKING)
    await away(site)
    site.rewrite(grant.grant_id, agent_id="agent-2", claim_id=new_id())
    await back(site)
    refusal = await call.refused()
    assert refusal.code is grpc.StatusCode.ABORTED, refusal
    assert "agent-2" in refusal.message
    assert is_idle(agent)
    assert site.claims == [(grant.grant_id, "agent-2")]


async def test_an_agent_whose_session_was_lost_registers_again(
    site: Site, agent: Agent
) -> None:
    async def registered() -> list[str]:
        return [info.agent_id for info in await site.client("onlooker").engines.agents()]

    assert await registered() == ["agent-1"]
    site.service.lose_sessions()
    assert await registered() == []
    async with asyncio.timeout(TIME_LIMIT_SECONDS):
        while await registered() != ["agent-1"]:  # noqa: ASYNC110 # there is no event
            await asyncio.sleep(0.05)
    assert not (await site.client("bob").build(relu(), OPTIONS)).cached
