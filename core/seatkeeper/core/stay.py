"""For how long seats are kept that were released or lost: the rule, and its faults. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from seatkeeper.core.amounts import exact_seconds

STAY_MIN = timedelta(seconds=1)
LINGER_MAX = timedelta(days=90)
LOSS_MAX = timedelta(days=1)
KEYS = ("linger", "resurrection", "lock_delay")


@dataclass(frozen=True, slots=True)
class StayRule:
    """For how long seats are kept that were released, or whose holder was lost."""

    linger: timedelta | None = None
    """Released seats are kept for the next request of the same holder and project; None: not."""
    resurrection: timedelta | None = None
    """The seats of a lost session are kept for the same grant, which its holder may ask for in a new
    session; None: they are not."""
    lock_delay: timedelta | None = None
    """The seats of a lost session are granted to no other for so long; None: they are at once."""

    @property
    def outlives(self) -> bool:
        """Whether seats outlive the session that held them."""
        return self.resurrection is not None or self.lock_delay is not None

    @property
    def after_loss(self) -> timedelta:
        """For how long the seats of a lost session are kept."""
        zero = timedelta(0)
        return max(self.resurrection or zero, self.lock_delay or zero)

    def __str__(self) -> str:
        """Return it for people, as it is written on the command line."""
        given = ((key, getattr(self, key)) for key in KEYS)
        return ",".join(
            f"{key}={exact_seconds(time)}" for key, time in given if time is not None
        )

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with it: the field, empty for all of it, and why."""
        if not self.outlives and self.linger is None:
            yield "", "needs linger, resurrection or lock_delay: for how long seats are kept"
        for key, most, text in (
            ("linger", LINGER_MAX, "90 days"),
            ("resurrection", LOSS_MAX, "1 day"),
            ("lock_delay", LOSS_MAX, "1 day"),
        ):
            time = getattr(self, key)
            if time is not None and not STAY_MIN <= time <= most:
                yield key, f"{exact_seconds(time)} s is not from 1 s to {text}"
