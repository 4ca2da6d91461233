"""Everything that a caller can do, tried at one node: ``python probe.py CONFIG``, under each version.

One thing is done at a time, and said when it is done: so it is known which node wrote what. Between
two of them the harness puts fields that neither version knows into records, which must survive what
is done next. Like `program.py` it imports what users import.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from seatkeeper.client import AsyncSeatClient, ClientConfig, TlsConfig, new_id
from seatkeeper.v1 import build_pb2, build_service_pb2, engine_service_pb2, seat_pb2
from seatkeeper.v1 import engine_service_pb2_grpc as engines_grpc
from seatkeeper.v1 import seat_service_pb2 as pb

T = TypeVar("T")
TTL = timedelta(seconds=30)
STEP_SECONDS_MAX = 15.0
NODES = 3
TLS_FILES = ("ca", "cert", "key")
NO_PROXY = [("grpc.enable_http_proxy", 0)]


@dataclass(frozen=True)
class Config:
    """Where to try it."""

    name: str
    node: str
    """Id of the node that everything is done at."""
    address: str
    other: str
    """Id of a node that takes part: of the other version where there is one."""
    other_address: str
    pool: str
    """A pool that the node decides for: no other node writes its records."""
    second_pool: str
    """Another such."""
    foreign_pool: str
    """One that the other node decides for."""
    is_all_new: bool
    """Both nodes are of the new version: what it adds must work."""
    tls: dict[str, str]
    """Files of the CA, the certificate and its key; empty: without TLS."""


class Wrong(Exception):
    """An answer is not as it must be."""


def must(is_so: bool, what: str) -> None:
    """Raise ``Wrong`` unless something is as it must be."""
    if not is_so:
        raise Wrong(what)


class Probe:
    """One run of everything."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.node = self._client(config.address)
        self.other = self._client(config.other_address)
        self.credentials = pb.SessionCredentials(session_id=new_id(), secret=os.urandom(16))
        self.key = Ed25519PrivateKey.generate()
        self.agent_id = f"probe-{config.name}-{os.getpid()}"
        self.step = "begin"

    async def run(self) -> None:
        """Do it all. The first failure is reported, and ends the run."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.node)
            await stack.enter_async_context(self.other)
            try:
                await self._administer()
                grant_id = await self._sessions_and_seats()
                await self._agents(grant_id)
                await self._queue(grant_id)
                await self._across()
                await self._streams()
                await self.did("close", self.node.seats.close_session(self.credentials))
            except Exception as error:  # whatever it is, a caller has met it
                why = str(error) or f"not done after {STEP_SECONDS_MAX:g} s"
                await say(failed=self.step, reason=f"{type(error).__name__}: {why}"[:500])

    async def did(self, step: str, call: Awaitable[T], *, at_other: bool = False) -> T:
        """Do one thing, and say so."""
        self.step = step
        async with asyncio.timeout(STEP_SECONDS_MAX):
            answer = await call
        await say(did=step, node=self.config.other if at_other else self.config.node)
        return answer

    async def _administer(self) -> None:
        """A pool is changed and read."""
        pool, text = self.config.pool, f"changed by {self.agent_id}"
        await plant("pool", pool)
        await self.did("update pool", self.node.pools.update(pool, description=text))
        found = await self.did("get pool", self.other.pools.get(pool), at_other=True)
        must(found.spec.description == text, f"{pool} has {found.spec.description!r}")
        await self.did("report", self._whole_report())
        watched = await self.did("watch pool", self._watched(pool), at_other=True)
        must(watched == pool, f"{watched} is watched, not {pool}")

    async def _sessions_and_seats(self) -> str:
        """A session opens, is renewed elsewhere, and takes a seat whose token verifies elsewhere."""
        opening = self.node.seats.open_session(self.credentials, holder="probe", ttl=TTL)
        await self.did("open session", opening)
        await plant("session", self.credentials.session_id)
        await self.did("renew", self.node.seats.renew(self.credentials))
        renewing = self.other.seats.renew(self.credentials)
        await self.did("renew at the other node", renewing, at_other=True)
        await plant("guard", self.config.pool)
        granted = await self.did("acquire", self._acquire(self.config.pool))
        verified = await self.did(
            "verify at the other node",
            self.other.cluster.verify_token(granted.token, pool=self.config.pool),
            at_other=True,
        )
        must(verified.fence == granted.fence, f"the token has fence {verified.fence}")
        return granted.grant_id

    async def _agents(self, grant_id: str) -> None:
        """An agent claims the grant at both nodes, and publishes under it."""
        config, engines = self.config, self.node.engines
        public_key = self.key.public_key().public_bytes_raw()
        agent = build_service_pb2.AgentInfo(
            agent_id=self.agent_id, address="probe:1", public_key=public_key
        )
        await self.did("register agent", engines.register_agent(agent))
        await plant("agent", self.agent_id)
        await self.did("register agent again", engines.register_agent(agent))
        renewed = await self.did("renew for a token", self._token(grant_id))
        must(bool(renewed), "no token was renewed")
        await plant("grant", config.pool, grant_id)
        claim_id = new_id()
        claim = engines.claim(renewed, agent_id=self.agent_id, claim_id=claim_id)
        made = await self.did("claim", anext(claim))
        must(made.HasField("made"), f"the claim ended at once: {made}")
        verified = await self.node.cluster.verify_token(renewed)
        engine = self._engine(grant_id, verified.fence)
        await self.did("publish", engines.publish(engine, claim_id=claim_id))
        await plant("engine", self.agent_key)
        await self.did("publish again", engines.publish(engine, claim_id=claim_id))
        freeing = engines.yield_claim(pool=config.pool, grant_id=grant_id, claim_id=claim_id)
        await self.did("yield", freeing)
        await claim.aclose()
        claiming = self._claim_at_other(renewed, grant_id)
        await self.did("claim and yield at the other node", claiming, at_other=True)

    async def _queue(self, grant_id: str) -> None:
        """A second request waits, is sent again, and is served when the first lets go."""
        pool = self.config.pool
        waiting = asyncio.create_task(self._acquire(pool, wait=STEP_SECONDS_MAX))
        await self.did("queue", self._until_queued())
        (ticket,) = (await self.node.pools.get(pool)).tickets
        must(ticket.priority == 2, f"the ticket has priority {ticket.priority}")
        await plant("ticket", pool, ticket.grant_id)
        await plant("attributes", pool, ticket.grant_id)
        await plant("grant", pool, grant_id)
        await plant("guard", pool)
        await self.did("release", self._release(self.node, pool, grant_id))
        served = await self.did("be served", waiting)
        for kind in ("guard", "mark"):
            await plant(kind, pool, *([self.credentials.session_id] if kind == "mark" else []))
        await plant("grant", pool, served.grant_id)
        await self.did("release again", self._release(self.node, pool, served.grant_id))

    async def _across(self) -> None:
        """What one node is asked, the other decides; what one gives out, the other takes back."""
        config = self.config
        first = await self.did("acquire of another owner", self._acquire(config.foreign_pool))
        releasing = self._release(self.other, config.foreign_pool, first.grant_id)
        await self.did("release elsewhere", releasing, at_other=True)
        acquiring = self._acquire(config.second_pool, at_other=True)
        second = await self.did("acquire at who does not own", acquiring, at_other=True)
        releasing = self._release(self.node, config.second_pool, second.grant_id)
        await self.did("release at the owner", releasing)

    async def _streams(self) -> None:
        """Sessions of the library, with a stream to each of the nodes."""
        for client, pool in (
            (self.node, self.config.foreign_pool),
            (self.other, self.config.second_pool),
        ):
            labels = labels_for(client, {"probe": self.config.name})
            taking = client.acquire(pool, wait=5.0, **labels)
            grant = await self.did("library: acquire", taking)
            shown = await self.node.pools.get(pool)
            (held,) = shown.grants
            must(held.grant_id == grant.grant_id, f"{pool} shows {held.grant_id}")
            must(bool(held.client.library), "the holder's program is not shown")
            if labels and self.config.is_all_new:
                shown_labels = dict(held.attributes.labels)
                must(shown_labels == labels["labels"], f"labels {shown_labels} are shown")
            await self.did("library: release", grant.release())

    async def _whole_report(self) -> None:
        """Read the report until every node is in it and reaches the others.

        A busy node may be late, and one that was paused is asked again after a while.
        """
        while True:
            nodes = (await self.node.cluster.report()).nodes
            if len(nodes) == NODES and not any(each.failure or each.silent for each in nodes):
                return
            await asyncio.sleep(0.5)

    async def _watched(self, pool: str) -> str:
        watch = self.other.pools.watch(pool)
        try:
            return (await anext(watch)).spec.name
        finally:
            await watch.aclose()

    def _client(self, address: str) -> AsyncSeatClient:
        config = ClientConfig(follow_ring=False, keeper="process", ttl=TTL)
        files = self.config.tls
        tls = None
        if files:
            tls = TlsConfig(
                ca=Path(files["ca"]), cert=Path(files["cert"]), key=Path(files["key"])
            )
        return AsyncSeatClient(
            address,
            holder=f"probe-{self.config.name}",
            project="probes",
            tls=tls,
            config=config,
        )

    def _channel(self, address: str) -> grpc.aio.Channel:
        if not self.config.tls:
            return grpc.aio.insecure_channel(address, options=NO_PROXY)
        ca, cert, key = (Path(self.config.tls[name]).read_bytes() for name in TLS_FILES)
        credentials = grpc.ssl_channel_credentials(ca, key, cert)
        return grpc.aio.secure_channel(address, credentials, options=NO_PROXY)

    async def _acquire(
        self, pool: str, *, wait: float = 5.0, at_other: bool = False
    ) -> seat_pb2.Granted:
        acquire = seat_pb2.Acquire(
            pool=pool, grant_id=new_id(), seats=1, project="probed", priority=2
        )
        acquire.wait.FromTimedelta(timedelta(seconds=wait))
        client = self.other if at_other else self.node
        return await client.seats.acquire(self.credentials, acquire)

    async def _release(self, client: AsyncSeatClient, pool: str, grant_id: str) -> None:
        await client.seats.release(self.credentials, pb.GrantRef(pool=pool, grant_id=grant_id))

    async def _token(self, grant_id: str) -> str:
        ref = pb.GrantRef(pool=self.config.pool, grant_id=grant_id)
        renewed = await self.node.seats.renew(self.credentials, tokens_for=[ref])
        return renewed.tokens[0].token if renewed.tokens else ""

    async def _until_queued(self) -> None:
        async for pool in self.node.pools.watch(self.config.pool):
            if pool.queued:
                return

    @property
    def agent_key(self) -> str:
        """The key of its engine."""
        return f"{os.getpid():064x}"

    def _engine(self, grant_id: str, fence: int) -> build_pb2.SignedManifest:
        manifest = build_pb2.EngineManifest(
            key=self.agent_key,
            agent_id=self.agent_id,
            pool=self.config.pool,
            grant_id=grant_id,
            fence=fence,
        ).SerializeToString()
        return build_pb2.SignedManifest(
            manifest=manifest,
            signature=self.key.sign(manifest),
            public_key=self.key.public_key().public_bytes_raw(),
        )

    async def _claim_at_other(self, token: str, grant_id: str) -> None:
        """Claim with the session that registered the agent, which only stubs let us choose."""
        credentials, claim_id = await self.node.session(), new_id()
        async with self._channel(self.config.other_address) as channel:
            stub = engines_grpc.EngineServiceStub(channel)
            request = engine_service_pb2.ClaimGrantRequest(
                credentials=credentials, agent_id=self.agent_id, token=token, claim_id=claim_id
            )
            claim = stub.ClaimGrant(request)
            made = await anext(aiter(claim))
            must(made.HasField("made"), f"the claim ended at once: {made}")
            ref = pb.GrantRef(pool=self.config.pool, grant_id=grant_id)
            await stub.YieldGrant(
                engine_service_pb2.YieldGrantRequest(
                    credentials=credentials, grant=ref, claim_id=claim_id
                )
            )
            claim.cancel()


def labels_for(client: AsyncSeatClient, labels: dict[str, str]) -> dict[str, Any]:
    """Return the argument that gives a request labels; empty: this version has none."""
    argument: dict[str, Any] = {"labels": labels}
    try:
        client.seat("any", **argument)
    except TypeError:
        return {}
    return argument


async def say(**fields: object) -> None:
    """Write a line to the harness, and wait until it has done its part."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()
    if not await asyncio.to_thread(sys.stdin.readline):
        raise SystemExit(1)  # the harness has gone


async def plant(kind: str, *names: str) -> None:
    """Have the harness put a field into a record that neither version knows."""
    await say(plant=[kind, *names])


def main() -> None:
    """Try everything at the node that the argument describes."""

    async def run() -> None:
        await Probe(Config(**json.loads(sys.argv[1]))).run()

    asyncio.run(run())


if __name__ == "__main__":
    main()
