"""``EngineService`` over a socket: agents, claims on live grants, and what is published under them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.kit import POOL, uuid7
from tests.unit.services import (
    DEADLINE,
    STORE_KEYS,
    TTL,
    Refused,
    Services,
    Stream,
    Who,
    ref_of,
    refused,
)

from seatkeeper.core.jws import sign_jws
from seatkeeper.server.tokens.signer import TokenSigner
from seatkeeper.v1 import build_pb2, build_service_pb2, seat_service_pb2
from seatkeeper.v1 import engine_service_pb2 as pb

NOT_FOUND = grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT
ABORTED = grpc.StatusCode.ABORTED
PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
HOUR = timedelta(hours=1)
KEY = "a" * 64
CLAIM = uuid7(501)
OTHER_CLAIM = uuid7(502)
THIRD_CLAIM = uuid7(503)


@dataclass
class Agent:
    """A build agent: its session, its name and its key."""

    services: Services
    who: Who
    agent_id: str
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def info(self, address: str = "host:7500") -> build_service_pb2.AgentInfo:
        return build_service_pb2.AgentInfo(
            agent_id=self.agent_id,
            address=address,
            public_key=self.key.public_key().public_bytes_raw(),
        )

    async def register(self, address: str = "host:7500") -> None:
        request = pb.RegisterAgentRequest(
            credentials=self.who.credentials, agent=self.info(address)
        )
        await self.services.engines.RegisterAgent(request, timeout=DEADLINE)

    async def claim(self, token: str, claim_id: str = CLAIM) -> Claim:
        """Claim a grant; return the stream of what becomes of it."""
        call = self.services.engines.ClaimGrant(
            pb.ClaimGrantRequest(
                credentials=self.who.credentials,
                agent_id=self.agent_id,
                token=token,
                claim_id=claim_id,
            ),
            timeout=DEADLINE,
        )
        made = await anext(aiter(call))
        assert made.WhichOneof("event") == "made"
        return Claim(call)

    async def give_up(self, number: int, claim_id: str = CLAIM) -> None:
        request = pb.YieldGrantRequest(
            credentials=self.who.credentials, grant=ref_of(number), claim_id=claim_id
        )
        await self.services.engines.YieldGrant(request, timeout=DEADLINE)

    def manifest(
        self, number: int, *, fence: int = 1, **fields: object
    ) -> build_pb2.EngineManifest:
        manifest = build_pb2.EngineManifest(
            key=KEY, agent_id=self.agent_id, pool=POOL, grant_id=uuid7(number), fence=fence
        )
        for name, value in fields.items():
            setattr(manifest, name, value)
        return manifest

    def signed(self, manifest: build_pb2.EngineManifest) -> build_pb2.SignedManifest:
        data = manifest.SerializeToString()
        return build_pb2.SignedManifest(
            manifest=data,
            signature=self.key.sign(data),
            public_key=self.key.public_key().public_bytes_raw(),
        )

    async def publish(self, manifest: build_pb2.EngineManifest, claim_id: str = CLAIM) -> None:
        await self.publish_signed(self.signed(manifest), claim_id)

    async def publish_signed(
        self, signed: build_pb2.SignedManifest, claim_id: str = CLAIM
    ) -> None:
        request = pb.PublishEngineRequest(
            credentials=self.who.credentials, manifest=signed, claim_id=claim_id
        )
        await self.services.engines.PublishEngine(request, timeout=DEADLINE)


@dataclass
class Claim:
    """An open claim."""

    call: grpc.aio.UnaryStreamCall[pb.ClaimGrantRequest, pb.ClaimGrantResponse]

    async def end(self) -> str:
        """Wait until the node says that the grant has ended."""
        response = await anext(aiter(self.call))
        assert response.WhichOneof("event") == "ended"
        assert await self.call.code() is grpc.StatusCode.OK
        return response.ended.message


async def an_agent(
    services: Services, name: str = "agent-1", *, ttl: timedelta = HOUR
) -> Agent:
    agent = Agent(services, await services.session(ttl=ttl), name)
    await agent.register()
    return agent


async def a_holder(services: Services, *, seats: int = 2) -> tuple[Who, str]:
    """Somebody with a seat of a new pool, and its token."""
    await services.pool(seats)
    holder = await services.session()
    return holder, (await services.acquire(holder, 1)).token


async def agents(services: Services) -> list[str]:
    response = await services.engines.ListAgents(pb.ListAgentsRequest(), timeout=DEADLINE)
    return [agent.agent_id for agent in response.agents]


async def engine(services: Services, key: str = KEY) -> pb.PublishedEngine:
    return (
        await services.engines.GetEngine(pb.GetEngineRequest(key=key), timeout=DEADLINE)
    ).engine


async def nothing_published(services: Services) -> None:
    assert (await refused(engine(services))).code is NOT_FOUND


# Agents -----------------------------------------------------------------------------------------


async def test_agents_are_known_while_their_sessions_live(services: Services) -> None:
    second = await an_agent(services, "b")
    await an_agent(services, "a", ttl=TTL)
    assert await agents(services) == ["a", "b"]
    services.pass_time(TTL * 1.1)
    assert await agents(services) == [second.agent_id]


async def test_an_agent_may_say_something_new_of_itself(services: Services) -> None:
    agent = await an_agent(services)
    await agent.register("elsewhere:7500")
    response = await services.engines.ListAgents(pb.ListAgentsRequest(), timeout=DEADLINE)
    assert [info.address for info in response.agents] == ["elsewhere:7500"]


async def test_the_name_of_a_living_agent_is_taken(services: Services) -> None:
    first = await an_agent(services, ttl=TTL)
    second = Agent(services, await services.session(ttl=HOUR), first.agent_id)
    failure = await refused(second.register())
    assert failure.code is grpc.StatusCode.ALREADY_EXISTS
    services.pass_time(TTL * 1.1)
    await second.register()


async def test_an_agent_without_a_session_is_not_registered(services: Services) -> None:
    for who, code in (
        (services.stranger(), NOT_FOUND),
        ((await services.session()).impostor, grpc.StatusCode.PERMISSION_DENIED),
    ):
        assert (await refused(Agent(services, who, "a").register())).code is code
    ended = await services.session()
    services.pass_time(TTL * 1.1)
    assert (await refused(Agent(services, ended, "a").register())).code is NOT_FOUND
    assert await agents(services) == []


async def test_an_agent_needs_a_proper_name(services: Services) -> None:
    failure = await refused(Agent(services, await services.session(), "Agent 1").register())
    assert (failure.code, failure.fields) == (INVALID, ["agent.agent_id"])


# Claims -----------------------------------------------------------------------------------------


async def test_a_claim_is_shown_and_lasts_until_the_seat_is_released(
    services: Services,
) -> None:
    holder, token = await a_holder(services)
    agent = await an_agent(services)
    claim = await agent.claim(token)
    assert (await services.look()).grants[0].agent_id == agent.agent_id
    await services.release(holder, 1)

    assert "released or lost" in await claim.end()


async def test_a_claim_ends_with_the_session_of_the_holder(services: Services) -> None:
    _, token = await a_holder(services)
    claim = await (await an_agent(services)).claim(token)
    services.pass_time(TTL * 1.1)
    await claim.end()


async def test_a_claim_sends_the_holder_no_event(services: Services) -> None:
    await services.pool(2)
    stream = Stream(services)
    await stream.open(services.stranger())
    await stream.acquire(1)
    token = (await stream.event("granted")).granted.token
    await (await an_agent(services)).claim(token)
    await stream.acquire(2)

    assert (await stream.event("granted")).granted.grant_id == uuid7(2)
    stream.call.cancel()


async def test_a_claim_is_made_once_however_often_it_is_sent(services: Services) -> None:
    holder, token = await a_holder(services)
    agent = await an_agent(services)
    first, second = await agent.claim(token), await agent.claim(token)
    await services.release(holder, 1)
    await first.end()
    await second.end()


async def test_one_build_at_a_time_works_under_a_grant(services: Services) -> None:
    _, token = await a_holder(services)
    agent, other = await an_agent(services), await an_agent(services, "agent-2")
    await agent.claim(token)
    for rival in (agent, other):
        failure = await refused(rival.claim(token, OTHER_CLAIM))
        assert failure.code is PRECONDITION
        assert "one build at a time" in failure.message
    assert (await services.look()).grants[0].agent_id == agent.agent_id


async def test_the_claim_of_a_dead_agent_is_taken_over(services: Services) -> None:
    await services.pool(1)
    holder = await services.session(ttl=HOUR)
    token = (await services.acquire(holder, 1)).token
    dead = await an_agent(services, ttl=TTL)
    first = await dead.claim(token)
    services.pass_time(TTL * 1.1)
    heir = await an_agent(services, "agent-2")
    await heir.claim(token, OTHER_CLAIM)

    await first.end()
    assert (await services.look()).grants[0].agent_id == heir.agent_id


async def test_a_claim_that_was_given_up_is_free_for_the_next(services: Services) -> None:
    _, token = await a_holder(services)
    agent, other = await an_agent(services), await an_agent(services, "agent-2")
    first = await agent.claim(token)
    await agent.give_up(1)
    await first.end()
    await other.claim(token, OTHER_CLAIM)
    await agent.give_up(1)
    await agent.give_up(9)

    assert (await services.look()).grants[0].agent_id == other.agent_id


async def test_a_broken_stream_does_not_end_the_claim(services: Services) -> None:
    holder, token = await a_holder(services)
    agent = await an_agent(services)
    (await agent.claim(token)).call.cancel()
    assert (await services.look()).grants[0].agent_id == agent.agent_id
    again = await agent.claim(token)
    await services.release(holder, 1)
    await again.end()


async def test_a_claim_is_followed_though_its_token_has_expired(services: Services) -> None:
    await a_holder(services)
    agent = await an_agent(services)
    await agent.claim(services.token(1))
    expired = services.token(1, age=timedelta(minutes=5))
    await agent.claim(expired)
    assert (await refused(agent.claim(expired, OTHER_CLAIM))).code is UNAUTHENTICATED


async def test_a_bad_token_claims_nothing(services: Services) -> None:
    _, good = await a_holder(services)
    agent = await an_agent(services)
    head, body, signature = good.split(".")
    bad = {
        "expired": services.token(1, age=timedelta(minutes=5)),
        "from the future": services.token(1, age=-timedelta(minutes=5)),
        "of a foreign key": services.token(1, signer=TokenSigner.generate()),
        "tampered": f"{head}.{body}.{signature[:-4]}AAAA",
        "no token": "nonsense",
        "empty": "",
    }
    for what, token in bad.items():
        failure = await refused(agent.claim(token))
        assert failure.code is UNAUTHENTICATED, what
        assert failure.message
    assert not (await services.look()).grants[0].agent_id


async def test_a_token_of_a_grant_that_is_gone_claims_nothing(services: Services) -> None:
    holder, token = await a_holder(services, seats=1)
    await services.release(holder, 1)
    agent = await an_agent(services)
    failure = await refused(agent.claim(token))
    assert (failure.code, failure.resource[0]) == (NOT_FOUND, "grant")

    await services.acquire(holder, 2)
    assert (await refused(agent.claim(token))).code is NOT_FOUND, "another grant is no heir"


@pytest.mark.parametrize(
    "wrong", [{"fence": 2}, {"pool": "other"}], ids=["another fence", "another pool"]
)
async def test_a_token_claims_the_grant_that_it_names_and_no_other(
    wrong: dict[str, object], services: Services
) -> None:
    await a_holder(services)
    agent = await an_agent(services)
    token = services.token(1, **wrong)  # type: ignore[arg-type]  # the test gives fields by name
    assert (await refused(agent.claim(token))).code is NOT_FOUND
    assert not (await services.look()).grants[0].agent_id


async def test_only_the_session_that_registered_an_agent_claims_for_it(
    services: Services,
) -> None:
    _, token = await a_holder(services)
    agent = await an_agent(services)
    thief = Agent(services, await services.session(), agent.agent_id)
    for stranger in (thief, Agent(services, agent.who, "agent-2")):
        assert (await refused(stranger.claim(token))).code is PRECONDITION


async def test_a_malformed_claim_is_refused_by_its_field(services: Services) -> None:
    _, token = await a_holder(services)
    agent = await an_agent(services)
    failure: Refused = await refused(agent.claim(token, "1"))
    assert (failure.code, failure.fields) == (INVALID, ["claim_id"])
    failure = await refused(Agent(services, agent.who, "?").claim(token))
    assert (failure.code, failure.fields) == (INVALID, ["agent_id"])


# Publishing -------------------------------------------------------------------------------------


async def test_a_published_engine_is_found_with_the_address_of_its_agent(
    services: Services,
) -> None:
    holder, token = await a_holder(services)
    agent = await an_agent(services)
    await agent.claim(token)
    await agent.publish(agent.manifest(1, model_name="resnet"))
    await services.release(holder, 1)
    found = await engine(services)

    manifest = build_pb2.EngineManifest.FromString(found.manifest.manifest)
    assert (manifest.key, manifest.model_name, manifest.fence) == (KEY, "resnet", 1)
    assert list(found.addresses) == ["host:7500"]


async def test_an_engine_outlives_its_agent_without_an_address(services: Services) -> None:
    _, token = await a_holder(services)
    agent = await an_agent(services, ttl=TTL)
    await agent.claim(token)
    await agent.publish(agent.manifest(1))
    services.pass_time(TTL * 1.1)
    assert list((await engine(services)).addresses) == []


async def test_publishing_again_is_publishing_once(services: Services) -> None:
    _, token = await a_holder(services)
    agent = await an_agent(services)
    await agent.claim(token)
    for _ in range(2):
        await agent.publish(agent.manifest(1))
    assert (await engine(services)).manifest == agent.signed(agent.manifest(1))


async def test_nothing_is_published_under_a_grant_that_is_gone(services: Services) -> None:
    holder, token = await a_holder(services, seats=1)
    agent = await an_agent(services)
    await agent.claim(token)
    await services.release(holder, 1)
    failure = await refused(agent.publish(agent.manifest(1)))
    assert failure.code is ABORTED
    assert "nothing is published" in failure.message

    # Granted anew, to the same holder: it is another grant, with a higher fence.
    await services.acquire(holder, 2)
    for number, fence in ((1, 1), (2, 1), (2, 2), (1, 2)):
        failure = await refused(agent.publish(agent.manifest(number, fence=fence)))
        assert failure.code is ABORTED
    await nothing_published(services)


async def test_a_seat_that_is_lost_in_the_moment_of_publishing_stops_it(
    services: Services,
) -> None:
    """Between the look at the grant and the transaction, which must therefore look again."""
    holder, token = await a_holder(services)
    agent = await an_agent(services)
    await agent.claim(token)

    async def lose_the_seat(call: str) -> None:
        if call == "commit":
            services.store.before_call = None
            session = services.store._entries[STORE_KEYS.session(holder.session_id)]
            await services.store.revoke_lease(session.lease_id)

    services.store.before_call = lose_the_seat
    assert (await refused(agent.publish(agent.manifest(1)))).code is ABORTED
    await nothing_published(services)


@pytest.mark.parametrize(
    ("fields", "claim_id"),
    [({"fence": 2}, CLAIM), ({"pool": "other"}, CLAIM), ({}, OTHER_CLAIM)],
    ids=["another fence", "another pool", "another claim"],
)
async def test_nothing_is_published_that_the_claim_does_not_cover(
    fields: dict[str, object], claim_id: str, services: Services
) -> None:
    _, token = await a_holder(services)
    agent = await an_agent(services)
    await agent.claim(token)
    manifest = agent.manifest(1, **fields)  # type: ignore[arg-type]  # the test gives fields by name
    assert (await refused(agent.publish(manifest, claim_id))).code is ABORTED
    await nothing_published(services)


async def test_nothing_is_published_without_a_claim_or_by_another_agent(
    services: Services,
) -> None:
    _, token = await a_holder(services)
    agent, other = await an_agent(services), await an_agent(services, "agent-2")
    assert (await refused(agent.publish(agent.manifest(1)))).code is ABORTED
    await agent.claim(token)
    assert (await refused(other.publish(other.manifest(1)))).code is ABORTED
    stranger = Agent(services, await services.session(), agent.agent_id, agent.key)
    assert (await refused(stranger.publish(agent.manifest(1)))).code is ABORTED
    await nothing_published(services)


async def test_a_claim_that_was_taken_over_publishes_nothing_any_more(
    services: Services,
) -> None:
    await services.pool(1)
    holder = await services.session(ttl=HOUR)
    token = (await services.acquire(holder, 1)).token
    slow = await an_agent(services, ttl=TTL)
    await slow.claim(token)
    services.pass_time(TTL * 1.1)
    heir = await an_agent(services, "agent-2")
    await heir.claim(token, OTHER_CLAIM)
    back = Agent(services, await services.session(), slow.agent_id, slow.key)
    await back.register()

    assert (await refused(back.publish(back.manifest(1)))).code is ABORTED
    await heir.publish(heir.manifest(1), OTHER_CLAIM)


async def test_a_newer_engine_is_not_replaced_by_an_older_one(services: Services) -> None:
    holder, old_token = await a_holder(services)
    new_token = (await services.acquire(holder, 2)).token
    agent = await an_agent(services)
    await agent.claim(old_token)
    await agent.claim(new_token, OTHER_CLAIM)
    await agent.publish(agent.manifest(1, fence=1))
    await agent.publish(agent.manifest(2, fence=2), OTHER_CLAIM)
    failure = await refused(agent.publish(agent.manifest(1, fence=1)))

    assert failure.code is ABORTED
    manifest = build_pb2.EngineManifest.FromString((await engine(services)).manifest.manifest)
    assert manifest.fence == 2


async def test_an_older_engine_does_not_come_back_behind_one_of_another_pool(
    services: Services,
) -> None:
    holder, old_token = await a_holder(services)
    new_token = (await services.acquire(holder, 2)).token
    await services.pool(1, name="other")
    other_token = (await services.acquire(holder, 3, pool="other")).token
    agent = await an_agent(services)
    await agent.claim(old_token)
    await agent.claim(new_token, OTHER_CLAIM)
    await agent.claim(other_token, THIRD_CLAIM)
    await agent.publish(agent.manifest(2, fence=2), OTHER_CLAIM)
    await agent.publish(agent.manifest(3, fence=1, pool="other"), THIRD_CLAIM)
    failure = await refused(agent.publish(agent.manifest(1, fence=1)))

    assert failure.code is ABORTED
    assert "fence 2" in failure.message
    manifest = build_pb2.EngineManifest.FromString((await engine(services)).manifest.manifest)
    assert manifest.pool == "other"


async def test_what_the_agents_key_has_not_signed_is_not_published(services: Services) -> None:
    _, token = await a_holder(services)
    agent = await an_agent(services)
    await agent.claim(token)
    good = agent.signed(agent.manifest(1))
    altered = build_pb2.SignedManifest()
    altered.CopyFrom(good)
    altered.manifest = agent.manifest(1, model_name="x").SerializeToString()
    foreign = build_pb2.SignedManifest()
    foreign.CopyFrom(good)
    foreign.jws = sign_jws(b"{}", Ed25519PrivateKey.generate(), kind="seatkeeper-manifest")
    other = Agent(services, agent.who, agent.agent_id)
    for signed, named in (
        (altered, "manifest.signature"),
        (foreign, "manifest.jws"),
        (other.signed(agent.manifest(1)), "manifest.public_key"),
        (build_pb2.SignedManifest(manifest=b"\xff\xff"), "manifest.manifest"),
        (agent.signed(agent.manifest(1, key="A" * 64)), "manifest.key"),
        (agent.signed(agent.manifest(1, grant_id="1")), "manifest.grant_id"),
        (agent.signed(agent.manifest(1, pool="")), "manifest.pool"),
    ):
        failure = await refused(agent.publish_signed(signed))
        assert (failure.code, failure.fields) == (INVALID, [named])
    await nothing_published(services)


# Looking up -------------------------------------------------------------------------------------


async def test_an_engine_that_is_not_published_is_named(services: Services) -> None:
    failure = await refused(engine(services))
    assert (failure.code, failure.resource) == (NOT_FOUND, ("engine", KEY))
    failure = await refused(engine(services, "short"))
    assert (failure.code, failure.fields) == (INVALID, ["key"])


async def test_engines_are_listed_in_pages_in_the_order_of_keys(services: Services) -> None:
    _, token = await a_holder(services)
    agent = await an_agent(services)
    await agent.claim(token)
    keys = [digit * 64 for digit in "0123456789"]
    for key in reversed(keys):
        await agent.publish(agent.manifest(1, key=key))
    found: list[str] = []
    pages = 0
    after = ""
    while after or not pages:
        request = pb.ListEnginesRequest(page_size=4, after=after)
        response = await services.engines.ListEngines(request, timeout=DEADLINE)
        for published in response.engines:
            manifest = build_pb2.EngineManifest.FromString(published.manifest.manifest)
            found.append(manifest.key)
        after = response.next
        pages += 1

    assert (found, pages) == (keys, 3)
    whole = await services.engines.ListEngines(pb.ListEnginesRequest(), timeout=DEADLINE)
    assert (len(whole.engines), whole.next) == (10, "")


@pytest.mark.parametrize("size", [-1, 1001])
async def test_a_page_of_another_size_is_refused(size: int, services: Services) -> None:
    request = pb.ListEnginesRequest(page_size=size)
    failure = await refused(services.engines.ListEngines(request, timeout=DEADLINE))
    assert (failure.code, failure.fields) == (INVALID, ["page_size"])


# Draining ------------------------------------------------------------------------------------


async def registered(agent: Agent) -> bool:
    """Register again; return whether the agent is asked to drain."""
    request = pb.RegisterAgentRequest(credentials=agent.who.credentials, agent=agent.info())
    return (await agent.services.engines.RegisterAgent(request, timeout=DEADLINE)).drain


async def test_an_agent_learns_that_it_shall_drain_when_it_registers(
    services: Services,
) -> None:
    agent, other = await an_agent(services), await an_agent(services, "agent-2")
    assert not await registered(agent)
    await services.engines.DrainAgent(
        pb.DrainAgentRequest(agent_id="agent-1"), timeout=DEADLINE
    )
    await services.engines.DrainAgent(
        pb.DrainAgentRequest(agent_id="agent-1"), timeout=DEADLINE
    )
    assert await registered(agent)
    assert await registered(agent), "until it is gone"
    assert not await registered(other)


async def test_the_next_run_of_an_agent_is_not_asked_to_drain(services: Services) -> None:
    agent = await an_agent(services)
    await services.engines.DrainAgent(
        pb.DrainAgentRequest(agent_id="agent-1"), timeout=DEADLINE
    )
    await services.seats.CloseSession(
        seat_service_pb2.CloseSessionRequest(credentials=agent.who.credentials),
        timeout=DEADLINE,
    )
    assert not await registered(await an_agent(services))


async def test_an_agent_that_is_not_alive_cannot_be_drained(services: Services) -> None:
    failure = await refused(
        services.engines.DrainAgent(pb.DrainAgentRequest(agent_id="agent-9"), timeout=DEADLINE)
    )
    assert failure.code is NOT_FOUND
    assert "agent-9" in failure.message
