"""The burst that a pool's rule starts: whether it may, within a month's hours and its budget. Pure.

What a month has left follows from what is written with the lots, by the planned end of each burst that
was started. It is taken in the write that starts one, which compares the specification: so it is never
taken twice, and nothing that is done later gives it back. A burst over the end of a month takes of
both. Months are those of UTC.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from seatkeeper.core.burst_rule import (
    HOUR_MILLIS,
    HOURS_MAX,
    LENGTH_MAX_MILLIS,
    MONTHS_KEPT,
    RULE_OWNER,
    SECOND_MILLIS,
    WAIT_MAX_MILLIS,
    WITHIN_MAX_MILLIS,
    BurstMonth,
    BurstRule,
)
from seatkeeper.core.lots import (
    LOT_SEATS_MAX,
    LOTS_MAX,
    Lot,
    LotKind,
    LotMove,
    LotState,
    PoolLots,
    PriceUnit,
    amount_fault,
    moved,
    price_faults,
)

MICROS = 1_000_000
_DAY_MILLIS = 24 * HOUR_MILLIS
_ERA_DAYS, _MARCH_DAYS = 146_097, 719_468
"""Days of 400 years, and from 1 March of the year 0 to 1 January 1970."""


def month_of(instant: int) -> int:
    """Return the month that an instant is in: the year times 12, plus the month from 0 on."""
    era, day = divmod(instant // _DAY_MILLIS + _MARCH_DAYS, _ERA_DAYS)
    year = (day - day // 1_460 + day // 36_524 - day // 146_096) // 365
    of_year = day - (365 * year + year // 4 - year // 100)
    # Years begin with March here, so that the day which some have is their last.
    return (era * 400 + year) * 12 + 2 + (5 * of_year + 2) // 153


def month_start(month: int) -> int:
    """Return the instant with which a month begins."""
    year, of_year = divmod(month - 2, 12)
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * of_year + 2) // 5
    return (days - _MARCH_DAYS) * _DAY_MILLIS


def by_month(begins: int, ends: int) -> Iterator[tuple[int, int]]:
    """Yield how many milliseconds of each month are between two instants."""
    while begins < ends:
        month = month_of(begins)
        until = min(ends, month_start(month + 1))
        yield month, until - begins
        begins = until


def cost_micros(rule: BurstRule, millis: int) -> int:
    """Return what a burst of a rule costs in so long, in millionths of its currency, rounded up."""
    if rule.price is None:
        return 0
    per = HOUR_MILLIS * (1 if rule.price.per is PriceUnit.SEAT_HOUR else 8_766)
    exact = Fraction(rule.price.amount) * rule.seats * millis * MICROS / per
    return -int(-exact // 1)


def month_in(lots: PoolLots, month: int) -> BurstMonth | None:
    """Return what is taken of a month; None: it is not known any more."""
    for each in lots.months:
        if each.month == month:
            return each
    is_old = len(lots.months) >= MONTHS_KEPT and month < min(m.month for m in lots.months)
    return None if is_old else BurstMonth(month)


def obstacle(lots: PoolLots, now: int) -> str:
    """Return why the rule may start no burst at ``now``, whatever the waits are; empty: it may."""
    rule = lots.rule
    if not rule:
        return "there is no rule"
    if any(lot.is_by_rule and lot.state is not LotState.ENDED for lot in lots.lots):
        return "a burst of the rule goes on"
    if len(_kept(lots)) >= LOTS_MAX:
        return f"the pool has {LOTS_MAX} lots"
    if lots.most + rule.seats > LOT_SEATS_MAX:
        return f"its seats would be over {LOT_SEATS_MAX}"
    taken = _taken(lots, rule, now)
    return taken if isinstance(taken, str) else ""


def started(lots: PoolLots, now: int) -> tuple[PoolLots, tuple[LotMove, ...]] | None:
    """Return the lots with a burst of the rule in force, and what moves; None: it may start none.

    Bursts that have ended are forgotten, as when an administrator starts one.
    """
    rule = lots.rule
    if rule is None or obstacle(lots, now):
        return None
    months = _taken(lots, rule, now)
    assert not isinstance(months, str)  # there is no obstacle
    kept = _kept(lots)
    names = {lot.name for lot in kept}
    burst = Lot(
        name=next(name for n in range(1, LOTS_MAX + 1) if (name := f"rule-{n}") not in names),
        seats=rule.seats,
        ends=now + rule.length,
        price=rule.price,
        kind=LotKind.BURST,
        owner=RULE_OWNER,
        is_by_rule=True,
    )
    # As an administrator's write: who has not seen the burst is to look again, rather than end it.
    after = replace(lots, lots=(*kept, burst), months=months, edited_revision=0)
    return moved(after, now)


def left(lots: PoolLots, now: int) -> tuple[float, str]:
    """Return the hours that the rule has left in the month of ``now``, and the budget, for people."""
    rule, month = lots.rule, month_in(lots, month_of(now))
    if not rule or month is None:
        return 0.0, ""
    hours = max(0.0, rule.hours_per_month - month.millis / HOUR_MILLIS)
    if not rule.budget or rule.price is None:
        return hours, ""
    spare = max(Fraction(0), Fraction(rule.budget) - Fraction(month.cost_micros, MICROS))
    return hours, f"{float(spare):.2f} {rule.price.currency}"


def _kept(lots: PoolLots) -> list[Lot]:
    return [
        lot
        for lot in lots.lots
        if lot.kind is not LotKind.BURST or lot.state is not LotState.ENDED
    ]


def _taken(lots: PoolLots, rule: BurstRule, now: int) -> tuple[BurstMonth, ...] | str:
    """Return what is taken of months once a burst has begun at ``now``, or why it may not begin."""
    currency = rule.price.currency if rule.price else ""
    months = {each.month: each for each in lots.months}
    for number, millis in by_month(now, now + rule.length):
        month = month_in(lots, number)
        if month is None:
            return "what was used of this month is not known any more"
        if rule.budget and month.cost_micros and month.currency != currency:
            return f"{month} has bursts in {month.currency}"
        month = BurstMonth(
            *(number, month.millis + millis, month.cost_micros + cost_micros(rule, millis)),
            currency=currency or month.currency,
        )
        if month.millis > rule.hours_per_month * HOUR_MILLIS:
            return f"the {rule.hours_per_month} hours of {month} do not suffice"
        if rule.budget and month.cost_micros > Fraction(rule.budget) * MICROS:
            return f"the {rule.budget} {currency} of {month} do not suffice"
        months[number] = month
    return tuple(months[number] for number in sorted(months)[-MONTHS_KEPT:])


def rule_faults(rule: BurstRule) -> Iterator[tuple[str, str]]:
    """Yield all that is wrong with a rule: the field, and the reason."""
    found = False
    for field, reason in _faults_of(rule):
        found = True
        yield field, reason
    if found:
        return
    if rule.length > rule.hours_per_month * HOUR_MILLIS:
        yield "hours_per_month", "are fewer than one burst takes, so none would ever start"
    elif rule.budget and cost_micros(rule, rule.length) > Fraction(rule.budget) * MICROS:
        yield "budget", "is less than one burst costs, so none would ever start"


def _faults_of(rule: BurstRule) -> Iterator[tuple[str, str]]:
    if not 1 <= rule.seats <= LOT_SEATS_MAX:
        yield "seats", f"{rule.seats} is not from 1 to {LOT_SEATS_MAX}"
    for field, given, most, words in (
        ("length", rule.length, LENGTH_MAX_MILLIS, "31 days"),
        ("p95_wait", rule.p95_wait, WAIT_MAX_MILLIS, "90 days"),
        ("within", rule.within, WITHIN_MAX_MILLIS, "7 days"),
    ):
        if not SECOND_MILLIS <= given <= most or given % SECOND_MILLIS:
            yield field, f"is not a number of whole seconds from 1 s to {words}"
    if not 1 <= rule.hours_per_month <= HOURS_MAX:
        yield "hours_per_month", f"{rule.hours_per_month} is not from 1 to {HOURS_MAX}"
    if rule.price is not None:
        yield from (("price", reason) for reason in price_faults(rule.price))
    if rule.budget:
        if reason := amount_fault(rule.budget):
            yield "budget", reason
        elif rule.price is None or rule.price.per is not PriceUnit.SEAT_HOUR:
            yield "budget", "needs a price for a seat-hour"
