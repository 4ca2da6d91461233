"""Seats that leave with machines: how many of a pool, and for how long. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from seatkeeper.core.amounts import exact_seconds, span
from seatkeeper.core.pool_rules import NOT_SAID, HolderGroup, Who, finder

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
    include: Who = NOT_SAID
    """Who may borrow; empty: all who may use the pool."""
    exclude: Who = NOT_SAID
    """Who may not, also where they are included."""
    per_project: int | None = None
    """Seats that one project has borrowed at once, at most; None: all."""

    @property
    def looks_at_hosts(self) -> bool:
        """Whether it depends on the host that a request comes from."""
        return bool(self.include.hosts or self.exclude.hosts)

    @property
    def names_some(self) -> bool:
        """Whether it says who may borrow, or how much each project may."""
        is_open = self.include.is_empty and self.exclude.is_empty
        return not is_open or self.per_project is not None

    def __str__(self) -> str:
        """Return it for people, as it is written on the command line."""
        said = [f"longest={exact_seconds(self.longest)}"]
        said += [] if self.seats is None else [f"seats={self.seats}"]
        said += [] if self.skew == SKEW_DEFAULT else [f"skew={exact_seconds(self.skew)}"]
        said += [f"low_water={self.low_water}"] if self.low_water else []
        said += [] if self.per_project is None else [f"per_project={self.per_project}"]
        return ",".join(said)

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


@dataclass(frozen=True, slots=True)
class Borrower:
    """Who wants to borrow."""

    holder: str
    project: str
    host: str = ""
    """Empty: it is not known."""
    borrowed: int = 0
    """What its project has borrowed already."""


def borrow_refusal(
    rule: BorrowRule | None,
    length: timedelta,
    seats: int,
    *,
    borrowed: int,
    capacity: int,
    who: Borrower,
    groups: Iterable[HolderGroup] = (),
) -> BorrowRefusal | None:
    """Return why seats may not be borrowed for so long; None: they may.

    ``borrowed``: what is borrowed already, by all. ``groups``: the pool's. Clients ask it before they
    ask for a seat, by what they see; the decision that lends the seats asks it by what its commit
    compares.
    """
    if rule is None:
        return BorrowRefusal("borrow.off", "the pool lets no seats be borrowed")
    if (refusal := _kept_out(rule, who, groups)) is not None:
        return refusal
    if length > rule.longest:
        most = f"at most {span(rule.longest)}, and {span(length)} was asked for"
        return BorrowRefusal("borrow.longest", f"the pool lends seats for {most}")
    most_seats = capacity if rule.seats is None else rule.seats
    if borrowed + seats > most_seats:
        so = f"{borrowed} of at most {most_seats} seats are borrowed, and {seats} would be too many"
        return BorrowRefusal("borrow.seats", f"{so}; wait until one comes back")
    if rule.per_project is not None and who.borrowed + seats > rule.per_project:
        so = f"project {who.project} has borrowed {who.borrowed} of at most {rule.per_project} seats"
        return BorrowRefusal("borrow.per_project", f"{so}; wait until one comes back")
    if capacity - borrowed - seats < rule.low_water:
        so = (
            f"of {capacity} seats {rule.low_water} are not borrowed, and {borrowed} are already"
        )
        return BorrowRefusal("borrow.low_water", f"{so}; wait until one comes back")
    return None


def _kept_out(
    rule: BorrowRule, who: Borrower, groups: Iterable[HolderGroup]
) -> BorrowRefusal | None:
    asked, there = (who.holder, who.project, who.host), tuple(groups)
    if (by := finder(rule.exclude, there)(*asked)) is not None:
        return BorrowRefusal("borrow.exclude", f"{by} may borrow no seat of the pool")
    if rule.include.is_empty or finder(rule.include, there)(*asked) is not None:
        return None
    so = f"holder {who.holder} of project {who.project} is not among those who may borrow"
    if rule.include.hosts and not who.host:
        so += ", and its host is not known"
    return BorrowRefusal("borrow.include", f"{so} seats of the pool")
