"""How long seats of a pool may be held: the rule, and what is wrong with one. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from seatkeeper.core.amounts import exact_seconds
from seatkeeper.core.reclaim import NOTICE_MAX, NOTICE_MIN

LONGEST_MIN = timedelta(seconds=2)
HOLD_MAX = timedelta(days=90)
IDLE_MIN = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class HoldRule:
    """When seats are called back although no one is owed them: because they are held for too long."""

    warning: timedelta
    """How long a holder has at least, from when it learns of it."""
    longest: timedelta | None = None
    """Seats are called back so that they end after so long; None: they are not."""
    idle: timedelta | None = None
    """Seats are called back when their holder reports that it did nothing for so long; None: they are
    not."""

    def __str__(self) -> str:
        """Return it for people, as it is written on the command line."""
        said = [] if self.longest is None else [f"longest={exact_seconds(self.longest)}"]
        said += [] if self.idle is None else [f"idle={exact_seconds(self.idle)}"]
        return ",".join([*said, f"warning={exact_seconds(self.warning)}"])

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with it: the field, empty for all of it, and why."""
        if self.longest is None and self.idle is None:
            yield "", "needs the longest hold, or after what time seats are idle"
        if not NOTICE_MIN <= self.warning <= NOTICE_MAX:
            yield "warning", f"{exact_seconds(self.warning)} s is not from 1 s to 1 day"
        if self.longest is not None and not LONGEST_MIN <= self.longest <= HOLD_MAX:
            yield "longest", f"{exact_seconds(self.longest)} s is not from 2 s to 90 days"
        elif self.longest is not None and self.warning >= self.longest:
            within = f"the longest hold, {exact_seconds(self.longest)} s"
            yield "warning", f"{exact_seconds(self.warning)} s is not less than {within}"
        if self.idle is not None and not IDLE_MIN <= self.idle <= HOLD_MAX:
            yield "idle", f"{exact_seconds(self.idle)} s is not from 1 s to 90 days"
