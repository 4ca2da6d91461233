"""From LINGER to for how long pools keep released seats."""

from __future__ import annotations

from dataclasses import dataclass

from seatkeeper.client.imports.dialect import Dialect
from seatkeeper.client.imports.fields import feature_of, needs, number
from seatkeeper.client.imports.parsed import Became, Linger, Outcome
from seatkeeper.client.imports.seats import Features
from seatkeeper.client.imports.shares import of_these_alone
from seatkeeper.client.imports.statement import Statement
from seatkeeper.core.stay import LINGER_MAX

ONE_HOLDER = (
    "it is kept for the holder, user@host unless a request says otherwise, and its project: another "
    "host of the same user does not get it"
)


def linger(statement: Statement) -> Linger:
    """Return what LINGER says. Raises ``Unreadable``."""
    rest = needs(statement, 2, "a feature and a number of seconds")
    feature, qualifier = feature_of(rest[0])
    return Linger(feature, qualifier, number(rest[1], "number of seconds"))


@dataclass(frozen=True)
class Lingering:
    """For how long a pool keeps released seats, and the line that says so."""

    seconds: int
    outcome: Outcome


def lingering_of(
    dialect: Dialect, features: Features, lingers: list[tuple[Outcome, Linger]]
) -> dict[int, Lingering]:
    """Return what lines say, by the identity of pools, and say of each line what became of it."""
    found: dict[int, Lingering] = {}
    most = int(LINGER_MAX.total_seconds())
    for outcome, said in lingers:
        key = dialect.key(said.feature)
        pools = features.named(key)
        if not pools:
            outcome.ends_as(*features.absent(key))
            continue
        if not said.seconds:
            outcome.ends_as(Became.NOT_NEEDED, "a released seat is free at once")
            continue
        new = [pool for pool in pools if id(pool) not in found]
        if not new:
            reason = "an earlier line says how long its seats are kept, and counts"
            outcome.ends_as(Became.NOT_NEEDED, reason)
            continue
        for pool in new:
            found[id(pool)] = Lingering(min(said.seconds, most), outcome)
        outcome.partly(ONE_HOLDER)
        if said.seconds > most:
            outcome.partly("a pool keeps released seats for 90 days at most")
        if said.qualifier:
            outcome.partly(of_these_alone(said.qualifier))
    return found
