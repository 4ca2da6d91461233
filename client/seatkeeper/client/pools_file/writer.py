"""From pools to the text of ``pools.yaml``.

Written by hand rather than by PyYAML's emitter: one layout that every version writes, and names are
quoted where *any* reader of YAML would take them for something else, 1.1's and 1.2's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration

from seatkeeper.client.pools_file.borrows import borrow_fields
from seatkeeper.client.pools_file.bursts import burst_lines
from seatkeeper.client.pools_file.counting import counting_lines
from seatkeeper.client.pools_file.definition import VERSION
from seatkeeper.client.pools_file.holds import hold_fields
from seatkeeper.client.pools_file.stays import stay_fields
from seatkeeper.client.pools_file.tree import meant_as
from seatkeeper.core.amounts import exact_seconds
from seatkeeper.core.instants import instant_text
from seatkeeper.core.lot_messages import decode_lot
from seatkeeper.core.lot_text import plain_seats
from seatkeeper.core.lots import LotKind
from seatkeeper.core.recurrence import rule_text
from seatkeeper.core.reservation_messages import decode_reservation
from seatkeeper.core.reservations import times_text
from seatkeeper.core.text import escaped, is_shown
from seatkeeper.v1 import pool_service_pb2 as pb

_PLAIN = re.compile(r"[a-z0-9][a-z0-9._-]*")


def write_pools(specs: Iterable[pb.PoolSpec], *, as_ascii: bool = False) -> str:
    """Return the file that says these pools, and reads as them.

    ``as_ascii``: with nothing but ASCII in it, for where it will not be encoded as UTF-8.
    What this version does not know of a pool is not in it, and stays as it is when it is applied.
    """
    lines = [f"version: {VERSION}"]
    pools = [line for spec in specs for line in _pool(spec, as_ascii)]
    lines += ["pools:", *pools] if pools else ["pools: {}"]
    return "\n".join(lines) + "\n"


def _pool(spec: pb.PoolSpec, as_ascii: bool) -> Iterator[str]:
    yield f"  {_name(spec.name)}:"
    yield f"    seats: {plain_seats(spec)}"
    if spec.description:
        yield f"    description: {_quoted(spec.description, as_ascii)}"
    yield from _lots(spec, as_ascii)
    yield from burst_lines(spec)
    if spec.policy.HasField("overtaking"):
        rule = spec.policy.overtaking
        bounds = f"seats: {rule.seats}, within: {seconds_text(rule.within)}"
        if rule.HasField("hold_back"):
            bounds += f", hold_back: {seconds_text(rule.hold_back)}"
        yield f"    overtaking: {{{bounds}}}"
    if spec.policy.HasField("reclaim"):
        yield f"    reclaim: {{{', '.join(_reclaim_fields(spec.policy.reclaim))}}}"
    if spec.policy.HasField("hold"):
        said = [f"{key}: {seconds}" for key, seconds in hold_fields(spec.policy.hold)]
        yield f"    hold: {{{', '.join(said)}}}"
    if spec.policy.HasField("stay"):
        said = [f"{key}: {seconds}" for key, seconds in stay_fields(spec.policy.stay)]
        yield f"    stay: {{{', '.join(said)}}}"
    if lent := [f"{key}: {text}" for key, text in borrow_fields(spec.policy)]:
        lists = (
            ("include", spec.policy.borrow.include),
            ("exclude", spec.policy.borrow.exclude),
        )
        lent += [
            f"{key}: {{{', '.join(_who(who, as_ascii))}}}"
            for key, who in lists
            if who.ByteSize()
        ]
        yield f"    borrow: {{{', '.join(lent)}}}"
    yield from _rules(spec.policy.rules, as_ascii)
    yield from _reservations(spec.policy.reservations, as_ascii)
    yield from (f"    {line}" for line in counting_lines(spec, _name))
    if not spec.policy.projects:
        return
    if spec.policy.HasField("usage_half_life"):
        yield f"    usage_half_life: {seconds_text(spec.policy.usage_half_life)}"
    yield "    projects:"
    for share in spec.policy.projects:
        fields = list(_fields(share))
        yield f"      {_name(share.project)}: {{{', '.join(fields)}}}"


def _reclaim_fields(rule: pb.ReclaimRule) -> Iterator[str]:
    yield f"notice: {seconds_text(rule.notice)}"
    yield f"minimum_hold: {seconds_text(rule.minimum_hold)}"
    yield f"hourly: {rule.hourly}"


def _reservations(reservations: Iterable[pb.Reservation], as_ascii: bool) -> Iterator[str]:
    """Yield the seats that are kept for some in windows."""
    heading = ["    reservations:"]
    for message in reservations:
        yield from heading
        heading = []
        reservation = decode_reservation(message)
        when = reservation.when
        said = [f"seats: {reservation.seats}"]
        said += [f"for: {{{', '.join(_who(message.who, as_ascii))}}}"]
        said += [f'when: "{rule_text(when.rule)}"', f'at: "{times_text(when)}"']
        said += [f'zone: "{when.zone}"']
        said += [f'from: "{when.first_day}"'] if when.first_day else []
        notice = timedelta(milliseconds=reservation.notice)
        said += [f"notice: {exact_seconds(notice)}"] if notice else []
        yield f"      {_name(reservation.name)}: {{{', '.join(said)}}}"


def _who(who: pb.Who, as_ascii: bool) -> Iterator[str]:
    lists = {"projects": who.projects, "holders": who.holders, "groups": who.groups}
    for key, names in {**lists, "hosts": who.hosts}.items():
        if names:
            yield f"{key}: [{', '.join(_name(name, as_ascii) for name in names)}]"


def _rules(rules: pb.PoolRules, as_ascii: bool) -> Iterator[str]:
    """Return who may use a pool, and how much each may have."""

    def listed(names: Iterable[str]) -> str:
        return f"[{', '.join(_name(name, as_ascii) for name in names)}]"

    if rules.groups:
        yield "    groups:"
    for group in rules.groups:
        yield f"      {_name(group.name)}: {{holders: {listed(group.holders)}}}"
    for key, who in (("include", rules.include), ("exclude", rules.exclude)):
        said = list(_who(who, as_ascii))
        if said:
            yield f"    {key}: {{{', '.join(said)}}}"
    limits = (("per_holder", rules.per_holder), ("per_host", rules.per_host))
    for key, most in (*limits, ("per_project", rules.per_project)):
        said = [f"seats: {most.seats}"] if most.HasField("seats") else []
        said += [f"tickets: {most.tickets}"] if most.HasField("tickets") else []
        if said:
            yield f"    {key}: {{{', '.join(said)}}}"


def _lots(spec: pb.PoolSpec, as_ascii: bool) -> Iterator[str]:
    """Yield the contracts of a pool. Bursts are not of the file: it does not start or stop them."""
    contracts = [
        lot for lot in map(decode_lot, spec.lots.lots) if lot.kind is not LotKind.BURST
    ]
    if contracts:
        yield "    lots:"
    for lot in contracts:
        said = [f"seats: {lot.seats}"]
        said += [] if lot.begins is None else [f'from: "{instant_text(lot.begins)}"']
        said += [] if lot.ends is None else [f'until: "{instant_text(lot.ends, is_end=True)}"']
        said += [] if lot.price is None else [f"price: {_quoted(str(lot.price), as_ascii)}"]
        said += [f"owner: {_quoted(lot.owner, as_ascii)}"] if lot.owner else []
        said += [f"overdraft: {lot.overdraft}"] if lot.overdraft else []
        yield f"      {_name(lot.name)}: {{{', '.join(said)}}}"


def _fields(share: pb.ProjectShare) -> Iterator[str]:
    if share.guaranteed:
        yield f"guaranteed: {share.guaranteed}"
    if share.HasField("limit"):
        yield f"limit: {share.limit}"
    if share.weight not in (0, 1):
        yield f"weight: {share.weight}"
    if share.parent:
        yield f"parent: {_name(share.parent)}"


def seconds_text(duration: Duration) -> str:
    """Return a duration in seconds, to a microsecond."""
    return exact_seconds(duration.ToTimedelta())


def _name(name: str, as_ascii: bool = False) -> str:
    plain = _PLAIN.fullmatch(name) and not meant_as(name)
    return name if plain else _quoted(name, as_ascii)


def _quoted(text: str, as_ascii: bool = False) -> str:
    """Return text in quotes; what cannot be seen is escaped, as YAML has it, too."""
    inner = text.replace("\\", "\\\\").replace('"', '\\"')

    def stays(each: str) -> bool:
        return is_shown(each) and (each.isascii() or not as_ascii)

    return '"' + "".join(each if stays(each) else escaped(each) for each in inner) + '"'
