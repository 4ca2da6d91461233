"""Measure whether seats are kept, and no longer than they may be, whatever happens to their holder.

Programs use a client as users do, with its defaults, and things are done to them from outside:

- ``held``: one native call keeps the interpreter for a minute, under a ttl of 5 s.
- ``forks``: children of nine kinds are forked under a live client; some make clients of their own.
- ``believed``: programs and their helpers are stopped and killed at random, while they and others
  want the only seat of a pool. Each notes until when it believed in a grant. The observer compares
  that with the time at which the service decided the next grant.
- ``kept``: programs are killed whose children hold everything open.

What it costs is compared with a client that keeps its session in its own process.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.held_programs import BELIEF, BELIEFS_MAX
from bench.report import median, notify, parser, progress, run
from bench.service import IN_PROCESS, running_service
from seatkeeper.client import AsyncSeatClient

TTL_SECONDS = 5.0
BELIEVERS_TTL_SECONDS = 2.0
POOLS = 3
"""Pools of one seat, each wanted by two programs."""
STOP_SECONDS = (0.2, 5.0)


async def main() -> None:
    """Measure, and print the result."""
    options = parser(__doc__)
    options.add_argument("--seconds", type=float, default=61.0, help="interpreter held for")
    options.add_argument("--forks", type=int, default=216)
    options.add_argument("--faults", type=int, default=60, help="stops and kills")
    options.add_argument("--kills", type=int, default=5)
    options.add_argument("--acquires", type=int, default=500)
    options.add_argument("--starts", type=int, default=5)
    options.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = options.parse_args()
    async with (
        running_service() as service,
        AsyncSeatClient(service.addresses, config=IN_PROCESS) as admin,
    ):
        address = ",".join(service.addresses)
        await admin.pools.create("held", seats=64)
        await admin.pools.create("killed", seats=1)
        result = await costs(address, arguments.starts, arguments.acquires)
        progress(f"cost: {result}")
        result |= await kept(admin, address, arguments.kills)
        progress(f"killed: {result['kept_after_parent_death_s']:.2f} s")
        held, forked = await asyncio.gather(
            said("hold", address, str(arguments.seconds), str(TTL_SECONDS)),
            said("forks", address, str(arguments.forks), str(TTL_SECONDS)),
        )
        progress(f"held: {held}, forks: {forked}")
        faults = await believed(admin, address, arguments.faults, arguments.seed)
    notify(
        {
            "seconds_held": held["seconds"],
            "ttl_s": TTL_SECONDS,
            "lost": held["lost"],
            "forks": forked["forks"],
            "parent_lost": forked["lost"],
            "child_hangs": forked["hangs"],
            "child_crashes": forked["crashes"],
            **faults,
            **result,
            "seed": arguments.seed,
        },
        arguments.json,
    )


async def started(program: str, *arguments: str) -> Process:
    """Start a program of `bench.held_programs`."""
    command = [sys.executable, "-m", "bench.held_programs", program, *arguments]
    return await asyncio.create_subprocess_exec(*command, stdout=PIPE, stdin=DEVNULL)


async def said(program: str, *arguments: str) -> dict[str, Any]:
    """Return what a program says, which runs to its end."""
    process = await started(program, *arguments)
    facts = await line_of(process)
    await process.wait()
    return facts


async def line_of(process: Process) -> dict[str, Any]:
    """Return what a program says next. Raises ``RuntimeError`` where it has ended."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError(f"a program ended with {await process.wait()}")
    facts: dict[str, Any] = json.loads(line)
    return facts


async def costs(address: str, starts: int, acquires: int) -> dict[str, float]:
    """Compare a client that a helper keeps with one in its own process, in turn."""
    both: dict[str, list[Mapping[str, float]]] = {"helper": [], "process": []}
    for number in range(starts):
        for keeper, results in both.items():
            results.append(await said("cost", address, keeper, str(acquires)))
        progress(f"cost {number + 1} of {starts}: {both['helper'][-1]}")

    def middle(keeper: str, key: str) -> float:
        return median([each[key] for each in both[keeper]])

    return {
        "start_ms": middle("helper", "start_ms"),
        "start_in_process_ms": middle("process", "start_ms"),
        "acquire_p50_ms": middle("helper", "p50_ms"),
        "acquire_p50_in_process_ms": middle("process", "p50_ms"),
        "acquire_p50_over_in_process": middle("helper", "p50_ms") / middle("process", "p50_ms"),
        "helper_mb": middle("helper", "pss_mb"),
        "helper_rss_mb": middle("helper", "rss_mb"),
    }


async def kept(admin: AsyncSeatClient, address: str, kills: int) -> dict[str, float]:
    """Kill programs; return the longest time until another has the seat."""
    longest = 0.0
    for _ in range(kills):
        process = await started("killed", address, str(TTL_SECONDS))
        child = (await line_of(process))["child"]
        waiting = asyncio.create_task(admin.acquire("killed"))
        await asyncio.sleep(1)
        assert not waiting.done()
        began = perf_counter()
        process.kill()
        grant = await waiting
        longest = max(longest, perf_counter() - began)
        await grant.release()
        os.kill(child, signal.SIGKILL)
        await process.wait()
    return {"kept_after_parent_death_s": longest}


@dataclass
class Believer:
    """A program that wants a seat, and what it notes."""

    address: str
    pool: str
    beliefs: Path
    seed: int
    process: Process | None = None
    helper: int = 0
    _reader: asyncio.Task[None] | None = None
    _files: list[Path] = field(default_factory=list)

    async def start(self) -> None:
        """Start it, with new pages to note on."""
        path = self.beliefs.with_suffix(f".{len(self._files)}")
        path.write_bytes(bytes(BELIEF.size * BELIEFS_MAX))
        self._files.append(path)
        self.helper = 0
        self.process = await started(
            "believe",
            self.address,
            self.pool,
            str(path),
            str(BELIEVERS_TTL_SECONDS),
            str(self.seed + len(self._files)),
        )
        self._reader = asyncio.create_task(self._follow(self.process))

    async def stop(self) -> None:
        """End it."""
        assert self.process is not None
        assert self._reader is not None
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        await self._reader

    async def _follow(self, process: Process) -> None:
        with suppress(RuntimeError):
            while True:
                self.helper = (await line_of(process))["helper"] or self.helper

    def notes(self) -> list[tuple[int, int, int]]:
        """Return what it noted: fence, time of the decision, time of the last belief."""
        return [
            note
            for path in self._files
            for note in BELIEF.iter_unpack(path.read_bytes())
            if note[0]
        ]


async def believed(
    admin: AsyncSeatClient, address: str, faults: int, seed: int
) -> dict[str, int]:
    """Stop and kill programs and helpers; return how many grants were believed in for too long."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        believers = [
            Believer(
                address, f"one-{number % POOLS}", Path(folder, str(number)), seed + 100 * number
            )
            for number in range(POOLS * 2)
        ]
        for number in range(POOLS):
            await admin.pools.create(f"one-{number}", seats=1)
        await asyncio.gather(*(believer.start() for believer in believers))
        each = -(-faults // len(believers))
        tried = await asyncio.gather(
            *(torment(b, each, draw.randrange(10**6)) for b in believers)
        )
        await asyncio.sleep(2 * BELIEVERS_TTL_SECONDS)
        await asyncio.gather(*(believer.stop() for believer in believers))
        grants = late = 0
        for number in range(POOLS):
            pool = [b for b in believers if b.pool == f"one-{number}"]
            notes = sorted(note for believer in pool for note in believer.notes())
            grants += len(notes)
            late += sum(
                any(last > decided for _, decided, _ in notes[at + 1 :])
                for at, (_, _, last) in enumerate(notes)
            )
    return {"believed_after_until": late, "faults": sum(tried), "grants_observed": grants}


async def torment(believer: Believer, faults: int, seed: int) -> int:
    """Do something bad to a program or to its helper, again and again."""
    draw = random.Random(seed)
    for _ in range(faults):
        await asyncio.sleep(draw.uniform(0.5, 3))
        process = believer.process
        assert process is not None
        kinds = [
            ("stop", [process.pid]),
            ("stop", [believer.helper]),
            ("stop", [believer.helper, process.pid]),
            ("stop", [process.pid, believer.helper]),
            ("kill", [believer.helper]),
            ("kill", [process.pid]),
        ]
        kind, pids = draw.choice(kinds)
        pids = [pid for pid in pids if pid]
        if kind == "kill":
            signal_all(pids, signal.SIGKILL)
        else:
            signal_all(pids, signal.SIGSTOP)
            await asyncio.sleep(draw.uniform(*STOP_SECONDS))
            for pid in pids:
                signal_all([pid], signal.SIGCONT)
                await asyncio.sleep(draw.choice([0.0, 0.05]))
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await process.wait()
        if process.returncode is not None:
            await believer.start()
    return faults


def signal_all(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to processes that may have ended."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


if __name__ == "__main__":
    run(main)
