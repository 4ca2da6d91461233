"""What can be ended to free seats: grants, and groups of those that count once as a whole. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from seatkeeper.server.domain import Grant, Instant
from seatkeeper.server.domain.counted_once import Group
from seatkeeper.server.policy.snapshot import PoolSnapshot


def units(pool: PoolSnapshot) -> Iterator[Grant]:
    """Yield what can be ended to free seats: grants, and for each group one that stands for it.

    That has the seats of the group, the largest of its priorities, the first fence and time, and heeds
    what all heed. A group of which seats are kept is left out: no one could give them back.
    """
    if not pool.state.groups:
        yield from pool.grants()
        return
    yield from (each for each in pool.grants() if not each.group)
    for group in pool.state.groups:
        if (unit := unit_of(pool, group)) is not None:
            yield unit


def unit_of(pool: PoolSnapshot, group: Group) -> Grant | None:
    """Return what stands for a group; None: it has no members, or kept seats among them."""
    members = members_in(pool, group)
    if not members or any(each.grant_id in pool.state.kept for each in members):
        return None
    return _unit(members)


def members_of(pool: PoolSnapshot, unit: Grant) -> Sequence[Grant]:
    """Return the grants that one of ``units`` stands for."""
    return members_in(pool, unit.group) if unit.group else (unit,)


def members_in(pool: PoolSnapshot, group: Group) -> list[Grant]:
    """Return the members of a group that go on, the largest first."""
    return [
        each for each in pool.state.groups.members(group) if each.grant_id not in pool.ended
    ]


def _unit(members: Sequence[Grant]) -> Grant:
    """Return what stands for a group, by its members, the largest first."""
    if len(members) == 1:
        return members[0]
    heeds = [each.heeds_within for each in members if each.heeds_within is not None]
    first = members[0]
    priority = max(each.priority for each in members)
    return replace(
        first,
        attribution=replace(first.attribution, priority=priority),
        fence=min(each.fence for each in members),
        granted_at=min(each.held_since for each in members),
        taken_from=Instant(0),
        heeds_within=max(heeds) if len(heeds) == len(members) else None,
    )
