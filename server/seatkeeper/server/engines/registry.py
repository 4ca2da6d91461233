"""Agents, claims and published engines: what ties a build to a live grant.

An agent works under a grant only while its claim stands in the grant's own record, and publishes by a
transaction that compares that record. A grant that was released, lost, or given anew has another
record or none, so nothing stale is ever published, however late the agent learns of it.
"""

from __future__ import annotations

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import Grant
from seatkeeper.server.events import log as events
from seatkeeper.server.sessions.sessions import Session, SessionLost
from seatkeeper.server.store import (
    Entry,
    LeaseNotFound,
    Put,
    Store,
    StoreUnavailable,
    Unchanged,
    records,
)
from seatkeeper.server.store.formats import parsed, readable
from seatkeeper.server.store.keys import Keys
from seatkeeper.v1 import build_pb2, build_service_pb2

ATTEMPTS_MAX = 10
"""A change that loses its race against other changes is tried this often."""


class EngineError(Exception):
    """A claim or a publication is refused."""


class GrantEnded(EngineError):
    """The grant is gone, or has another fence: stop working under it."""


class ClaimedElsewhere(EngineError):
    """Another live agent, or another build, works under the grant."""


class AgentIdTaken(EngineError):
    """Another live session has registered this agent id."""


class AgentNotFound(EngineError):
    """No agent of that id is alive."""


class NotRegistered(EngineError):
    """The session has not registered the agent it speaks for."""


class EngineNotFound(EngineError):
    """No engine of this key is published."""


class FenceStale(EngineError):
    """A newer grant has published this engine."""


class Engines:
    """The catalogue of agents and engines, straight from the store."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys

    async def register(self, session: Session, agent: build_service_pb2.AgentInfo) -> bool:
        """Make an agent known while its session lives; return whether it was asked to drain.

        Raises ``AgentIdTaken`` or ``SessionLost``.
        """
        key = self._keys.agent(agent.agent_id)
        for _ in range(ATTEMPTS_MAX):
            found = await self._store.get(key)
            record = parsed(state_pb2.AgentRecord, key, found.value if found else b"")
            if found is not None and record.session_id != session.session_id:
                raise AgentIdTaken(
                    f"agent {agent.agent_id} is registered by another live session; "
                    "choose another id, or wait until that session has ended"
                )
            record.session_id = session.session_id
            record.agent.CopyFrom(agent)  # its own word about itself, whole
            put = Put(key, record.SerializeToString(), session.lease_id)
            if found is not None and (found.value, found.lease_id) == (put.value, put.lease_id):
                return record.drain
            try:
                if await self._written(put, found):
                    return record.drain
            except LeaseNotFound:
                raise SessionLost(session.session_id) from None
        raise StoreUnavailable(f"agent {agent.agent_id} changes too fast")

    async def drain(self, agent_id: str) -> None:
        """Ask an agent to drain, for as long as it is registered. Raises ``AgentNotFound``."""
        key = self._keys.agent(agent_id)
        for _ in range(ATTEMPTS_MAX):
            found = await self._store.get(key)
            if found is None:
                raise AgentNotFound(
                    f"no agent {agent_id} is alive; `seatkeeper agent list` shows those that are"
                )
            record = parsed(state_pb2.AgentRecord, key, found.value)
            record.drain = True
            put = Put(key, record.SerializeToString(), found.lease_id)
            try:
                if await self._written(put, found):
                    return
            except LeaseNotFound:
                continue
        raise StoreUnavailable(f"agent {agent_id} changes too fast")

    async def agents(self) -> list[build_service_pb2.AgentInfo]:
        """Return the agents that are alive, in the order of ids."""
        listing = await self._store.list(self._keys.agents())
        refused = events.record_unreadable
        known = readable(state_pb2.AgentRecord, listing.entries, refused)
        return [record.agent for _, record in known]

    async def registered(self, session: Session, agent_id: str) -> build_service_pb2.AgentInfo:
        """Return what ``session`` has registered of its agent. Raises ``NotRegistered``."""
        key = self._keys.agent(agent_id)
        entry = await self._store.get(key)
        record = parsed(state_pb2.AgentRecord, key, entry.value) if entry else None
        if record is None or record.session_id != session.session_id:
            raise NotRegistered(f"register agent {agent_id} with this session first")
        return record.agent

    async def claim(
        self, pool: str, grant_id: str, fence: int, *, agent_id: str, claim_id: str
    ) -> None:
        """Claim a grant for one build of one agent; again is the same claim.

        The claim of an agent that is no longer alive does not count. Raises ``GrantEnded`` or
        ``ClaimedElsewhere``.
        """
        for _ in range(ATTEMPTS_MAX):
            found, grant = await self._grant(pool, grant_id, fence)
            if (grant.agent_id, grant.claim_id) == (agent_id, claim_id):
                return
            if grant.claim_id and await self._is_alive(grant.agent_id):
                raise ClaimedElsewhere(
                    f"agent {grant.agent_id} works under this grant; one build at a time"
                )
            claimed = records.with_claim(found.value, agent_id, claim_id)
            if await self._written(Put(found.key, claimed, grant.lease_id), found):
                return
        raise StoreUnavailable(f"grant {grant_id} changes too fast")

    async def yield_claim(self, pool: str, grant_id: str, claim_id: str) -> None:
        """Give a claim up. Succeeds also when there was none."""
        for _ in range(ATTEMPTS_MAX):
            found = await self._store.get(self._keys.grant(pool, grant_id))
            if found is None:
                return
            grant = records.decode_grant(grant_id, found.value)
            if grant.claim_id != claim_id:
                return
            freed = records.with_claim(found.value, "", "")
            if await self._written(Put(found.key, freed, grant.lease_id), found):
                return
        raise StoreUnavailable(f"grant {grant_id} changes too fast")

    async def is_claimed(self, pool: str, grant_id: str, fence: int, claim_id: str) -> bool:
        """Return whether the grant still exists with this fence and this claim. Linearizable."""
        try:
            _, grant = await self._grant(pool, grant_id, fence)
        except GrantEnded:
            return False
        return grant.claim_id == claim_id

    async def publish(
        self,
        manifest: build_pb2.EngineManifest,
        signed: build_pb2.SignedManifest,
        claim_id: str,
    ) -> None:
        """Publish an engine in a transaction that compares the grant it was built under.

        Raises ``GrantEnded``, ``ClaimedElsewhere`` or ``FenceStale``; nothing is published then.
        """
        key = self._keys.engine(manifest.key)
        grant_key = self._keys.grant(manifest.pool, manifest.grant_id)
        for _ in range(ATTEMPTS_MAX):
            found, grant = await self._grant(manifest.pool, manifest.grant_id, manifest.fence)
            if (grant.agent_id, grant.claim_id) != (manifest.agent_id, claim_id):
                raise ClaimedElsewhere("the grant is not claimed by this build")
            earlier = await self._store.get(key)
            record = parsed(state_pb2.EngineRecord, key, earlier.value if earlier else b"")
            record.fences.update(_fences(manifest, record))
            record.manifest.CopyFrom(signed)
            committed = await self._store.commit(
                [Put(key, record.SerializeToString())],
                only_if=[
                    Unchanged(grant_key, found.mod_revision),
                    Unchanged(key, earlier.mod_revision if earlier else 0),
                ],
            )
            if committed.succeeded:
                return
        raise StoreUnavailable(f"engine {manifest.key} changes too fast")

    async def engine(self, key: str) -> build_pb2.SignedManifest:
        """Return a published engine's manifest. Raises ``EngineNotFound``."""
        entry = await self._store.get(self._keys.engine(key))
        if entry is None:
            raise EngineNotFound(
                f"no engine {key} is published; `engines list` shows those there are"
            )
        return parsed(state_pb2.EngineRecord, entry.key, entry.value).manifest

    async def engines(self) -> list[build_pb2.SignedManifest]:
        """Return all published engines' manifests, in the order of keys."""
        listing = await self._store.list(self._keys.engines())
        refused = events.record_unreadable
        known = readable(state_pb2.EngineRecord, listing.entries, refused)
        return [record.manifest for _, record in known]

    async def _grant(self, pool: str, grant_id: str, fence: int) -> tuple[Entry, Grant]:
        entry = await self._store.get(self._keys.grant(pool, grant_id))
        if entry is None:
            raise GrantEnded(f"grant {grant_id} has ended: its seat was released or lost")
        grant = records.decode_grant(grant_id, entry.value)
        if grant.fence != fence:
            raise GrantEnded(f"grant {grant_id} has fence {grant.fence}, not {fence}")
        if grant.borrow is not None:
            raise GrantEnded(f"grant {grant_id} is a machine's now, which has borrowed it")
        return entry, grant

    async def _is_alive(self, agent_id: str) -> bool:
        return await self._store.get(self._keys.agent(agent_id)) is not None

    async def _written(self, put: Put, found: Entry | None) -> bool:
        revision = found.mod_revision if found else 0
        committed = await self._store.commit([put], only_if=[Unchanged(put.key, revision)])
        return committed.succeeded


def _fences(
    manifest: build_pb2.EngineManifest, earlier: state_pb2.EngineRecord
) -> dict[str, int]:
    """Return the newest fences that the engine is published under now. Raises ``FenceStale``."""
    fences: dict[str, int] = {}
    if earlier.HasField("manifest"):
        published = build_pb2.EngineManifest.FromString(earlier.manifest.manifest)
        # Its own fence is not among the others in what was written before they were kept.
        fences = {published.pool: published.fence, **earlier.fences}
    if (newest := fences.get(manifest.pool, 0)) > manifest.fence:
        raise FenceStale(
            f"engine {manifest.key} was published under fence {newest} of {manifest.pool}, "
            f"which is newer than {manifest.fence}"
        )
    return {**fences, manifest.pool: manifest.fence}
