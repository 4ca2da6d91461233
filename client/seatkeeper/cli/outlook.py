"""What ``seatkeeper build`` says of a build before it starts, and waits for."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.artifacts.estimate import Estimate, Interval, PrecisionAdvice
from seatkeeper.artifacts.plan import BuildPlan
from seatkeeper.artifacts.precision import Precision
from seatkeeper.cli.render import Json, say, write_event
from seatkeeper.core.amounts import count, size, span
from seatkeeper.v1 import build_pb2

if TYPE_CHECKING:
    from seatkeeper.client import AsyncSeatClient

POLL_SECONDS = 5.0
"""Between two looks at whether a pool is quiet."""

When = Annotated[
    str,
    typer.Option(
        "--when",
        metavar="WHEN",
        help="now; off-peak: once no request waits for a seat and half of them are free; or hours, "
        "such as 22:00-06:00. It starts in time for --deadline, and after a day, in any case.",
    ),
]
Deadline = Annotated[
    str | None,
    typer.Option(
        "--deadline",
        metavar="TIME",
        help="When the engine must be there: 90m, 18:30, or 2026-12-01T06:00. Fails at once if it is "
        "not expected to be, and when it is not.",
    ),
]


@dataclass(frozen=True)
class Timing:
    """The options about time: each field is one."""

    when: When = "now"
    deadline: Deadline = None


@dataclass(frozen=True)
class Outlook:
    """What is expected of one build."""

    estimate: Estimate | None
    advice: PrecisionAdvice | None
    as_json: bool

    @classmethod
    async def of(
        cls, client: AsyncSeatClient, model: Path, plan: BuildPlan, *, as_json: bool
    ) -> Outlook:
        """Look up what builds before took. Raises what the catalogue raises."""
        from seatkeeper.client.builds.estimates import expected, read_history

        history = await read_history(client.engines, plan.backend)
        sha256 = await asyncio.to_thread(_sha256, model)
        return cls(*await expected(model, sha256, plan, history), as_json)

    def show(self, plan: BuildPlan) -> None:
        """Say on standard error what is expected."""
        if self.as_json:
            write_event({"event": "estimated", "estimate": estimate_json(self.estimate)})
            return
        say(f"seatkeeper: {self._words()}", stderr=True)
        advice = self.advice
        if advice is not None and plan.precision.precision is Precision.MODEL:
            say(
                f"seatkeeper: {advice.ended_there} of {advice.of} like models were accurate enough in "
                f"{advice.precision}: --precision {advice.precision}, or auto",
                stderr=True,
            )

    def _words(self) -> str:
        found = self.estimate
        if found is None:
            return "no estimate: nothing like it has been built"
        basis = f"from {count(found.builds, 'build')}, {found.like} of them like it"
        little = ": little to go by" if found.is_little else ""
        return (
            f"expected: {spans(found.seconds)}, {size(round(found.peak_memory_bytes.likely))} of "
            f"memory, a seat for {span(found.seat_seconds.likely)} ({basis}{little})"
        )

    async def until_start(
        self, client: AsyncSeatClient, pool: str | None, timing: Timing
    ) -> timedelta | None:
        """Wait until the build may start; return what is left until its deadline, if it has one.

        Raises `DeadlineUnreachable`, and `InvalidArgument` for options that mean nothing.
        """
        from seatkeeper.client.builds.schedule import (
            check_deadline,
            expected_wait,
            latest_start,
            may_start,
            parse_deadline,
            parse_when,
        )

        if timing == Timing():
            return None
        now = datetime.now().astimezone()
        schedule = parse_when(timing.when)
        deadline = None if timing.deadline is None else parse_deadline(timing.deadline, now)
        latest = latest_start(now, deadline, self.estimate)
        name = pool or await _pool_of_agents(client)
        seen = await client.pools.get(name)
        if deadline is not None:
            check_deadline(deadline, now, expected_wait(seen), self.estimate)
        if not may_start(schedule, seen, now, latest):
            self._show_delay(timing.when, latest)
        while not may_start(schedule, seen, now, latest):
            await asyncio.sleep(min(POLL_SECONDS, (latest - now).total_seconds()))
            now, seen = datetime.now().astimezone(), await client.pools.get(name)
        return None if deadline is None else deadline - now

    def _show_delay(self, when: str, latest: datetime) -> None:
        if self.as_json:
            event = {"event": "delayed", "when": when, "latest_start": latest.isoformat()}
            write_event(event)
            return
        text = f"seatkeeper: waiting for {when}; it starts at {latest:%Y-%m-%d %H:%M} at the latest"
        say(text, stderr=True)


def estimate_json(found: Estimate | None) -> Json | None:
    """Return an estimate for programs."""
    if found is None:
        return None
    return {
        "build_seconds": _interval_json(found.seconds),
        "seat_seconds": _interval_json(found.seat_seconds),
        "peak_memory_bytes": _interval_json(found.peak_memory_bytes),
        "builds": found.builds,
        "like": found.like,
    }


def compared(
    found: Estimate | None, manifest: build_pb2.EngineManifest
) -> list[tuple[str, str]]:
    """Return the truth beside what was expected, for people."""
    taken = span(manifest.build_millis / 1000)
    memory = manifest.stats.peak_memory_bytes
    shown = f"{taken}, {size(memory)} of memory" if memory else taken
    if found is None:
        return [("took", f"{shown}; no estimate")]
    is_within = found.seconds.low <= manifest.build_millis / 1000 <= found.seconds.high
    return [
        ("took", f"{shown}; {'' if is_within else 'not '}as expected: {spans(found.seconds)}")
    ]


def spans(interval: Interval) -> str:
    """Return an amount of seconds and what it lies between."""
    return f"{span(interval.likely)} ({span(interval.low)} to {span(interval.high)} in 4 of 5)"


def _interval_json(interval: Interval) -> Json:
    return {
        "likely": round(interval.likely, 3),
        "low": round(interval.low, 3),
        "high": round(interval.high, 3),
    }


async def _pool_of_agents(client: AsyncSeatClient) -> str:
    from seatkeeper.core.errors import AgentUnavailable

    pools = sorted(agent.pool for agent in await client.engines.agents())
    if not pools:
        raise AgentUnavailable("no build agent is alive; start one with `seatkeeper agent`")
    return pools[0]


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
