"""Where things are in the store.

::

    <prefix>/pools/<pool>                      PoolSpec, written by administrators
    <prefix>/seats/<pool>/guard                GuardRecord; rewritten by every decision
    <prefix>/seats/<pool>/grants/<grant_id>    GrantRecord, attached to the session's lease
    <prefix>/seats/<pool>/stays/<grant_id>     StayRecord: seats that outlive the session
    <prefix>/seats/<pool>/queue/<grant_id>     TicketRecord, attached to the session's lease
    <prefix>/seats/<pool>/marks/<session_id>   MarkRecord, attached to the session's lease
    <prefix>/sessions/<session_id>             SessionRecord, attached to its own lease
    <prefix>/opened/<session_id>               SessionRecord, for a while after it was opened or closed
    <prefix>/nodes/<node_id>                   NodeRecord, attached to its own lease
    <prefix>/agents/<agent_id>                 AgentRecord, attached to the agent's session
    <prefix>/engines/<key>                     EngineRecord
    <prefix>/keys/<kid>                        KeyRecord
    <prefix>/ledgers/<name>                    LedgerRecord, attached to its own lease
    <prefix>/deployment                        DeploymentRecord
    <prefix>/secret                            what nodes prove themselves to each other with

All that a decision reads and writes is below ``seats/<pool>/``: one listing gets it at one revision,
and one watch delivers each of its revisions whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from google.protobuf.message import Message

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.v1 import pool_service_pb2

KINDS: dict[str, type[Message] | None] = {
    "pools/<pool>": pool_service_pb2.PoolSpec,
    "seats/<pool>/guard": state_pb2.GuardRecord,
    "seats/<pool>/grants/<grant_id>": state_pb2.GrantRecord,
    "seats/<pool>/stays/<grant_id>": state_pb2.StayRecord,
    "seats/<pool>/queue/<grant_id>": state_pb2.TicketRecord,
    "seats/<pool>/marks/<session_id>": state_pb2.MarkRecord,
    "sessions/<session_id>": state_pb2.SessionRecord,
    "opened/<session_id>": state_pb2.SessionRecord,
    "nodes/<node_id>": state_pb2.NodeRecord,
    "agents/<agent_id>": state_pb2.AgentRecord,
    "engines/<key>": state_pb2.EngineRecord,
    "keys/<kid>": state_pb2.KeyRecord,
    "ledgers/<name>": state_pb2.LedgerRecord,
    "deployment": state_pb2.DeploymentRecord,
    "secret": None,
}
"""What is stored under each kind of key, below the prefix; None: text. Every kind there is."""


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(re.sub("<[a-z_]+>", "[^/]+", kind)), kind) for kind in KINDS)


@dataclass(frozen=True, slots=True)
class Keys:
    """The layout below one prefix. Several services can share a store under different ones."""

    prefix: str = "seatkeeper"

    def kind(self, key: str) -> str | None:
        """Return the kind of a key, one of ``KINDS``; None: it is none of this layout."""
        name = key.removeprefix(f"{self.prefix}/")
        return next((kind for pattern, kind in _patterns() if pattern.fullmatch(name)), None)

    def pools(self) -> str:
        """Return the prefix of all pools' specifications."""
        return f"{self.prefix}/pools/"

    def pool(self, name: str) -> str:
        """Return the key of a pool's specification."""
        return f"{self.prefix}/pools/{name}"

    def seats(self, pool: str) -> str:
        """Return the prefix of all that decisions about a pool read and write."""
        return f"{self.prefix}/seats/{pool}/"

    def guard(self, pool: str) -> str:
        """Return the key of a pool's guard."""
        return f"{self.prefix}/seats/{pool}/guard"

    def grant(self, pool: str, grant_id: str) -> str:
        """Return the key of a grant."""
        return f"{self.prefix}/seats/{pool}/grants/{grant_id}"

    def stay(self, pool: str, grant_id: str) -> str:
        """Return the key of seats that outlive a session."""
        return f"{self.prefix}/seats/{pool}/stays/{grant_id}"

    def ticket(self, pool: str, grant_id: str) -> str:
        """Return the key of a ticket."""
        return f"{self.prefix}/seats/{pool}/queue/{grant_id}"

    def mark(self, pool: str, session_id: str) -> str:
        """Return the key of a session's watermark in a pool."""
        return f"{self.prefix}/seats/{pool}/marks/{session_id}"

    def session(self, session_id: str) -> str:
        """Return the key of a session."""
        return f"{self.prefix}/sessions/{session_id}"

    def opened(self, session_id: str) -> str:
        """Return the key of a session's tombstone."""
        return f"{self.prefix}/opened/{session_id}"

    def nodes(self) -> str:
        """Return the prefix of all nodes."""
        return f"{self.prefix}/nodes/"

    def node(self, node_id: str) -> str:
        """Return the key of a node."""
        return f"{self.prefix}/nodes/{node_id}"

    def agents(self) -> str:
        """Return the prefix of all agents."""
        return f"{self.prefix}/agents/"

    def agent(self, agent_id: str) -> str:
        """Return the key of an agent."""
        return f"{self.prefix}/agents/{agent_id}"

    def engines(self) -> str:
        """Return the prefix of all engines."""
        return f"{self.prefix}/engines/"

    def engine(self, key: str) -> str:
        """Return the key of an engine."""
        return f"{self.prefix}/engines/{key}"

    def signing_keys(self) -> str:
        """Return the prefix of all public token-verification keys."""
        return f"{self.prefix}/keys/"

    def signing_key(self, kid: str) -> str:
        """Return the key of a public token-verification key."""
        return f"{self.prefix}/keys/{kid}"

    def elected_ledger(self, name: str) -> str:
        """Return the key of the process that writes the ledger of this name."""
        return f"{self.prefix}/ledgers/{name}"

    def deployment(self) -> str:
        """Return the key that says which service this is."""
        return f"{self.prefix}/deployment"

    def secret(self) -> str:
        """Return the key of the secret that the nodes share."""
        return f"{self.prefix}/secret"
