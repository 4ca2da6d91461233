"""A circuit breaker for one node. Pure: the time is passed in.

closed --failures_max failures in a row--> open --open_for--> half-open --success--> closed
                                             ^                    |
                                             +------failure-------+

Half-open lets one call through; its outcome decides.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from seatkeeper.client.config.values import BreakerConfig


class BreakerState(enum.Enum):
    """Whether a node is called."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class Breaker:
    """What recent calls say about one node. Immutable: each outcome makes the next one."""

    failures: int = 0
    """Failures in a row."""
    opened_at: float | None = None
    """When it opened, or when its last trial began; None while closed."""

    def state(self, now: float, config: BreakerConfig) -> BreakerState:
        """Return whether the node may be called at ``now``."""
        if self.opened_at is None:
            return BreakerState.CLOSED
        if now < self.retry_at(config):
            return BreakerState.OPEN
        return BreakerState.HALF_OPEN

    def retry_at(self, config: BreakerConfig) -> float:
        """Return when the next call may be tried; in the past while closed."""
        if self.opened_at is None:
            return float("-inf")
        return self.opened_at + config.open_for.total_seconds()

    def allows(self, now: float, config: BreakerConfig) -> bool:
        """Return whether a call may be made at ``now``."""
        return self.state(now, config) is not BreakerState.OPEN

    def tried(self, now: float) -> Breaker:
        """Note that a call begins: while half-open, others stay away until it is decided.

        A trial whose outcome is never reported counts as failed, after another ``open_for``.
        """
        return self if self.opened_at is None else replace(self, opened_at=now)

    def succeeded(self) -> Breaker:
        """Note that a call succeeded: closed, and all failures forgotten."""
        return Breaker()

    def failed(self, now: float, config: BreakerConfig) -> Breaker:
        """Note that a call failed at ``now``: open after enough of them, or after one trial."""
        failures = self.failures + 1
        if self.opened_at is not None or failures >= config.failures_max:
            return Breaker(failures=failures, opened_at=now)
        return Breaker(failures=failures)
