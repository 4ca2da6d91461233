"""What a file would change of the pools that there are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from google.protobuf.duration_pb2 import Duration

from seatkeeper.client.pools_file.borrows import borrow_fields
from seatkeeper.client.pools_file.bursts import burst_values
from seatkeeper.client.pools_file.counting import begins_to_bind, counting_values
from seatkeeper.client.pools_file.holds import hold_fields
from seatkeeper.client.pools_file.promises import broken, rule_note
from seatkeeper.client.pools_file.reservations import reservation_values
from seatkeeper.client.pools_file.rules import narrows, rule_values
from seatkeeper.client.pools_file.stays import stay_fields
from seatkeeper.client.pools_file.writer import seconds_text
from seatkeeper.core.amounts import count
from seatkeeper.core.instants import instant_text
from seatkeeper.core.lot_messages import decode_lot, decode_lots
from seatkeeper.core.lot_text import has_lots, plain_seats, shortfall_text
from seatkeeper.core.lots import LotKind, PoolLots, moved, succeeding
from seatkeeper.core.stay import KEYS
from seatkeeper.core.validate import POOL_DELETIONS_MAX
from seatkeeper.v1 import pool_service_pb2 as pb

_IN_SECONDS = (
    *("usage_half_life", "overtaking.within", "reclaim.notice", "reclaim.minimum_hold"),
    "overtaking.hold_back",
    *("hold.longest", "hold.idle", "hold.warning"),
    *(f"stay.{key}" for key in KEYS),
    *("borrow.longest", "borrow.skew"),
)


class Kind(Enum):
    """What becomes of a pool."""

    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"
    UNCHANGED = "unchanged"
    LEFT = "left"
    """It is not in the file, and stays as it is."""


Given = int | float | str | None


@dataclass(frozen=True)
class Value:
    """A value that changes; None: there is none."""

    field: str
    """Such as ``seats`` or ``projects.vision.limit``."""
    before: Given
    after: Given

    def __str__(self) -> str:
        """Return it for people."""
        if self.before is None:
            return f"+ {self.field}: {self._text(self.after)}"
        if self.after is None:
            return f"- {self.field}: {self._text(self.before)}"
        return f"~ {self.field}: {self._text(self.before)} -> {self._text(self.after)}"

    def _text(self, value: Given) -> str:
        if self.field in _IN_SECONDS:
            return f"{value} s"
        return f'"{value}"' if self.field == "description" else str(value)


@dataclass(frozen=True)
class Change:
    """What becomes of one pool."""

    name: str
    kind: Kind
    seen_revision: int
    """The revision that this was found out from; 0: there was no such pool."""
    spec: pb.PoolSpec | None = None
    """What the file says; None: it is not in the file."""
    values: tuple[Value, ...] = ()
    notes: tuple[str, ...] = ()
    """What to know before."""
    obstacle: str = ""
    """Why the service would refuse it; empty: it would not."""
    breaks: tuple[str, ...] = ()
    """The promises that stand now and would not any more."""

    @property
    def changes_anything(self) -> bool:
        """Whether the pool is another afterwards."""
        return self.kind in (Kind.CREATE, Kind.CHANGE, Kind.DELETE)

    def message(self) -> pb.PoolChange:
        """Return what is asked of the service: the change, or that the pool is still as it was seen."""
        asked = pb.PoolChange(name=self.name, seen_revision=self.seen_revision)
        if self.kind is Kind.DELETE:
            asked.delete = True
        elif self.changes_anything:
            assert self.spec is not None
            asked.spec.CopyFrom(self.spec)
        return asked


@dataclass(frozen=True)
class Plan:
    """What becomes of every pool."""

    changes: tuple[Change, ...]
    """In the order of the file, then those that are not in it."""

    def of(self, kind: Kind) -> tuple[Change, ...]:
        """Return those of one kind."""
        return tuple(change for change in self.changes if change.kind is kind)

    @property
    def changes_anything(self) -> bool:
        """Whether any pool is another afterwards."""
        return any(change.changes_anything for change in self.changes)

    def messages(self) -> list[pb.PoolChange]:
        """Return what is asked of the service: each pool of the file, and those to delete."""
        return [change.message() for change in self.changes if change.kind is not Kind.LEFT]


def plan(
    wanted: Mapping[str, pb.PoolSpec],
    live: Iterable[pb.Pool],
    *,
    delete_missing: bool = False,
    now_millis: int = 0,
) -> Plan:
    """Return what becomes of the live pools when the wanted are applied.

    ``delete_missing``: those that are not wanted are deleted, rather than left as they are. A pool
    that the answering node cannot read has an obstacle. ``now_millis``: the time by which notes say
    what lots are in force.
    """
    there = {pool.spec.name: pool for pool in live}
    changes = [_of(spec, there.get(name), now_millis) for name, spec in wanted.items()]
    changes += [
        _delete(pool) if delete_missing else Change(name, Kind.LEFT, pool.revision)
        for name, pool in there.items()
        if name not in wanted
    ]
    deleted = [change for change in changes if change.kind is Kind.DELETE]
    if len(deleted) > POOL_DELETIONS_MAX and not deleted[0].obstacle:
        many = f"{len(deleted)} pools are to be deleted, at most {POOL_DELETIONS_MAX} at once"
        changes[changes.index(deleted[0])] = replace(deleted[0], obstacle=many)
    return Plan(tuple(changes))


def differences(before: pb.PoolSpec, after: pb.PoolSpec) -> tuple[Value, ...]:
    """Return the values that differ, one by one; a project that comes or goes is one."""
    changed = list(_compared("", _values(before), _values(after)))
    changed += _compared("", rule_values(before), rule_values(after))
    changed += _compared("", reservation_values(before), reservation_values(after))
    changed += _compared("", counting_values(before), counting_values(after))
    then = {share.project: _share(share) for share in before.policy.projects}
    now = {share.project: _share(share) for share in after.policy.projects}
    for project in {**then, **now}:
        path = f"projects.{project}"
        if project in then and project in now:
            changed += _compared(f"{path}.", then[project], now[project])
        else:
            old, new = then.get(project), now.get(project)
            changed.append(Value(path, _in_words(old), _in_words(new)))
    changed += _compared_lots(before, after)
    old_order = [project for project in then if project in now]
    new_order = [project for project in now if project in then]
    if old_order != new_order:
        changed.append(Value("order of projects", ", ".join(old_order), ", ".join(new_order)))
    return tuple(changed)


def _compared(
    path: str, then: Mapping[str, Given], now: Mapping[str, Given]
) -> Iterator[Value]:
    for field in {**then, **now}:
        if then.get(field) != now.get(field):
            yield Value(path + field, then.get(field), now.get(field))


def _in_words(share: Mapping[str, Given] | None) -> str | None:
    if share is None:
        return None
    return ", ".join(f"{field} {value}" for field, value in share.items()) or "no guarantee"


def _compared_lots(before: pb.PoolSpec, after: pb.PoolSpec) -> Iterator[Value]:
    """Yield what differs of contracts. Bursts are not of the file."""
    then, now = _contracts(before), _contracts(after)
    for name in {**then, **now}:
        path = f"lots.{name}"
        if name in then and name in now:
            yield from _compared(f"{path}.", then[name], now[name])
        else:
            old, new = (
                None
                if lot is None
                else ", ".join(f"{key} {value}" for key, value in lot.items())
                for lot in (then.get(name), now.get(name))
            )
            yield Value(path, old, new)


def _contracts(spec: pb.PoolSpec) -> dict[str, dict[str, Given]]:
    found: dict[str, dict[str, Given]] = {}
    for lot in map(decode_lot, spec.lots.lots):
        if lot.kind is not LotKind.BURST:
            given: dict[str, Given] = {"seats": lot.seats}
            given |= {} if lot.begins is None else {"from": instant_text(lot.begins)}
            until = None if lot.ends is None else instant_text(lot.ends, is_end=True)
            given |= {} if until is None else {"until": until}
            given |= {"price": str(lot.price)} if lot.price else {}
            given |= {"owner": lot.owner} if lot.owner else {}
            found[lot.name] = given | ({"overdraft": lot.overdraft} if lot.overdraft else {})
    return found


def _of(spec: pb.PoolSpec, pool: pb.Pool | None, now_millis: int) -> Change:
    if pool is None:
        values = differences(pb.PoolSpec(), spec)
        notes = tuple(filter(None, [shortfall_text(spec, now_millis)]))
        return Change(spec.name, Kind.CREATE, 0, spec, values, notes)
    if obstacle := _unread(pool):
        return Change(spec.name, Kind.CHANGE, 0, spec, obstacle=obstacle)
    values = differences(pool.spec, spec)
    kind = Kind.CHANGE if values else Kind.UNCHANGED
    if bursts := _named_as_bursts(spec, pool):
        taken = (
            f"{', '.join(bursts)}: a burst has this name; stop it, or name the lot otherwise"
        )
        return Change(spec.name, kind, pool.revision, spec, values, obstacle=f"lots.{taken}")
    notes = tuple(_notes(spec, pool, now_millis))
    asked = _with_bursts(spec, pool)
    lots = _lots_after(spec, pool, now_millis)
    seats = lots.in_force if lots else spec.seats
    breaks = tuple(broken(spec, pool, seats, now_millis)) if values else ()
    return Change(spec.name, kind, pool.revision, asked, values, notes, breaks=breaks)


def _named_as_bursts(spec: pb.PoolSpec, pool: pb.Pool) -> list[str]:
    """Return names of lots that bursts have which go on: to apply these would end those."""
    bursts = {
        lot.name
        for lot in pool.spec.lots.lots
        if lot.kind == pb.LOT_KIND_BURST and lot.state != pb.LOT_STATE_ENDED
    }
    return [lot.name for lot in spec.lots.lots if lot.name in bursts]


def _with_bursts(spec: pb.PoolSpec, pool: pb.Pool) -> pb.PoolSpec:
    """Return what is applied: bursts that go on are not the file's to end."""
    if not has_lots(pool.spec):
        return spec
    named = {lot.name for lot in spec.lots.lots}
    kept = [
        lot
        for lot in pool.spec.lots.lots
        if lot.kind == pb.LOT_KIND_BURST and lot.name not in named
    ]
    asked = pb.PoolSpec()
    asked.CopyFrom(spec)
    asked.lots.CopyFrom(pb.PoolLots(lots=[*spec.lots.lots, *kept], seats=spec.seats))
    asked.lots.burst_rule.CopyFrom(spec.lots.burst_rule)  # where there is none: none any more
    return asked


def _lots_after(spec: pb.PoolSpec, pool: pb.Pool, now_millis: int) -> PoolLots:
    """Return the lots once a specification is applied; none: it has plain seats alone."""
    lots = succeeding(decode_lots(_with_bursts(spec, pool).lots), decode_lots(pool.spec.lots))
    return moved(lots, now_millis)[0]


def _delete(pool: pb.Pool) -> Change:
    obstacle = _unread(pool)
    if pool.held or pool.queued:
        obstacle = (
            f"it is in use: {count(pool.held, 'seat')} held, {count(pool.queued, 'request')} "
            "waiting; set its seats to 0, and delete it when they are gone"
        )
    return Change(pool.spec.name, Kind.DELETE, pool.revision, obstacle=obstacle)


def _unread(pool: pb.Pool) -> str:
    """Return why a listed pool cannot be planned for: its node could not read it."""
    return "" if pool.revision else pool.spec.description or "the node cannot read it"


def _notes(spec: pb.PoolSpec, pool: pb.Pool, now_millis: int) -> Iterator[str]:
    lots = _lots_after(spec, pool, now_millis)
    seats = lots.in_force if lots else spec.seats
    is_bound = begins_to_bind(pool.spec, spec)
    # What contracts allow beyond the seats in force is no surplus, as far as they still do.
    most, were = seats + lots.overdraft, pool.spec.seats + pool.lot_use.overdraft
    if most < pool.held and (most < were or is_bound):
        surplus = count(pool.held - most, "seat")
        yield (
            f"{count(pool.held, 'seat')} held: none is revoked, and nothing is granted until the "
            f"surplus of {surplus} is released"
        )
    if pool.queued and narrows(pool.spec.policy.rules, spec.policy.rules):
        yield "requests that wait and that the new rules do not let in, or let have less, are denied"
    if 0 < seats < pool.spec.seats and pool.queued:
        yield f"requests that wait for more than {count(seats, 'seat')} are denied"
    if not seats and pool.spec.seats:
        waiting = f"; {count(pool.queued, 'request')} waiting" if pool.queued else ""
        yield f"the pool is closed: nothing is granted until it has seats again{waiting}"
    if text := rule_note(decode_lots(pool.spec.lots), lots, now_millis):
        yield text
    if text := shortfall_text(_with_bursts(spec, pool), now_millis):
        yield text


def _values(spec: pb.PoolSpec) -> dict[str, Given]:
    """Return what a specification says, without what is as if it were left out."""
    values: dict[str, Given] = {}
    if spec.HasField("seats") or has_lots(spec):
        values["seats"] = plain_seats(spec)
    if spec.description:
        values["description"] = spec.description
    values |= {f"burst.{key}": value for key, value in burst_values(spec).items()}
    if spec.policy.HasField("overtaking"):
        values["overtaking.seats"] = spec.policy.overtaking.seats
        values["overtaking.within"] = _seconds(spec.policy.overtaking.within)
        if spec.policy.overtaking.HasField("hold_back"):
            values["overtaking.hold_back"] = _seconds(spec.policy.overtaking.hold_back)
    if spec.policy.HasField("reclaim"):
        values["reclaim.notice"] = _seconds(spec.policy.reclaim.notice)
        values["reclaim.minimum_hold"] = _seconds(spec.policy.reclaim.minimum_hold)
        values["reclaim.hourly"] = spec.policy.reclaim.hourly
    for key, text in borrow_fields(spec.policy):
        values[f"borrow.{key}"] = float(text) if "." in text else int(text)
    for key, seconds in hold_fields(spec.policy.hold):
        values[f"hold.{key}"] = float(seconds) if "." in seconds else int(seconds)
    for key, seconds in stay_fields(spec.policy.stay):
        values[f"stay.{key}"] = float(seconds) if "." in seconds else int(seconds)
    if spec.policy.projects and spec.policy.HasField("usage_half_life"):
        values["usage_half_life"] = _seconds(spec.policy.usage_half_life)
    return values


def _seconds(duration: Duration) -> float | int:
    text = seconds_text(duration)
    return float(text) if "." in text else int(text)


def _share(share: pb.ProjectShare) -> dict[str, Given]:
    values: dict[str, Given] = {}
    if share.guaranteed:
        values["guaranteed"] = share.guaranteed
    if share.HasField("limit"):
        values["limit"] = share.limit
    if share.weight not in (0, 1):
        values["weight"] = share.weight
    if share.parent:
        values["parent"] = share.parent
    return values
