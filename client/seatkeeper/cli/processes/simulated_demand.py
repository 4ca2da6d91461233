"""The demand that `seatkeeper pool simulate` plays: a trace, and a pool as it stood when it begins."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.files import bytes_of
from seatkeeper.cli.lots import now_millis
from seatkeeper.cli.processes.pool_snapshot import Holds, Taken
from seatkeeper.cli.processes.specification import gone_on
from seatkeeper.cli.processes.trace import (
    BYTES_MAX,
    SECONDS_BEGIN,
    TraceError,
    millis_of,
    read_trace,
)
from seatkeeper.core import recurrence
from seatkeeper.core.instants import parse_instant
from seatkeeper.server.domain import Instant, PoolSpec
from seatkeeper.server.replay.demand import Arrival, Beginning
from seatkeeper.server.replay.outcome import Outcome
from seatkeeper.server.replay.replay import replay

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Demand:
    """What is asked of the pool: from a beginning on, if there is one."""

    arrivals: list[Arrival]
    begin: Beginning | None = None
    taken: Taken | None = None

    @property
    def begins(self) -> Instant:
        """When it begins."""
        if self.begin is not None:
            return self.begin.at
        return self.arrivals[0].at if self.arrivals else Instant(0)

    def play(self, spec: PoolSpec) -> Outcome:
        """Return what a pool does with it."""
        if self.taken is not None:
            spec = gone_on(spec, self.taken.as_taken)
        return replay(spec, self.arrivals, begin=self.begin, following=recurrence.following)

    def everyone(self) -> Iterable[Arrival]:
        """Return all that hold, wait or come."""
        before = (*self.begin.holders, *self.begin.queue) if self.begin else ()
        return (*before, *self.arrivals)


def demanded(
    trace: Path | None,
    taken: Taken | None,
    mean_hold: str | None,
    *,
    begin: str | None = None,
    has_dates: bool = False,
) -> Demand:
    """Return what the options say. What is wrong about it ends the command.

    ``begin``: when the trace begins. ``has_dates``: what the pool does depends on that, so a trace in
    seconds begins now.
    """
    begins = _begins(begin, is_gone_on=taken is not None)
    if mean_hold is not None and taken is None:
        fail(Exit.USAGE, "--mean-hold goes with --from")
    if trace is None and (taken is None or mean_hold is None):
        fail(Exit.USAGE, "say what is asked for with --trace, or give --from and --mean-hold")
    seconds_begin = now_millis() // 1000 * 1000 if has_dates else SECONDS_BEGIN
    if taken is not None:
        seconds_begin = taken.at
    rows = _read(trace, seconds_begin) if trace is not None else []
    if taken is None:
        if begins is not None and rows:
            later = begins - rows[0].at
            rows = [replace(each, at=Instant(each.at + later)) for each in rows]
        return Demand(rows)
    holds = Holds([(each.project, each.hold_millis) for each in rows])
    if mean_hold is not None:
        holds = Holds([("", length("--mean-hold", mean_hold))])
    return Demand([each for each in rows if each.at >= taken.at], taken.beginning(holds), taken)


def _begins(text: str | None, *, is_gone_on: bool) -> Instant | None:
    if text is None:
        return None
    if is_gone_on:
        fail(Exit.USAGE, "--begin and --from: a pool that is gone on from begins as it stood")
    try:
        return Instant(parse_instant(text))
    except ValueError as error:
        fail(Exit.USAGE, f"--begin: {error}")


def length(flag: str, text: str) -> int:
    """Return a length of time in milliseconds. One that cannot be read ends the command."""
    try:
        return millis_of(text)
    except ValueError as error:
        fail(Exit.USAGE, f"{flag}: {error}")


def is_piped(trace: Path | None) -> bool:
    """Return whether the trace comes on standard input."""
    return str(trace) == STANDARD_INPUT


def _read(trace: Path, seconds_begin: int) -> list[Arrival]:
    if is_piped(trace):
        name, data = "standard input", sys.stdin.buffer.read(BYTES_MAX + 1)
    else:
        name, data = str(trace), bytes_of(trace, "--trace", BYTES_MAX)
    try:
        return read_trace(name, data, seconds_begin=seconds_begin)
    except TraceError as error:
        fail(Exit.REFUSED, str(error))
