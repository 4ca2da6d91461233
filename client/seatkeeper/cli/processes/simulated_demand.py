"""The demand that `seatkeeper pool simulate` plays: a trace, and a pool as it stood when it begins."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.files import bytes_of
from seatkeeper.cli.processes.pool_snapshot import Holds, Taken
from seatkeeper.cli.processes.trace import (
    BYTES_MAX,
    SECONDS_BEGIN,
    TraceError,
    millis_of,
    read_trace,
)
from seatkeeper.server.domain import PoolSpec
from seatkeeper.server.replay.demand import Arrival, Beginning
from seatkeeper.server.replay.outcome import Outcome
from seatkeeper.server.replay.replay import replay

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Demand:
    """What is asked of the pool: from a beginning on, if there is one."""

    arrivals: list[Arrival]
    begin: Beginning | None = None

    def play(self, spec: PoolSpec) -> Outcome:
        """Return what a pool does with it."""
        return replay(spec, self.arrivals, begin=self.begin)

    def everyone(self) -> Iterable[Arrival]:
        """Return all that hold, wait or come."""
        before = (*self.begin.holders, *self.begin.queue) if self.begin else ()
        return (*before, *self.arrivals)


def demanded(trace: Path | None, taken: Taken | None, mean_hold: str | None) -> Demand:
    """Return what the options say. What is wrong about it ends the command."""
    if mean_hold is not None and taken is None:
        fail(Exit.USAGE, "--mean-hold goes with --from")
    if trace is None and (taken is None or mean_hold is None):
        fail(Exit.USAGE, "say what is asked for with --trace, or give --from and --mean-hold")
    rows = _read(trace, taken.at if taken else SECONDS_BEGIN) if trace is not None else []
    if taken is None:
        return Demand(rows)
    holds = Holds([(each.project, each.hold_millis) for each in rows])
    if mean_hold is not None:
        holds = Holds([("", length("--mean-hold", mean_hold))])
    return Demand([each for each in rows if each.at >= taken.at], taken.beginning(holds))


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
