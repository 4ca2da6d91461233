"""What a request may say of a pool's reservations. Pure; raises ``Malformed``."""

from __future__ import annotations

from seatkeeper.core.reservation_faults import reservation_faults
from seatkeeper.core.validate import Malformed
from seatkeeper.server.domain import Instant, PoolSpec
from seatkeeper.server.wire.pool_rules import way_text

_FIELDS = {
    "for": "who",
    "when": "schedule.rule",
    "zone": "schedule.zone",
    "at": "schedule.closes_minute",
    "from": "schedule.first_day",
}


def check_reservations(spec: PoolSpec, now: Instant, within: str = "spec") -> None:
    """Check the reservations of a specification that is well-formed else. Raises ``Malformed``.

    By the time, as windows of the year to come are compared, and by this machine's time zones.
    """
    for place, way, reason in reservation_faults(spec.policy, spec.seats_most, now):
        where = f"{within}.policy.reservations"
        if not way:
            raise Malformed(where, reason)
        first, *rest = way
        field = f"{where}[{place}].{_FIELDS.get(str(first), first)}{way_text(tuple(rest))}"
        raise Malformed(
            field, f"reservation {spec.policy.reservations[place].name[:64]}: {reason}"
        )
