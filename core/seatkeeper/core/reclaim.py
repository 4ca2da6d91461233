"""When a pool calls lent seats back: the rule, and what is wrong with one. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from seatkeeper.core.amounts import exact_seconds

NOTICE_MIN = timedelta(seconds=1)
NOTICE_MAX = timedelta(days=1)
MINIMUM_HOLD_MAX = timedelta(days=90)
HOURLY_MAX = 1_000
HOURLY_DEFAULT = 60
MINIMUM_HOLD_DEFAULT = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class ReclaimRule:
    """How seats that projects hold beyond their guarantees are called back for one under its own."""

    notice: timedelta
    """How long a holder has at least, from when it learns of it."""
    minimum_hold: timedelta = MINIMUM_HOLD_DEFAULT
    """Seats that were held for less are not called back."""
    hourly: int = HOURLY_DEFAULT
    """Most grants that are called back in an hour."""

    def __str__(self) -> str:
        """Return it for people, as it is written on the command line."""
        notice, hold = exact_seconds(self.notice), exact_seconds(self.minimum_hold)
        return f"notice={notice},minimum_hold={hold},hourly={self.hourly}"

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with it: the field, and why."""
        if not NOTICE_MIN <= self.notice <= NOTICE_MAX:
            yield "notice", f"{exact_seconds(self.notice)} s is not from 1 s to 1 day"
        if not timedelta(0) <= self.minimum_hold <= MINIMUM_HOLD_MAX:
            yield (
                "minimum_hold",
                f"{exact_seconds(self.minimum_hold)} s is not from 0 s to 90 days",
            )
        if not 1 <= self.hourly <= HOURLY_MAX:
            yield "hourly", f"{self.hourly} is not from 1 to {HOURLY_MAX}"
