"""What the parts of one node have in common."""

from __future__ import annotations

from dataclasses import dataclass

from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.policy.plan import Policy
from seatkeeper.server.pool.context import LISTING_STEP
from seatkeeper.server.store import Store
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.telemetry.tally import Tally
from seatkeeper.server.transport import Transport


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContext:
    """Who a node is, and what is around it. A part gets of this what it needs, and no more."""

    node_id: str
    store: Store
    """A ``CheckedStore``: what it says and takes is this deployment's."""
    keys: Keys
    clock: Clock
    tally: Tally
    """Observes every pool."""
    transport: Transport
    """How other nodes are reached, and how they and clients reach this one."""
    policy: Policy
    """The order of service of its pools, the same on all nodes."""
    listing_step: int = LISTING_STEP
    """Records of a pool's listing that are brought in without a turn of the event loop."""
