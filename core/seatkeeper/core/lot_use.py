"""From which lots the seats of a grant come. Pure.

A grant is marked when it is made, and keeps its mark. Seats are taken in an order: those without a
contract, then contracts, then bursts, each in the order in which they began; what is over, because
contracts allow it, is overdraft. A seat is free in a lot as far as no mark is on it. So the marks on a
lot in force never get more than its seats by a grant, and a seat of a contract that is given back is
taken before one of a burst.

What is marked with a lot that is over drains with it: it is on no lot in force, and counts against what
may be granted as every seat does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from seatkeeper.core.lots import Lot, LotKind, LotState, PoolLots, Price

LotKey = tuple[str, int | None]
"""A lot's name, and since when it is in force: another one may have had the name."""


@dataclass(frozen=True, slots=True)
class LotSeats:
    """Seats that come from a lot."""

    lot: str
    seats: int
    began_at: int | None = None
    kind: LotKind = LotKind.BASE
    price: Price | None = None

    @property
    def key(self) -> LotKey:
        """Which lot it is."""
        return self.lot, self.began_at

    def __str__(self) -> str:
        """Return it for people: ``2 of burst-1 at 0.80 EUR/seat-hour``."""
        return f"{self.seats} of {self.lot}" + (f" at {self.price}" if self.price else "")


@dataclass(frozen=True, slots=True)
class LotMarks:
    """From where the seats of a grant come that are not without a contract."""

    lots: tuple[LotSeats, ...] = ()
    overdraft: int = 0
    """Seats beyond those in force."""

    @property
    def seats(self) -> int:
        """How many seats are marked."""
        return self.overdraft + sum(each.seats for each in self.lots)

    def lines(self) -> list[str]:
        """Return it for people, one line for each."""
        over = [f"{self.overdraft} of the overdraft"] if self.overdraft else []
        return [*map(str, self.lots), *over]


@dataclass(slots=True)
class MarkedSeats:
    """How many seats are marked, over all grants of a pool."""

    by_lot: Counter[LotKey] = field(default_factory=Counter)
    overdraft: int = 0
    seats: int = 0
    """In all."""

    def add(self, marks: LotMarks, sign: int = 1) -> None:
        """Count a grant's; ``sign`` -1: no more."""
        for each in marks.lots:
            self.by_lot[each.key] += sign * each.seats
            if not self.by_lot[each.key]:
                del self.by_lot[each.key]
        self.overdraft += sign * marks.overdraft
        self.seats += sign * marks.seats

    def copy(self) -> MarkedSeats:
        """Return the same, to be changed apart."""
        return MarkedSeats(self.by_lot.copy(), self.overdraft, self.seats)


def by_use(lots: Iterable[Lot]) -> list[Lot]:
    """Return the lots in force in the order in which their seats are taken."""
    there = [lot for lot in lots if lot.state is LotState.IN_FORCE]
    return sorted(
        there, key=lambda lot: (lot.kind is LotKind.BURST, lot.began_at or 0, lot.name)
    )


def room_in(lots: PoolLots, held: int, marked: MarkedSeats) -> list[tuple[Lot | None, int]]:
    """Return the seats that are free, in the order in which they are taken; None: of no contract.

    Seats that are held without a mark are of those without a contract, and of what there are more,
    which nodes that know no marks have granted, of the first lots.
    """
    unmarked = max(0, held - marked.seats)
    found: list[tuple[Lot | None, int]] = [(None, max(0, lots.seats - unmarked))]
    unmarked = max(0, unmarked - lots.seats)
    for lot in by_use(lots.lots):
        free = max(0, lot.seats - marked.by_lot[lot.name, lot.began_at])
        taken = min(free, unmarked)
        unmarked -= taken
        found.append((lot, free - taken))
    return found


def marks_of(
    seats: int, room: Iterable[tuple[Lot | None, int]], overdraft: int
) -> LotMarks | None:
    """Return the marks of a grant of so many seats; None: all are without a contract.

    ``overdraft``: the most that may be marked as such. What is beyond that stays without a mark; a
    decision that grants no more than there is leaves none.
    """
    found: list[LotSeats] = []
    for lot, free in room:
        if (taken := min(free, seats)) <= 0:
            continue
        seats -= taken
        if lot is not None:
            found.append(LotSeats(lot.name, taken, lot.began_at, lot.kind, lot.price))
    over = min(seats, overdraft)
    return LotMarks(tuple(found), over) if found or over else None


def within(
    larger: tuple[LotMarks | None, int], smaller: tuple[LotMarks | None, int], seats: int
) -> LotMarks | None:
    """Return the marks of so many of the seats of a larger grant, among which are all of a smaller one.

    Both are given with how many seats they have; the smaller one has no more than ``seats``.
    """
    outer, inner = larger[0] or LotMarks(), smaller[0] or LotMarks()
    unmarked = max(0, larger[1] - outer.seats - (smaller[1] - inner.seats))
    left = max(0, seats - smaller[1] - unmarked)
    has = {each.key: each.seats for each in inner.lots}
    found = inner
    for each in outer.lots:
        more = min(left, max(0, each.seats - has.get(each.key, 0)))
        if more:
            left -= more
            found = joined(found, LotMarks((replace(each, seats=more),))) or found
    over = min(left, max(0, outer.overdraft - inner.overdraft))
    found = LotMarks(found.lots, found.overdraft + over)
    return found if found.seats else None


def joined(first: LotMarks | None, second: LotMarks | None) -> LotMarks | None:
    """Return the marks of all of these seats; None: there are none."""
    if first is None or second is None:
        return first or second
    sums = {each.key: each for each in first.lots}
    for each in second.lots:
        before = sums.get(each.key)
        sums[each.key] = (
            each if before is None else replace(each, seats=before.seats + each.seats)
        )
    return LotMarks(tuple(sums.values()), first.overdraft + second.overdraft)


def counted(marked: Mapping[LotKey, int], lots: PoolLots) -> list[LotSeats]:
    """Return how many seats are marked with each lot, also with those that are over or forgotten."""
    there = {(lot.name, lot.began_at): lot for lot in lots.lots}
    found = []
    for (name, began_at), seats in sorted(
        marked.items(), key=lambda each: (each[0][1] or 0, each[0][0])
    ):
        lot = there.get((name, began_at))
        kind, price = (lot.kind, lot.price) if lot is not None else (LotKind.BASE, None)
        found.append(LotSeats(name, seats, began_at, kind, price))
    return found


def cost_so_far(lot: Lot, now: int) -> float | None:
    """Return what a lot in force has cost since it began, all of its seats; None: no price is said.

    A figure for people and metrics, not for bills: a float. A year is 8,766 hours.
    """
    if lot.price is None or lot.state is not LotState.IN_FORCE or lot.began_at is None:
        return None
    hours = max(0, now - lot.began_at) / 3_600_000
    per = 1 if lot.price.per.value == "seat-hour" else 8_766
    return float(lot.price.amount) * lot.seats * hours / per
