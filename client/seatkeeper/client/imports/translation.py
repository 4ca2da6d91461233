"""From licence and options files to a file of pools, and what became of every line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import NamedTuple

from seatkeeper.client.imports.dialect import Dialect
from seatkeeper.client.imports.lexer import Lexed, lexed
from seatkeeper.client.imports.names import name_of
from seatkeeper.client.imports.parsed import (
    Became,
    Claim,
    Group,
    Licence,
    Outcome,
    Package,
    Unreadable,
)
from seatkeeper.client.imports.pools_text import Entry, lines_of
from seatkeeper.client.imports.seats import Features, Pool, features_of
from seatkeeper.client.imports.shares import Shared, shares_of
from seatkeeper.client.pools_file import read_pools
from seatkeeper.client.pools_file.definition import POOLS_MAX
from seatkeeper.core.amounts import count
from seatkeeper.core.text import printable
from seatkeeper.core.validate import DESCRIPTION_MAX, is_name
from seatkeeper.v1 import pool_service_pb2 as pb

FILE_BYTES_MAX = 8 << 20
FILES_MAX = 100
STATEMENTS_MAX = 100_000
PLACES_SHOWN = 8
REFUSALS_MAX = 100
"""Most faults listed; what follows from many lines alike is clear from some."""
_NAME_SHOWN = 60


@dataclass(frozen=True)
class Refusal:
    """Why no file of pools is made."""

    reason: str
    places: tuple[str, ...] = ()
    """The lines that it comes from."""

    def __str__(self) -> str:
        """Return it for people, in one line."""
        shown = ", ".join(self.places[:PLACES_SHOWN])
        more = len(self.places) - PLACES_SHOWN
        others = f" and {count(more, 'more line')}" if more > 0 else ""
        return f"{self.reason} ({shown}{others})" if self.places else self.reason


class Renamed(NamedTuple):
    """A name that had to change."""

    what: str
    """``pool`` or ``project``."""
    old: str
    new: str
    place: str


@dataclass(frozen=True)
class Translation:
    """What files say, as pools, and what became of every line."""

    text: str
    """The file of pools, which `pool apply` reads; empty where there are ``refusals``."""
    outcomes: tuple[Outcome, ...]
    """In the order of the files."""
    files: Mapping[str, Lexed]
    renamed: tuple[Renamed, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    pools: int = 0

    def of(self, *became: Became) -> tuple[Outcome, ...]:
        """Return the statements of which that became."""
        return tuple(outcome for outcome in self.outcomes if outcome.became in became)

    @property
    def is_whole(self) -> bool:
        """Whether nothing was lost that decides who gets a seat."""
        return not self.of(Became.PARTLY, Became.NONE, Became.UNREADABLE)


def translate(
    dialect: Dialect,
    files: Sequence[tuple[str, bytes]],
    *,
    today: date,
    names: Mapping[str, str] | None = None,
    with_vendor: bool = False,
    as_ascii: bool = False,
) -> Translation:
    """Return what files say, whatever bytes they are.

    ``files``: the name of each, for messages, and what is in it. ``today``: licences that are not in
    force then have no seats. ``prefix``: of the name of every pool. The text is checked as `pool apply`
    checks it; with any fault there is no text, and ``refusals`` say why.
    """
    if len(files) > FILES_MAX:
        return Translation("", (), {}, refusals=(Refusal(f"more than {FILES_MAX} files"),))
    large = [name for name, data in files if len(data) > FILE_BYTES_MAX]
    if large:
        reason = f"a file has more than {FILE_BYTES_MAX} bytes"
        return Translation("", (), {}, refusals=(Refusal(reason, tuple(large)),))
    read = {name: lexed(name, data, dialect.grammar) for name, data in files}
    statements = [each for found in read.values() for each in found.statements]
    if len(statements) > STATEMENTS_MAX:
        reason = f"the files have more than {STATEMENTS_MAX} statements: import fewer at once"
        return Translation("", (), read, refusals=(Refusal(reason),))
    meant = _Meant()
    for statement in statements:
        meant.add(dialect, Outcome(statement))
    features = features_of(dialect, meant.licences, meant.packages, today)
    shared = shares_of(dialect, features, meant.claims, meant.groups)
    made = _Made(dialect, names or {}, with_vendor)
    made.add(features, shared)
    head = f"From {', '.join(name for name, _ in files)}, by `seatkeeper import {dialect.name}`"
    text = "" if made.refusals and not made.entries else made.text(head, as_ascii)
    return Translation(
        text="" if made.refusals else text,
        outcomes=tuple(meant.outcomes),
        files=read,
        renamed=made.renamed,
        refusals=tuple(made.refusals[:REFUSALS_MAX]),
        pools=len(made.entries),
    )


@dataclass
class _Meant:
    """Statements, by what they mean."""

    outcomes: list[Outcome] = field(default_factory=list)
    licences: list[tuple[Outcome, Licence]] = field(default_factory=list)
    packages: list[tuple[Outcome, Package]] = field(default_factory=list)
    claims: list[tuple[Outcome, Claim]] = field(default_factory=list)
    groups: list[tuple[Outcome, Group]] = field(default_factory=list)

    def add(self, dialect: Dialect, outcome: Outcome) -> None:
        """Read one more statement."""
        self.outcomes.append(outcome)
        statement = outcome.statement
        if statement.damage:
            outcome.ends_as(Became.UNREADABLE, statement.damage)
            return
        try:
            parsed = dialect.read(statement)
        except Unreadable as error:
            outcome.ends_as(Became.UNREADABLE, str(error))
            return
        match parsed:
            case Licence():
                self.licences.append((outcome, parsed))
            case Package():
                self.packages.append((outcome, parsed))
            case Claim():
                self.claims.append((outcome, parsed))
            case Group():
                self.groups.append((outcome, parsed))
            case None:
                hint = dialect.unknown(statement)
                known = f"{dialect.title} has no keyword of this name that is known here"
                outcome.ends_as(Became.UNREADABLE, hint or known)
            case _:
                outcome.ends_as(parsed.became, parsed.reason)


class _Made:
    """Pools with names, and what stands in their way."""

    def __init__(self, dialect: Dialect, names: Mapping[str, str], with_vendor: bool) -> None:
        self.entries: list[Entry] = []
        self.refusals: list[Refusal] = []
        self._pools: list[Renamed] = []
        self._projects: dict[tuple[str, str], Renamed] = {}
        self._dialect = dialect
        self._names = names
        self._with_vendor = with_vendor

    @property
    def renamed(self) -> tuple[Renamed, ...]:
        """The names that had to change, those of projects once for all pools."""
        return (*self._pools, *self._projects.values())

    def add(self, features: Features, shared: Mapping[int, Shared]) -> None:
        """Name all pools, and list those that would have one name."""
        if len(features.pools) > POOLS_MAX:
            many = f"there are {len(features.pools)} features"
            reason = (
                f"{many}, and a file has at most {POOLS_MAX} pools: import fewer files at once"
            )
            self.refusals.append(Refusal(reason))
            return
        taken: dict[str, Pool] = {}
        for pool in features.pools.values():
            if len(self.refusals) >= REFUSALS_MAX:
                return
            places = _places(source.outcome for source in pool.sources)
            whole = f"{pool.vendor}.{pool.feature}" if self._with_vendor else pool.feature
            name = self._names.get(pool.feature) or name_of(whole)
            if not is_name(name):
                reason = f"no name for a pool can be made of '{_cut(pool.feature)}': use --name"
                self.refusals.append(Refusal(reason, places))
                continue
            if (other := taken.setdefault(name, pool)) is not pool:
                both = tuple(
                    dict.fromkeys((*_places(s.outcome for s in other.sources), *places))
                )
                self.refusals.append(Refusal(_same_pool(name, other, pool), both))
                continue
            if name != whole:
                self._pools.append(Renamed("pool", pool.feature, name, places[0]))
            self.entries.append(self._entry(name, shared[id(pool)]))
        there = {pool.feature for pool in features.pools.values()}
        for feature in self._names:
            if feature not in there:
                reason = f"--name: no licence of {_cut(feature)} is in force"
                self.refusals.append(Refusal(reason))
        if not self.entries and not self.refusals:
            reason = (
                "no pool comes of it: there is no licence line with seats that are in force"
            )
            self.refusals.append(Refusal(reason))

    def _entry(self, name: str, shared: Shared) -> Entry:
        pool = shared.pool
        spec = pb.PoolSpec(name=name, seats=min(pool.seats, (1 << 31) - 1))
        spec.description = printable(
            f"{self._dialect.title}: {_cut(pool.feature)} of {_cut(pool.vendor)}"
        )[:DESCRIPTION_MAX]
        sources = [source.outcome for source in pool.sources]
        origins = tuple({id(each): each for each in (*pool.packages, *sources)}.values())
        for outcome in origins:
            outcome.targets.append(f"pools.{name}.seats")
        of_projects: list[tuple[Outcome, ...]] = []
        taken: dict[str, tuple[str, str]] = {}
        for project in shared.projects.values():
            places = _places(project.outcomes)
            who = f"{project.kind} {_cut(project.who)}"
            if not is_name(project.name):
                reason = f"no name for a project can be made of '{_cut(project.who)}'"
                self.refusals.append(Refusal(reason, places))
                continue
            if project.name in taken:
                first, at = taken[project.name]
                reason = f"pool {name}: {first} and {who} would both be project {project.name}"
                self.refusals.append(Refusal(f"{reason}; rename one", (at, *places)))
                continue
            taken[project.name] = who, places[0]
            if project.name != project.who:
                new = Renamed("project", project.who, project.name, places[0])
                self._projects.setdefault((new.old, new.new), new)
            share = spec.policy.projects.add(
                project=project.name,
                guaranteed=min(project.guaranteed, (1 << 31) - 1),
                weight=1,
            )
            if project.limit is not None:
                share.limit = min(project.limit, (1 << 31) - 1)
            of_projects.append(tuple(project.outcomes))
            for outcome in project.outcomes:
                outcome.targets.append(f"pools.{name}.projects.{project.name}")
        return Entry(spec, origins, tuple(of_projects))

    def text(self, head: str, as_ascii: bool) -> str:
        """Return the file of pools; what `pool apply` would refuse of it is listed."""
        lines = lines_of(self.entries, head=head, as_ascii=as_ascii)
        text = "".join(f"{line}\n" for line, _ in lines)
        for fault in read_pools(text.encode("utf-8", "backslashreplace")).faults:
            _, entry = lines[min(fault.line, len(lines)) - 1]
            where = f"{fault.path}: " if fault.path else ""
            places: tuple[str, ...] = ()
            if entry is not None:
                claims = [each for outcomes in entry.of_projects for each in outcomes]
                is_of_seats = fault.path.endswith(".seats")
                places = _places([] if is_of_seats else claims) + _places(entry.origins)
            self.refusals.append(Refusal(f"{where}{fault.reason}", places))
        return text


def _places(outcomes: Sequence[Outcome] | Iterator[Outcome]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(outcome.statement.place for outcome in outcomes))


def _cut(text: str) -> str:
    return text if len(text) <= _NAME_SHOWN else f"{text[:_NAME_SHOWN]}..."


def _same_pool(name: str, one: Pool, other: Pool) -> str:
    if one.vendor.lower() != other.vendor.lower():
        return (
            f"{_cut(one.feature)} of {_cut(one.vendor)} and of {_cut(other.vendor)} would both be "
            f"pool {name}: use --with-vendor"
        )
    both = f"{_cut(one.feature)} and {_cut(other.feature)} would both be pool {name}"
    return f"{both}: use --name"
