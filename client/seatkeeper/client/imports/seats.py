"""Which licences are in force, and the pools that they make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta

from seatkeeper.client.imports.dialect import Dialect
from seatkeeper.client.imports.feature_lines import DAY_ONE, Found, Key, not_first, uses
from seatkeeper.client.imports.parsed import Became, Lending, Licence, Outcome, Package

YEAR_MAX = 2200
"""Lots are of before it."""
EXPANDED_MAX = 100_000
"""Most licences that packages may stand for, in all."""


@dataclass
class Source:
    """Seats that a statement adds to a pool."""

    outcome: Outcome
    seats: int
    version: str
    starts: date | None = None
    """The first day on which they are in force; None: they are already."""
    expires: date | None = None
    """The last one; None: there is none."""
    contract: str = ""
    overdraft: int = 0
    """Seats that it allows beyond its own."""
    borrow: timedelta | None = None
    """For how long they may be borrowed; None: they may not."""
    borrow_seats: int | None = None
    """How many of them at once; None: all."""
    count_once: tuple[str, ...] = ()
    """What requests have in common that share them; empty: each takes its own."""

    @property
    def is_lot(self) -> bool:
        """Whether they are a contract of their own: they have dates, or allow more."""
        return self.has_dates or self.overdraft > 0

    @property
    def has_dates(self) -> bool:
        """Whether they are not in force for good from now on."""
        return self.starts is not None or self.expires is not None


@dataclass
class Pool:
    """A feature of a vendor, and where its seats come from."""

    feature: str
    vendor: str
    sources: list[Source] = field(default_factory=list)
    packages: list[Outcome] = field(default_factory=list)
    """The lines that make it a part of a package."""
    lendings: list[tuple[Outcome, Lending]] = field(default_factory=list)
    """What options say of borrowing its seats."""

    @property
    def seats(self) -> int:
        """Those that are in force without an end."""
        return sum(source.seats for source in self.sources if not source.is_lot)

    @property
    def versions(self) -> list[str]:
        """Those that its licences have, each once."""
        return list(dict.fromkeys(source.version for source in self.sources))


@dataclass
class Features:
    """What licence files license."""

    pools: dict[tuple[str, str], Pool] = field(default_factory=dict)
    """By vendor and feature."""
    out: dict[str, tuple[Became, str]] = field(default_factory=dict)
    """Features of which licences do not count, and why."""
    packages: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """The features that are licensed under the name of a package that is in force."""
    by_feature: dict[str, list[Pool]] = field(default_factory=dict)

    def named(self, feature: str) -> list[Pool]:
        """Return the pools of a feature, or of the components of a package."""
        names = self.packages.get(feature, ())
        found = {
            id(pool): pool
            for each in (feature, *names)
            for pool in self.by_feature.get(each, [])
        }
        return list(found.values())

    def absent(self, feature: str) -> tuple[Became, str]:
        """Return what becomes of a line about a feature that has no pool."""
        reason = "no licence line of this feature was read: name its licence file, too"
        return self.out.get(feature, (Became.NONE, reason))


def features_of(
    dialect: Dialect,
    licences: list[Found],
    packages: list[tuple[Outcome, Package]],
    today: date,
) -> Features:
    """Return the pools that licences make, and say of each what became of it."""
    key = dialect.key
    features = Features()
    known: dict[tuple[str, str], tuple[Outcome, Package]] = {}
    for outcome, package in packages:
        at = key(package.vendor), key(package.name)
        if known.setdefault(at, (outcome, package))[0] is not outcome:
            outcome.ends_as(Became.NOT_NEEDED, "an earlier line has this package")
    used: set[tuple[str, str]] = set()
    expanded = 0
    for outcome, licence in _in_force(licences, today, key, features):
        under = key(licence.vendor), key(licence.feature)
        if (found := known.get(under)) is not None:
            used.add(under)
            package_outcome, package = found
            expanded += len(package.components)
            if expanded > EXPANDED_MAX:
                reason = f"packages stand for more than {EXPANDED_MAX} licences"
                outcome.ends_as(Became.UNREADABLE, reason)
                continue
            parts = list(_components(licence, package))
            names = dict.fromkeys(key(part.feature) for part in parts)
            features.packages[under[1]] = tuple(names)
            if package.is_suite:
                for each in (outcome, package_outcome):
                    each.partly("a seat of a part of a suite takes none of the suite here")
                parts.append(licence)
        else:
            parts = [licence]
        for part in parts:
            at = key(part.vendor), key(part.feature)
            pool = features.pools.get(at)
            if pool is None:
                pool = features.pools[at] = Pool(part.feature, part.vendor)
                features.by_feature.setdefault(at[1], []).append(pool)
            pool.sources.append(_source(outcome, part, today))
            if found is not None:
                pool.packages.append(found[0])
    for at, (outcome, _) in known.items():
        if at not in used and outcome.became is Became.TRANSLATED:
            outcome.ends_as(Became.NOT_NEEDED, "no licence of this package is in force")
    _say_of_versions(features)
    return features


def _source(outcome: Outcome, licence: Licence, today: date) -> Source:
    starts = licence.starts
    is_open_ended = licence.expires is None or licence.expires.year >= YEAR_MAX
    if is_open_ended and starts is not None and starts <= today:
        starts = None
    return Source(
        outcome,
        licence.seats or 0,
        licence.version,
        starts,
        licence.expires,
        licence.contract,
        licence.overdraft,
        licence.borrow,
        licence.borrow_seats,
        licence.count_once,
    )


def _components(licence: Licence, package: Package) -> Iterator[Licence]:
    for name, version, many in package.components:
        yield replace(
            licence,
            feature=name,
            version=version or licence.version,
            seats=(licence.seats or 0) * many,
            overdraft=licence.overdraft * many,
        )


def _say_of_versions(features: Features) -> None:
    for pool in features.pools.values():
        versions = pool.versions
        if len(versions) < 2:
            continue
        shown = ", ".join(versions[:5]) + (", ..." if len(versions) > 5 else "")
        for source in pool.sources:
            source.outcome.partly(
                f"versions {shown} share a pool: a request does not say which it needs"
            )


def _in_force(
    licences: list[Found], today: date, key: Key, features: Features
) -> Iterator[Found]:
    """Yield the licences that count today or later, and say of the others why they do not."""
    newest = _superseding(licences, key)
    signed: dict[tuple[str, ...], Outcome] = {}
    left: list[Found] = []
    for outcome, licence in licences:
        at = key(licence.vendor), key(licence.feature)
        became, reason = Became.NOT_NEEDED, ""
        by = newest.get(at)
        same = signed.setdefault(outcome.statement.rest, outcome) if licence.signature else None
        if same is not None and same is not outcome:
            reason = f"the same licence is at {same.statement.place}, and counts once"
        elif licence.seats is None:
            reason = "it is not counted: there are no seats to grant"
        elif licence.expires is not None and licence.expires < today:
            reason = f"it was in force until {licence.expires}"
        elif licence.starts is not None and licence.starts.year >= YEAR_MAX:
            became = Became.NONE
            reason = (
                f"it is in force from {licence.starts} on, and lots begin before {YEAR_MAX}"
            )
        elif licence.starts and licence.expires and licence.expires < licence.starts:
            reason = f"it ends on {licence.expires}, before it begins"
        elif by is not None and (licence.issued or DAY_ONE) < by[0]:
            reason = f"{by[1].statement.place} takes its place: that was issued on {by[0]}"
        if reason:
            outcome.ends_as(became, reason)
            said = f"of its licence, {outcome.statement.place}: {reason}"
            features.out.setdefault(at[1], (became, said))
        else:
            left.append((outcome, licence))
    instead = not_first(left, today, key)
    for outcome, licence in left:
        if (used := instead.get(id(outcome))) is not None:
            outcome.ends_as(Became.NOT_NEEDED, uses(used, licence))
            continue
        for lost in licence.losses:
            outcome.partly(lost)
        yield outcome, licence


def _superseding(
    licences: list[Found], key: Key
) -> dict[tuple[str, str], tuple[date, Outcome]]:
    """Return the day before which licences of a feature are replaced, and the line that says so."""
    newest: dict[tuple[str, str], tuple[date, Outcome]] = {}
    for outcome, licence in licences:
        if licence.supersedes and licence.issued is None:
            outcome.partly(
                "it takes the place of older licences, and does not say of which day it is"
            )
            continue
        for feature in licence.supersedes:
            at = key(licence.vendor), key(feature)
            assert licence.issued is not None
            if at not in newest or newest[at][0] < licence.issued:
                newest[at] = licence.issued, outcome
    return newest
