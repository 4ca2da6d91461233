"""The asyncio side of one worker: start it, listen to it, end it, explain its end."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from seatkeeper.artifacts.errors import (
    STDERR_TAIL_BYTES_MAX,
    BuildError,
    BuildTimedOut,
    CompilerCrashed,
    DiskFull,
    OutOfMemory,
    WorkerKilled,
)
from seatkeeper.artifacts.store import DISK_FULL_ERRNOS
from seatkeeper.builder._isolation import WRAPPERS
from seatkeeper.builder._watch import Watch, assess, descendants, read_process_stats
from seatkeeper.builder.job import (
    REPORT_LINE_BYTES_MAX,
    BuildLimits,
    Done,
    Report,
    WorkerJob,
    report_from_line,
)
from seatkeeper.builder.progress import OnProgress, Progress

NOISE_CHUNK_BYTES = 1 << 16
WATCH_INTERVAL_SECONDS = 0.1
KILL_ROUNDS_MAX = 20
"""Processes that start others are stopped, and looked for again, this often."""
RELAY_SECONDS_MAX = 5.0
"""Longest that the relay of an isolated worker may take to see its namespace empty."""

_OUT_OF_MEMORY = re.compile("bad_alloc|MemoryError|Cannot allocate memory")


async def run_worker(
    job: WorkerJob,
    folder: Path,
    limits: BuildLimits,
    on_progress: OnProgress,
    environment: Mapping[str, str],
) -> Done:
    """Run one worker to its end and return what it reports as done.

    Its files are in ``folder``. However this ends, the worker and all that it started are dead
    when it does: on cancellation, on a timeout, and when ``on_progress`` raises. Raises what
    the worker reports, or a ``ProcessError``, ``OutOfMemory`` or ``BuildTimedOut``.
    """
    oom_kills_before = _oom_kills()
    stderr_tail = StderrTail()
    async with _started(job, folder, environment, stderr_tail) as (process, reports):
        peak = PeakMemory()
        watching = asyncio.create_task(_watch(process, limits, folder, peak))
        try:
            async with asyncio.timeout(limits.timeout.total_seconds()) as deadline:
                result = await _listen(reports, on_progress)
                status = await process.wait()
                await stderr_tail.complete.wait()
                outcome = watching.result() if watching.done() else None
        except TimeoutError as error:
            if not deadline.expired():
                raise
            raise BuildTimedOut(
                f"the build took longer than {limits.timeout.total_seconds():g} seconds",
                stderr_tail=stderr_tail.text,
            ) from error
        finally:
            watching.cancel()
    if result is None:
        oom_killed = _oom_kills() > oom_kills_before
        result = outcome or explain_end(status, stderr_tail.text, oom_killed=oom_killed)
    if isinstance(result, BuildError):
        raise type(result)(result.message, stderr_tail=stderr_tail.text)
    said = max(0, min(result.peak_memory_bytes, limits.memory_bytes))
    return replace(result, peak_memory_bytes=max(peak.bytes, said))


def explain_end(status: int, stderr_tail: str, *, oom_killed: bool) -> BuildError:
    """Return why a worker ended with ``status`` and without a result.

    ``oom_killed`` says that the host's kernel killed some process for memory meanwhile.
    """
    if status == -signal.SIGKILL and not oom_killed:
        return WorkerKilled("someone killed the worker", stderr_tail=stderr_tail)
    if status == -signal.SIGKILL:
        return OutOfMemory("the host ran out of memory and killed the worker", stderr_tail)
    if _OUT_OF_MEMORY.search(stderr_tail):
        return OutOfMemory("the build needs more memory than it may have", stderr_tail)
    if status < 0:
        name = signal.Signals(-status).name
        return CompilerCrashed(f"the compiler died of {name}", stderr_tail=stderr_tail)
    return CompilerCrashed(f"the worker ended with status {status}, silently", stderr_tail)


@contextmanager
def private_folder(parent: Path) -> Iterator[Path]:
    """Make an empty folder for one worker, only ours, and remove it with all it holds.

    Raises ``DiskFull`` when there is no room in it.
    """
    folder: str | None = None
    try:
        folder = tempfile.mkdtemp(prefix=".build-", dir=parent)
        Path(folder, "empty").mkdir()
        yield Path(folder)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise DiskFull("no room for the files of the build") from error
        raise
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


class StderrTail:
    """The end of what a worker printed."""

    def __init__(self) -> None:
        self._tail = bytearray()
        self.complete = asyncio.Event()
        """Set when the worker will print no more."""

    @property
    def text(self) -> str:
        """What is kept, as text; bytes that are not UTF-8 are replaced."""
        return self._tail.decode(errors="replace").strip()

    async def collect(self, reader: asyncio.StreamReader) -> None:
        """Read to the end, and keep only the last bytes on the way."""
        while chunk := await reader.read(NOISE_CHUNK_BYTES):
            self._tail += chunk
            del self._tail[:-STDERR_TAIL_BYTES_MAX]
        self.complete.set()


async def _listen(
    reports: asyncio.StreamReader, on_progress: OnProgress
) -> Done | BuildError | None:
    """Return the worker's result, or None when it ends without one."""
    while True:
        report = await _next_report(reports)
        if not isinstance(report, Progress):
            return report
        on_progress(report)


@dataclass
class PeakMemory:
    """The most memory of the host that a worker was seen to have."""

    bytes: int = 0


async def _watch(
    process: asyncio.subprocess.Process, limits: BuildLimits, folder: Path, peak: PeakMemory
) -> BuildError | None:
    """Kill the worker when it must end, and return why; None when it ends by itself."""
    clock = asyncio.get_running_loop().time
    watch = Watch(last_busy_at=clock())
    wrappers = WRAPPERS if limits.isolate else 0
    while process.returncode is None:
        signs = read_process_stats(process.pid, wrappers=wrappers, folder=folder)
        if signs is None:
            break
        peak.bytes = max(peak.bytes, signs.resident_bytes)
        match assess(watch, signs, clock(), limits):
            case Watch() as watch:
                await asyncio.sleep(WATCH_INTERVAL_SECONDS)
            case BuildError() as outcome:
                _kill_all(process, isolated=limits.isolate)
                return outcome
    return None


async def _next_report(reports: asyncio.StreamReader) -> Report | None:
    try:
        line = await reports.readuntil(b"\n")
        return report_from_line(line)
    except asyncio.IncompleteReadError:
        # The pipe is closed; half a line is a worker that died while it wrote.
        return None
    except (ValueError, asyncio.LimitOverrunError) as error:
        raise CompilerCrashed(f"the worker's report makes no sense: {error}") from error


@asynccontextmanager
async def _started(
    job: WorkerJob, folder: Path, environment: Mapping[str, str], stderr_tail: StderrTail
) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
    """Start a worker; on leaving, it and all that it started are dead and nothing of it is open."""
    job_path, empty = folder / "job.json", folder / "empty"
    job_path.write_text(job.to_json())
    async with _pipe() as (reports, report_end), _pipe() as (noise, noise_end):
        try:
            process = await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    "-P",
                    "-X",
                    "faulthandler",
                    "-m",
                    "seatkeeper.builder.worker",
                ),
                *(str(job_path), str(report_end.fileno())),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=noise_end,
                stderr=noise_end,
                pass_fds=(report_end.fileno(),),
                cwd=empty,
                env={
                    **environment,
                    "HOME": str(empty),
                    "TMPDIR": str(empty),
                    # One buffer a core would count against the worker's memory.
                    "OPENBLAS_NUM_THREADS": "1",
                },
                start_new_session=True,
            )
        except OSError as error:
            if error.errno == errno.ENOMEM:
                raise OutOfMemory("no memory on the host to start a worker") from error
            raise
        finally:
            # The worker has its own copies; ours would keep the pipes open after its death.
            report_end.close()
            noise_end.close()
        listening = asyncio.create_task(stderr_tail.collect(noise))
        try:
            yield process, reports
        finally:
            _kill_all(process, isolated=job.isolate)
            listening.cancel()
            await _reap(process)


@asynccontextmanager
async def _pipe() -> AsyncIterator[tuple[asyncio.StreamReader, io.FileIO]]:
    """Open a pipe: its reader, and the end that a worker writes to."""
    read_fd, write_fd = os.pipe()
    with os.fdopen(write_fd, "wb", buffering=0) as write_end:
        reader = asyncio.StreamReader(limit=REPORT_LINE_BYTES_MAX)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_fd, "rb", buffering=0)
        )
        try:
            yield reader, write_end
        finally:
            transport.close()


def _kill_all(process: asyncio.subprocess.Process, *, isolated: bool) -> None:
    """Kill the worker and all that it started, also what has left its group."""
    if process.returncode is not None:
        return
    below = descendants(process.pid)[1:]
    with suppress(ProcessLookupError):
        if isolated and below:
            # The namespace's init, and with it all that is inside. The relay ends by itself once that
            # is empty; it may have been stopped.
            os.kill(below[0], signal.SIGKILL)
            os.kill(process.pid, signal.SIGCONT)
            return
    for _ in range(KILL_ROUNDS_MAX):
        # Stopped first: what is stopped starts no more.
        _signal_each([process.pid, *below], signal.SIGSTOP)
        known, below = set(below), descendants(process.pid)[1:]
        if known.issuperset(below):
            break
    _signal_each(below, signal.SIGKILL)
    _kill_group(process)


def _signal_each(pids: Sequence[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _kill_group(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        # The worker leads its session, so its group has its number.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


async def _reap(process: asyncio.subprocess.Process) -> None:
    """Wait until a killed process is gone, however often we are cancelled meanwhile.

    Killed means gone in milliseconds, and its folder must not be removed under its feet. A relay that
    takes longer is killed as well.
    """
    killing = asyncio.get_running_loop().call_later(RELAY_SECONDS_MAX, _kill_group, process)
    waiting = asyncio.ensure_future(process.wait())
    cancelled = False
    while not waiting.done():
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            cancelled = True
    killing.cancel()
    if cancelled:
        raise asyncio.CancelledError


def _oom_kills() -> int:
    """Return how many processes the kernel has killed for memory; 0 where it does not say."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
