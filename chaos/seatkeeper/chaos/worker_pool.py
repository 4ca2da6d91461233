"""The users of a run: workers as processes, and the record of what all of them observed."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from seatkeeper.oracle.record import (
    Acquired,
    Believed,
    Denied,
    Failed,
    Prevented,
    Published,
    Record,
    Refused,
    Returned,
)

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0
LINE_BYTES_MAX = 1 << 20
RATE_SECONDS = 2.0
"""Traffic is what was acknowledged within so long."""
WORKER = (sys.executable, "-m", "seatkeeper.chaos.worker")
_OBSERVED = {
    kind.__name__: kind
    for kind in (Acquired, Returned, Refused, Denied, Published, Prevented, Failed)
}


class AnyWorkerConfig(Protocol):
    """The commands of a program of users."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    def to_json(self) -> str:
        """Return it as one word of a command line."""
        ...


class WorkerPoolError(Exception):
    """Users could not be started, or ended by themselves; the message has the end of their output."""


@dataclass
class Heartbeat:
    """How the users of a worker are."""

    held: int = 0
    asking: int = 0
    longest: float = 0.0
    """Seconds that the one who asks for longest has been asking."""
    operations: int = 0
    unknown: int = 0
    """Attempts that got no certain answer."""


@dataclass
class WorkerProcess:
    """Users in one process."""

    config: AnyWorkerConfig
    process: asyncio.subprocess.Process
    heartbeat: Heartbeat = field(default_factory=Heartbeat)
    is_killed: bool = False
    users: Sequence[str] = ()
    """Their names."""
    done: Sequence[str] | None = None
    """Who has finished; None: it was not asked to stop, or has not yet."""

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return self.config.name

    # ``WorkerPool.check`` finds one that has ended by itself, and reports the end of its output.

    def pause(self) -> None:
        """Stop it in its tracks."""
        with suppress(ProcessLookupError, ChildProcessError):
            self.process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let it go on, if it has not been killed meanwhile."""
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power cut would."""
        with suppress(ProcessLookupError):
            self.process.kill()

    def notify(self, **wish: float | bool) -> None:
        """Have its users behave in another way."""
        if self.process.stdin is not None and not self.is_killed:
            self.process.stdin.write(json.dumps(wish).encode() + b"\n")


class WorkerPool:
    """Starts workers, listens to them, and writes everything down.

    Times in the record are of the machine's monotonic clock.
    """

    def __init__(
        self,
        config: Callable[[str, int], AnyWorkerConfig],
        *,
        workers: int,
        folder: Path,
        commands: Callable[[str], Sequence[str]] = lambda name: (),
        program: Callable[[str], Sequence[str]] = lambda name: WORKER,
    ) -> None:
        """``config`` makes a worker's from its name and number; ``commands`` run it where it lives.

        ``program`` is what is run there, with the configuration as its argument.
        """
        self.record = Record()
        self.beliefs: dict[tuple[str, str, float], Believed] = {}
        """What users believed in, by who, of which pool, since when."""
        self._config = config
        self._count = workers
        self._folder = folder
        self._commands = commands
        self._program = program
        self._numbers = itertools.count(1)
        self._workers: list[WorkerProcess] = []
        self._gone = Heartbeat()
        """What those did who are no more."""
        self._listeners: set[asyncio.Task[None]] = set()
        self._reported_at: deque[float] = deque()
        self._is_ending = False
        self._started: dict[str, asyncio.Event] = {}

    @property
    def alive(self) -> Sequence[WorkerProcess]:
        """The workers that run."""
        return [worker for worker in self._workers if not worker.is_killed]

    @property
    def heartbeats(self) -> Heartbeat:
        """How all users are, together."""
        alive = [worker.heartbeat for worker in self.alive]
        return Heartbeat(
            held=sum(heartbeat.held for heartbeat in alive),
            asking=sum(heartbeat.asking for heartbeat in alive),
            longest=max((heartbeat.longest for heartbeat in alive), default=0.0),
            operations=self._gone.operations + sum(heartbeat.operations for heartbeat in alive),
            unknown=self._gone.unknown + sum(heartbeat.unknown for heartbeat in alive),
        )

    @property
    def rate(self) -> float:
        """Answers a second, as of now."""
        since = time.monotonic() - RATE_SECONDS
        while self._reported_at and self._reported_at[0] < since:
            self._reported_at.popleft()
        return len(self._reported_at) / RATE_SECONDS

    async def start(self) -> None:
        """Start all workers, and wait until each has begun. Raises ``WorkerPoolError``."""
        await asyncio.gather(*(self._start_one() for _ in range(self._count)))

    def kill(self, worker: WorkerProcess) -> None:
        """End its users as a power cut would; they do not come back."""
        worker.is_killed = True
        worker.kill()
        killed_at = time.monotonic()
        # Where users have certificates, that of their process says who holds.
        self.record.killed[worker.name] = killed_at
        for name in worker.users:
            self.record.killed[name] = killed_at
        self._gone.operations += worker.heartbeat.operations
        self._gone.unknown += worker.heartbeat.unknown

    async def replace(self) -> None:
        """Start others where some were killed."""
        missing = self._count - len(self.alive)
        await asyncio.gather(*(self._start_one() for _ in range(missing)))

    async def change(self) -> list[str]:
        """Have everybody finish, and start others; return who did not finish.

        Those are who ``config`` says by now. Raises ``WorkerPoolError``.
        """
        unfinished = await self.stop()
        self._gone = replace(self.heartbeats, held=0, asking=0, longest=0.0)
        self._workers.clear()
        self._listeners.clear()
        self._is_ending = False
        await self.start()
        return unfinished

    async def stop(self) -> list[str]:
        """Have everybody finish and close; return who did not."""
        self._is_ending = True
        for worker in self.alive:
            worker.notify(stop=True)
        deadline = time.monotonic() + STOP_SECONDS_MAX
        while any(worker.done is None for worker in self.alive):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.05)
        unfinished: list[str] = []
        for worker in self.alive:
            unfinished += sorted(set(worker.users) - set(worker.done or ()))
        await self.end()
        return unfinished

    async def end(self) -> None:
        """End all processes at once, whatever they do. Safe to call twice."""
        self._is_ending = True
        for worker in self._workers:
            if worker.process.returncode is None:
                worker.kill()
            await worker.process.wait()
        await asyncio.gather(*self._listeners, return_exceptions=True)

    def check(self) -> None:
        """Raise ``WorkerPoolError`` where a worker has ended by itself."""
        for worker in self.alive:
            if worker.process.returncode is not None and not self._is_ending:
                log = self._log(worker.name)
                raise WorkerPoolError(f"{worker.name} ended: {log.read_text()[-2000:]}")

    async def _start_one(self) -> None:
        number = next(self._numbers)
        name = f"users-{number}"
        config = self._config(name, number)
        command = [*self._commands(name), *self._program(name)]
        with self._log(name).open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *command,
                config.to_json(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LINE_BYTES_MAX,
                process_group=0,  # Ctrl-C is for us, who then stop them in order
            )
        worker = WorkerProcess(config, process)
        begun = self._started[name] = asyncio.Event()
        listener = asyncio.create_task(self._listen(worker, begun))
        self._listeners.add(listener)
        self._workers.append(worker)
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                await begun.wait()
        except TimeoutError:
            raise WorkerPoolError(f"{name} did not start in {START_SECONDS_MAX:g} s") from None
        if worker.process.returncode:
            raise WorkerPoolError(
                f"{name} did not start: {self._log(name).read_text()[-2000:]}"
            )

    async def _listen(self, worker: WorkerProcess, begun: asyncio.Event) -> None:
        assert worker.process.stdout is not None
        while line := await worker.process.stdout.readline():
            self._take(worker, json.loads(line))
            begun.set()
        await worker.process.wait()
        begun.set()

    def _take(self, worker: WorkerProcess, said: dict[str, Any]) -> None:
        if "ttls" in said:
            worker.users = list(said["ttls"])
            self.record.ttls |= said["ttls"]
        elif "event" in said:
            self.record.note(_OBSERVED[said.pop("event")](**said))
            self._reported_at.append(time.monotonic())
        elif "over" in said:
            self._believe(said["over"])
        elif "done" in said:
            worker.done = said["done"]
        else:
            beliefs = [self._believe(belief) for belief in said["believed"]]
            held = sum(belief.seats for belief in beliefs)
            names = ("asking", "longest", "operations", "unknown")
            worker.heartbeat = Heartbeat(held=held, **{name: said[name] for name in names})

    def _believe(self, fields: dict[str, Any]) -> Believed:
        belief = Believed(**fields)
        if belief.until > belief.since:
            self.beliefs[belief.user, belief.pool, belief.since] = belief
        return belief

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"
