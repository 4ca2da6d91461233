"""What grants that count once take, said without the policy's code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from seatkeeper.server.domain import Grant, PoolSpec, Ticket

One = TypeVar("One", Grant, Ticket)
Shared = tuple[tuple[str, str], ...]


def largest_of(grants: Iterable[Grant]) -> dict[Shared, int]:
    """Return how many seats each group takes that these are of."""
    found: dict[Shared, int] = {}
    for grant in grants:
        if grant.group:
            found[grant.group] = max(found.get(grant.group, 0), grant.seats)
    return found


def each_once(grants: Iterable[Grant]) -> list[Grant]:
    """Return the grants, and of each group one that has as many seats as it takes."""
    there = list(grants)
    left = largest_of(there)
    found = []
    for grant in there:
        if not grant.group:
            found.append(grant)
        elif left.get(grant.group) == grant.seats:
            found.append(grant)
            del left[grant.group]
    return found


def shared_of(spec: PoolSpec | None, asked: Ticket) -> Shared:
    """Return what a request has in common with others; empty: nothing."""
    named = spec.policy.count_once if spec is not None else ()
    if not named or asked.gang:
        return ()
    labels = {f"label:{key}": value for key, value in asked.attribution.labels}
    values = {"holder": asked.holder, "host": asked.host.lower(), **labels}
    found = (("project", asked.project), *((name, values.get(name, "")) for name in named))
    return found if all(value for _, value in found) else ()


def taking(one: One, shared: Shared, there: Mapping[Shared, int]) -> One:
    """Return a request, or a grant, with the seats that it takes beside what is there."""
    if not shared:
        return one
    return replace(one, seats=max(0, one.seats - there.get(shared, 0)))
