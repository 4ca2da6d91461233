"""One node behind a real socket, spoken to with the generated stubs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from tests.unit.kit import NOW, POOL, FakeClock, a_grant, uuid7

from seatkeeper.core.tokens import TokenClaims, verify_token
from seatkeeper.server.config import NodeConfig
from seatkeeper.server.domain import Instant
from seatkeeper.server.node import Node
from seatkeeper.server.store import MemoryStore
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.telemetry.tally import Tally
from seatkeeper.server.tokens.signer import TokenSigner, jwks
from seatkeeper.v1 import (
    borrow_service_pb2_grpc,
    cluster_service_pb2_grpc,
    engine_service_pb2_grpc,
    pool_service_pb2,
    pool_service_pb2_grpc,
    seat_pb2,
    seat_service_pb2,
    seat_service_pb2_grpc,
)

DEADLINE = 10.0
TTL = timedelta(seconds=10)
STORE_KEYS = Keys()
DETAILS = (
    error_details_pb2.BadRequest,
    error_details_pb2.ErrorInfo,
    error_details_pb2.ResourceInfo,
    error_details_pb2.RetryInfo,
)


@dataclass(frozen=True)
class Who:
    """A client's session, as the client knows it."""

    session_id: str
    secret: bytes

    @property
    def credentials(self) -> seat_service_pb2.SessionCredentials:
        return seat_service_pb2.SessionCredentials(
            session_id=self.session_id, secret=self.secret
        )

    @property
    def impostor(self) -> Who:
        """Somebody who knows the session's id and not its secret."""
        return replace(self, secret=b"x" * 16)


@dataclass
class Services:
    """A node's services, and the store and the time behind them."""

    node: Node
    store: MemoryStore
    clock: FakeClock
    signer: TokenSigner
    seats: seat_service_pb2_grpc.SeatServiceAsyncStub
    pools: pool_service_pb2_grpc.PoolServiceAsyncStub
    cluster: cluster_service_pb2_grpc.ClusterServiceAsyncStub
    engines: engine_service_pb2_grpc.EngineServiceAsyncStub
    borrowing: borrow_service_pb2_grpc.BorrowServiceAsyncStub
    _sessions: int = 0

    async def pool(self, seats: int, name: str = POOL) -> None:
        """Create a pool."""
        spec = pool_service_pb2.PoolSpec(name=name, seats=seats)
        await self.pools.CreatePool(
            pool_service_pb2.CreatePoolRequest(spec=spec), timeout=DEADLINE
        )

    def stranger(self) -> Who:
        """Somebody who has no session yet."""
        self._sessions += 1
        return Who(uuid7(1000 + self._sessions), bytes([self._sessions]) * 16)

    async def session(self, *, ttl: timedelta = TTL) -> Who:
        """Open a session."""
        who = self.stranger()
        await self.seats.OpenSession(
            seat_service_pb2.OpenSessionRequest(open=open_of(who, ttl=ttl)), timeout=DEADLINE
        )
        return who

    async def acquire(
        self, who: Who, number: int, *, timeout: float = DEADLINE, **fields: object
    ) -> seat_pb2.Granted:
        """Take seats by a unary call."""
        request = seat_service_pb2.AcquireRequest(
            credentials=who.credentials, acquire=acquire_of(number, **fields)
        )
        response = await self.seats.Acquire(request, timeout=timeout)
        return response.granted

    async def release(self, who: Who, number: int, pool: str = POOL) -> seat_pb2.Released:
        """Give seats back by a unary call."""
        request = seat_service_pb2.ReleaseRequest(
            credentials=who.credentials,
            release=seat_service_pb2.Release(grant=ref_of(number, pool)),
        )
        response = await self.seats.Release(request, timeout=DEADLINE)
        return response.released

    async def look(self, name: str = POOL) -> pool_service_pb2.Pool:
        """Return a pool as it stands."""
        request = pool_service_pb2.GetPoolRequest(name=name)
        return (await self.pools.GetPool(request, timeout=DEADLINE)).pool

    def pass_time(self, duration: timedelta) -> None:
        """Move the clock; leases that are over end."""
        self.clock.advance(duration)
        self.store.expire_due()

    def verify(
        self, token: str, pool: str | None = None, keys: str | None = None
    ) -> TokenClaims:
        """Return what a token proves by the clock of the services, with these keys or the node's."""
        now = datetime.fromtimestamp(self.clock.now() / 1000, UTC)
        return verify_token(token, keys or jwks([self.signer.jwk_json]), pool=pool, now=now)

    def token(
        self,
        number: int,
        *,
        fence: int = 1,
        pool: str = POOL,
        age: timedelta = timedelta(0),
        life: timedelta = TTL,
        signer: TokenSigner | None = None,
    ) -> str:
        """Sign a token with the node's key, whatever it may say."""
        issued = self.clock.now() - int(age.total_seconds() * 1000)
        return (signer or self.signer).sign(
            pool,
            a_grant(number, fence=fence),
            issued_at=Instant(issued),
            expires_at=Instant(issued + int(life.total_seconds() * 1000)),
        )


@asynccontextmanager
async def running_services(
    folder: Path, tally: Tally | None = None, *, now: Instant = NOW, **settings: int
) -> AsyncIterator[Services]:
    """Run a node over a store in memory, with these settings of its own.

    Its clock stands at ``now``: what a test finds does not depend on the day it is run.
    """
    key = Ed25519PrivateKey.generate()
    key_file = folder / "token.pem"
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    clock = FakeClock(now)
    store = MemoryStore(now=clock.monotonic)
    config = NodeConfig(
        node_id="node-1",
        listen="127.0.0.1:0",
        store="memory",
        token_key_file=key_file,
        stop_grace=0.5,
    ).model_copy(update=settings)
    node = await Node.start(config, store=store, clock=clock, tally=tally)
    async with grpc.aio.insecure_channel(node.address) as channel:
        yield Services(
            node=node,
            store=store,
            clock=clock,
            signer=TokenSigner.of(key),
            seats=seat_service_pb2_grpc.SeatServiceStub(channel),
            pools=pool_service_pb2_grpc.PoolServiceStub(channel),
            cluster=cluster_service_pb2_grpc.ClusterServiceStub(channel),
            engines=engine_service_pb2_grpc.EngineServiceStub(channel),
            borrowing=borrow_service_pb2_grpc.BorrowServiceStub(channel),
        )
    await node.stop()


@dataclass
class Refused:
    """How a call failed."""

    code: grpc.StatusCode
    message: str
    details: dict[str, Message] = field(default_factory=dict)

    @property
    def fields(self) -> list[str]:
        """The malformed fields, from ``BadRequest``."""
        detail = self.details["BadRequest"]
        assert isinstance(detail, error_details_pb2.BadRequest)
        return [violation.field for violation in detail.field_violations]

    @property
    def resource(self) -> tuple[str, str]:
        """What does not exist, from ``ResourceInfo``: kind and name."""
        detail = self.details["ResourceInfo"]
        assert isinstance(detail, error_details_pb2.ResourceInfo)
        return detail.resource_type, detail.resource_name

    @property
    def reason(self) -> str:
        """The reason in ``ErrorInfo``."""
        detail = self.details["ErrorInfo"]
        assert isinstance(detail, error_details_pb2.ErrorInfo)
        assert detail.domain == "seatkeeper"
        reason: str = detail.reason
        return reason

    @property
    def retry_after(self) -> timedelta:
        """The delay in ``RetryInfo``."""
        detail = self.details["RetryInfo"]
        assert isinstance(detail, error_details_pb2.RetryInfo)
        delay: timedelta = detail.retry_delay.ToTimedelta()
        return delay


async def refused(call: Awaitable[object]) -> Refused:
    """Await a call that must fail, and say how it did."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    found = Refused(error.code(), error.details() or "")
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            assert isinstance(value, bytes)
            status = status_pb2.Status.FromString(value)
            assert status.code == error.code().value[0]
            assert status.message == found.message
            for packed in status.details:
                for kind in DETAILS:
                    detail = kind()
                    if packed.Unpack(detail):
                        found.details[kind.DESCRIPTOR.name] = detail
    return found


def open_of(who: Who, *, ttl: timedelta = TTL, **fields: object) -> seat_service_pb2.Open:
    """Return the command that opens a session."""
    message = seat_service_pb2.Open(
        credentials=who.credentials, holder="anna@host", project="cv"
    )
    message.ttl.FromTimedelta(ttl)
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def acquire_of(number: int, **fields: object) -> seat_pb2.Acquire:
    """Return a request for a seat."""
    message = seat_pb2.Acquire(pool=POOL, grant_id=uuid7(number), seats=1)
    for name, value in fields.items():
        if isinstance(value, timedelta):
            getattr(message, name).CopyFrom(duration(value))
        elif isinstance(value, Message):
            getattr(message, name).CopyFrom(value)
        else:
            setattr(message, name, value)
    return message


def ref_of(number: int, pool: str = POOL) -> seat_service_pb2.GrantRef:
    """Return the name of a grant."""
    return seat_service_pb2.GrantRef(pool=pool, grant_id=uuid7(number))


def duration(value: timedelta) -> Duration:
    message = Duration()
    message.FromTimedelta(value)
    return message


Event = seat_service_pb2.SessionEvent
Command = seat_service_pb2.SessionCommand


class Stream:
    """A session stream, read one event at a time."""

    def __init__(self, services: Services) -> None:
        self.call = services.seats.Session(timeout=30)
        self._events: list[Event] = []

    async def send(self, *commands: Command) -> None:
        """Send commands in one message."""
        await self.call.write(seat_service_pb2.SessionRequest(commands=commands))

    async def open(self, who: Who) -> seat_service_pb2.Opened:
        """Open a session."""
        await self.send(Command(open=open_of(who)))
        return (await self.event("opened")).opened

    async def resume(self, who: Who) -> seat_service_pb2.Opened:
        """Go on with a session."""
        resume = seat_service_pb2.Resume(credentials=who.credentials)
        await self.send(Command(resume=resume))
        return (await self.event("opened")).opened

    async def acquire(self, number: int, **fields: object) -> None:
        """Ask for a seat."""
        await self.send(Command(acquire=acquire_of(number, **fields)))

    async def release(self, number: int) -> None:
        """Give a seat back."""
        await self.send(Command(release=seat_service_pb2.Release(grant=ref_of(number))))

    async def next(self) -> Event:
        """Return the next event of any kind."""
        while not self._events:
            response = await self.call.read()
            if not isinstance(response, seat_service_pb2.SessionResponse):
                raise EndOfStream
            self._events = list(response.events)
        return self._events.pop(0)

    async def event(self, kind: str) -> Event:
        """Return the next event, which must be of this kind; places in the queue may precede."""
        while True:
            event = await self.next()
            found = event.WhichOneof("event")
            if found == kind:
                return event
            assert found == "queued", f"{kind} expected: {event}"

    async def break_off(self) -> None:
        """Lose the connection, as far as the node can see."""
        self.call.cancel()


class EndOfStream(Exception):
    """The node has ended the stream."""
