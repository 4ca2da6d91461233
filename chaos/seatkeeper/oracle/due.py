"""Whether what a time brings was written in time: ends of lots, windows, days of borrowed seats. Pure.

That nothing is written before its time by its writer's clock is looked for elsewhere (``lots``,
``windows``, ``borrows``). Here times are true ones, as far as they are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.stored import PREFIX, located, read_grant, read_lots
from seatkeeper.oracle.windows import OPEN, read_windows
from seatkeeper.server.store import Change

_LOT_ENDED = 2


@dataclass(frozen=True, slots=True)
class _Step:
    """Something that is to be written at its time."""

    pool: str
    what: str
    name: str
    begins: int | None = None
    """Of a lot or a window, which makes it another one."""

    def __str__(self) -> str:
        """Return it in a few words."""
        return f"{self.pool}: {self.what} of {self.name}"


def check_due(
    changes: Iterable[Change],
    unix_at: Mapping[int, float],
    unix_by: Callable[[int], float],
    late: Callable[[float], float],
    *,
    now: float,
    prefix: str = PREFIX,
) -> Iterator[str]:
    """Yield what was written late, or is not written yet, and borrowed seats that were freed early.

    Times are Unix seconds. ``unix_at``: when each revision came about, or not before that;
    ``unix_by``: not after that. ``late(due)``: when what is due then must have been written. ``now``:
    when one looks.
    """
    changes = list(changes)
    returned = _returned(changes, prefix)
    pending: dict[_Step, float] = {}
    for pool, kind, name, change in located(changes, prefix):
        entry, at = change.entry, unix_at[change.revision]
        written: list[tuple[_Step, float]] = []
        if kind == "spec":
            steps = {} if entry is None else _steps(pool, entry.value)
            written = list(_written(pool, pending, steps))
            pending |= {
                step: due for step, (due, is_written) in steps.items() if not is_written
            }
        elif kind == "grants":
            step = _Step(pool, "the day", name)
            if (due := pending.pop(step, None)) is not None and entry is None:
                written = [(step, due)]
                if unix_by(change.revision) < due:
                    yield f"{step} is {due:.2f}, and it was free at {unix_by(change.revision):.2f}"
            if entry is not None:
                grant = read_grant(name, entry.value)
                if grant.borrow is not None and (pool, grant.fence) not in returned:
                    pending[step] = grant.borrow.free_at_millis / 1000
        for step, due in written:
            if at > late(due):
                yield f"{step} was due at {due:.2f}, and written only at {at:.2f}"
    for step, due in pending.items():
        if now > late(due):
            yield f"{step} was due at {due:.2f}, and is not written"


def _written(
    pool: str, pending: dict[_Step, float], steps: Mapping[_Step, tuple[float, bool]]
) -> Iterator[tuple[_Step, float]]:
    """Take what a specification has written out of what is pending, and yield it with its time.

    With the end of a window the next one of its reservation is written in its place. What is gone
    otherwise, an administrator has changed.
    """
    followed = {(step.what, step.name) for step in steps if step.what == _END}
    for step in [each for each in pending if each.pool == pool and each.what != "the day"]:
        if step not in steps:
            due = pending.pop(step)
            if (step.what, step.name) in followed:
                yield step, due
        elif steps[step][1]:
            yield step, pending.pop(step)


_END = "the end of the window"


def _steps(pool: str, value: bytes) -> dict[_Step, tuple[float, bool]]:
    """Return what a specification says is to be written: when, and whether it is."""
    found: dict[_Step, tuple[float, bool]] = {}
    for (name, _, ends), lot in read_lots(value).items():
        if ends is not None:
            found[_Step(pool, "the end of the lot", name, ends)] = (
                ends / 1000,
                lot.state == _LOT_ENDED,
            )
    for name, window in read_windows(value).items():
        opening = _Step(pool, "the opening of the window", name, window.begins)
        found[opening] = window.opens / 1000, window.state >= OPEN
        end = _Step(pool, _END, name, window.begins)
        found[end] = window.ends / 1000, window.state > OPEN
    return found


def _returned(changes: Iterable[Change], prefix: str) -> set[tuple[str, int]]:
    """Return the grants that machines gave back, or an administrator took, by pool and fence."""
    found: set[tuple[str, int]] = set()
    for pool, kind, _, change in located(changes, prefix):
        if kind == "guard" and change.entry is not None:
            record = state_pb2.GuardRecord.FromString(change.entry.value)
            facts = state_pb2.DecisionFacts.FromString(record.facts)
            found |= {(pool, each) for each in facts.returned_fences}
            found |= {(pool, each) for each in facts.reclaimed_fences}
    return found
