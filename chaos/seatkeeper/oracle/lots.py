"""Whether what was written of lots is what was promised: one way, once, not before its time. Pure.

That no seat is granted beyond what is in force at a revision, ``history`` checks, by its own sum of the
lots that are written to be in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from seatkeeper.oracle.stored import (
    PREFIX,
    StoredLot,
    located,
    read_lots,
    seats_in_spec,
    seats_said,
)
from seatkeeper.server.store import Change

_Occurrence = tuple[str, int | None, int | None]


def check_lots(
    changes: Iterable[Change],
    unix_millis_at: Mapping[int, float],
    *,
    skew_millis: float,
    prefix: str = PREFIX,
) -> Iterator[str]:
    """Yield all that is wrong with what was written of lots.

    ``unix_millis_at``: when each revision came about, by true time. ``skew_millis``: how far a node's
    clock may be ahead of it, at most.
    """
    written: dict[str, dict[_Occurrence, StoredLot]] = {}
    for pool, kind, _, change in located(changes, prefix):
        if kind != "spec":
            continue
        if change.entry is None:
            written.pop(pool, None)
            continue
        value, where = change.entry.value, f"{pool}, revision {change.revision}"
        lots = read_lots(value)
        if (said := seats_said(value)) != (summed := seats_in_spec(value)):
            yield f"{where}: {said} seats are said to be in force, and lots sum to {summed}"
        latest = unix_millis_at[change.revision] + skew_millis
        before = written.get(pool, {})
        for occurrence, lot in lots.items():
            was = before.get(occurrence)
            for fault in _faults(was, lot, latest):
                yield f"{where}: lot {occurrence[0]} {fault}"
        written[pool] = lots


def _faults(was: StoredLot | None, lot: StoredLot, latest: float) -> Iterator[str]:
    if was is not None and lot.state < was.state:
        yield f"went back from state {was.state} to {lot.state}"
    if was is not None and lot.state == was.state:
        if (was.began_at, was.ended_at) != (lot.began_at, lot.ended_at):
            yield "was written again, in the state that it had"
        return
    for state, due, stamp in ((1, lot.begins, lot.began_at), (2, lot.ends, lot.ended_at)):
        if lot.state != state:
            continue
        if stamp is None:
            yield f"is in state {state}, and nothing says since when"
        elif due is not None and stamp < due:
            yield f"is in state {state} since {stamp}, before {due} by its writer's clock"
        if due is not None and latest < due:
            yield f"is in state {state} at {latest:.0f} at the latest, before {due}"


def unwritten(
    changes: Iterable[Change], now_millis: float, prefix: str = PREFIX
) -> Iterator[str]:
    """Yield the lots whose time is over at the end of a history, and that no node has ended."""
    last: dict[str, dict[_Occurrence, StoredLot]] = {}
    for pool, kind, _, change in located(changes, prefix):
        if kind == "spec":
            last[pool] = read_lots(change.entry.value) if change.entry is not None else {}
    for pool, lots in last.items():
        for (name, begins, ends), lot in lots.items():
            if ends is not None and ends < now_millis and lot.state != 2:
                yield f"{pool}: lot {name} was to end, and is in state {lot.state}"
            elif (begins is None or begins < now_millis) and lot.state == 0:
                yield f"{pool}: lot {name} was to begin, and is pending"
