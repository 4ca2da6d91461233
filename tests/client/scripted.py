"""A small SeatService over real loopback sockets, that misbehaves on request.

One `ScriptedService` is the truth that several `ScriptedNode`s serve, as etcd is for real nodes. It
keeps no time: a session ends when the test says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from grpc_status import rpc_status
from tests import processes
from tests.ports import HeldPort

from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb
from seatkeeper.v1 import seat_service_pb2_grpc as pb_grpc

Reason = seat_pb2.DenialReason
DENIED_RETRY_SECONDS = 2.0
"""When one whom a node denies everything should come again."""


@dataclass(eq=False)
class ScriptedSession:
    secret: bytes
    holder: str
    project: str
    events: deque[pb.SessionEvent] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    marks: dict[str, str] = field(default_factory=dict)
    renewals: int = 0

    def notify(self, **event: object) -> None:
        self.events.append(pb.SessionEvent(**event))  # type: ignore[arg-type]  # the test gives fields by name
        self.wake.set()


@dataclass(eq=False)
class ScriptedGrant:
    session_id: str
    acquire: seat_pb2.Acquire
    fence: int


class ScriptedService:
    """Pools, sessions, grants and tickets, by the book by default."""

    def __init__(self, **capacities: int) -> None:
        self.capacities = capacities
        self.ttl_seconds = 30.0
        self.renew_in_seconds = 10.0
        self.sessions: dict[str, ScriptedSession] = {}
        self.grants: dict[str, ScriptedGrant] = {}
        self.tickets: dict[str, ScriptedGrant] = {}
        self.commands: list[pb.SessionCommand] = []
        self.refusals: deque[seat_pb2.Denied] = deque()
        self.answers_renewals = True
        self.answers = True
        self.tokens_signed = 0
        self.fence_of_last_grant = 0

    def refuse_next(
        self, reason: seat_pb2.DenialReason.ValueType, *, retry_after: float | None = None
    ) -> None:
        denied = seat_pb2.Denied(reason=reason, message=Reason.Name(reason))
        if retry_after is not None:
            denied.retry_after.CopyFrom(_duration(retry_after))
        self.refusals.append(denied)

    def count(self, kind: str) -> int:
        return sum(command.WhichOneof("command") == kind for command in self.commands)

    def held(self, pool: str) -> int:
        return sum(g.acquire.seats for g in self.grants.values() if g.acquire.pool == pool)

    def force_release(self, grant_id: str) -> None:
        grant = self.grants.pop(grant_id)
        session = self.sessions[grant.session_id]
        session.marks[grant.acquire.pool] = grant_id
        session.notify(lost=seat_pb2.Lost(grant_id=grant_id, message="taken back"))
        self._promote(grant.acquire.pool)

    def end_session(self, session_id: str, *, notify: bool = True) -> None:
        session = self.sessions.pop(session_id)
        for table in (self.grants, self.tickets):
            for grant_id in [i for i, g in table.items() if g.session_id == session_id]:
                del table[grant_id]
        if notify:
            session.notify(session_lost=pb.SessionLost(message="the lease ended"))
        for pool in self.capacities:
            self._promote(pool)

    def apply(self, session_id: str, command: pb.SessionCommand) -> None:
        self.commands.append(command)
        session = self.sessions.get(session_id)
        if session is None or not self.answers:
            return
        match command.WhichOneof("command"):
            case "renew":
                self._renew(session, command.renew)
            case "acquire":
                self._acquire(session_id, session, command.acquire)
            case "release":
                self._release(session, command.release.grant)
            case "close":
                self.end_session(session_id)
            case other:
                raise AssertionError(other)

    def _renew(self, session: ScriptedSession, renew: pb.Renew) -> None:
        session.renewals += 1
        if self.answers_renewals:
            session.notify(renewed=self.renewed(renew))

    def renewed(self, renew: pb.Renew) -> pb.Renewed:
        refs = [ref for ref in renew.tokens_for if ref.grant_id in self.grants]
        return pb.Renewed(
            sequence=renew.sequence,
            ttl=_duration(self.ttl_seconds),
            renew_in=_duration(self.renew_in_seconds),
            tokens=[
                pb.TokenRefresh(grant=ref, token=self._token(ref.grant_id)) for ref in refs
            ],
        )

    def _acquire(
        self, session_id: str, session: ScriptedSession, acquire: seat_pb2.Acquire
    ) -> None:
        grant_id, pool = acquire.grant_id, acquire.pool
        if self.refusals:
            refusal = self.refusals.popleft()
            refusal.grant_id = grant_id
            session.notify(denied=refusal)
        elif pool not in self.capacities:
            session.notify(denied=_denied(grant_id, Reason.DENIAL_REASON_POOL_NOT_FOUND))
        elif acquire.seats > self.capacities[pool]:
            session.notify(denied=_denied(grant_id, Reason.DENIAL_REASON_TOO_MANY_SEATS))
        elif grant_id in self.grants:
            session.notify(granted=self.granted(grant_id))
        elif grant_id in self.tickets:
            self._notify_position(grant_id)
        elif grant_id <= session.marks.get(pool, ""):
            session.notify(denied=_denied(grant_id, Reason.DENIAL_REASON_FINISHED))
        else:
            wants_no_queue = acquire.HasField("wait") and not acquire.wait.ToNanoseconds()
            self.tickets[grant_id] = ScriptedGrant(session_id, acquire, 0)
            self._promote(pool)
            if grant_id in self.tickets and wants_no_queue:
                del self.tickets[grant_id]
                session.notify(denied=_denied(grant_id, Reason.DENIAL_REASON_NO_SEAT_FREE))
            elif grant_id in self.tickets:
                self._notify_position(grant_id)

    def _release(self, session: ScriptedSession, ref: pb.GrantRef) -> None:
        self.grants.pop(ref.grant_id, None)
        self.tickets.pop(ref.grant_id, None)
        session.marks[ref.pool] = max(session.marks.get(ref.pool, ""), ref.grant_id)
        session.notify(released=seat_pb2.Released(grant_id=ref.grant_id))
        self._promote(ref.pool)

    def _promote(self, pool: str) -> None:
        for grant_id, ticket in list(self.tickets.items()):
            if ticket.acquire.pool != pool:
                continue
            if self.held(pool) + ticket.acquire.seats > self.capacities[pool]:
                return
            del self.tickets[grant_id]
            self.fence_of_last_grant += 1
            ticket.fence = self.fence_of_last_grant
            self.grants[grant_id] = ticket
            self.sessions[ticket.session_id].notify(granted=self.granted(grant_id))

    def granted(self, grant_id: str) -> seat_pb2.Granted:
        grant = self.grants[grant_id]
        granted = seat_pb2.Granted(
            grant_id=grant_id,
            pool=grant.acquire.pool,
            seats=grant.acquire.seats,
            fence=grant.fence,
            token=self._token(grant_id),
        )
        granted.granted_at.FromSeconds(1_700_000_000)
        return granted

    def _token(self, grant_id: str) -> str:
        self.tokens_signed += 1
        return f"token-{grant_id}-{self.tokens_signed}"

    def _notify_position(self, grant_id: str) -> None:
        ticket = self.tickets[grant_id]
        position = 1 + list(self.tickets).index(grant_id)
        queued = seat_pb2.Queued(
            grant_id=grant_id,
            position=position,
            estimate=_duration(90),
            estimate_low=_duration(60),
            estimate_high=_duration(200),
        )
        self.sessions[ticket.session_id].notify(queued=queued)


class ScriptedNode(pb_grpc.SeatServiceServicer):
    """One node of the service, which may be paused, killed or asked to drain."""

    def __init__(self, service: ScriptedService, name: str) -> None:
        self.service = service
        self.name = name
        self.address = ""
        self.credentials: grpc.ServerCredentials | None = None
        self.streams_opened = 0
        self.streams_refused = 0
        self.refuse_with: tuple[grpc.StatusCode, str] | None = None
        self.denies: seat_pb2.DenialReason.ValueType | None = None
        """Why this node denies every request and every release; None: it does not."""
        self.denied: list[str] = []
        """The ids of what it denied so, in order."""
        self.calls: list[str] = []
        """Full names of the methods that were called, in order, whether they exist or not."""
        self.more: list[Callable[[aio.Server], None]] = []
        """What else to serve; for those who start the node themselves."""
        self._server: aio.Server | None = None
        self._held: HeldPort | None = None
        """The port of a node that was killed: no other server is to answer there."""
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._streams: set[asyncio.Task[None]] = set()
        self._sessions: set[str] = set()

    async def start(self) -> None:
        self._server = aio.server(
            options=[("grpc.so_reuseport", 0)], interceptors=[_Recorder(self.calls)]
        )
        pb_grpc.add_SeatServiceServicer_to_server(self, self._server)
        for add in self.more:
            add(self._server)
        wanted = self.address or "127.0.0.1:0"
        if self._held is not None:
            self._held.let_go()
        if self.credentials is None:
            port = self._server.add_insecure_port(wanted)
        else:
            port = self._server.add_secure_port(wanted, self.credentials)
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def kill(self) -> None:
        """Stop at once, as a crash would: streams break, connections are refused."""
        self._resumed.set()
        if self._server is not None:
            await self._server.stop(None)
            self._server = None
            self._held = HeldPort(port=int(self.address.rpartition(":")[2]))

    def pause(self) -> None:
        """Answer nothing any more, and keep every connection open."""
        self._resumed.clear()

    def resume(self) -> None:
        self._resumed.set()

    def go_away(self, within: float = 1.0) -> None:
        for session_id in self._sessions & self.service.sessions.keys():
            away = pb.GoAway(message="draining", within=_duration(within))
            self.service.sessions[session_id].notify(go_away=away)

    def break_streams(self) -> None:
        for stream in self._streams:
            stream.cancel()

    async def Session(  # type: ignore[override]  # the stub's types allow other shapes too
        self,
        requests: AsyncIterator[pb.SessionRequest],
        context: aio.ServicerContext[pb.SessionRequest, pb.SessionResponse],
    ) -> None:
        first = (await anext(requests)).commands[0]
        await self._resumed.wait()
        if self.refuse_with is not None:
            self.streams_refused += 1
            await context.abort(*self.refuse_with)
        session_id, session = await self._begin(first, context)
        self.streams_opened += 1
        self._sessions.add(session_id)
        reader = asyncio.create_task(self._read(session_id, requests))
        writer = asyncio.create_task(self._write(session, context))
        self._streams.add(writer)
        try:
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            if writer.cancelled():
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the stream broke")
        finally:
            reader.cancel()
            writer.cancel()
            self._streams.discard(writer)
            self._sessions.discard(session_id)

    async def _begin(
        self,
        first: pb.SessionCommand,
        context: aio.ServicerContext[pb.SessionRequest, pb.SessionResponse],
    ) -> tuple[str, ScriptedSession]:
        service = self.service
        service.commands.append(first)
        credentials = first.open.credentials if first.HasField("open") else None
        if credentials is not None:
            session = ScriptedSession(credentials.secret, first.open.holder, first.open.project)
            session = service.sessions.setdefault(credentials.session_id, session)
        else:
            credentials = first.resume.credentials
            known = service.sessions.get(credentials.session_id)
            if known is None:
                await context.abort(grpc.StatusCode.NOT_FOUND, "the session has ended")
            session = known
            # Events that were not read belonged to the stream before.
            session.events.clear()
        session.notify(opened=self._opened(credentials.session_id))
        return credentials.session_id, session

    def _opened(self, session_id: str) -> pb.Opened:
        return pb.Opened(
            session_id=session_id,
            ttl=_duration(self.service.ttl_seconds),
            renew_in=_duration(self.service.renew_in_seconds),
            node_id=self.name,
        )

    async def _read(self, session_id: str, requests: AsyncIterator[pb.SessionRequest]) -> None:
        async for request in requests:
            await self._resumed.wait()
            assert len(request.commands) <= 1024
            for command in request.commands:
                if not self._deny(session_id, command):
                    self.service.apply(session_id, command)

    def _deny(self, session_id: str, command: pb.SessionCommand) -> bool:
        """Deny a command if this node does so; return whether it has."""
        grant_ids = {
            "acquire": command.acquire.grant_id,
            "release": command.release.grant.grant_id,
        }
        grant_id = grant_ids.get(command.WhichOneof("command") or "")
        session = self.service.sessions.get(session_id)
        if self.denies is None or not grant_id or session is None:
            return False
        self.service.commands.append(command)
        self.denied.append(grant_id)
        denied = _denied(grant_id, self.denies)
        denied.retry_after.CopyFrom(_duration(DENIED_RETRY_SECONDS))
        session.notify(denied=denied)
        return True

    async def _write(
        self,
        session: ScriptedSession,
        context: aio.ServicerContext[pb.SessionRequest, pb.SessionResponse],
    ) -> None:
        ended = False
        while not ended:
            await session.wake.wait()
            await self._resumed.wait()
            session.wake.clear()
            events = list(session.events)
            session.events.clear()
            if events:
                await context.write(pb.SessionResponse(events=events))
            ended = any(event.HasField("session_lost") for event in events)

    async def OpenSession(
        self,
        request: pb.OpenSessionRequest,
        context: aio.ServicerContext[pb.OpenSessionRequest, pb.OpenSessionResponse],
    ) -> pb.OpenSessionResponse:
        credentials = request.open.credentials
        self.service.sessions.setdefault(
            credentials.session_id,
            ScriptedSession(credentials.secret, request.open.holder, request.open.project),
        )
        return pb.OpenSessionResponse(opened=self._opened(credentials.session_id))

    async def Acquire(
        self,
        request: pb.AcquireRequest,
        context: aio.ServicerContext[pb.AcquireRequest, pb.AcquireResponse],
    ) -> pb.AcquireResponse:
        grant_id = request.acquire.grant_id
        command = pb.SessionCommand(acquire=request.acquire)
        self.service.apply(request.credentials.session_id, command)
        if grant_id not in self.service.grants:
            # Without its reason, a client takes it for a broken connection and tries again.
            denied = error_details_pb2.ErrorInfo(
                reason="DENIAL_REASON_NO_SEAT_FREE", domain="seatkeeper"
            )
            await context.abort_with_status(
                rich_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "no seat is free", denied)
            )
        return pb.AcquireResponse(granted=self.service.granted(grant_id))

    async def Renew(
        self,
        request: pb.RenewRequest,
        context: aio.ServicerContext[pb.RenewRequest, pb.RenewResponse],
    ) -> pb.RenewResponse:
        if request.credentials.session_id not in self.service.sessions:
            await context.abort(grpc.StatusCode.NOT_FOUND, "the session has ended")
        return pb.RenewResponse(renewed=self.service.renewed(request.renew))

    async def Release(
        self,
        request: pb.ReleaseRequest,
        context: aio.ServicerContext[pb.ReleaseRequest, pb.ReleaseResponse],
    ) -> pb.ReleaseResponse:
        command = pb.SessionCommand(release=request.release)
        self.service.apply(request.credentials.session_id, command)
        grant_id = request.release.grant.grant_id
        return pb.ReleaseResponse(released=seat_pb2.Released(grant_id=grant_id))

    async def CloseSession(
        self,
        request: pb.CloseSessionRequest,
        context: aio.ServicerContext[pb.CloseSessionRequest, pb.CloseSessionResponse],
    ) -> pb.CloseSessionResponse:
        await self._resumed.wait()
        if request.credentials.session_id in self.service.sessions:
            self.service.end_session(request.credentials.session_id)
        return pb.CloseSessionResponse()


class _Recorder(aio.ServerInterceptor):
    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        self._calls.append(handler_call_details.method)
        return await continuation(handler_call_details)


@contextlib.asynccontextmanager
async def running(
    service: ScriptedService, count: int = 1
) -> AsyncIterator[list[ScriptedNode]]:
    """Run ``count`` nodes of one service."""
    nodes = [ScriptedNode(service, f"node-{i}") for i in range(1, count + 1)]
    for node in nodes:
        await node.start()
    try:
        yield nodes
    finally:
        for node in nodes:
            await node.kill()


@contextlib.asynccontextmanager
async def pulse(heartbeats: int = 6) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Yield a function that returns when what was under way on the sockets has probably arrived.

    It makes calls of its own over the same poller and event loop and waits for their answers,
    so it takes longer where the machine is slower, which no sleep does.
    """

    async def heartbeat(request: bytes, context: aio.ServicerContext[bytes, bytes]) -> bytes:
        return request

    server = aio.server()
    handlers: dict[str, Any] = {"Heartbeat": grpc.unary_unary_rpc_method_handler(heartbeat)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Pulse", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/Pulse/Heartbeat"
        )

        async def settle() -> None:
            for _ in range(heartbeats):
                await call(b"")

        await settle()
        yield settle
    await server.stop(None)


eventually = processes.eventually


def rich_status(
    code: grpc.StatusCode,
    message: str,
    *details: error_details_pb2.RetryInfo | error_details_pb2.ErrorInfo,
) -> grpc.Status:
    status = status_pb2.Status(code=code.value[0], message=message)
    for detail in details:
        status.details.add().Pack(detail)
    made: grpc.Status = rpc_status.to_status(status)
    return made


def _denied(grant_id: str, reason: seat_pb2.DenialReason.ValueType) -> seat_pb2.Denied:
    return seat_pb2.Denied(grant_id=grant_id, reason=reason, message=Reason.Name(reason))


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
