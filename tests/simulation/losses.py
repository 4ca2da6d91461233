"""Whether a node says of a session that it has ended only when it has (I12)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from tests.simulation.cluster import KEYS
from tests.simulation.rpc import ClientEnd, Code
from tests.simulation.world import World

from seatkeeper.server.store import Change
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

ENDED = re.compile(r"session ([0-9a-f-]{36}) has ended")
SESSION = "/seatkeeper.v1.SeatService/Session"


class Losses:
    """What nodes reported as lost, or as asked of a session that has ended."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.reported: list[tuple[float, str, str]] = []
        """When, of which session, and what."""

    def answered(self, call: ClientEnd, data: bytes) -> None:
        """Look at a message that a node sends."""
        if call.path != SESSION or b"has ended" not in data or call.first_message is None:
            return
        first = pb.SessionRequest.FromString(call.first_message).commands[0]
        which = first.open if first.HasField("open") else first.resume
        for event in pb.SessionResponse.FromString(data).events:
            if event.HasField("lost") and event.lost.reason != seat_pb2.LOST_REASON_FORCED:
                self._report(which.credentials.session_id, f"lost {event.lost.grant_id}")

    def ended(self, call: ClientEnd, code: Code, details: str) -> None:
        """Look at how a node ends a call."""
        if code is Code.NOT_FOUND and (found := ENDED.search(details)):
            self._report(found[1], f"{call.path}: {details}")

    def check(self, changes: Iterable[Change], changed_at: Mapping[int, float]) -> list[str]:
        """Return what was reported of sessions that lived."""
        prefix = KEYS.session("")
        ended_at = {
            change.key.removeprefix(prefix): (
                changed_at[change.revision] if change.entry is None else float("inf")
            )
            for change in changes
            if change.key.startswith(prefix)
        }
        return [
            f"I12 session {session_id} lived at {at:.3f} s, when a node reported: {what}"
            for at, session_id, what in self.reported
            if ended_at.get(session_id, 0.0) > at
        ]

    def _report(self, session_id: str, what: str) -> None:
        self.reported.append((self._world.now, session_id, what))
