"""Whether of several alternatives one was granted, and the others left at that revision. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.stored import PREFIX, located
from seatkeeper.server.store import Change

Key = tuple[str, str]
"""A pool, and the id of a request."""


def check_alternatives(changes: Iterable[Change], prefix: str = PREFIX) -> Iterator[str]:
    """Yield what is wrong about the grants of requests for seats of one of several pools.

    ``changes`` must be all changes, in order of revisions. One is granted at most, ever; and where
    others wait still when it is, they leave their queues at the same revision.
    """
    granted: dict[Key, tuple[Key, int]] = {}
    """By each of the others: which was granted instead, and when."""
    waiting: set[Key] = set()
    there: set[Key] = set()
    for revision, together in groupby(changes, key=lambda change: change.revision):
        made: dict[Key, state_pb2.GrantRecord] = {}
        for pool, kind, name, change in located(together, prefix):
            key = (pool, name)
            if kind == "queue":
                (waiting.add if change.entry is not None else waiting.discard)(key)
            elif kind == "grants" and change.entry is None:
                there.discard(key)
            elif kind == "grants" and change.entry is not None and key not in there:
                there.add(key)
                made[key] = state_pb2.GrantRecord.FromString(change.entry.value)
        for key, grant in made.items():
            yield from _wrong(key, grant, revision, granted, waiting)


def count_alternatives(changes: Iterable[Change], prefix: str = PREFIX) -> int:
    """Return how many were granted of several alternatives."""
    found: set[Key] = set()
    for pool, kind, name, change in located(changes, prefix):
        if kind == "grants" and change.entry is not None:
            grant = state_pb2.GrantRecord.FromString(change.entry.value)
            if grant.attributes.alternatives:
                found.add((pool, name))
    return len(found)


def _wrong(
    key: Key,
    grant: state_pb2.GrantRecord,
    revision: int,
    granted: dict[Key, tuple[Key, int]],
    waiting: set[Key],
) -> Iterator[str]:
    said = f"revision {revision}: {key[1]} of {key[0]} was granted, and"
    if (before := granted.get(key)) is not None:
        (pool, name), at = before
        yield f"{said} {name} of {pool}, its alternative, was at revision {at}"
    for each in grant.attributes.alternatives:
        other = (each.pool, each.grant_id)
        if other == key:
            continue
        granted.setdefault(other, (key, revision))
        if other in waiting:
            yield f"{said} {each.grant_id} of {each.pool}, its alternative, waits still"
