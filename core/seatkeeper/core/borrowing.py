"""Seats that leave with machines: how many of a pool, and for how long. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from seatkeeper.core.amounts import exact_seconds, span

BORROW_MIN = timedelta(seconds=2)
BORROW_MAX = timedelta(days=366)
SKEW_DEFAULT = timedelta(minutes=10)
SKEW_MAX = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class BorrowRule:
    """How seats of a pool are borrowed. Names of rules in refusals: ``borrow.`` and the field's."""

    longest: timedelta
    """For how long at most."""
    seats: int | None = None
    """Seats that are borrowed at once, at most; None: all."""
    skew: timedelta = SKEW_DEFAULT
    """A seat is freed so long after its day: as much as clocks of nodes and machines may differ."""
    low_water: int = 0
    """Seats of those in force that are not borrowed."""

    def __str__(self) -> str:
        """Return it for people, as it is written on the command line."""
        said = [f"longest={exact_seconds(self.longest)}"]
        said += [] if self.seats is None else [f"seats={self.seats}"]
        said += [] if self.skew == SKEW_DEFAULT else [f"skew={exact_seconds(self.skew)}"]
        return ",".join([*said, *([f"low_water={self.low_water}"] if self.low_water else [])])

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with it: the field, and why. Numbers of seats are the schema's."""
        if not BORROW_MIN <= self.longest <= BORROW_MAX:
            yield "longest", f"{exact_seconds(self.longest)} s is not from 2 s to 366 days"
        if not timedelta(0) <= self.skew <= SKEW_MAX:
            yield "skew", f"{exact_seconds(self.skew)} s is not from 0 s to 1 day"


@dataclass(frozen=True, slots=True)
class BorrowRefusal:
    """Why seats may not be borrowed now."""

    rule: str
    """Its name, such as ``borrow.longest``."""
    why: str

    def __str__(self) -> str:
        """Return it as messages have it: the name first, so that programs find it."""
        return f"{self.rule}: {self.why}"


def borrow_refusal(
    rule: BorrowRule | None, length: timedelta, seats: int, *, borrowed: int, capacity: int
) -> BorrowRefusal | None:
    """Return why seats may not be borrowed for so long; None: they may.

    ``borrowed``: what is borrowed already. Clients ask it before they ask for a seat, by what they see;
    the decision that lends the seats asks it by what its commit compares.
    """
    if rule is None:
        return BorrowRefusal("borrow.off", "the pool lets no seats be borrowed")
    if length > rule.longest:
        most = f"at most {span(rule.longest)}, and {span(length)} was asked for"
        return BorrowRefusal("borrow.longest", f"the pool lends seats for {most}")
    most_seats = capacity if rule.seats is None else rule.seats
    if borrowed + seats > most_seats:
        so = f"{borrowed} of at most {most_seats} seats are borrowed, and {seats} would be too many"
        return BorrowRefusal("borrow.seats", f"{so}; wait until one comes back")
    if capacity - borrowed - seats < rule.low_water:
        so = (
            f"of {capacity} seats {rule.low_water} are not borrowed, and {borrowed} are already"
        )
        return BorrowRefusal("borrow.low_water", f"{so}; wait until one comes back")
    return None
