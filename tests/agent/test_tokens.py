"""Without proof of a live grant, no build."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import grpc
import jwt
import pytest
from tests.agent.site import (
    Site,
    build,
    eventually,
    header,
    is_idle,
    key_of,
    manifest_of,
    unanswered,
    workers,
)
from tests.builder.models import relu, relu_chain

from seatkeeper.agent.main import Agent
from seatkeeper.client import AsyncGrant, SeatLost
from seatkeeper.core.tokens import LEEWAY
from seatkeeper.server.tokens.signer import TokenSigner
from seatkeeper.v1 import build_service_pb2 as pb

LONG = relu_chain(10_000)
"""Compiles for more than a minute, so whatever ends sooner was ended."""


def claims_of(token: str) -> dict[str, object]:
    claims: dict[str, object] = jwt.decode(token, options={"verify_signature": False})
    return claims


def expired(site: Site, grant: AsyncGrant) -> str:
    return site.token(grant, expires_in=-LEEWAY - timedelta(seconds=1))


def forged(site: Site, grant: AsyncGrant) -> str:
    """Its signature is by somebody else who says that the service's key was used."""
    ours = site.service._running._core.signer
    return site.token(
        grant, signer=TokenSigner(TokenSigner.generate().key, ours.kid, ours.jwk_json)
    )


def tampered(site: Site, grant: AsyncGrant) -> str:
    head, _, signature = grant.token.split(".")
    changed = claims_of(grant.token) | {"sub": "mallory"}
    return ".".join((head, base64url(json.dumps(changed).encode()), signature))


def unsigned(site: Site, grant: AsyncGrant) -> str:
    return jwt.encode(claims_of(grant.token), "", algorithm="none")


def signed_with_the_public_key(site: Site, grant: AsyncGrant) -> str:
    """As a secret that everybody knows, as libraries once took it."""
    jwk = json.loads(site.service._running._core.signer.jwk_json)
    secret = base64.urlsafe_b64decode(jwk["x"] + "==")
    return jwt.encode(
        claims_of(grant.token), secret, algorithm="HS256", headers={"kid": jwk["kid"]}
    )


def by_an_unknown_key(site: Site, grant: AsyncGrant) -> str:
    return site.token(grant, signer=TokenSigner.generate())


def by_a_key_of_an_enormous_name(site: Site, grant: AsyncGrant) -> str:
    """Refusing it with the name would not fit into an answer."""
    name = "\N{CJK UNIFIED IDEOGRAPH-6237}" * 1_800
    head = json.dumps({"alg": "EdDSA", "kid": name}, ensure_ascii=False).encode()
    return ".".join((base64url(head), *grant.token.split(".")[1:]))


def for_another_pool(site: Site, grant: AsyncGrant) -> str:
    return site.token(grant, pool="other")


def no_token(site: Site, grant: AsyncGrant) -> str:
    return ""


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "make",
    [
        expired,
        forged,
        tampered,
        unsigned,
        signed_with_the_public_key,
        by_an_unknown_key,
        by_a_key_of_an_enormous_name,
        for_another_pool,
        no_token,
    ],
)
async def test_a_bad_token_is_refused_and_claims_nothing(
    site: Site, agent: Agent, make: Callable[[Site, AsyncGrant], str]
) -> None:
    grant = await site.grant()
    refusal = await build(agent, make(site, grant), relu()).refused()
    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED, refusal
    assert site.claims == []
    assert await site.published() == []
    assert is_idle(agent)

    assert not (await build(agent, grant.token, relu()).result()).cached


async def test_a_bad_token_is_refused_though_the_engine_is_there(
    site: Site, agent: Agent
) -> None:
    grant = await site.grant()
    await build(agent, grant.token, relu()).result()
    refusal = await build(agent, forged(site, grant), relu()).refused()
    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED


async def test_a_seat_of_another_pool_is_no_good(site: Site, agent: Agent) -> None:
    grant = await site.client().acquire("other", token=True)
    refusal = await build(agent, grant.token, relu()).refused()
    assert refusal.code is grpc.StatusCode.UNAUTHENTICATED
    assert "'other'" in refusal.message


async def test_keys_that_came_after_the_agent_are_fetched(site: Site, agent: Agent) -> None:
    """A node that was started later signs with a key that the agent has not seen."""
    grant = await site.grant()
    newcomer = TokenSigner.generate()
    site.publish_key(newcomer)
    token = site.token(grant, signer=newcomer)
    assert not (await build(agent, token, relu()).result()).cached


async def test_a_seat_that_was_given_back_is_no_good(site: Site, agent: Agent) -> None:
    grant = await site.grant()
    token = grant.token
    await grant.release()
    refusal = await build(agent, token, relu()).refused()
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION, refusal
    assert await site.published() == []
    assert agent.build_runner.store.keys() == []
    assert is_idle(agent)


async def test_a_client_learns_that_its_seat_was_gone(site: Site, agent: Agent) -> None:
    grant = await site.grant()
    token = grant.token
    await grant.release()
    async with site.client().agent(agent.info.address) as direct:

        async def chunks() -> AsyncIterator[bytes]:
            yield relu()

        with pytest.raises(SeatLost):
            async for _ in direct.build(header(token, relu()), chunks()):
                pass


async def test_a_token_of_an_earlier_fence_is_no_good(site: Site, agent: Agent) -> None:
    grant = await site.grant()
    token = grant.token
    site.rewrite(grant.grant_id, fence=grant.fence + 1)
    refusal = await build(agent, token, relu()).refused()
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION, refusal
    assert await site.published() == []
    assert site.claims == []


async def test_one_agent_at_a_time_works_under_a_seat(site: Site, agent: Agent) -> None:
    other = await site.start_agent("agent-2")
    grant = await site.grant()
    first = build(agent, grant.token, LONG)
    await first.until(pb.BUILD_PHASE_CHECKING)
    assert site.claims == [(grant.grant_id, "agent-1")]

    refusal = await build(other, grant.token, relu()).refused()
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION, refusal
    assert "agent-1" in refusal.message
    assert site.claims == [(grant.grant_id, "agent-1")]
    assert len(workers(agent)) == 1

    first.cancel()
    await eventually(lambda: not site.claims)
    assert not (await build(other, grant.token, relu()).result()).cached


async def test_one_build_at_a_time_runs_under_a_seat(site: Site, agent: Agent) -> None:
    grant = await site.grant()
    first = build(agent, grant.token, LONG)
    await first.until(pb.BUILD_PHASE_CHECKING)
    refusal = await build(agent, grant.token, relu()).refused()
    assert refusal.code is grpc.StatusCode.FAILED_PRECONDITION, refusal
    first.cancel()
    await eventually(lambda: not site.claims)
    await build(agent, grant.token, relu()).result()


async def test_the_claim_of_a_dead_agent_does_not_count(
    site: Site, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if its host had burnt down: its session ends, and the claim is not yielded."""
    other = await site.start_agent("agent-2")
    grant = await site.grant()
    first = build(agent, grant.token, LONG)
    await first.until(pb.BUILD_PHASE_CHECKING)
    monkeypatch.setattr(agent.client.engines, "register_agent", unanswered)
    monkeypatch.setattr(agent.client.engines, "yield_claim", unanswered)
    await site.lose_session_of(agent.client)

    done = await build(other, grant.token, relu()).result()
    assert await site.published() == [key_of(done)]
    assert manifest_of(done.manifest).agent_id == "agent-2"
    assert (await first.refused()).code is grpc.StatusCode.ABORTED
    assert is_idle(agent)


async def test_who_waits_for_another_s_build_of_the_same_needs_no_second_token(
    site: Site, agent: Agent
) -> None:
    """The other's build may fail hours later; the token of the first minute is old by then."""
    alice, bob = [await site.grant(name) for name in ("alice", "bob")]
    signer = TokenSigner.generate()
    site.publish_key(signer)
    first = build(agent, alice.token, LONG)
    await first.until(pb.BUILD_PHASE_CHECKING)
    second = build(agent, site.token(bob, signer=signer), LONG)
    await eventually(lambda: len(site.claims) == 2)

    site.forget_key(signer)
    first.cancel()
    await second.until(pb.BUILD_PHASE_CHECKING)
    assert site.claims == [(bob.grant_id, "agent-1")]
    second.cancel()
    await eventually(lambda: is_idle(agent))
