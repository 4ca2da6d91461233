"""Which grant ids are finished with, so that a late duplicate of a request takes no effect.

Theory of operation
-------------------
A request may arrive again long after it was granted and released: from the buffer of a node that was
frozen, through a balancer that tried twice. It must not take a seat again. Keeping every id for
ever is no way, so four facts of one session together say whether an id was finished with:

- Its *mark*, stored with the session: the highest id finished with. Ids grow with time (UUIDv7), so an
  id above the mark is new.
- The ids seen to finish, in this node's view, since the pool was last listed. Requests of one session
  overtake each other, so an id below the mark may be new too, if it is not among these.
- The ids *ahead*, stored with the mark: those above it that are finished with, whose time is far ahead
  of the clock of the node that decided. A client's clock may be wrong for a while; were such an id the
  mark, all that the session asks for once the clock is right would count as finished. At most
  ``AHEAD_MAX``: of more, the lowest become the mark, as if they were in time.
- The *floor*: below it nothing is known, so every id counts as finished. It is the mark as it was when
  the pool was listed, and it follows the mark at a distance of ``WINDOW_MILLIS``.

A request that is refused though it was new (it arrived more than the window late, or at a node that
has just begun to follow the pool) is asked again under a new id. One that is accepted though it was
old cannot happen. Nor one that is accepted by one node after another refused it: what a node refuses
for its own floor alone, it marks as finished for all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

WINDOW_MILLIS = 10_000
"""How far requests of one session may overtake each other, by the time in their ids."""


AHEAD_MILLIS = 60_000
"""How far an id may be ahead of a node's clock to become a mark."""
AHEAD_MAX = 64
"""Most ids of a session that are remembered one by one because they are ahead."""
NOTHING = "00000000-0000-7000-8000-000000000000"
"""The mark of a session that has finished with ids ahead alone: below every id."""


def is_ahead(grant_id: str, now: int) -> bool:
    """Return whether an id is of the future, by a clock that says ``now`` (Unix milliseconds)."""
    return _millis(grant_id) > now + AHEAD_MILLIS


@dataclass(slots=True)
class _Session:
    mark: str = ""
    floor: str = ""
    recent: dict[str, None] = field(default_factory=dict)
    """Ids above the floor that are finished with, in the order they were."""
    ahead: dict[str, None] = field(default_factory=dict)
    """Ids above the mark that are finished with."""


@dataclass(slots=True)
class FinishedIds:
    """The ids that the sessions of one pool have finished with."""

    _sessions: dict[str, _Session] = field(default_factory=dict)

    def contains(self, session_id: str, grant_id: str) -> bool:
        """Return whether ``grant_id`` is, or may be, finished with."""
        session = self._sessions.get(session_id)
        if session is None:
            return False
        if grant_id > session.mark:
            return grant_id in session.ahead
        return (
            grant_id <= session.floor
            or grant_id in session.recent
            or _millis(grant_id) + WINDOW_MILLIS < _millis(session.mark)
        )

    def is_known_to_all(self, session_id: str, grant_id: str) -> bool:
        """Return whether every node takes ``grant_id`` for finished, not only this one.

        What is below this node's floor may be new to a node that listed the pool earlier.
        """
        session = self._sessions.get(session_id)
        return session is not None and bool(
            grant_id in session.recent
            or grant_id in session.ahead
            or (session.mark and _millis(grant_id) + WINDOW_MILLIS < _millis(session.mark))
        )

    def mark(self, session_id: str) -> str:
        """Return the highest id that a session has finished with; empty: it has with none."""
        session = self._sessions.get(session_id)
        return session.mark if session else ""

    def ahead(self, session_id: str) -> tuple[str, ...]:
        """Return the ids above the mark that a session has finished with."""
        session = self._sessions.get(session_id)
        return tuple(session.ahead) if session else ()

    def set_ahead(self, session_id: str, ahead: Iterable[str]) -> None:
        """Take in which ids ahead are finished with; those that were before are still finished with."""
        session = self._sessions.setdefault(session_id, _Session())
        before, session.ahead = session.ahead, dict.fromkeys(ahead)
        for grant_id in before:
            if grant_id not in session.ahead:
                self.add(session_id, grant_id)

    def listed(self, session_id: str, mark: str) -> None:
        """Take in a mark from a listing: what finished before is not known one by one."""
        session = self._sessions.setdefault(session_id, _Session())
        session.mark = max(session.mark, mark)
        session.floor = max(session.floor, mark)

    def add(self, session_id: str, grant_id: str) -> None:
        """Take in that an id was finished with."""
        session = self._sessions.setdefault(session_id, _Session())
        if grant_id in session.ahead:
            return
        session.mark = max(session.mark, grant_id)
        session.recent[grant_id] = None
        newest = _millis(session.mark)
        while session.recent:
            oldest = next(iter(session.recent))
            if _millis(oldest) + WINDOW_MILLIS >= newest:
                break
            del session.recent[oldest]

    def add_ended(self, session_id: str, grant_id: str) -> None:
        """Take in that a ticket or a grant has ended.

        One that was released has left a mark before; without a mark it went with its session.
        """
        if session_id in self._sessions:
            self.add(session_id, grant_id)

    def forget(self, session_id: str) -> None:
        """Take in that a session has ended."""
        self._sessions.pop(session_id, None)


def _millis(grant_id: str) -> int:
    """Return the time in a UUIDv7 (RFC 9562): Unix milliseconds in its first 48 bits."""
    return int(grant_id[:8] + grant_id[9:13], 16)
