"""Which licences are in force, and the pools that they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date

from seatkeeper.client.imports.dialect import Dialect
from seatkeeper.client.imports.parsed import Became, Licence, Outcome, Package
from seatkeeper.core.amounts import count

Found = tuple[Outcome, Licence]
Key = Callable[[str], str]
"""What of a name counts: all of it, or all but its case."""
_Order = tuple[int, int, list[int], int, int]
_DAY_ONE = date.min
EXPANDED_MAX = 100_000
"""Most licences that packages may stand for, in all."""


@dataclass
class Source:
    """Seats that a statement adds to a pool."""

    outcome: Outcome
    seats: int
    version: str


@dataclass
class Pool:
    """A feature of a vendor, and where its seats come from."""

    feature: str
    vendor: str
    sources: list[Source] = field(default_factory=list)
    packages: list[Outcome] = field(default_factory=list)
    """The lines that make it a part of a package."""

    @property
    def seats(self) -> int:
        """All that it has."""
        return sum(source.seats for source in self.sources)

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

    def key(text: str) -> str:
        return text if dialect.is_name_case_sensitive else text.lower()

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
            pool.sources.append(Source(outcome, part.seats or 0, part.version))
            if found is not None:
                pool.packages.append(found[0])
    for at, (outcome, _) in known.items():
        if at not in used and outcome.became is Became.TRANSLATED:
            outcome.ends_as(Became.NOT_NEEDED, "no licence of this package is in force")
    _say_of_versions(features)
    return features


def _components(licence: Licence, package: Package) -> Iterator[Licence]:
    for name, version, many in package.components:
        yield replace(
            licence,
            feature=name,
            version=version or licence.version,
            seats=(licence.seats or 0) * many,
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
    """Yield the licences that count today, and say of the others why they do not."""
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
        elif licence.starts is not None and licence.starts > today:
            became = Became.NONE
            reason = f"it is in force from {licence.starts} on: add {count(licence.seats, 'seat')} then"
        elif by is not None and (licence.issued or _DAY_ONE) < by[0]:
            reason = f"{by[1].statement.place} takes its place: that was issued on {by[0]}"
        if reason:
            outcome.ends_as(became, reason)
            features.out.setdefault(
                at[1], (became, f"of its licence, {outcome.statement.place}: {reason}")
            )
        else:
            left.append((outcome, licence))
    first = _first_of_each(left, key)
    for outcome, licence in left:
        at = key(licence.vendor), key(licence.feature)
        if licence.is_first_only and first[at] is not outcome:
            place = first[at].statement.place
            reason = f"of several FEATURE lines the server uses one, here {place}"
            outcome.ends_as(Became.NOT_NEEDED, reason)
            continue
        for lost in licence.losses:
            outcome.partly(lost)
        if licence.expires is not None:
            outcome.partly(
                f"in force until {licence.expires}: a pool has no dates yet, so take the seats of this "
                "line off after that day"
            )
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


def _first_of_each(licences: list[Found], key: Key) -> dict[tuple[str, str], Outcome]:
    """Return which of several FEATURE lines the server uses: the first as it sorts them."""
    found: dict[tuple[str, str], tuple[_Order, Outcome]] = {}
    files: dict[str, int] = {}
    for place, (outcome, licence) in enumerate(licences):
        of_file = files.setdefault(outcome.statement.file, len(files))
        if not licence.is_first_only:
            continue
        newest_first = -(licence.issued or _DAY_ONE).toordinal()
        higher_first = [-part for part in _version(licence.version)]
        by = of_file, licence.order, higher_first, newest_first, place
        at = key(licence.vendor), key(licence.feature)
        if at not in found or by < found[at][0]:
            found[at] = by, outcome
    return {at: outcome for at, (_, outcome) in found.items()}


def _version(text: str) -> list[int]:
    """Return a version as numbers; what is none counts as 0."""
    parts = text.split(".")[:8]
    return [
        int(part) if part.isascii() and part.isdigit() and len(part) < 10 else 0
        for part in parts
    ]
