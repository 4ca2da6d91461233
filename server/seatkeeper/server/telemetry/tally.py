"""What a node has done since it started, in numbers: for its report to operators."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta

from seatkeeper.server.events.feed import UsageFeed
from seatkeeper.server.events.observer import Observer

RECENT_MAX = 1000
"""Commits whose times are remembered."""


@dataclass(slots=True)
class Tally(Observer):
    """Counts what happens on one node, over all its pools."""

    commits: int = 0
    commands: int = 0
    conflicts: int = 0
    outcomes_unknown: int = 0
    store_failures: int = 0
    commands_forwarded: int = 0
    forward_failures: int = 0
    relists: int = 0
    streams: int = 0
    """Session streams that are open now."""
    foreign: int = 0
    """Endpoints of another etcd, and 1 more where the store holds another service."""
    recent_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_MAX))
    """Times of the latest commits."""
    usage: UsageFeed = field(default_factory=UsageFeed)

    def commit_time(self, share: float) -> timedelta | None:
        """Return the time that this ``share`` of the latest commits stayed below; None: no commits."""
        if not self.recent_seconds:
            return None
        ordered = sorted(self.recent_seconds)
        return timedelta(seconds=ordered[min(len(ordered) - 1, int(share * len(ordered)))])

    def committed(self, pool: str, *, commands: int, writes: int, seconds: float) -> None:
        """Count a decision that took effect."""
        self.commits += 1
        self.commands += commands
        self.recent_seconds.append(seconds)

    def conflicted(self, pool: str) -> None:
        """Count a decision made on an old view."""
        self.conflicts += 1

    def outcome_unknown(self, pool: str) -> None:
        """Count a commit that was not answered."""
        self.outcomes_unknown += 1

    def store_failed(self, pool: str, reason: str) -> None:
        """Count a commit that the store did not accept."""
        self.store_failures += 1

    def relisted(self, what: str, reason: str) -> None:
        """Count a watch that ended."""
        self.relists += 1

    def forwarded(self, pool: str, *, commands: int) -> None:
        """Count commands forwarded."""
        self.commands_forwarded += commands

    def forward_failed(self, pool: str) -> None:
        """Count an owner that did not answer."""
        self.forward_failures += 1

    def stream_opened(self) -> None:
        """Count a session stream."""
        self.streams += 1

    def stream_closed(self) -> None:
        """Count a session stream."""
        self.streams -= 1
