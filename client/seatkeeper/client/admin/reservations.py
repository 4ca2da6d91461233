"""A pool's reservations, as text and as messages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from seatkeeper.client.admin.rules import parse_who
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.instants import parse_length
from seatkeeper.core.recurrence import ScheduleFault, read_rule, read_times
from seatkeeper.v1 import pool_service_pb2 as pb

_FIELDS = ("name", "seats", "for", "when", "at", "zone", "from", "notice")
_NEEDED = ("name", "seats", "for", "when", "at")


def parse_reservation(text: str) -> pb.Reservation:
    """Return what ``text`` says of a reservation.

    Such as ``name=ci,seats=5,for=project:ci,when=weekdays,at=22:00-06:00,zone=Europe/Berlin``. A part
    that begins with no key goes on with the value before it, as of ``when=MO,TU``; ``for`` may be given
    again. Raises `InvalidArgument` for what cannot be read; whether the values make sense is for a node
    to say.
    """
    given: dict[str, str] = {}
    whom: list[str] = []
    last = ""
    for part in text.split(","):
        field, equals, value = part.partition("=")
        field = field.strip()
        if not equals or field not in _FIELDS:
            # A rule's own commas: `BYDAY=MO,TU`, and `BYMONTH=1,7;BYDAY=1MO`.
            goes_on = not equals or ";" in field
            if last in ("when", "for") and goes_on and part.strip():
                given[last] += f",{part.strip()}"
                if last == "for":
                    whom.append(part)
                continue
            raise InvalidArgument(
                f"reservation {text[:100]!r}: {part[:100]!r} is none of "
                f"{', '.join(f'{each}=' for each in _FIELDS)}"
            )
        if field in given and field != "for":
            raise InvalidArgument(f"reservation {text[:100]!r}: {field} is given twice")
        given[field] = value.strip()
        last = field
        if field == "for":
            whom.append(value)
    if missing := [each for each in _NEEDED if not given.get(each)]:
        raise InvalidArgument(
            f"reservation {text[:100]!r} does not say {missing[0]}=; write "
            "name=ci,seats=5,for=project:ci,when=weekdays,at=22:00-06:00,zone=Europe/Berlin"
        )
    return reservation_of(given["name"], given, whom)


def reservation_of(
    name: str, given: Mapping[str, str], whom: Collection[str]
) -> pb.Reservation:
    """Return the message of what is given of a reservation. Raises `InvalidArgument`."""
    seats = given["seats"]
    if not (seats.isascii() and seats.isdecimal() and len(seats) < 10):
        raise InvalidArgument(f"reservation {name}: seats={seats[:100]} is no number from 1 on")
    try:
        opens, closes = read_times(given["at"])
    except ScheduleFault as error:
        raise InvalidArgument(f"reservation {name}: at: {error}") from error
    try:
        who = parse_who(whom)
    except InvalidArgument as error:
        raise InvalidArgument(f"reservation {name}: for: {error}") from error
    return pb.Reservation(
        name=name,
        seats=int(seats),
        who=who,
        schedule=pb.WindowSchedule(
            rule=read_rule(given["when"]),
            zone=given.get("zone") or "UTC",
            opens_minute=opens,
            closes_minute=closes,
            first_day=given.get("from", ""),
        ),
        notice=_notice(name, given.get("notice")),
    )


def _notice(name: str, text: str | None) -> Duration | None:
    try:
        if text is None:
            return None
        notice = Duration()
        notice.FromTimedelta(parse_length(text))
        return notice
    except ValueError as error:
        raise InvalidArgument(f"reservation {name}: notice: {error}") from error


@dataclass(frozen=True)
class ReservationChange:
    """What is to become of a pool's reservations: the rest of them stays."""

    given: Sequence[pb.Reservation] = ()
    """Added, or in the place of those of their names."""
    without: Collection[str] = ()
    """Names of reservations that are left out."""

    def __bool__(self) -> bool:
        """Return whether anything is to change."""
        return bool(self.given or self.without)


def change_reservations(spec: pb.PoolSpec, change: ReservationChange) -> None:
    """Change a specification that was read. Raises `InvalidArgument` for one that is not there."""
    there = {each.name: each for each in spec.policy.reservations}
    for name in change.without:
        if there.pop(name, None) is None:
            raise InvalidArgument(f"pool {spec.name} has no reservation {name}")
    there |= {each.name: each for each in change.given}
    changed = list(there.values())
    del spec.policy.reservations[:]
    spec.policy.reservations.extend(changed)
    spec.policy.SetInParent()
