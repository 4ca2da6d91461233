"""What a decision writes down of the ids that it completes: a watermark for each session."""

from __future__ import annotations

from dataclasses import dataclass, field

from seatkeeper.server.domain import Command, Denied, Forced, PoolState, Refusal
from seatkeeper.server.domain.completed import covering, covers, highest
from seatkeeper.server.domain.watermark import Watermark, is_forced


@dataclass(slots=True)
class Watermarks:
    """The watermarks that one decision on ``pool`` writes."""

    pool: PoolState
    written: dict[str, Watermark] = field(init=False, default_factory=dict)
    """By session."""
    completed: set[tuple[str, str]] = field(init=False, default_factory=set)
    """Sessions and grant ids that the decision completes."""

    def is_completed(self, session_id: str, grant_id: str) -> bool:
        """Return whether an id is completed, by this decision or before."""
        return (session_id, grant_id) in self.completed or self.pool.completed.contains(
            session_id, grant_id
        )

    def complete(
        self, session_id: str, lease_id: int, grant_id: str, *, recorded: bool
    ) -> None:
        """Note that an id is completed, in the store where other nodes could not see it.

        ``recorded``: they see its ticket or its grant end.
        """
        # A dead session's keys go with its lease, and nothing can be attached to that any more.
        if session_id in self.pool.dead_sessions or (session_id, grant_id) in self.completed:
            return
        if self.pool.completed.is_known_to_all(session_id, grant_id):
            return
        self.completed.add((session_id, grant_id))
        known = covers(self.pool.completed.spans(session_id), grant_id)
        if recorded and known and session_id not in self.written:
            return
        mark = self._of(session_id, lease_id)
        mark.spans = covering(mark.spans, grant_id)
        mark.highest = highest(mark.spans)
        if not recorded:
            mark.unrecorded.append(grant_id)

    def note_denial(self, session_id: str, lease_id: int, denied: Denied) -> None:
        """Write down why a ticket is denied, for the node that has its client."""
        if session_id not in self.pool.dead_sessions:
            self._of(session_id, lease_id).denied.append(denied)

    def note_loss(self, session_id: str, lease_id: int, lost: Forced) -> None:
        """Write down that a grant was ended by force, likewise."""
        if session_id not in self.pool.dead_sessions:
            self._of(session_id, lease_id).lost.append(lost)

    def forced_answer(self, command: Command) -> tuple[Refusal, str] | None:
        """Return what is said of an id that an administrator has ended, by this decision or before.

        As far as it is known: until the session completes another id of the pool. None: none did.
        """
        session_id, grant_id = command.session_id, command.grant_id
        if (mark := self.written.get(session_id)) is not None:
            ended: list[Denied | Forced] = [*filter(is_forced, mark.denied), *mark.lost]
            for each in ended:
                if each.grant_id == grant_id:
                    return Refusal.REMOVED, each.message
        message = self.pool.ended_by_force.get(session_id, {}).get(grant_id)
        return None if message is None else (Refusal.REMOVED, message)

    def _of(self, session_id: str, lease_id: int) -> Watermark:
        """Return the watermark that this decision writes for a session; at first what there is."""
        mark = self.written.get(session_id)
        if mark is None:
            spans = self.pool.completed.spans(session_id)
            before = self.pool.kept_watermarks.get(session_id, b"")
            mark = Watermark(lease_id, highest(spans), spans=spans, kept=before)
            self.written[session_id] = mark
        return mark
