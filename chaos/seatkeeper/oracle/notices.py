"""Seats that are called back, by true time: none is taken before its notice is over (I14). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby

from seatkeeper.oracle.reclaims import StoredReclaim, read_called_back, read_reclaims
from seatkeeper.oracle.stored import PREFIX, located
from seatkeeper.server.store import Change

SLACK_SECONDS = 0.001
"""Times are written in whole milliseconds."""


def check_notices(
    changes: Iterable[Change],
    changed_at: Mapping[int, float],
    changed_by: Callable[[int], float] | None = None,
    prefix: str = PREFIX,
) -> Iterator[str]:
    """Yield the grants that were taken before the notice of their reclaim was over.

    ``changed_at``: when each revision came about, or not before that; ``changed_by``: not after that,
    where it is not known exactly.
    """
    by = changed_by or changed_at.__getitem__
    written: dict[tuple[str, int], float] = {}
    running: dict[str, dict[str, StoredReclaim]] = {}
    for revision, together in groupby(changes, key=lambda change: change.revision):
        taken: list[tuple[str, str]] = []
        decided: dict[str, dict[str, StoredReclaim]] = {}
        for pool, kind, _, change in located(together, prefix):
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
            since = by(revision) - written[pool, reclaim.number]
            if since < reclaim.within_millis / 1000 - SLACK_SECONDS:
                yield f"I14 {grant_id} of {pool} was taken {since:.3f} s after it was called back"
        for pool, reclaims in decided.items():
            for each in reclaims.values():
                written.setdefault((pool, each.number), changed_at[revision])
            running[pool] = reclaims


def check_taken_in_time(
    changes: Iterable[Change],
    changed_at: Mapping[int, float],
    changed_by: Callable[[int], float],
    late: Callable[[float, float], float],
    *,
    now: float,
    prefix: str = PREFIX,
) -> Iterator[str]:
    """Yield the reclaims that went on for long after their notice was over.

    ``late(since, notice)``: when one that was written then must have ended; ``now``: when one looks.
    """
    begun: dict[tuple[str, str, int], tuple[float, float]] = {}
    for revision, together in groupby(changes, key=lambda change: change.revision):
        for pool, kind, name, change in located(together, prefix):
            ended = set()
            if kind == "grants" and change.entry is None:
                ended = {key for key in begun if key[:2] == (pool, name)}
            elif kind == "guard" and change.entry is not None:
                running = {
                    (pool, grant_id, each.number): each.within_millis / 1000
                    for grant_id, each in read_reclaims(change.entry.value).items()
                }
                ended = {key for key in begun if key[0] == pool and key not in running}
                for key in running.keys() - begun.keys():
                    begun[key] = changed_by(revision), running[key]
            for key in ended:
                since, notice = begun.pop(key)
                if changed_at[revision] > late(since, notice):
                    yield f"{name or key[1]} of {pool} was called back at {since:.2f} for {notice} s"
    for (pool, grant_id, _), (since, notice) in begun.items():
        if now > late(since, notice):
            yield f"{grant_id} of {pool} is called back since {since:.2f}, for {notice} s"
