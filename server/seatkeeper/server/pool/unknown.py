"""Decisions whose outcome is not known yet: what they changed is published when the watch shows it."""

from __future__ import annotations

from seatkeeper.server.decide import Decision
from seatkeeper.server.events.observer import Observer
from seatkeeper.server.events.usage import UsageEvent
from seatkeeper.server.pool.decided import Ended, changes_of

UNKNOWN_MAX = 8
"""Decisions of unknown outcome that are remembered until the watch shows them."""


class UnknownOutcomes:
    """Those of one pool."""

    def __init__(self, pool: str, observer: Observer) -> None:
        self._pool = pool
        self._observer = observer
        self._changes: dict[int, list[UsageEvent]] = {}

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._changes)

    def remember(self, decision_id: int, decision: Decision, ended: Ended) -> None:
        """Keep what a decision changed until it is known whether it took effect.

        What it refused is left out: those commands are decided again.
        """
        self._changes[decision_id] = list(changes_of(self._pool, decision, ended, peers={}))
        while len(self._changes) > UNKNOWN_MAX:
            del self._changes[next(iter(self._changes))]

    def forget(self, decision_id: int) -> None:
        """Note that a decision takes no effect."""
        self._changes.pop(decision_id, None)

    def took_effect(self, decision_id: int) -> None:
        """Publish the changes of a decision whose outcome was unknown, if it is one."""
        self._observer.usage.publish_all(self._changes.pop(decision_id, ()))
