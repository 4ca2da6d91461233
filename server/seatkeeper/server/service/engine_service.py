"""``EngineService``: agents, claims and published engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import grpc
import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from seatkeeper.core.errors import TokenInvalid
from seatkeeper.core.jws import MANIFEST_KIND, JwsInvalid, verify_jws
from seatkeeper.core.serving.failure import Context, Failure, not_found
from seatkeeper.core.serving.texts import check_texts
from seatkeeper.core.tokens import verify_token
from seatkeeper.core.validate import Malformed, check_id, check_name
from seatkeeper.server.engines.registry import (
    AgentIdTaken,
    AgentNotFound,
    ClaimedElsewhere,
    EngineError,
    EngineNotFound,
    Engines,
    FenceStale,
    GrantEnded,
    NotRegistered,
)
from seatkeeper.server.identity import administrative_act
from seatkeeper.server.identity.peer import identity_of
from seatkeeper.server.service.failures import answers, streams
from seatkeeper.server.service.seat_api import Core
from seatkeeper.server.sessions.sessions import Session
from seatkeeper.server.tokens.verification_keys import VerificationKeys
from seatkeeper.server.wire.validate import check_grant_ref
from seatkeeper.v1 import (
    build_pb2,
    build_service_pb2,
    engine_service_pb2,
    engine_service_pb2_grpc,
    seat_service_pb2,
)

CHECK_INTERVAL = 2.0
"""Seconds after which a claim is checked though no change was seen."""
PAGE_MAX = 1_000
PAGE_DEFAULT = 100
AGENT_BYTES_MAX = 64 * 1024
"""Most bytes that an agent may say of itself."""
MANIFEST_BYTES_MAX = 256 * 1024
"""Most bytes of a signed manifest."""


class EngineService(engine_service_pb2_grpc.EngineServiceServicer):
    """Agents, claims and published engines."""

    def __init__(self, core: Core, engines: Engines, keys: VerificationKeys) -> None:
        self._core = core
        self._engines = engines
        self._keys = keys
        self._jwks = '{"keys": []}'

    @answers
    async def RegisterAgent(
        self, request: engine_service_pb2.RegisterAgentRequest, context: Context
    ) -> engine_service_pb2.RegisterAgentResponse:
        """Make an agent known."""
        check_name("agent.agent_id", request.agent.agent_id)
        _check_size("agent", request.agent.ByteSize(), AGENT_BYTES_MAX)
        session = await self._session(request.credentials, context)
        try:
            drain = await self._engines.register(session, request.agent)
        except EngineError as error:
            raise _failure(error) from error
        return engine_service_pb2.RegisterAgentResponse(drain=drain)

    @answers
    async def ListAgents(
        self, request: engine_service_pb2.ListAgentsRequest, context: Context
    ) -> engine_service_pb2.ListAgentsResponse:
        """Return the agents that are alive."""
        return engine_service_pb2.ListAgentsResponse(agents=await self._engines.agents())

    @answers
    async def DrainAgent(
        self, request: engine_service_pb2.DrainAgentRequest, context: Context
    ) -> engine_service_pb2.DrainAgentResponse:
        """Ask an agent to drain."""
        check_name("agent_id", request.agent_id)
        try:
            with administrative_act("agent_drained", context, agent_id=request.agent_id):
                await self._engines.drain(request.agent_id)
        except AgentNotFound as error:
            raise not_found("agent", request.agent_id, str(error)) from error
        return engine_service_pb2.DrainAgentResponse()

    @streams
    async def ClaimGrant(
        self, request: engine_service_pb2.ClaimGrantRequest, context: Context
    ) -> AsyncIterator[engine_service_pb2.ClaimGrantResponse]:
        """Claim a grant, and report when it ends."""
        session = await self._session(request.credentials, context)
        check_name("agent_id", request.agent_id)
        check_id("claim_id", request.claim_id)
        try:
            await self._engines.registered(session, request.agent_id)
            pool, grant_id, fence = await self._claimed_before(request) or await self._verify(
                request.token
            )
            await self._engines.claim(
                pool, grant_id, fence, agent_id=request.agent_id, claim_id=request.claim_id
            )
        except EngineError as error:
            raise _failure(error) from error
        yield engine_service_pb2.ClaimGrantResponse(made=engine_service_pb2.ClaimMade())
        await self._until_ended(pool, grant_id, fence, request.claim_id)
        ended = engine_service_pb2.ClaimEnded(message="the seat was released or lost")
        yield engine_service_pb2.ClaimGrantResponse(ended=ended)

    @answers
    async def YieldGrant(
        self, request: engine_service_pb2.YieldGrantRequest, context: Context
    ) -> engine_service_pb2.YieldGrantResponse:
        """Give a claim up."""
        await self._session(request.credentials, context)
        check_grant_ref(request.grant)
        check_id("claim_id", request.claim_id)
        await self._engines.yield_claim(
            request.grant.pool, request.grant.grant_id, request.claim_id
        )
        return engine_service_pb2.YieldGrantResponse()

    @answers
    async def PublishEngine(
        self, request: engine_service_pb2.PublishEngineRequest, context: Context
    ) -> engine_service_pb2.PublishEngineResponse:
        """Publish an engine under a claimed grant."""
        session = await self._session(request.credentials, context)
        check_id("claim_id", request.claim_id)
        _check_size("manifest", request.manifest.ByteSize(), MANIFEST_BYTES_MAX)
        try:
            manifest = build_pb2.EngineManifest.FromString(request.manifest.manifest)
        except Exception as error:
            raise Malformed("manifest.manifest", "is not an EngineManifest") from error
        check_texts(manifest, within="manifest.manifest")
        check_name("manifest.pool", manifest.pool)
        check_id("manifest.grant_id", manifest.grant_id)
        _check_key("manifest.key", manifest.key)
        try:
            agent = await self._engines.registered(session, manifest.agent_id)
            _check_signature(request.manifest, agent.public_key)
            await self._engines.publish(manifest, request.manifest, request.claim_id)
        except EngineError as error:
            raise Failure(grpc.StatusCode.ABORTED, f"{error}; nothing is published") from error
        return engine_service_pb2.PublishEngineResponse()

    @answers
    async def GetEngine(
        self, request: engine_service_pb2.GetEngineRequest, context: Context
    ) -> engine_service_pb2.GetEngineResponse:
        """Return one published engine."""
        _check_key("key", request.key)
        try:
            signed = await self._engines.engine(request.key)
        except EngineNotFound as error:
            raise not_found("engine", request.key, str(error)) from error
        engine = _published(signed, await self._engines.agents())
        return engine_service_pb2.GetEngineResponse(engine=engine)

    @answers
    async def ListEngines(
        self, request: engine_service_pb2.ListEnginesRequest, context: Context
    ) -> engine_service_pb2.ListEnginesResponse:
        """Return published engines."""
        if not 0 <= request.page_size <= PAGE_MAX:
            raise Malformed("page_size", f"{request.page_size} is not from 0 to {PAGE_MAX}")
        size = request.page_size or PAGE_DEFAULT
        agents = await self._engines.agents()
        engines = [_published(signed, agents) for signed in await self._engines.engines()]
        keyed = [(_manifest(engine.manifest).key, engine) for engine in engines]
        page = [(key, engine) for key, engine in keyed if key > request.after][: size + 1]
        return engine_service_pb2.ListEnginesResponse(
            engines=[engine for _, engine in page[:size]],
            next=page[size - 1][0] if len(page) > size else "",
        )

    async def _session(
        self, credentials: seat_service_pb2.SessionCredentials, context: Context
    ) -> Session:
        """Return the agent's session, which must be alive."""
        session = await self._core.sessions.find(credentials, identity_of(context).name)
        await self._core.sessions.assure(session)
        return session

    async def _claimed_before(
        self, request: engine_service_pb2.ClaimGrantRequest
    ) -> tuple[str, str, int] | None:
        """Return the grant, if this very claim on it stands; the token may have expired since.

        A build outlives its first token by hours, and must be able to follow its claim through
        another node. What the token says is not believed here, only looked up.
        """
        try:
            said = jwt.decode(request.token, options={"verify_signature": False})
            pool, grant_id, fence = str(said["aud"]), str(said["jti"]), int(said["fence"])
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError):
            return None
        grant = (pool, grant_id, fence)
        return grant if await self._engines.is_claimed(*grant, request.claim_id) else None

    async def _verify(self, token: str) -> tuple[str, str, int]:
        """Return the grant that a token proves; keys that are not known yet are looked up."""
        now = datetime.fromtimestamp(self._core.clock.now() / 1000, UTC)
        try:
            claims = verify_token(token, self._jwks, now=now)
        except TokenInvalid:
            self._jwks = await self._keys.jwks()
            try:
                claims = verify_token(token, self._jwks, now=now)
            except TokenInvalid as error:
                raise Failure(grpc.StatusCode.UNAUTHENTICATED, str(error)) from error
        return claims.pool, claims.grant_id, claims.fence

    async def _until_ended(self, pool: str, grant_id: str, fence: int, claim_id: str) -> None:
        """Return when the grant, or the claim on it, has ended."""
        loop = await self._core.seats.loop(pool)
        if loop is None:
            return
        await loop.listed()
        with loop.following() as changed:
            while True:
                grant = loop.state.grants.get(grant_id)
                # The view may be older than the claim: what it lacks is looked up.
                if (
                    grant is None or (grant.fence, grant.claim_id) != (fence, claim_id)
                ) and not await self._engines.is_claimed(pool, grant_id, fence, claim_id):
                    return
                changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(CHECK_INTERVAL):
                        await changed.wait()


def _manifest(signed: build_pb2.SignedManifest) -> build_pb2.EngineManifest:
    return build_pb2.EngineManifest.FromString(signed.manifest)


def _published(
    signed: build_pb2.SignedManifest, agents: Sequence[build_service_pb2.AgentInfo]
) -> engine_service_pb2.PublishedEngine:
    """Return an engine with where it is: at its agent, and at those that share its store."""
    manifest = _manifest(signed)
    builders = [agent.address for agent in agents if agent.agent_id == manifest.agent_id]
    sharing = [
        agent.address
        for agent in agents
        if manifest.store
        and agent.store == manifest.store
        and agent.agent_id != manifest.agent_id
    ]
    return engine_service_pb2.PublishedEngine(manifest=signed, addresses=[*builders, *sharing])


def _check_size(field: str, size: int, size_max: int) -> None:
    if size > size_max:
        raise Malformed(field, f"has {size} bytes; at most {size_max}")


def _check_key(field: str, key: str) -> None:
    if len(key) != 64 or set(key) - set("0123456789abcdef"):
        raise Malformed(field, f"{key[:80]!r} is not 64 lower-case hexadecimal digits")


def _check_signature(signed: build_pb2.SignedManifest, public_key: bytes) -> None:
    """Check that a registered agent's key has signed a manifest. Raises ``Malformed``."""
    if signed.public_key != public_key:
        raise Malformed("manifest.public_key", "is not the one that the agent registered")
    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
        key.verify(signed.signature, signed.manifest)
    except (ValueError, InvalidSignature) as error:
        raise Malformed("manifest.signature", "does not hold") from error
    if signed.jws:
        try:
            verify_jws(signed.jws, public_key, kind=MANIFEST_KIND)
        except JwsInvalid as error:
            raise Malformed("manifest.jws", str(error)) from error


def _failure(error: EngineError) -> Failure:
    match error:
        case GrantEnded():
            return not_found("grant", "", str(error))
        case ClaimedElsewhere():
            return Failure(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        case NotRegistered():
            return Failure(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        case AgentIdTaken():
            return Failure(grpc.StatusCode.ALREADY_EXISTS, str(error))
        case FenceStale():
            return Failure(grpc.StatusCode.ABORTED, str(error))
        case _:
            return Failure(grpc.StatusCode.INTERNAL, str(error))
