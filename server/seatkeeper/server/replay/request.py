"""What became of one arrival of a replay."""

from __future__ import annotations

from dataclasses import dataclass

from seatkeeper.server.domain import Instant, Refusal
from seatkeeper.server.replay.demand import Arrival


@dataclass(slots=True)
class Request:
    """An arrival, and what became of it. Changed by the replay alone."""

    arrival: Arrival
    granted_at: Instant | None = None
    """None: it never got its seats."""
    ended_at: Instant | None = None
    """When it gave its seats back, or was denied. None: it holds or waits at the end."""
    refusal: Refusal | None = None
    """Why it was denied; None: it was not."""
    message: str = ""
    """The same for people, as a client gets it."""
    is_reclaimed: bool = False
    """Whether its seats were called back, and taken when the notice was over, before its hold was."""

    @property
    def is_waiting(self) -> bool:
        """Whether it waits at the end of the replay."""
        return self.granted_at is None and self.ended_at is None

    @property
    def wait_millis(self) -> int | None:
        """How long it waited for its seats; None: it never got them."""
        return None if self.granted_at is None else self.granted_at - self.arrival.at
