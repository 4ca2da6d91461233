"""A pool's reservations in ``pools.yaml``: from what the reader found, and what changes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from google.protobuf.duration_pb2 import Duration

from seatkeeper.core.pool_rules import HolderGroup, PoolRules
from seatkeeper.core.projects import PoolPolicy, ProjectShare
from seatkeeper.core.recurrence import ScheduleFault, read_rule, read_times
from seatkeeper.core.reservation_faults import reservation_faults
from seatkeeper.core.reservation_messages import decode_reservations
from seatkeeper.core.reservation_text import reservation_text
from seatkeeper.v1 import pool_service_pb2 as pb

Way = tuple[str | int, ...]


def reservations_of(
    listed: Mapping[str, object],
) -> tuple[list[pb.Reservation], list[tuple[Way, str]]]:
    """Return what the file says of reservations, by name, and what of it cannot be read."""
    found: list[pb.Reservation] = []
    faults: list[tuple[Way, str]] = []
    for name, given in listed.items():
        if not isinstance(given, Mapping):
            continue
        opens, closes = 0, 1
        try:
            opens, closes = read_times(str(given.get("at", "")))
        except ScheduleFault as error:
            faults.append(((name, "at"), str(error)))
        who = given.get("for")
        seats, notice = given.get("seats"), given.get("notice")
        found.append(
            pb.Reservation(
                name=name,
                seats=seats if isinstance(seats, int) else 1,
                who=pb.Who(**who) if isinstance(who, Mapping) else None,
                schedule=pb.WindowSchedule(
                    rule=read_rule(str(given.get("when", ""))),
                    zone=str(given.get("zone", "UTC")),
                    opens_minute=opens,
                    closes_minute=closes,
                    first_day=str(given.get("from", "")),
                ),
                notice=notice if isinstance(notice, Duration) else None,
            )
        )
    return found, faults


def faults_in(spec: pb.PoolSpec, seats: int, now_millis: int) -> Iterator[tuple[Way, str]]:
    """Yield what nodes would refuse of a pool's reservations: the way to it, and the reason."""
    policy, rules = spec.policy, spec.policy.rules
    checked = PoolPolicy(
        tuple(
            ProjectShare(project=each.project, guaranteed=each.guaranteed, parent=each.parent)
            for each in policy.projects
        ),
        rules=PoolRules(
            tuple(HolderGroup(each.name, tuple(each.holders)) for each in rules.groups)
        ),
        reservations=decode_reservations(policy.reservations),
    )
    for place, way, reason in reservation_faults(checked, seats, now_millis):
        name = policy.reservations[place].name if way else ""
        yield ((name, *way) if name else ()), reason


def reservation_values(spec: pb.PoolSpec) -> dict[str, int | float | str | None]:
    """Return what a specification's reservations say, by the ways to them in the file."""
    return {
        f"reservations.{each.name}": reservation_text(each)
        for each in decode_reservations(spec.policy.reservations)
    }
