"""From what licences and options say of borrowing, or roaming, to how seats of pools are borrowed.

A licence says whether its seats may be borrowed, and for how long; options shorten that and keep some
back. A pool has one rule: the longest time of its licences, and as many seats as those have that may be
borrowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from seatkeeper.client.imports.dialect import Dialect
from seatkeeper.client.imports.drafts import Draft
from seatkeeper.client.imports.parsed import Became, Lending, Outcome
from seatkeeper.client.imports.seats import Features, Pool
from seatkeeper.core.borrowing import BORROW_MAX, SKEW_DEFAULT
from seatkeeper.core.validate import SEATS_MAX
from seatkeeper.v1 import pool_service_pb2 as pb

Meant = tuple[Outcome, Lending]


def lend(dialect: Dialect, features: Features, lendings: Sequence[Meant]) -> None:
    """Note in pools what options say of borrowing from them, and say what became of each line."""
    for outcome, lending in lendings:
        pools = features.named(dialect.key(lending.feature))
        if not pools:
            outcome.ends_as(*features.absent(dialect.key(lending.feature)))
            continue
        if lending.qualifier:
            outcome.partly(
                f"{lending.qualifier}: of all licences of the feature, which share a pool"
            )
        lent = [pool for pool in pools if _longest(pool) is not None]
        if not lent:
            reason = f"no licence of it says that its seats may be {dialect.borrowed}"
            outcome.ends_as(Became.NOT_NEEDED, reason)
        for pool in lent:
            pool.lendings.append((outcome, lending))


def lends(pool: Pool) -> bool:
    """Return whether seats of a pool may be borrowed."""
    return _longest(pool) is not None


def put_rule(spec: pb.PoolSpec, pool: Pool, borrowers: Draft) -> tuple[Outcome, ...]:
    """Write how seats of a pool are borrowed, and by whom; return the lines that this comes from."""
    longest = _longest(pool)
    if longest is None:
        return ()
    outcomes = [source.outcome for source in pool.sources if source.borrow is not None]
    lent = sum(source.seats for source in pool.sources if source.borrow is not None)
    counts = [lent] if any(each.borrow is None for each in pool.sources) else []
    counts += [each.borrow_seats for each in pool.sources if each.borrow_seats is not None]
    rule = spec.policy.borrow
    rule.skew.FromTimedelta(SKEW_DEFAULT)
    for outcome, lending in pool.lendings:
        outcomes.append(outcome)
        longest = min(longest, lending.longest or longest)
        counts += [] if lending.seats is None else [lending.seats]
        rule.low_water = max(rule.low_water, min(lending.low_water, SEATS_MAX))
    rule.longest.FromTimedelta(min(longest, BORROW_MAX))
    if counts:
        rule.seats = min(*counts, SEATS_MAX)
    who = pb.PoolRules()
    borrowers.put_into(who)
    for key, lines in borrowers.outcomes.items():
        outcomes += lines.values()
        if key == "include":
            rule.include.CopyFrom(who.include)
        else:
            rule.exclude.CopyFrom(who.exclude)
    for outcome in outcomes:
        outcome.targets.append(f"pools.{spec.name}.borrow")
    return tuple({id(each): each for each in outcomes}.values())


def _longest(pool: Pool) -> timedelta | None:
    return max(_times(pool), default=None)


def _times(pool: Pool) -> Iterator[timedelta]:
    for source in pool.sources:
        if source.borrow is not None:
            yield source.borrow
