"""Which grant ids are completed, so that a late duplicate of a request takes no effect.

Theory of operation
-------------------
A request may arrive again long after it was granted and released: from the buffer of a node that was
paused, through a balancer that tried twice. It must not take a seat again. Keeping every id forever
is no way, so what is kept uses that ids begin with the time they were made at (UUIDv7):

- The *spans* of a session, stored with it: stretches of ids that it has completed ids in. An id in
  no span is new. Mostly there is one span, which grows at its end. An id more than
  ``WINDOW_MILLIS`` from all of them begins another. So a clock that was ahead by an hour, and is put
  right, leaves a span an hour ahead, and ids of the true time are new. At most ``SPANS_MAX``: the two
  that are closest become one.
- The ids seen to be completed, in this node's view. Requests of one session overtake each other, so an
  id at the end of a span may be new too, if it is not among these: within ``WINDOW_MILLIS`` of the end.
  Further back in a span every id counts as completed.
- The spans as they were when the pool was listed. In these nothing is known one by one, so every id
  counts as completed.

Every completed id is in a span: a decision that completes one writes spans that cover it. Spans
only grow, and only who writes them joins them, so all nodes have the same.

A request that is refused though it was new is asked again under a new id: one within a span, because it
is late by more than the window, or of a clock that was put back into a time already used, or came to a
node that has just begun to follow the pool. One that is accepted though it was old cannot happen. Nor
one that is accepted by one node after another refused it: what a node refuses for its own listing
alone, it records as completed for all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

WINDOW_MILLIS = 10_000
"""How far requests of one session may overtake each other, by the time in their ids."""
SPANS_MAX = 8
"""Most spans of one session."""
SWEEP_AFTER = 64
"""After so many ids, twice as many of those remembered are looked at, and dropped if a span alone
excludes them. So a session of 10,000 requests a second is swept a little all the time."""

Span: TypeAlias = tuple[str, str]
"""The lowest and the highest id of a stretch."""


@dataclass(slots=True)
class _Session:
    spans: tuple[Span, ...] = ()
    listed: tuple[Span, ...] = ()
    recent: set[str] = field(default_factory=set)
    """Ids that were seen to be completed."""
    to_sweep: deque[str] = field(default_factory=deque)
    """The same, in the order in which they are looked at."""
    sweep_in: int = SWEEP_AFTER

    def is_old(self, grant_id: str) -> bool:
        """Return whether an id lies so far back in a span that it counts as completed."""
        span = _span_of(self.spans, grant_id)
        return span is not None and _millis(grant_id) + WINDOW_MILLIS < _millis(span[1])

    def note(self, grant_id: str) -> None:
        if grant_id in self.recent:
            return
        self.recent.add(grant_id)
        self.to_sweep.append(grant_id)
        self.sweep_in -= 1
        if not self.sweep_in:
            self.sweep_in = SWEEP_AFTER
            self._sweep(2 * SWEEP_AFTER)

    def _sweep(self, count: int) -> None:
        """Look at so many, and drop those that are old."""
        old = [(low, _first_at(_millis(high) - WINDOW_MILLIS)) for low, high in self.spans]
        for _ in range(min(count, len(self.to_sweep))):
            grant_id = self.to_sweep.popleft()
            if any(low <= grant_id < end for low, end in old):
                self.recent.remove(grant_id)
            else:
                self.to_sweep.append(grant_id)


@dataclass(slots=True)
class CompletedIds:
    """The ids that the sessions of one pool have completed."""

    _sessions: dict[str, _Session] = field(default_factory=dict)

    def contains(self, session_id: str, grant_id: str) -> bool:
        """Return whether ``grant_id`` is, or may be, completed."""
        session = self._sessions.get(session_id)
        return session is not None and (
            grant_id in session.recent
            or session.is_old(grant_id)
            or _span_of(session.listed, grant_id) is not None
        )

    def is_known_to_all(self, session_id: str, grant_id: str) -> bool:
        """Return whether every node takes ``grant_id`` for completed, not only this one.

        What this node knows by its listing alone may be new to a node that listed the pool earlier.
        """
        session = self._sessions.get(session_id)
        return session is not None and (grant_id in session.recent or session.is_old(grant_id))

    def spans(self, session_id: str) -> tuple[Span, ...]:
        """Return the spans of a session, lowest first; none: it has completed nothing."""
        session = self._sessions.get(session_id)
        return session.spans if session else ()

    def mark(self, session_id: str) -> str:
        """Return the highest id that a session has completed; empty: it has completed none."""
        return highest(self.spans(session_id))

    def listed(self, session_id: str, spans: Sequence[Span]) -> None:
        """Apply spans from a listing: what was completed before is not known one by one."""
        session = self._sessions.setdefault(session_id, _Session())
        session.spans = session.listed = tuple(spans)

    def recorded(
        self, session_id: str, spans: Sequence[Span], grant_ids: Iterable[str]
    ) -> None:
        """Apply what a decision wrote: the spans, and ids it completed."""
        session = self._sessions.setdefault(session_id, _Session())
        session.spans = tuple(spans)
        for grant_id in grant_ids:
            session.note(grant_id)

    def add(self, session_id: str, grant_id: str) -> None:
        """Record that an id was completed."""
        session = self._sessions.setdefault(session_id, _Session())
        session.spans = covering(session.spans, grant_id)
        session.note(grant_id)

    def add_ended(self, session_id: str, grant_id: str) -> None:
        """Record that a ticket or a grant has ended.

        One that was released has left a watermark before; without one it went with its session.
        """
        if session_id in self._sessions:
            self.add(session_id, grant_id)

    def forget(self, session_id: str) -> None:
        """Record that a session has ended."""
        self._sessions.pop(session_id, None)


def covers(spans: Sequence[Span], grant_id: str) -> bool:
    """Return whether an id lies in one of the spans."""
    return _span_of(spans, grant_id) is not None


def covering(spans: Sequence[Span], grant_id: str) -> tuple[Span, ...]:
    """Return spans that cover an id, too: lowest first, and at most ``SPANS_MAX``.

    What lies within the window of each other is one span.
    """
    if _span_of(spans, grant_id) is not None:
        return tuple(spans)
    if spans and grant_id > spans[-1][1] and _is_near(spans[-1][1], grant_id):
        return (
            *spans[:-1],
            (spans[-1][0], grant_id),
        )  # as mostly: the last one grows at its end
    joined: list[Span] = []
    for low, high in sorted([*spans, (grant_id, grant_id)]):
        if joined and _is_near(joined[-1][1], low):
            joined[-1] = (joined[-1][0], max(joined[-1][1], high))
        else:
            joined.append((low, high))
    while len(joined) > SPANS_MAX:
        gaps = [_millis(after[0]) - _millis(before[1]) for before, after in pairwise(joined)]
        closest = gaps.index(min(gaps))
        joined[closest : closest + 2] = [(joined[closest][0], joined[closest + 1][1])]
    return tuple(joined)


def highest(spans: Sequence[Span]) -> str:
    """Return the highest id that the spans cover; empty: there are none."""
    return spans[-1][1] if spans else ""


def _span_of(spans: Sequence[Span], grant_id: str) -> Span | None:
    for span in spans:
        if span[0] <= grant_id <= span[1]:
            return span
    return None


def _is_near(end: str, grant_id: str) -> bool:
    """Return whether an id is of a time within the window of the end of a span."""
    return _millis(grant_id) <= _millis(end) + WINDOW_MILLIS


def _millis(grant_id: str) -> int:
    """Return the time in a UUIDv7 (RFC 9562): Unix milliseconds in its first 48 bits.

    Empty, which is below all ids, is of no time.
    """
    return int(grant_id[:8] + grant_id[9:13], 16) if grant_id else 0


def _first_at(millis: int) -> str:
    """Return what all ids of that time and later are above, and all earlier ones below."""
    digits = f"{max(0, millis):012x}"
    return f"{digits[:8]}-{digits[8:]}"
