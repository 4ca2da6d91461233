"""When kept seats are free again, by this node's own monotonic clock.

A node measures from when it saw that they are kept, and no longer than is left by what is written then:
so seats are not kept anew when a pool gets another owner. A wall clock decides that once, when a node
sees the record for the first time; one that jumps afterwards changes nothing.
"""

from __future__ import annotations

import asyncio

from seatkeeper.server.decide.staying import KeptEnds
from seatkeeper.server.domain import PoolState, Stay
from seatkeeper.server.domain.clock import Clock
from seatkeeper.server.store import Store
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.store.stays import was_closed

ASKED_MAX = 64
"""Sessions whose ends are looked up for one decision."""


class StayTimers:
    """The ends of what one pool keeps, by grant id."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ends: dict[str, tuple[Stay, float]] = {}
        self._closed: dict[str, bool] = {}
        """Whether sessions were closed that have left seats of which nothing is written."""
        self._unknown: frozenset[str] = frozenset()

    def review(self, state: PoolState) -> None:
        """Note what is kept now."""
        if not state.kept and not self._ends:
            return
        now, ends = self._clock.monotonic(), {}
        for grant_id in state.kept:
            stay = state.stays[grant_id]
            known = self._ends.get(grant_id)
            if known is not None and known[0] == stay:
                ends[grant_id] = known
            elif stay.until:
                whole = stay.until - stay.since
                left = min(max(stay.until - self._clock.now(), 0), whole)
                ends[grant_id] = (stay, now + left / 1000)
        self._ends = ends

    def ends(self) -> KeptEnds:
        """Return what a decision is to know of them."""
        closed = {each for each, is_closed in self._closed.items() if is_closed}
        return KeptEnds(self.over(), closed, self._unknown)

    def over(self) -> frozenset[str]:
        """Return the ids of what is kept no more."""
        if not self._ends:
            return frozenset()
        now = self._clock.monotonic()
        return frozenset(grant_id for grant_id, (_, end) in self._ends.items() if end <= now)

    def next_end(self) -> float | None:
        """Return when the next of them is free, by the monotonic clock; None: nothing is kept."""
        return min((end for _, end in self._ends.values()), default=None)

    async def look_up(self, store: Store, keys: Keys, state: PoolState) -> None:
        """Find out which sessions were closed of those that have left seats behind, some at a time.

        What was closed was not lost. Its tombstone says so before its lease ends.
        """
        left = {
            kept.session_id for each, kept in state.kept.items() if not state.stays[each].until
        }
        self._closed = {each: known for each, known in self._closed.items() if each in left}
        asked = sorted(left - self._closed.keys())
        entries = await asyncio.gather(
            *(store.get(keys.opened(each)) for each in asked[:ASKED_MAX])
        )
        for session_id, entry in zip(asked, entries, strict=False):
            self._closed[session_id] = entry is not None and was_closed(entry.key, entry.value)
        self._unknown = frozenset(asked[ASKED_MAX:])
