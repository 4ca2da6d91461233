"""Seats that are called back, by true time: none is taken before its notice is over (I14)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from tests.simulation.cluster import KEYS

from seatkeeper.oracle.reclaims import StoredReclaim, read_called_back, read_reclaims
from seatkeeper.oracle.stored import located
from seatkeeper.server.store import Change

SLACK_SECONDS = 0.001
"""Times are written in whole milliseconds."""


def check_notices(changes: Iterable[Change], changed_at: Mapping[int, float]) -> Iterator[str]:
    """Yield the grants that were taken before the notice of their reclaim was over."""
    written: dict[tuple[str, int], float] = {}
    running: dict[str, dict[str, StoredReclaim]] = {}
    for revision, together in groupby(changes, key=lambda change: change.revision):
        taken: list[tuple[str, str]] = []
        decided: dict[str, dict[str, StoredReclaim]] = {}
        at = changed_at[revision]
        for pool, kind, _, change in located(together, KEYS.prefix):
            if change.entry is None:
                continue
            if kind == "marks":
                taken += [(pool, each) for each in read_called_back(change.entry.value)]
            elif kind == "guard":
                decided[pool] = read_reclaims(change.entry.value)
        for pool, grant_id in taken:
            reclaim = running.get(pool, {}).get(grant_id)
            if reclaim is None:
                yield f"I14 {grant_id} of {pool} was taken, and was not called back"
                continue
            since = at - written[pool, reclaim.number]
            if since < reclaim.within_millis / 1000 - SLACK_SECONDS:
                yield f"I14 {grant_id} of {pool} was taken {since:.3f} s after it was called back"
        for pool, reclaims in decided.items():
            for each in reclaims.values():
                written.setdefault((pool, each.number), at)
            running[pool] = reclaims
