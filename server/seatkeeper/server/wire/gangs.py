"""Requests for seats of several pools, which are granted together or not at all."""

from __future__ import annotations

from seatkeeper.core.gang import GANG_MAX, GANG_MIN
from seatkeeper.core.validate import SEATS_MAX, Malformed, check_id, check_name
from seatkeeper.v1 import seat_pb2


def check_gang(request: seat_pb2.Acquire) -> None:
    """Check the gang of a request. Raises ``Malformed``."""
    members = list(request.attributes.gang)
    if not GANG_MIN <= len(members) <= GANG_MAX:
        raise Malformed(
            "attributes.gang", f"{len(members)} members; a gang has {GANG_MIN} to {GANG_MAX}"
        )
    for each in members:
        check_name("attributes.gang.pool", each.pool)
        check_id("attributes.gang.grant_id", each.grant_id)
        if not 1 <= each.seats <= SEATS_MAX:
            text = f"{each.seats} seats of {each.pool}; ask for 1 to {SEATS_MAX}"
            raise Malformed("attributes.gang.seats", text)
    if len({each.pool for each in members}) < len(members):
        raise Malformed("attributes.gang", "a pool is named twice; ask for its seats at once")
    if len({each.grant_id for each in members}) < len(members):
        raise Malformed("attributes.gang", "a grant id is named twice; each has one of its own")
    if request.attributes.work_key:
        raise Malformed("attributes.work_key", "a gang names no work")
    if (request.pool, request.grant_id) not in {(each.pool, each.grant_id) for each in members}:
        raise Malformed(
            "attributes.gang", "does not name this request: its pool and its grant id"
        )
    if request.seats:
        raise Malformed("seats", "set beside a gang, which says how many seats of each pool")


def seats_of(request: seat_pb2.Acquire) -> int:
    """Return how many seats a request wants that was checked."""
    own = (each.seats for each in request.attributes.gang if each.pool == request.pool)
    return next(own, request.seats)
