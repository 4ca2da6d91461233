"""From the text of ``pools.yaml`` to pools, or to all that is wrong with it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration

from seatkeeper.client.pools_file import tree
from seatkeeper.client.pools_file.borrows import borrow_of
from seatkeeper.client.pools_file.bursts import burst_rule_of
from seatkeeper.client.pools_file.counting import count_once_faults_in, counting_of
from seatkeeper.client.pools_file.definition import (
    FILE,
    Amount,
    Day,
    Field,
    Flag,
    Length,
    Money,
    Named,
    Numbers,
    Patterns,
    Said,
    Span,
    Table,
    Whole,
    Words,
)
from seatkeeper.client.pools_file.holds import hold_faults
from seatkeeper.client.pools_file.reservations import faults_in as faults_in_reservations
from seatkeeper.client.pools_file.reservations import reservations_of
from seatkeeper.client.pools_file.rules import borrower_faults_in, faults_in, rules_of
from seatkeeper.client.pools_file.stays import NEEDS_ONE
from seatkeeper.client.pools_file.tree import FAULTS_MAX, Fault, Node, Place, Scalar, shown
from seatkeeper.core.instants import parse_instant, parse_length, parse_price
from seatkeeper.core.lot_messages import decode_lots, encode_lot
from seatkeeper.core.lots import Lot, Price, lots_faults
from seatkeeper.core.projects import PoolPolicy, ProjectShare, policy_faults
from seatkeeper.core.reclaim import HOURLY_DEFAULT, MINIMUM_HOLD_DEFAULT
from seatkeeper.core.rule_text import parse_budget
from seatkeeper.core.text import hidden_in, named
from seatkeeper.core.validate import SEATS_MAX, is_name
from seatkeeper.v1 import pool_service_pb2 as pb

_Parsed = TypeVar("_Parsed", int, str, Duration, Price, timedelta)
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)")
_SECONDS = re.compile(r"(0|[1-9][0-9]{0,9})(?:\.([0-9]{1,6}))?")
_DIGITS_MAX = 12
"""A longer number is out of every bound here, and is not computed."""
_NAME_IS = "1 to 63 of `a-z 0-9 . _ -`, starting with a letter or a digit"


@dataclass(frozen=True)
class PoolsFile:
    """What a file says."""

    pools: Mapping[str, pb.PoolSpec]
    """By name, in the order of the file; the policy of each is set. Empty where there are faults."""
    faults: tuple[Fault, ...]
    """All that is wrong, in the order of the file; of more than ``FAULTS_MAX``, the first found."""


def read_pools(data: bytes, *, now_millis: int = 0) -> PoolsFile:
    """Return what a file says. With any fault it says nothing: ``pools`` is empty then.

    ``now_millis``: the time from which on windows of reservations are compared.
    """
    root, faults = tree.parse(data)
    reader = _Reader(faults, now_millis)
    pools: dict[str, pb.PoolSpec] = {}
    try:
        if root is not None:
            pools = reader.file(root)
        elif not faults:
            reader.fault(Place(1, 1), "the file is empty: write `version: 1` and `pools:`", "")
    except _Enough:
        pass
    found = tuple(sorted(reader.faults)[:FAULTS_MAX])
    return PoolsFile({} if found else pools, found)


class _Enough(Exception):
    """There are as many faults as are listed."""


@dataclass(frozen=True)
class _Value:
    """What a key is given."""

    place: Place
    value: int | Duration | str | Price | _Entries | _Inner | _Listed


@dataclass(frozen=True)
class _Entry:
    """A name, and what its table has."""

    place: Place
    values: Mapping[str, _Value]
    is_whole: bool
    """Nothing was wrong below this name."""


@dataclass(frozen=True)
class _Inner:
    """What the keys of a table are given that is the value of a key."""

    values: Mapping[str, _Value]


@dataclass(frozen=True)
class _Listed:
    """The texts of a list, each with its place."""

    items: tuple[tuple[Place, str], ...]


_Entries = Mapping[str, _Entry]


class _Reader:
    """Collects faults, and goes on."""

    def __init__(self, faults: list[Fault], now_millis: int) -> None:
        self.faults = faults
        self._now = now_millis

    def fault(self, place: Place, reason: str, path: str) -> None:
        """List a fault. Raises ``_Enough`` when there are many."""
        self.faults.append(place.fault(reason, path))
        if len(self.faults) >= FAULTS_MAX:
            raise _Enough

    def file(self, root: Node) -> dict[str, pb.PoolSpec]:
        """Return the pools of a file; with faults, what could be read of them."""
        values = self._table(root, FILE, "")
        pools = values.get("pools")
        if pools is None or not isinstance(pools.value, Mapping):
            return {}
        return {name: self._pool(name, entry) for name, entry in pools.value.items()}

    def _pool(self, name: str, entry: _Entry) -> pb.PoolSpec:
        values = entry.values
        spec = pb.PoolSpec(name=name)
        spec.policy.SetInParent()
        if (seats := values.get("seats")) is not None and isinstance(seats.value, int):
            spec.seats = seats.value
        if (text := values.get("description")) is not None and isinstance(text.value, str):
            spec.description = text.value
        projects = values.get("projects")
        listed = projects.value if projects and isinstance(projects.value, Mapping) else {}
        spec.policy.projects.extend(_share(each, found) for each, found in listed.items())
        half_life = values.get("usage_half_life")
        if half_life is not None and isinstance(half_life.value, Duration):
            spec.policy.usage_half_life.CopyFrom(half_life.value)
            if not listed:
                reason = "there are no `projects` whose usage could be looked at"
                self.fault(half_life.place, reason, f"pools.{name}.usage_half_life")
        overtaking = values.get("overtaking")
        if overtaking is not None and isinstance(overtaking.value, _Inner):
            self._overtaking(spec, overtaking.value.values)
        lengths = {"reclaim": self._reclaim, "hold": self._hold, "stay": self._stay}
        for key, put in lengths.items():
            said = values.get(key)
            if said is not None and isinstance(said.value, _Inner):
                put(spec, said.place, said.value.values)
        lots = values.get("lots")
        if lots is not None and isinstance(lots.value, Mapping):
            self._add_lots(spec, entry, lots.value)
        if "burst" in values and entry.is_whole:
            self._add_burst_rule(spec, entry)
        self._check_policy(spec, entry, listed)
        plain = {key: _plain(found) for key, found in values.items()}
        if (counting := counting_of(plain)).ByteSize():
            spec.policy.counting.CopyFrom(counting)
        if isinstance(lent := plain.get("borrow"), Mapping):
            spec.policy.borrow.CopyFrom(borrow_of(lent))
        rules = rules_of(plain)
        if rules.ByteSize():
            spec.policy.rules.CopyFrom(rules)
            _check_rules(self, rules, entry, f"pools.{name}")
        if spec.policy.HasField("borrow"):
            _check_borrowers(self, spec, entry)
        if isinstance(named := plain.get("count_once"), tuple):
            spec.policy.count_once.extend(named)
            _check_count_once(self, spec, entry)
        reservations = values.get("reservations")
        if reservations is not None:
            self._add_reservations(spec, entry, reservations)
        return spec

    def _add_reservations(self, spec: pb.PoolSpec, entry: _Entry, listed: _Value) -> None:
        """Put the reservations into a pool, and look at them together."""
        given = _plain(listed)
        found, unread = reservations_of(given if isinstance(given, Mapping) else {})
        spec.policy.reservations.extend(found)
        places, path = dict(_places(listed, "")), f"pools.{spec.name}.reservations"
        faults = unread or (
            faults_in_reservations(spec, _seats_most(spec), self._now) if entry.is_whole else ()
        )
        for way, reason in faults:
            ways = [_way(list(way)[:end]) for end in range(len(way), -1, -1)]
            at = next(each for each in ways if each in places)
            self.fault(places[at], reason, f"{path}{at}")

    def _reclaim(self, spec: pb.PoolSpec, place: Place, values: Mapping[str, _Value]) -> None:
        rule = spec.policy.reclaim
        rule.hourly = HOURLY_DEFAULT
        rule.minimum_hold.FromTimedelta(MINIMUM_HOLD_DEFAULT)
        for key, found in values.items():
            if isinstance(found.value, Duration):
                getattr(rule, key).CopyFrom(found.value)
            elif isinstance(found.value, int):
                setattr(rule, key, found.value)
        if not any(share.guaranteed for share in spec.policy.projects):
            reason = "no project has a guarantee that seats could be called back for"
            self.fault(place, reason, f"pools.{spec.name}.reclaim")

    def _overtaking(self, spec: pb.PoolSpec, values: Mapping[str, _Value]) -> None:
        _set_overtaking(spec.policy.overtaking, values)
        if "seats" in values and not _may_overtake(spec.policy.overtaking):
            reason = f"0 is not from 1 to {SEATS_MAX}; it is for `hold_back` alone"
            self.fault(values["seats"].place, reason, f"pools.{spec.name}.overtaking.seats")

    def _hold(self, spec: pb.PoolSpec, place: Place, values: Mapping[str, _Value]) -> None:
        rule = spec.policy.hold
        rule.SetInParent()
        for key, found in values.items():
            if isinstance(found.value, Duration):
                getattr(rule, key).CopyFrom(found.value)
        path = f"pools.{spec.name}.hold"
        if not any(fault.path.startswith(path) for fault in self.faults):
            for field, reason in hold_faults(rule):
                at = values[field].place if field in values else place
                end = f".{field}" if field in values else ""
                self.fault(at, reason, f"{path}{end}")

    def _stay(self, spec: pb.PoolSpec, place: Place, values: Mapping[str, _Value]) -> None:
        rule, path = spec.policy.stay, f"pools.{spec.name}.stay"
        rule.SetInParent()
        for key, found in values.items():
            if isinstance(found.value, Duration):
                getattr(rule, key).CopyFrom(found.value)
        if not values and not any(fault.path.startswith(path) for fault in self.faults):
            self.fault(place, NEEDS_ONE, path)

    def _add_lots(self, spec: pb.PoolSpec, entry: _Entry, listed: _Entries) -> None:
        """Put the lots into a pool, and look at them together."""
        lots = [_lot(name, found) for name, found in listed.items()]
        if lots:
            spec.lots.CopyFrom(pb.PoolLots(lots=map(encode_lot, lots), seats=spec.seats))
        for at, field, reason in lots_faults(lots, spec.seats) if entry.is_whole else ():
            found = listed[lots[at].name]
            value = found.values.get(field)
            place = value.place if value is not None else found.place
            self.fault(place, reason, f"pools.{spec.name}.lots.{lots[at].name}.{field}")

    def _add_burst_rule(self, spec: pb.PoolSpec, entry: _Entry) -> None:
        """Put the rule that starts bursts into a pool, where nothing was wrong with any of it."""
        said = _plain(entry.values["burst"])
        assert isinstance(said, dict)  # it is whole
        rule, faults = burst_rule_of(said)
        spec.lots.burst_rule.CopyFrom(rule)
        spec.lots.seats = spec.seats
        places = dict(_places(entry.values["burst"], ""))
        for key, reason in faults:
            place = places.get(f".{key}", entry.values["burst"].place)
            self.fault(place, reason, f"pools.{spec.name}.burst.{key}")

    def _check_policy(self, spec: pb.PoolSpec, entry: _Entry, listed: _Entries) -> None:
        """Look at the projects together. What a fault has left out of them makes no second one."""
        policy = PoolPolicy(
            tuple(
                ProjectShare(
                    project=share.project,
                    guaranteed=share.guaranteed,
                    limit=share.limit if share.HasField("limit") else None,
                    weight=share.weight or 1,
                    parent=share.parent,
                )
                for share in spec.policy.projects
            )
        )
        seats = _seats_most(spec)
        found_in_it = policy_faults(policy, seats, is_whole=entry.is_whole)
        for at, field, reason in found_in_it:
            project = policy.projects[at].project
            found = listed[project]
            value = found.values.get(field)
            place = value.place if value is not None else found.place
            self.fault(place, reason, f"pools.{spec.name}.projects.{project}.{field}")

    def _table(self, node: Node, table: Table, path: str) -> dict[str, _Value]:
        """Return what the keys of a table are given, without what is wrong."""
        keys = self.keys(node, table.what, path, "a mapping with the keys " + _list(table))
        values: dict[str, _Value] = {}
        for key, place, value in keys:
            inner = f"{path}.{key}" if path else key
            field = table.fields.get(key)
            if field is None:
                self._unknown(key, place, table, path)
                continue
            found = self._value(value, field, inner)
            if found is not None:
                values[key] = _Value(value.place, found)
        if isinstance(node, tree.Mapping):
            there = {key for key, _, _ in keys}
            for name, field in table.fields.items():
                if field.required and name not in there:
                    self.fault(node.place, f"{table.what} needs `{name}`", path)
        return values

    def keys(
        self, node: Node, what: str, path: str, wanted: str
    ) -> list[tuple[str, Place, Node]]:
        """Return the keys of a mapping, each once; list what is wrong with them."""
        if isinstance(node, tree.Faulty):
            return []
        if not isinstance(node, tree.Mapping):
            self.fault(node.place, f"{_kind(node)}, where {what} is {wanted}", path)
            return []
        found: list[tuple[str, Place, Node]] = []
        first: dict[str, Place] = {}
        for key, value in node.entries:
            if isinstance(key, tree.Faulty):
                continue
            if not isinstance(key, Scalar):
                self.fault(key.place, f"{_kind(key)}, where a key belongs", path)
            elif key.is_plain and key.text == "<<":
                self.fault(key.place, "the merge key <<: write what it stands for", path)
            elif key.text in first:
                line = first[key.text].line
                self.fault(
                    key.place, f"{shown(key.text)} is there twice: see line {line}", path
                )
            else:
                first[key.text] = key.place
                found.append((key.text, key.place, value))
        return found

    def _unknown(self, key: str, place: Place, table: Table, path: str) -> None:
        near = difflib.get_close_matches(key[:100].lower(), table.fields, 1)
        hint = f"did you mean `{near[0]}`?" if near else f"it has {_list(table)}"
        self.fault(place, f"{table.what} has no key {shown(key)}: {hint}", path)

    def _value(
        self, node: Node, field: Field, path: str
    ) -> int | Duration | str | Price | _Entries | _Inner | _Listed | None:
        """Return the value of a key; None: a fault is listed."""
        if isinstance(node, tree.Faulty):
            return None
        if isinstance(field.takes, Table):
            return _Inner(self._table(node, field.takes, path))
        if isinstance(field.takes, Named):
            return self._entries(node, field.takes, path)
        if isinstance(field.takes, Patterns):
            return _listed(self, node, field.takes, path)
        if isinstance(field.takes, Numbers):
            return _numbers(self, node, field.takes, path)
        if not isinstance(node, Scalar):
            self.fault(node.place, f"{_kind(node)}, where {_wanted(field)} belongs", path)
            return None
        read: int | Duration | str | Price | None
        match field.takes:
            case Whole() as whole:
                read, reason = _whole(node, whole)
            case Length(least, most):
                read, reason = _length(node, least, most)
            case Words(most=most):
                read, reason = _words(node, most)
            case Flag():
                read, reason = _flag(node)
            case Day(is_end=is_end):
                read, reason = _said(lambda: parse_instant(node.text, is_end=is_end))
            case Money():
                read, reason = _said(lambda: parse_price(node.text))
            case Span():
                read, reason = _said(lambda: _span(node.text))
            case Amount():
                read, reason = _said(lambda: " ".join(parse_budget(node.text)))
            case Said():
                read, reason = node.text, ""
            case _:
                read, reason = _name(node)
        if read is None:
            self.fault(node.place, reason, path)
        return read

    def _entries(self, node: Node, named_: Named, path: str) -> _Entries | None:
        what = named_.table.what
        wanted = f"a mapping from names, as in `{path}: {{NAME: ...}}`"
        keys = self.keys(node, f"`{path}`", path, wanted)
        if isinstance(node, tree.Mapping) and len(node.entries) > named_.most:
            reason = f"{len(node.entries)} entries: at most {named_.most}"
            self.fault(node.place, reason, path)
            return None
        entries: dict[str, _Entry] = {}
        for name, place, value in keys:
            before = len(self.faults)
            if not is_name(name):
                self.fault(place, f"{shown(name)} is not the name of {what}: {_NAME_IS}", path)
            values = self._table(value, named_.table, f"{path}.{shown(name)[1:-1]}")
            is_whole = len(self.faults) == before and not isinstance(value, tree.Faulty)
            entries[name] = _Entry(place, values, is_whole)
        return entries


def _check_borrowers(reader: _Reader, spec: pb.PoolSpec, entry: _Entry) -> None:
    """Look at who may borrow, by the pool's groups, where nothing else was wrong."""
    if not entry.is_whole:
        return
    places = dict(_places(entry, ""))
    for way, reason in borrower_faults_in(spec.policy):
        steps = ["borrow", *way]
        ways = [_way(steps[:end]) for end in range(len(steps), 0, -1)]
        where = next(each for each in ways if each in places)
        reader.fault(places[where], reason, f"pools.{spec.name}{where}")


def _check_count_once(reader: _Reader, spec: pb.PoolSpec, entry: _Entry) -> None:
    """Look at what grants have in common that count once, together with what each may hold."""
    places = dict(_places(entry, ""))
    for at, reason in count_once_faults_in(spec.policy):
        where = f".count_once[{at}]" if f".count_once[{at}]" in places else ".count_once"
        reader.fault(places[where], reason, f"pools.{spec.name}{where}")


def _check_rules(reader: _Reader, rules: pb.PoolRules, entry: _Entry, path: str) -> None:
    """Look at the rules together, where nothing was wrong with any of them."""
    if not entry.is_whole:
        return
    places = dict(_places(entry, ""))
    for way, reason in faults_in(rules):
        steps = list(way)
        if len(steps) > 1 and steps[0] == "groups":
            steps[1] = rules.groups[int(steps[1])].name
        ways = [_way(steps[:end]) for end in range(len(steps), 0, -1)]
        found = next(each for each in (*ways, "") if each in places)
        reader.fault(places[found], reason, f"{path}{found}")


def _listed(reader: _Reader, node: Node, wanted: Patterns, path: str) -> _Listed | None:
    """Return the names of a list; None where there is none, or it is too long."""
    if not isinstance(node, tree.Sequence):
        reason = f"{_kind(node)}, where a list belongs, as in [NAME, NAME]"
        reader.fault(node.place, reason, path)
        return None
    if len(node.items) > wanted.most:
        reason = f"{len(node.items)} entries: at most {wanted.most}"
        reader.fault(node.place, reason, path)
        return None
    items: list[tuple[Place, str]] = []
    for at, item in enumerate(node.items):
        where = f"{path}[{at}]"
        if isinstance(item, tree.Faulty):
            continue
        if not isinstance(item, Scalar):
            reader.fault(item.place, f"{_kind(item)}, where a name belongs", where)
        elif item.is_plain and (what := tree.meant_as(item.text)):
            reason = f"{_quoted(item)} is {what}: put the name in quotes"
            reader.fault(item.place, reason, where)
        else:
            items.append((item.place, item.text))
    return _Listed(tuple(items))


def _numbers(reader: _Reader, node: Node, wanted: Numbers, path: str) -> _Inner | None:
    """Return the number of each name; None where there is none at all, or too many."""
    example = f"a mapping from names to numbers, as in `{path}: {{NAME: {wanted.least}}}`"
    keys = reader.keys(node, f"`{path}`", path, example)
    if len(keys) > wanted.count:
        reader.fault(node.place, f"{len(keys)} entries: at most {wanted.count}", path)
        return None
    found: dict[str, _Value] = {}
    for name, place, value in keys:
        if not is_name(name):
            reader.fault(place, f"{shown(name)} is not a name: {_NAME_IS}", path)
        where = f"{path}.{shown(name)[1:-1]}"
        if isinstance(value, tree.Faulty):
            continue
        if not isinstance(value, Scalar):
            reader.fault(value.place, f"{_kind(value)}, where a whole number belongs", where)
            continue
        number, reason = _whole(value, Whole(wanted.least, wanted.most))
        if number is None:
            reader.fault(value.place, reason, where)
        else:
            found[name] = _Value(value.place, number)
    return _Inner(found)


def _flag(node: Scalar) -> tuple[int | None, str]:
    """Return what a flag says. Readers of YAML differ about all other words."""
    if not node.is_plain or node.text not in ("true", "false"):
        return None, f"{_quoted(node)} is neither true nor false"
    return node.text == "true", ""


def _plain(found: _Value | _Entry) -> object:
    """Return what a key is given, without the places."""
    value = found.value if isinstance(found, _Value) else found
    match value:
        case _Listed(items):
            return tuple(text for _, text in items)
        case _Entry() | _Inner():
            return {key: _plain(each) for key, each in value.values.items()}
        case Mapping():
            return {key: _plain(each) for key, each in value.items()}
        case _:
            return value


def _places(found: _Value | _Entry, way: str) -> Iterator[tuple[str, Place]]:
    """Yield the way to all that a key is given, and to it itself, each with its place."""
    yield way, found.place
    value = found.value if isinstance(found, _Value) else found
    inner = value.values if isinstance(value, _Entry | _Inner) else value
    if isinstance(value, _Listed):
        yield from ((f"{way}[{at}]", place) for at, (place, _) in enumerate(value.items))
    elif isinstance(inner, Mapping):
        for name, each in inner.items():
            yield from _places(each, f"{way}.{name}")


def _way(steps: list[str | int]) -> str:
    return "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in steps)


def _seats_most(spec: pb.PoolSpec) -> int:
    """Return the seats that what is promised must fit into."""
    return decode_lots(spec.lots).guaranteed_most if spec.lots.lots else spec.seats


def _share(project: str, entry: _Entry) -> pb.ProjectShare:
    share = pb.ProjectShare(project=project, weight=1)
    for name, found in entry.values.items():
        setattr(share, name, found.value)
    return share


def _lot(name: str, entry: _Entry) -> Lot:
    given = {key: found.value for key, found in entry.values.items()}
    begins, ends = given.get("from"), given.get("until")
    price, owner = given.get("price"), given.get("owner")
    seats, overdraft = given.get("seats"), given.get("overdraft")
    return Lot(
        name=name,
        seats=seats if isinstance(seats, int) else 1,
        begins=begins if isinstance(begins, int) else None,
        ends=ends if isinstance(ends, int) else None,
        price=price if isinstance(price, Price) else None,
        owner=owner if isinstance(owner, str) else "",
        overdraft=overdraft if isinstance(overdraft, int) else 0,
    )


def _span(text: str) -> Duration:
    found = Duration()
    found.FromTimedelta(parse_length(text))
    return found


def _said(parse: Callable[[], _Parsed]) -> tuple[_Parsed | None, str]:
    try:
        return parse(), ""
    except ValueError as error:
        return None, str(error)


def _whole(node: Scalar, wanted: Whole) -> tuple[int | None, str]:
    text = node.text
    bounds = f"from {wanted.least} to {wanted.most}"
    if wanted.least == wanted.most:
        bounds = f"the {wanted.most} that this command knows"
    if _WHOLE.fullmatch(text) is None:
        return None, f"{_quoted(node)} is not a whole number in plain digits, {bounds}"
    if not node.is_plain:
        return (
            None,
            f"the number {shown(text)} is in quotes, which make it text: write {text[:20]}",
        )
    if len(text) > _DIGITS_MAX or not wanted.least <= int(text) <= wanted.most:
        return None, f"{text[:20]} is not {bounds}"
    return int(text), ""


def _length(node: Scalar, least: float, most: float) -> tuple[Duration | None, str]:
    duration = Duration()
    if node.is_plain and (found := _SECONDS.fullmatch(node.text)) is not None:
        duration = Duration(seconds=int(found[1]), nanos=int((found[2] or "").ljust(9, "0")))
        if not least <= float(node.text) <= most:
            return None, f"{node.text} seconds are not from {least:g} to {most:.0f}"
        return duration, ""
    length, reason = _said(lambda: parse_length(node.text))
    if length is None:
        seconds = "a number of seconds, with at most 6 digits after a point"
        return None, f"{reason}, and not {seconds}, from {least:g} to {most:.0f}"
    if not least <= length.total_seconds() <= most:
        return None, f"{_quoted(node)} is not from {least:g} s to {most:.0f} s"
    duration.FromTimedelta(length)
    return duration, ""


def _words(node: Scalar, most: int) -> tuple[str | None, str]:
    text = node.text
    if node.is_plain and (what := tree.meant_as(text)):
        return None, f"{_quoted(node)} is {what}: put text in quotes"
    if len(text) > most:
        return None, f"has over {most} characters"
    if hidden := hidden_in(text):
        return None, f"has characters that cannot be shown, such as {named(hidden)}"
    return text, ""


def _name(node: Scalar) -> tuple[str | None, str]:
    if node.is_plain and (what := tree.meant_as(node.text)):
        return None, f"{_quoted(node)} is {what}: put the name in quotes"
    if not is_name(node.text):
        return None, f"{shown(node.text)} is not a name: {_NAME_IS}"
    return node.text, ""


def _quoted(node: Scalar) -> str:
    return shown(node.text) if node.text or not node.is_plain else "what is left empty"


def _kind(node: Node) -> str:
    match node:
        case tree.Sequence():
            return "a list"
        case tree.Mapping():
            return "a mapping"
        case Scalar(text=text, is_plain=is_plain):
            return shown(text) if text or not is_plain else "nothing"
        case _:
            return "something else"


def _wanted(field: Field) -> str:
    match field.takes:
        case Whole():
            return "a whole number"
        case Flag():
            return "true or false"
        case Length():
            return "a length of time"
        case Day():
            return "a day or a time"
        case Span():
            return "a length of time, as 45m or 2h,"
        case _:
            return "text"


def _list(table: Table) -> str:
    return ", ".join(f"`{name}`" for name in table.fields)


def _set_overtaking(rule: pb.Overtaking, values: Mapping[str, _Value]) -> None:
    for key, found in values.items():
        if isinstance(found.value, Duration):
            getattr(rule, key).CopyFrom(found.value)
        else:
            setattr(rule, key, found.value)


def _may_overtake(rule: pb.Overtaking) -> bool:
    """Return whether it says anything: how many seats, or that gangs have some."""
    return rule.seats > 0 or rule.HasField("hold_back")
