"""What became of one arrival of a replay."""

from __future__ import annotations

from dataclasses import dataclass

from seatkeeper.core.lot_use import LotMarks
from seatkeeper.server.domain import Cause, Instant, Refusal
from seatkeeper.server.domain.advisory import AdvisoryMark
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
    reclaimed_for: Cause | None = None
    """Why its seats were called back, and taken when the notice was over, before its hold was; None:
    they were not."""
    lots: LotMarks | None = None
    """The lots that its seats came from; None: from none."""
    mark: AdvisoryMark | None = None
    """Why a binding pool would not have granted it then; None: it would have."""

    @property
    def is_reclaimed(self) -> bool:
        """Whether its seats were taken before its hold was over."""
        return self.reclaimed_for is not None

    @property
    def is_waiting(self) -> bool:
        """Whether it waits at the end of the replay."""
        return self.granted_at is None and self.ended_at is None

    @property
    def wait_millis(self) -> int | None:
        """How long it waited for its seats; None: it never got them."""
        return None if self.granted_at is None else self.granted_at - self.arrival.at
