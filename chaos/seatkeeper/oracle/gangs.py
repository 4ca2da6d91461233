"""Whether gangs were granted as one: all of their seats at one revision, or none. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.stored import PREFIX, located
from seatkeeper.server.store import Change
from seatkeeper.v1 import seat_pb2


def check_gangs(changes: Iterable[Change], prefix: str = PREFIX) -> Iterator[str]:
    """Yield what is wrong about the grants of gangs.

    ``changes`` must be all changes, in order of revisions. What is granted is a key that was not there
    before; an agent's claim, and a reclaim, rewrite one.
    """
    there: set[tuple[str, str]] = set()
    for revision, together in groupby(changes, key=lambda change: change.revision):
        made: dict[tuple[str, str], state_pb2.GrantRecord] = {}
        for pool, kind, name, change in located(together, prefix):
            if kind != "grants":
                continue
            if change.entry is None:
                there.discard((pool, name))
            elif (pool, name) not in there:
                there.add((pool, name))
                made[pool, name] = state_pb2.GrantRecord.FromString(change.entry.value)
        for (pool, name), grant in made.items():
            for member in grant.attributes.gang:
                if (why := _wrong(member, grant, made)) is not None:
                    yield f"revision {revision}: {name} of {pool} was granted, and {why}"


def count_gangs(changes: Iterable[Change], prefix: str = PREFIX) -> int:
    """Return how many gangs were granted."""
    found: set[str] = set()
    for _, kind, _, change in located(changes, prefix):
        if kind == "grants" and change.entry is not None:
            grant = state_pb2.GrantRecord.FromString(change.entry.value)
            found.update(each.grant_id for each in grant.attributes.gang[:1])
    return len(found)


def _wrong(
    member: seat_pb2.GangMember,
    grant: state_pb2.GrantRecord,
    made: dict[tuple[str, str], state_pb2.GrantRecord],
) -> str | None:
    other = made.get((member.pool, member.grant_id))
    said = f"{member.grant_id} of {member.pool}"
    if other is None:
        return f"not {said}, of its gang"
    if other.session_id != grant.session_id:
        return f"{said}, of its gang, to another session"
    seats = other.seats // (other.attributes.cost or 1)
    if seats != member.seats:
        return f"{said}, of its gang, with {seats} seats, not {member.seats}"
    return None
