"""What a pool's capacity is a sum of: contracts and bursts, each for a time. Pure.

A lot is in force when that is *written*, not when its time has come: ``moved`` says what is to be
written now, and moves each lot one way only. So the capacity at any revision of the store follows from
the keys at that revision.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from seatkeeper.core.burst_rule import BurstMonth, BurstRule
from seatkeeper.core.rule_text import rule_texts

LOTS_MAX = 32
"""Lots of one pool, also those that have ended and were not forgotten."""
LOT_SEATS_MAX = 100_000
OWNER_MAX = 100
INSTANT_MIN, INSTANT_MAX = 0, 7_258_118_400_000
"""Unix milliseconds: from 1970 to 2200."""
ANNOUNCED_DAYS = (30, 7, 1)
"""How many days before its end a contract is announced to end."""
DAY_MILLIS = 86_400_000
_AMOUNT = re.compile(r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,6})?", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


class LotKind(Enum):
    """What kind of seats a lot has."""

    BASE = "base"
    BURST = "burst"


class LotState(Enum):
    """What has been written of a lot. Moves down this list only."""

    PENDING = "pending"
    IN_FORCE = "in force"
    ENDED = "ended"


class LotStep(Enum):
    """What is written of a lot."""

    BEGAN = "began"
    ENDED = "ended"
    ENDS_SOON = "ends soon"
    """Its end is announced."""


class PriceUnit(Enum):
    """For what a price is."""

    SEAT_YEAR = "seat-year"
    SEAT_HOUR = "seat-hour"


@dataclass(frozen=True, slots=True)
class Price:
    """What a seat costs: a decimal number as text, because money is not a float."""

    amount: str
    currency: str
    per: PriceUnit

    def __str__(self) -> str:
        """Return it for people, as it is read: ``1250.50 EUR/seat-year``."""
        return f"{self.amount} {self.currency}/{self.per.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """Seats for a time. Instants are Unix milliseconds."""

    name: str
    seats: int
    begins: int | None = None
    """None: at once."""
    ends: int | None = None
    """The first moment at which it is over; None: never."""
    price: Price | None = None
    kind: LotKind = LotKind.BASE
    owner: str = ""
    state: LotState = LotState.PENDING
    began_at: int | None = None
    """When it was written to be in force, by the writer's clock."""
    ended_at: int | None = None
    announced_days: int = 0
    """How many days before the end was announced last; 0: not yet."""
    overdraft: int = 0
    """Seats that a contract allows beyond its own, while it is in force and no other seat is free."""
    is_by_rule: bool = False
    """Whether the pool's rule has started it, rather than an administrator."""

    @property
    def occurrence(self) -> tuple[str, int | None, int | None]:
        """What makes it the same lot: with other dates it is another one, which is pending again."""
        return self.name, self.begins, self.ends

    def is_open(self, at: int) -> bool:
        """Return whether an instant is within its dates."""
        return (self.begins is None or self.begins <= at) and (
            self.ends is None or at < self.ends
        )


@dataclass(frozen=True, slots=True)
class LotMove:
    """Something that is to be written of a lot."""

    step: LotStep
    lot: Lot
    """As it is to be."""


@dataclass(frozen=True, slots=True)
class PoolLots:
    """What a pool's capacity is a sum of."""

    lots: tuple[Lot, ...] = ()
    """Each name once, in the order in which they were given. None: the pool has only plain seats."""
    seats: int = 0
    """Seats without a contract. Without lots it says nothing."""
    edited_revision: int = 0
    """The revision that an administrator wrote, where nodes alone have written since; 0: none has."""
    rule: BurstRule | None = None
    """When nodes start a burst; None: never. Of a change None: as before."""
    months: tuple[BurstMonth, ...] = ()
    """What bursts of the rule take of the latest months."""

    def __bool__(self) -> bool:
        """Return whether there are lots, or a rule that starts some."""
        return self.lots != () or self.rule is not None

    @property
    def in_force(self) -> int:
        """The capacity: seats without a contract, and those of lots that are written to be in force."""
        return self.seats + sum(
            lot.seats for lot in self.lots if lot.state is LotState.IN_FORCE
        )

    @property
    def overdraft(self) -> int:
        """Seats that may be granted beyond those in force."""
        return sum(lot.overdraft for lot in self.lots if lot.state is LotState.IN_FORCE)

    @property
    def most(self) -> int:
        """The most seats that will ever be in force at once, by the dates."""
        begins = [lot.begins for lot in self.lots if lot.begins is not None]
        return max(self.at(instant) for instant in (INSTANT_MIN - 1, *begins))

    @property
    def guaranteed_most(self) -> int:
        """The most seats that guarantees may sum to: those of ``most`` that are of no burst.

        A burst ends soon and may be stopped before; no guarantee, nor a file of pools, builds on it.
        """
        contracts = tuple(lot for lot in self.lots if lot.kind is not LotKind.BURST)
        return replace(self, lots=contracts).most

    def at(self, instant: int) -> int:
        """Return the seats at an instant, by the dates alone."""
        return self.seats + sum(lot.seats for lot in self.lots if lot.is_open(instant))

    def shortfall(self, seats: int, now: int) -> tuple[int, int] | None:
        """Return from when on fewer than so many seats are in force, by the dates, and how many are.

        The first such time that is not over; None: there is none.
        """
        ends = (lot.ends for lot in self.lots if lot.ends is not None and lot.ends > now)
        begins = (lot.begins for lot in self.lots if lot.begins is not None)
        for instant in sorted({now, *ends, *(each for each in begins if each > now)}):
            if (there := self.at(instant)) < seats:
                return instant, there
        return None

    def lines(self) -> list[str]:
        """Return it for the log: each lot, the rule, and what is beside them."""
        found = [f"{lot.name}: {lot.seats} seats, {lot.state.value}" for lot in self.lots]
        found += [
            f"{lot.name}: overdraft {lot.overdraft}" for lot in self.lots if lot.overdraft
        ]
        if self.rule:
            said = (f"{key} {value}" for key, value in rule_texts(self.rule).items())
            found.append(f"burst rule: {', '.join(said)}")
        return [*found, f"without a contract: {self.seats}"] if found else []


NO_LOTS = PoolLots()


def moved(lots: PoolLots, now: int) -> tuple[PoolLots, tuple[LotMove, ...]]:
    """Return the lots as they are to be written at ``now``, and what moves; nothing: all is written.

    A state moves one way only, whatever ``now`` is: a slower clock undoes nothing.
    """
    moves: list[LotMove] = []
    after = tuple(_moved(lot, now, moves) for lot in lots.lots)
    return (replace(lots, lots=after) if moves else lots), tuple(moves)


def _moved(lot: Lot, now: int, moves: list[LotMove]) -> Lot:
    if lot.state is LotState.ENDED:
        return lot
    if lot.ends is not None and lot.ends <= now:
        lot = replace(lot, state=LotState.ENDED, ended_at=now)
        moves.append(LotMove(LotStep.ENDED, lot))
        return lot
    if lot.state is LotState.PENDING:
        if lot.begins is not None and lot.begins > now:
            return lot
        lot = replace(lot, state=LotState.IN_FORCE, began_at=now)
        moves.append(LotMove(LotStep.BEGAN, lot))
    days = min((days for at, days in _announcements(lot) if at <= now), default=0)
    if days and (not lot.announced_days or days < lot.announced_days):
        lot = replace(lot, announced_days=days)
        moves.append(LotMove(LotStep.ENDS_SOON, lot))
    return lot


def next_move(lots: PoolLots) -> int | None:
    """Return when there is next something to be written, which may be over already; None: never."""
    found: list[int] = []
    for lot in lots.lots:
        if lot.state is LotState.ENDED:
            continue
        if lot.ends is not None:
            found.append(lot.ends)
        if lot.state is LotState.PENDING:
            found.append(INSTANT_MIN if lot.begins is None else lot.begins)
        else:
            last = lot.announced_days
            found += [at for at, days in _announcements(lot) if not last or days < last]
    return min(found, default=None)


def _announcements(lot: Lot) -> Iterator[tuple[int, int]]:
    """Yield when its end is announced, and how many days before: not by more than half of its life."""
    if lot.kind is LotKind.BURST or lot.ends is None:
        return
    for days in ANNOUNCED_DAYS:
        if lot.begins is None or lot.ends - lot.begins >= 2 * days * DAY_MILLIS:
            yield lot.ends - days * DAY_MILLIS, days


def succeeding(wanted: PoolLots, before: PoolLots) -> PoolLots:
    """Return what is stored when an administrator's lots take the place of those before.

    A lot of the same name and dates goes on as it was written; any other one is pending. The rule that
    starts bursts stays where nothing is said of it; what its bursts take of months stays in any case.
    """
    there = {lot.occurrence: lot for lot in before.lots}
    lots = tuple(
        replace(
            lot,
            state=was.state,
            began_at=was.began_at,
            ended_at=was.ended_at,
            announced_days=was.announced_days,
            is_by_rule=was.is_by_rule,
        )
        if (was := there.get(lot.occurrence)) is not None
        else as_asked(lot)
        for lot in wanted.lots
    )
    rule = (before.rule if wanted.rule is None else wanted.rule) or None
    if not lots and rule is None:
        return NO_LOTS
    return PoolLots(lots, wanted.seats, rule=rule, months=before.months)


def as_asked(lot: Lot) -> Lot:
    """Return a lot of which nothing is written."""
    lot = replace(lot, state=LotState.PENDING, began_at=None, ended_at=None, announced_days=0)
    return replace(lot, is_by_rule=False)


LotFault = tuple[int, str, str]
"""What is wrong with lots: the place of the lot among the given, the field, and the reason."""


def lots_faults(lots: Sequence[Lot], seats: int = 0) -> Iterator[LotFault]:
    """Yield all that is wrong with lots beside so many seats without a contract."""
    seen: set[str] = set()
    found = False
    for place, lot in enumerate(lots):
        for field, reason in _faults_of(lot, seen):
            found = True
            yield place, field, reason
        seen.add(lot.name)
    if not found and lots and (most := PoolLots(tuple(lots), seats).most) > LOT_SEATS_MAX:
        yield len(lots) - 1, "seats", f"{most} seats at once are over {LOT_SEATS_MAX}"


def _faults_of(lot: Lot, seen: set[str]) -> Iterator[tuple[str, str]]:
    if lot.name in seen:
        yield "name", f"{lot.name} is listed twice"
    if not 1 <= lot.seats <= LOT_SEATS_MAX:
        yield "seats", f"{lot.seats} is not from 1 to {LOT_SEATS_MAX}"
    for field, instant in (("from", lot.begins), ("until", lot.ends)):
        if instant is not None and not INSTANT_MIN <= instant <= INSTANT_MAX:
            yield field, "is not between the years 1970 and 2200"
    if lot.begins is not None and lot.ends is not None and lot.ends <= lot.begins:
        yield "until", "is not after `from`"
    if lot.kind is LotKind.BURST and lot.ends is None:
        yield "until", "a burst needs an end"
    if not 0 <= lot.overdraft <= LOT_SEATS_MAX:
        yield "overdraft", f"{lot.overdraft} is not from 0 to {LOT_SEATS_MAX}"
    if lot.kind is LotKind.BURST and lot.overdraft:
        yield "overdraft", "is what a contract allows; a burst has its seats and no more"
    if lot.price is not None:
        for reason in price_faults(lot.price):
            yield "price", reason


def amount_fault(amount: str) -> str:
    """Return why a text is no amount of money; empty: it is one."""
    if _AMOUNT.fullmatch(amount) is not None:
        return ""
    return (
        f"{amount[:40]!r} is not a decimal number from 0 on, with at most 12 digits, and 6 after "
        "the point"
    )


def price_faults(price: Price) -> Iterator[str]:
    """Yield all that is wrong with a price."""
    if reason := amount_fault(price.amount):
        yield reason
    if _CURRENCY.fullmatch(price.currency) is None:
        yield f"{price.currency[:40]!r} is not a currency of three capital letters, as EUR"
