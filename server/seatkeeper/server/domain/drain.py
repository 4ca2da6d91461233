"""That an administrator has drained a pool. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Drain:
    """Nothing is granted from a pool until it is opened. Of its capacity that says nothing."""

    reason: str
    by: str
    """Who drained it, as the log of administrative acts says it."""
    drained_at: int
    """Unix milliseconds. For people."""

    def __str__(self) -> str:
        """Return it for those who want seats."""
        return f"the pool is drained, by {self.by}: {self.reason}"
