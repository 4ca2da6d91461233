"""The catalogue of build agents and engines: ``client.engines``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing

import grpc

from seatkeeper.client.transport.calls import Calls
from seatkeeper.client.transport.edge import sends
from seatkeeper.core.errors import EngineNotFound, SeatLost
from seatkeeper.v1 import build_pb2, build_service_pb2
from seatkeeper.v1 import engine_service_pb2 as pb
from seatkeeper.v1 import engine_service_pb2_grpc as pb_grpc
from seatkeeper.v1 import seat_service_pb2 as seats

PAGE_SIZE = 500
_GRANT_GONE = {grpc.StatusCode.NOT_FOUND: SeatLost, grpc.StatusCode.ABORTED: SeatLost}

OpenSession = Callable[[], Awaitable[seats.SessionCredentials]]


@sends
class AsyncEngines:
    """Agents and engines.

    What an agent does, it does under the session of the client that it uses, and it is known for as
    long as that session lives: register again after `SessionLost`. Every call raises
    `ServiceUnavailable` when no node answers in time.
    """

    def __init__(self, calls: Calls, session: OpenSession) -> None:
        self._calls = calls
        self._session = session

    async def register_agent(self, agent: build_service_pb2.AgentInfo) -> bool:
        """Make an agent known, or change what it says. Safe to repeat, and to call regularly.

        Returns whether it was asked to drain. Raises `AlreadyExists` when another live session has
        registered this agent id, and `SessionLost` when our own has ended: call again.
        """
        request = pb.RegisterAgentRequest(credentials=await self._session(), agent=agent)
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.EngineServiceStub(channel).RegisterAgent(
                request, timeout=timeout
            )
        )
        return answer.drain

    async def drain_agent(self, agent_id: str) -> None:
        """Ask an agent to take no new builds, to finish those that run, and to leave.

        It learns of it within seconds. Raises `UsageError` when no agent of that id is alive.
        """
        request = pb.DrainAgentRequest(agent_id=agent_id)
        await self._calls.unary(
            lambda channel, timeout: pb_grpc.EngineServiceStub(channel).DrainAgent(
                request, timeout=timeout
            )
        )

    async def agents(self) -> Sequence[build_service_pb2.AgentInfo]:
        """Return the agents that are alive, in the order of ids."""
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.EngineServiceStub(channel).ListAgents(
                pb.ListAgentsRequest(), timeout=timeout
            )
        )
        return answer.agents

    async def claim(
        self, token: str, *, agent_id: str, claim_id: str
    ) -> AsyncGenerator[pb.ClaimGrantResponse, None]:
        """Claim a grant for one agent: yield ``made`` once it is, and ``ended`` when the grant ends.

        Survives the loss of nodes, by claiming again under the same ``claim_id``. Leaving the loop
        does not give the claim up; `yield_claim` does. Raises `TokenInvalid`, `SeatLost` when the
        grant is gone or has another fence, and `InUse` when another live agent has it.
        """
        request = pb.ClaimGrantRequest(
            credentials=await self._session(), agent_id=agent_id, token=token, claim_id=claim_id
        )
        made = False
        answers = self._calls.listen(
            lambda channel: pb_grpc.EngineServiceStub(channel).ClaimGrant(request),
            overrides=_GRANT_GONE,
        )
        async with aclosing(answers):
            async for answer in answers:
                if answer.HasField("made"):
                    # Claiming again on another node says so again.
                    made, again = True, made
                    if again:
                        continue
                yield answer

    async def yield_claim(self, *, pool: str, grant_id: str, claim_id: str) -> None:
        """Give a claim up, so that another build may use the grant. Safe to repeat."""
        request = pb.YieldGrantRequest(
            credentials=await self._session(),
            grant=seats.GrantRef(pool=pool, grant_id=grant_id),
            claim_id=claim_id,
        )
        await self._calls.unary(
            lambda channel, timeout: pb_grpc.EngineServiceStub(channel).YieldGrant(
                request, timeout=timeout
            )
        )

    async def publish(self, manifest: build_pb2.SignedManifest, *, claim_id: str) -> None:
        """Publish an engine under a claimed grant.

        Raises `SeatLost` when the grant is gone, has another fence, or is not claimed under
        ``claim_id``: then nothing is published. Safe to repeat.
        """
        request = pb.PublishEngineRequest(
            credentials=await self._session(), manifest=manifest, claim_id=claim_id
        )
        await self._calls.unary(
            lambda channel, timeout: pb_grpc.EngineServiceStub(channel).PublishEngine(
                request, timeout=timeout
            ),
            overrides=_GRANT_GONE,
        )

    async def get(self, key: str) -> pb.PublishedEngine:
        """Return one published engine, and where it is. Raises `EngineNotFound`."""
        request = pb.GetEngineRequest(key=key)
        answer = await self._calls.unary(
            lambda channel, timeout: pb_grpc.EngineServiceStub(channel).GetEngine(
                request, timeout=timeout
            ),
            overrides={grpc.StatusCode.NOT_FOUND: EngineNotFound},
        )
        return answer.engine

    async def list(self, *, after: str = "") -> AsyncIterator[pb.PublishedEngine]:
        """Yield every published engine in the order of keys, or those after a key.

        Reads page by page: what is published meanwhile may or may not be among them.
        """
        while True:
            request = pb.ListEnginesRequest(page_size=PAGE_SIZE, after=after)
            answer = await self._page(request)
            for engine in answer.engines:
                yield engine
            if not answer.next:
                return
            after = answer.next

    async def _page(self, request: pb.ListEnginesRequest) -> pb.ListEnginesResponse:
        return await self._calls.unary(
            lambda channel, timeout: pb_grpc.EngineServiceStub(channel).ListEngines(
                request, timeout=timeout
            )
        )
