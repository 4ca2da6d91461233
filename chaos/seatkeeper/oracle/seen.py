"""What of policies a history shows: how often each thing happened that a process may die in. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.alternatives import count_alternatives
from seatkeeper.oracle.gangs import count_gangs
from seatkeeper.oracle.reclaims import count_reclaims
from seatkeeper.oracle.stays import count_stays
from seatkeeper.oracle.stored import PREFIX, located, read_grant, read_lots
from seatkeeper.oracle.windows import CLOSED, OPEN, read_windows
from seatkeeper.server.store import Change

KINDS = (
    "reclaims",
    "taken-back",
    "lots-ended",
    "windows-opened",
    "windows-closed",
    "gangs",
    "alternatives",
    "kept",
    "taken-over",
    "borrowed",
    "given-back",
    "days-over",
)
"""Seats that were called back, and of them those that were taken; lots, most of them bursts, that were
ended; windows; gangs, and seats of one of several pools, that were granted; seats that were kept, and
of them those that their holder took over; seats that machines borrowed, gave back, or had until a
day."""
_ENDED = 2


def count_seen(changes: Sequence[Change], prefix: str = PREFIX) -> dict[str, int]:
    """Return how often each of ``KINDS`` happened."""
    reclaims, taken = count_reclaims(changes, prefix)
    kept, taken_over = count_stays(changes, prefix)
    counts = dict.fromkeys(KINDS, 0) | {
        "reclaims": reclaims,
        "taken-back": taken,
        "gangs": count_gangs(changes, prefix),
        "alternatives": count_alternatives(changes, prefix),
        "kept": kept,
        "taken-over": taken_over,
    }
    return counts | _of_specifications(changes, prefix) | _of_machines(changes, prefix)


def _of_specifications(changes: Sequence[Change], prefix: str) -> dict[str, int]:
    lots: set[tuple[object, ...]] = set()
    opened: set[tuple[object, ...]] = set()
    closed: set[tuple[object, ...]] = set()
    there: dict[tuple[str, str], tuple[object, ...]] = {}
    """Windows that are open, by pool and reservation."""
    for pool, kind, _, change in located(changes, prefix):
        if kind != "spec" or change.entry is None:
            continue
        value = change.entry.value
        lots |= {(pool, *key) for key, lot in read_lots(value).items() if lot.state == _ENDED}
        for name, window in read_windows(value).items():
            # With the end of a window, the next one is written in its place.
            occurrence = (pool, name, window.begins)
            before = there.pop((pool, name), None)
            if before is not None and (before != occurrence or window.state == CLOSED):
                closed.add(before)
            if window.state == OPEN:
                opened.add(occurrence)
                there[pool, name] = occurrence
    return {
        "lots-ended": len(lots),
        "windows-opened": len(opened),
        "windows-closed": len(closed),
    }


def _of_machines(changes: Sequence[Change], prefix: str) -> dict[str, int]:
    there: dict[tuple[str, str], int] = {}
    fences: set[tuple[str, int]] = set()
    returned: set[tuple[str, int]] = set()
    ended: set[tuple[str, int]] = set()
    for pool, kind, name, change in located(changes, prefix):
        if kind == "guard" and change.entry is not None:
            record = state_pb2.GuardRecord.FromString(change.entry.value)
            facts = state_pb2.DecisionFacts.FromString(record.facts)
            returned |= {(pool, fence) for fence in facts.returned_fences}
        elif kind == "grants" and change.entry is None:
            if (fence := there.pop((pool, name), None)) is not None:
                ended.add((pool, fence))
        elif kind == "grants" and change.entry is not None:
            grant = read_grant(name, change.entry.value)
            if grant.borrow is not None:
                there[pool, name] = grant.fence
                fences.add((pool, grant.fence))
    given_back = len(fences & returned)
    return {
        "borrowed": len(fences),
        "given-back": given_back,
        "days-over": len(ended - returned),
    }
