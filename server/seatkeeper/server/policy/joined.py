"""The order of service in the moment in which the seats of a gang are granted."""

from __future__ import annotations

from dataclasses import dataclass, replace

from seatkeeper.server.domain import Instant
from seatkeeper.server.policy.plan import Plan, Policy
from seatkeeper.server.policy.snapshot import PoolSnapshot


@dataclass(frozen=True, slots=True)
class Joined:
    """Plans as ``policy`` does, with one ticket of a gang among those that it may serve.

    It is served where it would be if it stood alone: not before others whose turn it is.
    """

    policy: Policy
    grant_id: str

    def plan(self, pool: PoolSnapshot, now: Instant) -> Plan:
        """Return the policy's plan."""
        return self.policy.plan(replace(pool, joined={self.grant_id}), now)
