"""The administrative calls for programs without an event loop: the same calls, waited for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Unpack

from seatkeeper.client.admin.borrowing import AsyncBorrowing
from seatkeeper.client.admin.changes import NewPool, PoolChange, changing, making
from seatkeeper.client.admin.cluster import AsyncCluster
from seatkeeper.client.admin.engines import AsyncEngines
from seatkeeper.client.admin.pools import AsyncPools
from seatkeeper.client.admin.seats import AsyncUnarySeats
from seatkeeper.client.transport.loop_thread import ClientThread
from seatkeeper.core.tokens import LEEWAY, TokenClaims
from seatkeeper.v1 import (
    borrow_service_pb2,
    build_pb2,
    build_service_pb2,
    cluster_service_pb2,
    engine_service_pb2,
    pool_service_pb2,
    seat_pb2,
    seat_service_pb2,
)


class Pools:
    """The pools of the service; every call as in `AsyncPools`."""

    def __init__(self, thread: ClientThread, pools: AsyncPools) -> None:
        self._thread = thread
        self._pools = pools

    @making
    def create(
        self, name: str, *, seats: int, **said: Unpack[NewPool]
    ) -> pool_service_pb2.Pool:
        """Create a pool."""
        return self._thread.call(self._pools.create(name, seats=seats, **said))

    @changing
    def update(self, name: str, **said: Unpack[PoolChange]) -> pool_service_pb2.Pool:
        """Change what is given of a pool, and nothing else."""
        return self._thread.call(self._pools.update(name, **said))

    def replace(
        self, spec: pool_service_pb2.PoolSpec, *, expected_revision: int = 0
    ) -> pool_service_pb2.Pool:
        """Replace a pool's specification, if its revision is still the expected one."""
        return self._thread.call(self._pools.replace(spec, expected_revision=expected_revision))

    def drain(self, name: str, *, reason: str) -> pool_service_pb2.Pool:
        """Grant nothing more from a pool until it is opened, and return it."""
        return self._thread.call(self._pools.drain(name, reason=reason))

    def open(self, name: str, *, reason: str = "") -> pool_service_pb2.Pool:
        """Open a pool that was drained, and return it."""
        return self._thread.call(self._pools.open(name, reason=reason))

    def delete(self, name: str) -> None:
        """Delete a pool that is not in use."""
        self._thread.call(self._pools.delete(name))

    def apply(self, changes: Iterable[pool_service_pb2.PoolChange], *, reason: str = "") -> int:
        """Make all changes, each of a pool as it was seen, or none; return the revision of all."""
        return self._thread.call(self._pools.apply(changes, reason=reason))

    def get(self, name: str) -> pool_service_pb2.Pool:
        """Return one pool as it stands, with its grants and tickets."""
        return self._thread.call(self._pools.get(name))

    def list(self) -> Sequence[pool_service_pb2.Pool]:
        """Return every pool in the order of names, without grants and tickets."""
        return self._thread.call(self._pools.list())

    def watch(self, name: str) -> Iterator[pool_service_pb2.Pool]:
        """Yield the pool as it stands now, then again after changes, forever."""
        return self._thread.iterate(self._pools.watch(name))

    def explain(self, pool: str, request_id: str) -> pool_service_pb2.ExplainTicketResponse:
        """Return which rule keeps a request waiting now, and the request."""
        return self._thread.call(self._pools.explain(pool, request_id))

    def remove(
        self, pool: str, request_id: str, *, reason: str
    ) -> pool_service_pb2.QueuedTicket:
        """Take a request out of the queue, and return it."""
        return self._thread.call(self._pools.remove(pool, request_id, reason=reason))

    def move(
        self,
        pool: str,
        request_id: str,
        *,
        reason: str,
        before: str = "",
        first: bool = False,
        last: bool = False,
        move_id: str = "",
    ) -> pool_service_pb2.QueuedTicket:
        """Move a request ``before`` another one, or to the ``first`` or ``last`` place; return it."""
        return self._thread.call(
            self._pools.move(
                *(pool, request_id),
                reason=reason,
                before=before,
                first=first,
                last=last,
                move_id=move_id,
            )
        )

    def revoke(
        self, pool: str, grant_id: str, *, notice: timedelta, reason: str, fence: int = 0
    ) -> pool_service_pb2.HeldGrant:
        """Call a grant back with a notice; return it as it is held now."""
        return self._thread.call(
            self._pools.revoke(pool, grant_id, notice=notice, reason=reason, fence=fence)
        )

    def withdraw_revoke(
        self, pool: str, grant_id: str, *, reason: str
    ) -> pool_service_pb2.HeldGrant:
        """Take back that a grant was called back by `revoke`; return it as it is held now."""
        return self._thread.call(self._pools.withdraw_revoke(pool, grant_id, reason=reason))

    def extend(
        self,
        pool: str,
        grant_id: str,
        *,
        by: timedelta,
        reason: str,
        seen: timedelta = timedelta(0),
        fence: int = 0,
    ) -> pool_service_pb2.HeldGrant:
        """Let a grant be held for longer than its pool's longest hold; return it as it is held now."""
        extended = self._pools.extend(
            pool, grant_id, by=by, reason=reason, seen=seen, fence=fence
        )
        return self._thread.call(extended)

    def release_now(
        self, pool: str, grant_id: str, *, reason: str, fence: int = 0
    ) -> pool_service_pb2.HeldGrant:
        """Free the seats of a grant at once, whatever its holder does; return the grant."""
        return self._thread.call(
            self._pools.release_now(pool, grant_id, reason=reason, fence=fence)
        )


class Cluster:
    """The nodes, their versions and their keys; every call as in `AsyncCluster`."""

    def __init__(self, thread: ClientThread, cluster: AsyncCluster) -> None:
        self._thread = thread
        self._cluster = cluster

    def nodes(self) -> Sequence[cluster_service_pb2.Node]:
        """Return the nodes that are alive, in the order of ids."""
        return self._thread.call(self._cluster.nodes())

    def version(self) -> cluster_service_pb2.GetVersionResponse:
        """Return the versions of the node that answers and of its store."""
        return self._thread.call(self._cluster.version())

    def report(self) -> cluster_service_pb2.GetReportResponse:
        """Return what every node says of itself, and how the store is."""
        return self._thread.call(self._cluster.report())

    def drain(self, node_id: str) -> None:
        """Have a node stop as on SIGTERM; the client must be one of that node's own address."""
        self._thread.call(self._cluster.drain(node_id))

    def jwks(self) -> str:
        """Return the public keys that verify tokens, as the text of a JSON Web Key Set."""
        return self._thread.call(self._cluster.jwks())

    def verify_token(
        self, token: str, *, pool: str | None = None, leeway: timedelta = LEEWAY
    ) -> TokenClaims:
        """Return what ``token`` proves, fetching keys only when it names one not seen before."""
        return self._thread.call(self._cluster.verify_token(token, pool=pool, leeway=leeway))


class Engines:
    """Agents and engines; every call as in `AsyncEngines`."""

    def __init__(self, thread: ClientThread, engines: AsyncEngines) -> None:
        self._thread = thread
        self._engines = engines

    def register_agent(self, agent: build_service_pb2.AgentInfo) -> bool:
        """Make an agent known, or change what it says; return whether it was asked to drain."""
        return self._thread.call(self._engines.register_agent(agent))

    def drain_agent(self, agent_id: str) -> None:
        """Ask an agent to take no new builds, to finish those that run, and to leave."""
        self._thread.call(self._engines.drain_agent(agent_id))

    def agents(self) -> Sequence[build_service_pb2.AgentInfo]:
        """Return the agents that are alive, in the order of ids."""
        return self._thread.call(self._engines.agents())

    def claim(
        self, token: str, *, agent_id: str, claim_id: str
    ) -> Iterator[engine_service_pb2.ClaimGrantResponse]:
        """Claim a grant for one agent: yield ``made``, and ``ended`` when the grant ends."""
        return self._thread.iterate(
            self._engines.claim(token, agent_id=agent_id, claim_id=claim_id)
        )

    def yield_claim(self, *, pool: str, grant_id: str, claim_id: str) -> None:
        """Give a claim up, so that another build may use the grant."""
        self._thread.call(
            self._engines.yield_claim(pool=pool, grant_id=grant_id, claim_id=claim_id)
        )

    def publish(self, manifest: build_pb2.SignedManifest, *, claim_id: str) -> None:
        """Publish an engine under a claimed grant."""
        self._thread.call(self._engines.publish(manifest, claim_id=claim_id))

    def get(self, key: str) -> engine_service_pb2.PublishedEngine:
        """Return one published engine, and where it is."""
        return self._thread.call(self._engines.get(key))

    def list(self, *, after: str = "") -> Iterator[engine_service_pb2.PublishedEngine]:
        """Yield every published engine in the order of keys, or those after a key."""
        return self._thread.iterate(self._engines.list(after=after))


class Borrowing:
    """The calls of the borrow service; every call as in `AsyncBorrowing`."""

    def __init__(self, thread: ClientThread, borrowing: AsyncBorrowing) -> None:
        self._thread = thread
        self._borrowing = borrowing

    def borrow(
        self,
        credentials: seat_service_pb2.SessionCredentials,
        grant: seat_service_pb2.GrantRef,
        *,
        length: timedelta,
        machine_key: bytes,
        proof: str,
    ) -> borrow_service_pb2.BorrowGrantResponse:
        """Give a session's grant to a machine; return the machine's token, and the keys for it."""
        return self._thread.call(
            self._borrowing.borrow(
                credentials, grant, length=length, machine_key=machine_key, proof=proof
            )
        )

    def return_grant(
        self, pool: str, grant_id: str, *, statement: str
    ) -> pool_service_pb2.HeldGrant | None:
        """Give a machine's grant back before its day; return it as it was. None: it was free."""
        return self._thread.call(
            self._borrowing.return_grant(pool, grant_id, statement=statement)
        )


class UnarySeats:
    """The unary calls of the seat service; every call as in `AsyncUnarySeats`."""

    def __init__(self, thread: ClientThread, seats: AsyncUnarySeats) -> None:
        self._thread = thread
        self._seats = seats

    def open_session(
        self,
        credentials: seat_service_pb2.SessionCredentials,
        *,
        holder: str,
        project: str = "",
        ttl: timedelta | None = None,
    ) -> seat_service_pb2.Opened:
        """Open a session."""
        return self._thread.call(
            self._seats.open_session(credentials, holder=holder, project=project, ttl=ttl)
        )

    def acquire(
        self, credentials: seat_service_pb2.SessionCredentials, acquire: seat_pb2.Acquire
    ) -> seat_pb2.Granted:
        """Take seats, waiting up to ``acquire.wait``; when that is unset, ``call_timeout``."""
        return self._thread.call(self._seats.acquire(credentials, acquire))

    def renew(
        self,
        credentials: seat_service_pb2.SessionCredentials,
        tokens_for: Sequence[seat_service_pb2.GrantRef] = (),
    ) -> seat_service_pb2.Renewed:
        """Keep a session alive for another ttl."""
        return self._thread.call(self._seats.renew(credentials, tokens_for))

    def release(
        self,
        credentials: seat_service_pb2.SessionCredentials,
        grant: seat_service_pb2.GrantRef,
    ) -> None:
        """Give the seats of a grant back, or leave the queue."""
        self._thread.call(self._seats.release(credentials, grant))

    def close_session(self, credentials: seat_service_pb2.SessionCredentials) -> None:
        """End a session and free everything it holds."""
        self._thread.call(self._seats.close_session(credentials))
