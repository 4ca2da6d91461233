"""Requests for seats of several pools, of which all are granted together, or one is."""

from __future__ import annotations

from collections.abc import Sequence

from seatkeeper.core.gang import (
    AFTER_MAX_SECONDS,
    ALTERNATIVES_MAX,
    ALTERNATIVES_MIN,
    GANG_MAX,
    GANG_MIN,
)
from seatkeeper.core.validate import SEATS_MAX, Malformed, check_id, check_name
from seatkeeper.v1 import seat_pb2


def check_gang(request: seat_pb2.Acquire) -> None:
    """Check the gang, or the alternatives, of a request. Raises ``Malformed``."""
    gang, alternatives = request.attributes.gang, request.attributes.alternatives
    if gang and alternatives:
        raise Malformed("attributes.alternatives", "set beside a gang; ask for one of both")
    if gang:
        _check_number("gang", len(gang), GANG_MIN, GANG_MAX)
        _check_members("gang", request, gang)
        return
    _check_number("alternatives", len(alternatives), ALTERNATIVES_MIN, ALTERNATIVES_MAX)
    _check_members("alternatives", request, alternatives)
    after = [each.after_millis for each in alternatives]
    field = "attributes.alternatives.after_millis"
    if after[0] != 0 or sorted(after) != after:
        raise Malformed(field, "0 in the first, and never less than in the one before")
    if after[-1] > AFTER_MAX_SECONDS * 1000:
        raise Malformed(field, f"{after[-1]}; at most a day, {AFTER_MAX_SECONDS * 1000}")


def _check_number(name: str, number: int, least: int, most: int) -> None:
    if not least <= number <= most:
        text = f"{number} pools; there are {least} to {most} of them"
        raise Malformed(f"attributes.{name}", text)


def _check_members(
    name: str,
    request: seat_pb2.Acquire,
    members: Sequence[seat_pb2.GangMember] | Sequence[seat_pb2.Alternative],
) -> None:
    field = f"attributes.{name}"
    for each in members:
        check_name(f"{field}.pool", each.pool)
        check_id(f"{field}.grant_id", each.grant_id)
        if not 1 <= each.seats <= SEATS_MAX:
            text = f"{each.seats} seats of {each.pool}; ask for 1 to {SEATS_MAX}"
            raise Malformed(f"{field}.seats", text)
    if len({each.pool for each in members}) < len(members):
        raise Malformed(field, "a pool is named twice; ask for its seats at once")
    if len({each.grant_id for each in members}) < len(members):
        raise Malformed(field, "a grant id is named twice; each has one of its own")
    if request.attributes.work_key:
        raise Malformed(
            "attributes.work_key", "a request for seats of several pools names no work"
        )
    if (request.pool, request.grant_id) not in {(each.pool, each.grant_id) for each in members}:
        raise Malformed(field, "does not name this request: its pool and its grant id")
    if request.seats:
        raise Malformed("seats", f"set beside {field}, which says how many seats of each pool")


def seats_of(request: seat_pb2.Acquire) -> int:
    """Return how many seats a request wants that was checked."""
    asked = request.attributes
    own = [each.seats for each in asked.gang if each.pool == request.pool]
    own += [each.seats for each in asked.alternatives if each.pool == request.pool]
    return next(iter(own), request.seats)
