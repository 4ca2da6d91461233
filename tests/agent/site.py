"""A service in memory, agents, and clients, all real and on loopback."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

import grpc
import psutil
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status
from tests import processes

from seatkeeper.agent.config import AgentConfig
from seatkeeper.agent.main import Agent
from seatkeeper.client import AsyncGrant, AsyncSeatClient
from seatkeeper.client.transport.status import FirstStatus
from seatkeeper.core.errors import ServiceUnavailable
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import Grant, PoolState
from seatkeeper.server.pool.admin import Pools
from seatkeeper.server.store import Delete, Put, records
from seatkeeper.server.tokens.signer import TokenSigner
from seatkeeper.testing.service import DEFAULT_TTL, InMemoryService
from seatkeeper.v1 import build_pb2, build_service_pb2_grpc, engine_service_pb2
from seatkeeper.v1 import build_service_pb2 as pb

POOL = "tensorrt"
OPTIONS = build_pb2.BuildOptions(backend="tensorrt_rtx", targets=["SM86"])
TIME_LIMIT_SECONDS = 60.0
"""Far more than anything here takes."""
CHUNK_BYTES = 1 << 20

_Detail = TypeVar("_Detail", bound=Message)


@dataclass
class Site:
    """Everything that a test of agents needs, and what it can see of it."""

    service: InMemoryService
    folder: Path
    _stack: AsyncExitStack
    _clients: dict[str, AsyncSeatClient] = field(default_factory=dict)

    async def start_agent(self, name: str = "agent-1", **settings: object) -> Agent:
        """Start an agent; it is stopped after the test."""
        given = {
            "agent_id": name,
            "listen": "127.0.0.1:0",
            "nodes": self.service.address,
            "engines": self.folder / name,
            "pool": POOL,
            "stop_grace": 0,
        }
        agent = await Agent.start(AgentConfig.model_validate(given | settings))
        self._stack.push_async_callback(agent.stop)
        return agent

    def client(self, holder: str = "alice") -> AsyncSeatClient:
        """The client of that holder; it is closed after the test."""
        if holder not in self._clients:
            client = AsyncSeatClient(self.service.address, holder=holder, project="cv")
            self._stack.push_async_callback(client.close)
            self._clients[holder] = client
        return self._clients[holder]

    async def grant(self, holder: str = "alice") -> AsyncGrant:
        """A seat of that holder."""
        return await self.client(holder).acquire(POOL, wait=TIME_LIMIT_SECONDS, token=True)

    async def published(self) -> list[str]:
        """The keys in the catalogue."""
        engines = self.client("onlooker").engines
        return [manifest_of(engine.manifest).key async for engine in engines.list()]

    # The service's own records --------------------------------------------------------------

    @property
    def fence(self) -> int:
        """How many grants there have been."""
        return self._pool().guard.fence

    @property
    def claims(self) -> list[tuple[str, str]]:
        """Grant and agent of every claim that stands."""
        grants = self._pool().grants.values()
        return [(grant.grant_id, grant.agent_id) for grant in grants if grant.claim_id]

    @property
    def claims_followed(self) -> int:
        """How many agents are listening for the end of a grant."""
        node = self.service._running

        async def count() -> int:
            loop = await node._core.seats.loop(POOL)
            return 0 if loop is None else len(loop._followers)

        return self.service._call(count())

    def drop(self, grant_id: str) -> None:
        """Remove a grant behind everybody's back, as the end of its lease does."""
        node = self.service._running
        self.service._call(node._store.commit([Delete(node._keys.grant(POOL, grant_id))]))

    def rewrite(self, grant_id: str, **changes: object) -> None:
        """Change a grant's record behind everybody's back."""
        node = self.service._running
        grant: Grant = replace(self._pool().grants[grant_id], **changes)  # type: ignore[arg-type]  # the test gives fields by name
        put = Put(node._keys.grant(POOL, grant_id), records.encode_grant(grant), grant.lease_id)
        self.service._call(node._store.commit([put]))

    def token(
        self,
        grant: AsyncGrant,
        *,
        signer: TokenSigner | None = None,
        pool: str = POOL,
        expires_in: timedelta = timedelta(minutes=1),
    ) -> str:
        """A token for a grant as the service would sign it, or nearly so."""
        node = self.service._running
        now = node._core.clock.now()
        signer = signer or node._core.signer
        millis = int(expires_in.total_seconds() * 1000)
        return signer.sign(
            pool,
            self._pool().grants[grant.grant_id],
            issued_at=type(now)(min(now, now + millis)),
            expires_at=type(now)(now + millis),
        )

    def publish_key(self, signer: TokenSigner) -> None:
        """Let the service know a signing key, as a node does that starts."""
        node = self.service._running
        record = state_pb2.KeyRecord(jwk_json=signer.jwk_json).SerializeToString()
        self.service._call(
            node._store.commit([Put(node._keys.signing_key(signer.kid), record)])
        )

    def forget_key(self, signer: TokenSigner) -> None:
        """Let the service forget a signing key: what it signed proves nothing any more."""
        node = self.service._running
        self.service._call(node._store.commit([Delete(node._keys.signing_key(signer.kid))]))

    async def lose_session_of(self, client: AsyncSeatClient) -> None:
        """End the session of one client, as if it had not been renewed in time."""
        node = self.service._running
        key = node._keys.session((await client.session()).session_id)
        entry = self.service._call(node._store.get(key))
        assert entry is not None
        self.service._call(node._store.revoke_lease(entry.lease_id))

    def _pool(self) -> PoolState:
        node = self.service._running
        return self.service._call(Pools(node._store, node._keys).read(POOL)).state


@asynccontextmanager
async def running_site(
    folder: Path, session_ttl: timedelta = DEFAULT_TTL
) -> AsyncIterator[Site]:
    """Run a service with two pools, of 4 seats each."""
    async with (
        InMemoryService({POOL: 4, "other": 4}, session_ttl=session_ttl) as service,
        AsyncExitStack() as stack,
    ):
        yield Site(service, folder, stack)


def workers(agent: Agent) -> list[psutil.Process]:
    """The processes that compile for an agent."""
    folder = str(agent.build_runner.store.staging)
    found = []
    for process in psutil.Process(os.getpid()).children():
        with suppress(psutil.Error):  # it ended just now
            if any(word.startswith(folder) for word in process.cmdline()):
                found.append(process)
    return found


def is_idle(agent: Agent) -> bool:
    """Whether nothing of any build is left: no process, no file on its way."""
    return not workers(agent) and not list(agent.build_runner.store.staging.iterdir())


def mute_claims(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never report to the agent that a grant has ended."""
    claim = agent.client.engines.claim

    async def muted(
        token: str, *, agent_id: str, claim_id: str
    ) -> AsyncIterator[engine_service_pb2.ClaimGrantResponse]:
        async for event in claim(token, agent_id=agent_id, claim_id=claim_id):
            if event.HasField("ended"):
                await asyncio.Event().wait()
            yield event

    monkeypatch.setattr(agent.client.engines, "claim", muted)


async def unanswered(*arguments: object, **named: object) -> None:
    """A call to a service that cannot be reached."""
    raise ServiceUnavailable("no node answers")


eventually = processes.eventually


def manifest_of(signed: build_pb2.SignedManifest) -> build_pb2.EngineManifest:
    """What a manifest says."""
    return build_pb2.EngineManifest.FromString(signed.manifest)


def key_of(done: pb.BuildDone) -> str:
    """The key of what was built."""
    return manifest_of(done.manifest).key


# Builds without the client's kindness: what is on the wire, and what comes back ---------------


def header(token: str, model: bytes, **changes: object) -> pb.BuildHeader:
    """The header of a build of ``model``."""
    fields: dict[str, object] = {
        "token": token,
        "options": OPTIONS,
        "model_name": "model.onnx",
        "model_size_bytes": len(model),
        "model_sha256": hashlib.sha256(model).hexdigest(),
    }
    return pb.BuildHeader(**(fields | changes))  # type: ignore[arg-type]  # the test gives fields by name


def parts(header: pb.BuildHeader, model: bytes) -> list[pb.BuildRequest]:
    """The messages of a build."""
    chunks = [model[at : at + CHUNK_BYTES] for at in range(0, len(model), CHUNK_BYTES)]
    return [pb.BuildRequest(header=header), *(pb.BuildRequest(model_chunk=c) for c in chunks)]


@dataclass(frozen=True)
class Refusal:
    """How a call failed."""

    code: grpc.StatusCode
    message: str
    details: tuple[Message, ...]

    @property
    def reason(self) -> str:
        """The cause as programs read it."""
        found = self.detail(error_details_pb2.ErrorInfo)
        return found.reason if found is not None else ""

    def detail(self, kind: type[_Detail]) -> _Detail | None:
        """Return the detail of a kind."""
        return next((detail for detail in self.details if isinstance(detail, kind)), None)


LOST_STATUS = "Internal error from Core"
"""What gRPC says, rarely, in place of a refusal that comes while we still write."""
LOST_STATUS_MAX = 5


class Call:
    """One call of ``Build``, as it comes over the wire."""

    def __init__(self, agent: Agent, requests: Iterable[pb.BuildRequest]) -> None:
        self.progress: list[pb.BuildProgress] = []
        self.done: pb.BuildDone | None = None
        self.once_more: Callable[[], Call] | None = None
        """Makes the same call again, where that is possible."""
        self._channel = aio.insecure_channel(agent.info.address)
        stub = build_service_pb2_grpc.BuildServiceStub(self._channel)
        self._call = stub.Build(_sent(iter(requests)))
        self._first_status = FirstStatus(self._call)
        self._task = asyncio.create_task(self._read())
        # A call that a test cancels and forgets has nothing to say.
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def result(self) -> pb.BuildDone:
        """Return the build's end. Raises ``aio.AioRpcError``."""
        async with asyncio.timeout(TIME_LIMIT_SECONDS):
            await self._task
        assert self.done is not None
        return self.done

    async def refused(self) -> Refusal:
        """Return why it failed; fail when it did not."""
        call: Call = self
        for _ in range(LOST_STATUS_MAX):
            with pytest.raises(aio.AioRpcError) as caught:
                await call.result()
            refusal = refusal_of(call._first_status.of(caught.value))
            if refusal.message != LOST_STATUS or call.once_more is None:
                break
            call = call.once_more()
        return refusal

    async def until(self, phase: pb.BuildPhase.ValueType) -> None:
        """Wait until the build has come to a phase."""
        await eventually(
            lambda: self._task.done() or any(p.phase == phase for p in self.progress)
        )
        assert not self._task.done(), self._task

    def cancel(self) -> None:
        """Cancel it, as a client that is interrupted does."""
        self._call.cancel()

    async def _read(self) -> None:
        """Read to the end. What went wrong is kept for `result`."""
        try:
            async for answer in self._call:
                assert self.done is None
                if answer.HasField("done"):
                    self.done = answer.done
                else:
                    self.progress.append(answer.progress)
        finally:
            await self._channel.close()


def build(agent: Agent, token: str, model: bytes, **changes: object) -> Call:
    """Begin to build ``model`` on an agent."""
    call = Call(agent, parts(header(token, model, **changes), model))
    call.once_more = partial(build, agent, token, model, **changes)
    return call


def refusal_of(error: aio.AioRpcError) -> Refusal:
    """Return what a failed call says."""
    status = rpc_status.from_call(error)
    kinds = (
        error_details_pb2.BadRequest,
        error_details_pb2.DebugInfo,
        error_details_pb2.ErrorInfo,
        error_details_pb2.RetryInfo,
    )
    details: list[Message] = []
    for packed in status.details if status is not None else ():
        for kind in kinds:
            detail = kind()
            if packed.Unpack(detail):
                details.append(detail)
    return Refusal(error.code(), error.details() or "", tuple(details))


async def _sent(requests: Iterator[pb.BuildRequest]) -> AsyncIterator[pb.BuildRequest]:
    for request in requests:
        yield request
