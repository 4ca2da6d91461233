"""Virtual time, and processes that live in it: one thread, one seed, no waiting.

Theory of operation
-------------------
Every process has an event loop of its own, and all loops share one clock that stands still while any of
them has work. When none has, the clock jumps to the next moment at which something is due. So an
hour of silence costs nothing, and what happens depends on the seed alone.

A process that is paused is not stepped: its timers and whatever arrives wait, as under SIGSTOP. One
that was killed is never stepped again, and what was under way in it is forgotten, as under SIGKILL.

What replays exactly does so only if nothing else decides: the order of sets of strings depends on
PYTHONHASHSEED, and when the garbage collector runs depends on what ran before. The runner fixes both.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import random
import sys
import threading
from asyncio import events
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

EPOCH = 1_700_000_000.0
"""Unix time when a simulation begins."""
NEVER = float("inf")
TURNS_MAX = 20_000
"""Turns of the loops at one moment. More, and something runs in circles."""


class StuckError(Exception):
    """Work goes on forever at one moment."""


class _NothingToSelect:
    """Stands where a loop looks for what came from outside: nothing does."""

    def select(self, timeout: float | None) -> list[Any]:
        return []

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop that is stepped from outside, by a clock that is not the machine's."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._selector = _NothingToSelect()
        self._thread_id = threading.get_ident()
        # Made once, since each turn sets them.
        self._firstiter = self._asyncgen_firstiter_hook  # type: ignore[attr-defined]  # asyncio's own loop, stepped from outside
        self._finalizer = self._asyncgen_finalizer_hook  # type: ignore[attr-defined]  # asyncio's own loop, stepped from outside

    def time(self) -> float:
        return self._world.now

    def step(self) -> None:
        """Do what is due, one turn of it. Within `World.run`, which sets back what this sets."""
        sys.set_asyncgen_hooks(self._firstiter, self._finalizer)
        events._set_running_loop(self)
        self._run_once()  # type: ignore[attr-defined]  # asyncio's own loop, stepped from outside

    def __del__(self) -> None:
        """Say nothing: it was never open to the outside, and may end in the middle of its work."""

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


class Process:
    """One process: an event loop, a wall clock, and a life that can end."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.loop = VirtualLoop(world)
        self.loop.set_exception_handler(self._on_exception)
        self.is_alive = True
        self.paused_since: float | None = None
        self.clock_ahead = 0.0
        """Seconds by which its wall clock is ahead of true time."""
        self.clock_rate = 1.0
        """How fast the clock runs by which it believes in its seats."""
        self.on_end: list[Callable[[], None]] = []
        """Called when it is killed."""
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine in this process."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def call(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called in this process: when it resumes, if it is paused."""
        if self.is_alive:
            self.loop.call_soon(callback)

    def kill(self) -> None:
        """End it at once, in the middle of whatever it does."""
        if not self.is_alive:
            return
        self.is_alive = False
        self.paused_since = None
        self.world.forget(self)
        for callback in self.on_end:
            callback()

    def pause(self) -> None:
        """Stop it in its tracks."""
        if self.is_alive and self.paused_since is None:
            self.paused_since = self.world.now

    def resume(self) -> None:
        """Let it go on."""
        self.paused_since = None

    @property
    def runs(self) -> bool:
        """Whether it does anything."""
        return self.is_alive and self.paused_since is None

    def unix_seconds(self) -> float:
        """Return the time by its wall clock."""
        return EPOCH + self.world.now + self.clock_ahead

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if self.is_alive:
            error = context.get("exception")
            self.world.note(f"{self.name}: {context['message']}: {error!r}")
            self.world.errors.append(f"{self.name}: {context['message']}: {error!r}")


class World:
    """All processes, and the time that they share."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0.0
        self.processes: list[Process] = []
        self.errors: list[str] = []
        """Uncaught errors of living processes."""
        self.log: list[str] | None = None
        """What happened, for people who replay a seed; None: not wanted."""
        self.running: Process | None = None
        """The process whose turn it is."""
        self._digest = hashlib.sha256()
        self._graveyard: list[Process] = []
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def process(self, name: str) -> Process:
        """Begin a process."""
        process = Process(self, name)
        self.processes.append(process)
        return process

    def forget(self, process: Process) -> None:
        """Step a process no more. It is kept, so that nothing in it is cleaned up and so runs on."""
        self.processes.remove(process)
        self._graveyard.append(process)

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` at a moment, outside of all processes."""
        self._count += 1
        heapq.heappush(self._due, (max(when, self.now), self._count, callback))

    def call_in(self, delay: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` after ``delay`` seconds, outside of all processes."""
        self.call_at(self.now + delay, callback)

    def note(self, what: str) -> None:
        """Write down that something happened. What was noted makes up the run's digest."""
        line = f"{self.now:10.4f} {what}"
        self._digest.update(line.encode())
        if self.log is not None:
            self.log.append(line)

    @property
    def digest(self) -> str:
        """A fingerprint of everything that was noted: equal for equal runs."""
        return self._digest.hexdigest()

    def run(self, until: float, *, done: Callable[[], bool] = lambda: False) -> None:
        """Let time go by until a moment, or until ``done`` at a moment when all is quiet."""
        while True:
            self._settle()
            if done():
                return
            due = self._due_next()
            if due > until:
                self.now = until
                return
            self.now = max(self.now, due)
            while self._due and self._due[0][0] <= self.now:
                heapq.heappop(self._due)[2]()

    def _due_next(self) -> float:
        """Return when there is something to do, now that all is quiet; infinity: never."""
        due = self._due[0][0] if self._due else NEVER
        for process in self.processes:
            loop = process.loop
            if process.paused_since is None:
                if loop._ready:  # type: ignore[attr-defined]  # asyncio's own loop, stepped from outside
                    return self.now
                if (later := loop._scheduled) and later[0]._when < due:  # type: ignore[attr-defined]  # asyncio's own loop, stepped from outside
                    due = later[0]._when
        return due

    def _settle(self) -> None:
        """Step the processes until none has anything to do at this moment."""
        hooks = sys.get_asyncgen_hooks()
        try:
            for _ in range(TURNS_MAX):
                if not self._turn():
                    return
        finally:
            self.running = None
            events._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)
        raise StuckError(f"at {self.now:.4f} s")

    def _turn(self) -> bool:
        """Step each process that has something to do at this moment; return whether any had."""
        now, stepped = self.now, False
        for process in tuple(self.processes):
            # The cheapest question first: most have nothing to do in most turns. It is asked
            # millions of times, and a call of a method for each was a sixth of all the time.
            loop = process.loop
            if (
                loop._ready  # type: ignore[attr-defined]  # asyncio's own loop, stepped from outside
                or ((later := loop._scheduled) and later[0]._when <= now)  # type: ignore[attr-defined]  # asyncio's own loop, stepped from outside
            ) and process.runs:
                self.running = process
                loop.step()
                stepped = True
        return stepped
