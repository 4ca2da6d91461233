"""What processes take, over time, and whether it is more and more (I10)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

import psutil

from seatkeeper.oracle.checker import Invariant, Violation

LOOK_SECONDS = 5.0
RSS_BYTES_MAX = 400 << 20
FDS_MAX = 600
"""What a node may take under a crowd of thousands."""
SLOPE_SECONDS_MIN = 900.0
"""From this age on a process must have stopped growing."""
RSS_RATIO_MAX = 1.2
RSS_SLACK_BYTES = 16 << 20
FDS_SLACK = 50


@dataclass(frozen=True, slots=True)
class Look:
    """A process at a moment."""

    at: float
    rss: int
    fds: int


@dataclass
class Growth:
    """Looks at processes again and again."""

    looks: dict[tuple[str, int], list[Look]] = field(default_factory=dict)
    """By name and process id: one that was started again begins anew."""

    def look(self, processes: Mapping[str, int]) -> None:
        """Look at them once. Those that have ended meanwhile are passed over."""
        for name, pid in processes.items():
            try:
                process = psutil.Process(pid)
                seen = Look(time.monotonic(), process.memory_info().rss, process.num_fds())
            except psutil.Error:
                continue
            self.looks.setdefault((name, pid), []).append(seen)

    async def look_always(self, processes: Callable[[], Mapping[str, int]]) -> None:
        """Look, until cancelled, at those that there are each time."""
        while True:
            self.look(processes())
            await asyncio.sleep(LOOK_SECONDS)

    def violations(self) -> Iterator[Violation]:
        """Return which are too large, or grow."""
        for (name, _), looks in list(self.looks.items()):
            yield from checked(name, list(looks))


def checked(name: str, looks: Sequence[Look]) -> Iterator[Violation]:
    """Check one process. Pure.

    Bounds hold always. Of one that is old enough, the median of the last fifth of the looks is held
    against that of the second: the first is when it warms up.
    """
    if any(look.rss > RSS_BYTES_MAX for look in looks):
        yield Violation(
            Invariant.I10, f"{name} had more than {RSS_BYTES_MAX >> 20} MiB in memory"
        )
    if any(look.fds > FDS_MAX for look in looks):
        yield Violation(Invariant.I10, f"{name} had more than {FDS_MAX} files open")
    fifth = len(looks) // 5
    if not fifth or looks[-1].at - looks[0].at < SLOPE_SECONDS_MIN:
        return
    early, late = looks[fifth : 2 * fifth], looks[-fifth:]
    before, after = (median(look.rss for look in some) for some in (early, late))
    if after > before * RSS_RATIO_MAX + RSS_SLACK_BYTES:
        grew = f"from {int(before) >> 20} to {int(after) >> 20} MiB"
        yield Violation(Invariant.I10, f"{name} grew {grew}")
    before, after = (median(look.fds for look in some) for some in (early, late))
    if after > before + FDS_SLACK:
        yield Violation(Invariant.I10, f"{name} had {before:g} files open, then {after:g}")
