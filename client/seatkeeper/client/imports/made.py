"""The pools of a file, with their names, and what stands in their way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from seatkeeper.client.imports.borrowing import put_rule
from seatkeeper.client.imports.contracts import Contracts, contracts_of, say_what_is_lost
from seatkeeper.client.imports.counted import put_count_once
from seatkeeper.client.imports.dialect import Dialect
from seatkeeper.client.imports.drafts import Draft
from seatkeeper.client.imports.lingers import Lingering
from seatkeeper.client.imports.names import name_of
from seatkeeper.client.imports.parsed import Outcome
from seatkeeper.client.imports.pools_text import Entry, lines_of
from seatkeeper.client.imports.seats import Features, Pool, Source
from seatkeeper.client.imports.shares import Shared
from seatkeeper.client.imports.terms import WARNING_SECONDS, Terms, TermsOf
from seatkeeper.client.imports.who_may import Ruled
from seatkeeper.client.pools_file import FILE_BYTES_MAX, read_pools
from seatkeeper.client.pools_file.definition import POOLS_MAX
from seatkeeper.core.amounts import count
from seatkeeper.core.text import printable
from seatkeeper.core.validate import DESCRIPTION_MAX, is_name
from seatkeeper.v1 import pool_service_pb2 as pb

PLACES_SHOWN = 8
REFUSALS_MAX = 100
"""Most faults listed; what follows from many lines alike is clear from some."""
_NAME_SHOWN = 60
_INT_MAX = (1 << 31) - 1


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
    """``pool``, ``project`` or ``group``."""
    old: str
    new: str
    place: str


class Made:
    """Pools with names, and what stands in their way."""

    def __init__(self, dialect: Dialect, names: Mapping[str, str], with_vendor: bool) -> None:
        self.entries: list[Entry] = []
        self.refusals: list[Refusal] = []
        self._lost: list[Source] = []
        self.is_too_large = False
        """Its text would be none that is read."""
        self.lingering: Mapping[int, Lingering] = {}
        """For how long pools keep released seats, by the identity of each."""
        self.borrowers: Mapping[int, Ruled] = {}
        """Who may borrow of pools, by the identity of each."""
        self._pools: list[Renamed] = []
        self._others: dict[tuple[str, str, str], Renamed] = {}
        self._dialect = dialect
        self._names = names
        self._with_vendor = with_vendor

    @property
    def renamed(self) -> tuple[Renamed, ...]:
        """The names that had to change, those of projects and groups once for all pools."""
        return (*self._pools, *self._others.values())

    def add(
        self,
        features: Features,
        shared: Mapping[int, Shared],
        ruled: Mapping[int, Ruled],
        terms: TermsOf,
    ) -> None:
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
            entry = self._entry(name, shared[id(pool)], ruled[id(pool)])
            self.entries.append(_with_terms(entry, terms.found[id(pool)]))
        say_what_is_lost(self._lost)
        if sum(each.draft.characters for each in ruled.values()) > FILE_BYTES_MAX:
            reason = (
                f"the rules of who may use pools have more than {FILE_BYTES_MAX} characters, and a "
                "file of pools has no more: import fewer files at once"
            )
            self.refusals.append(Refusal(reason))
            self.is_too_large = True
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

    def _entry(self, name: str, shared: Shared, ruled: Ruled) -> Entry:
        pool = shared.pool
        contracts = contracts_of(pool)
        spec = pb.PoolSpec(name=name, seats=min(pool.seats + contracts.seats, _INT_MAX))
        spec.description = printable(
            f"{self._dialect.title}: {_cut(pool.feature)} of {_cut(pool.vendor)}"
        )[:DESCRIPTION_MAX]
        parts: dict[str, list[tuple[Outcome, ...]]] = {}
        origins = self._add_seats(spec, pool, contracts, parts)
        self._add_rules(spec, ruled, parts)
        if (kept := self.lingering.get(id(pool))) is not None:
            spec.policy.stay.linger.seconds = kept.seconds
            parts["stay"] = [(kept.outcome,)]
            kept.outcome.targets.append(f"pools.{name}.stay")
        borrowers = self.borrowers.get(id(pool))
        if lines := put_rule(spec, pool, borrowers.draft if borrowers else Draft()):
            parts["borrow"] = [lines]
        if lines := put_count_once(spec, pool):
            parts["count_once"] = [lines]
        taken: dict[str, tuple[str, str]] = {}
        for project in shared.projects.values():
            places = _places(project.outcomes)
            who = f"{project.kind} {_cut(project.who)}"
            if not is_name(project.name):
                reason = f"no name for a project can be made of '{_cut(project.who)}'"
                self.refusals.append(Refusal(reason, places))
                continue
            if not self._takes(taken, name, project.name, (who, places[0])):
                continue
            self._renames("project", project.who, project.name, places[0])
            share = spec.policy.projects.add(
                project=project.name,
                guaranteed=min(project.guaranteed, _INT_MAX),
                weight=1,
            )
            if project.limit is not None:
                share.limit = min(project.limit, _INT_MAX)
            parts.setdefault("projects", []).append(tuple(project.outcomes))
            for outcome in project.outcomes:
                outcome.targets.append(f"pools.{name}.projects.{project.name}")
        for text, outcome in ruled.draft.projects.items():
            place = outcome.statement.place
            self._takes(taken, name, name_of(text), (f"PROJECT {_cut(text)}", place))
            self._renames("project", text, name_of(text), place)
        return Entry(spec, origins, parts)

    def _add_seats(
        self,
        spec: pb.PoolSpec,
        pool: Pool,
        contracts: Contracts,
        parts: dict[str, list[tuple[Outcome, ...]]],
    ) -> tuple[Outcome, ...]:
        """Write contracts into a pool, and return the lines that it, and its other seats, come from."""
        dated: set[int] = set()
        for contract in contracts.contracts:
            spec.lots.lots.append(contract.lot)
            parts.setdefault("lots", []).append(contract.outcomes)
            for outcome in contract.outcomes:
                outcome.targets.append(f"pools.{spec.name}.lots.{contract.lot.name}")
                dated.add(id(outcome))
        if contracts.contracts:
            spec.lots.seats = spec.seats
        lost = {id(source) for source in contracts.lost}
        plain = [
            source.outcome
            for source in pool.sources
            if id(source) not in lost and id(source.outcome) not in dated
        ]
        origins = tuple({id(each): each for each in (*pool.packages, *plain)}.values())
        for outcome in origins:
            outcome.targets.append(f"pools.{spec.name}.seats")
        self._lost.extend(contracts.lost)
        return origins

    def _takes(
        self, taken: dict[str, tuple[str, str]], pool: str, name: str, who: tuple[str, str]
    ) -> bool:
        """Say that a name is that of somebody, who is given with the place; False: of another one."""
        first, at = taken.setdefault(name, who)
        if self._dialect.key(first) == self._dialect.key(who[0]):
            return True
        reason = f"pool {pool}: {first} and {who[0]} would both be project {name}; rename one"
        self.refusals.append(Refusal(reason, (at, who[1])))
        return False

    def _renames(self, what: str, old: str, new: str, place: str) -> None:
        if old != new:
            self._others.setdefault((what, old, new), Renamed(what, old, new, place))

    def _add_rules(
        self, spec: pb.PoolSpec, ruled: Ruled, parts: dict[str, list[tuple[Outcome, ...]]]
    ) -> None:
        """Write who may use a pool into it."""
        rules = pb.PoolRules()
        ruled.draft.put_into(rules)
        for named in ruled.draft.groups.values():
            outcomes = named.group.outcomes
            parts.setdefault("groups", []).append(outcomes)
            self._renames("group", named.group.name, named.name, outcomes[0].statement.place)
            for outcome in outcomes:
                outcome.targets.append(f"pools.{spec.name}.groups.{named.name}")
        lists = {key: tuple(each.values()) for key, each in ruled.draft.outcomes.items()}
        if ruled.per_holder is not None:
            rules.per_holder.seats = ruled.per_holder
            lists["per_holder"] = tuple(ruled.limits)
        for key, outcomes in lists.items():
            parts[key] = [outcomes]
            for outcome in outcomes:
                outcome.targets.append(f"pools.{spec.name}.{key}")
        if rules.ByteSize():
            spec.policy.rules.CopyFrom(rules)

    def text(self, head: str, as_ascii: bool) -> str:
        """Return the file of pools; what `pool apply` would refuse of it is listed."""
        lines = lines_of(self.entries, head=head, as_ascii=as_ascii)
        text = "".join(f"{line}\n" for line, _ in lines)
        for fault in read_pools(text.encode("utf-8", "backslashreplace")).faults:
            _, entry = lines[min(fault.line, len(lines)) - 1]
            where = f"{fault.path}: " if fault.path else ""
            places: tuple[str, ...] = ()
            if entry is not None:
                within = fault.path.removeprefix(f"pools.{entry.spec.name}.").partition(".")[0]
                of_part = [each for some in entry.parts.get(within, ()) for each in some]
                of_lots = [each for some in entry.parts.get("lots", ()) for each in some]
                if within not in ("projects", "seats"):
                    of_lots = []
                places = _places((*of_part, *entry.origins, *of_lots))
            self.refusals.append(Refusal(f"{where}{fault.reason}", places))
        return text


def _with_terms(entry: Entry, terms: Terms) -> Entry:
    """Return a pool with what is said of all its seats, and the lines that say so."""
    name, parts = entry.spec.name, entry.parts
    if terms.idle_seconds:
        hold = entry.spec.policy.hold
        hold.idle.seconds, hold.warning.seconds = terms.idle_seconds, WARNING_SECONDS
        parts["hold"] = [tuple(terms.idle_of)]
        for outcome in terms.idle_of:
            outcome.targets.append(f"pools.{name}.hold")
    bounds = tuple(terms.overdraft_of)
    if not bounds:
        return entry
    is_left = [lot.overdraft > 0 for lot in entry.spec.lots.lots]
    for outcome in bounds:
        outcome.targets.append(f"pools.{name}.{'lots' if any(is_left) else 'seats'}")
    if not any(is_left):  # it says that there is none
        return replace(entry, origins=(*entry.origins, *bounds))
    of_lots = zip(parts["lots"], is_left, strict=True)
    parts["lots"] = [(*each, *bounds) if left else each for each, left in of_lots]
    return entry


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
