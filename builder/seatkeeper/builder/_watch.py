"""Decides from a worker's process stats whether it must be ended.

The kernel's limits alone are not enough. TensorRT-RTX 1.7 was seen to sleep forever after an
allocation failed, and the kernel limits each process, not a worker with its children. So the worker
is watched, with all that it started, for memory, processor time, processes and files over their limits,
and for sleep in every thread for too long.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from seatkeeper.artifacts.errors import (
    BuildError,
    BuildTimedOut,
    CompilerStalled,
    FilesTooLarge,
    OutOfMemory,
    TooManyProcesses,
)
from seatkeeper.builder.job import BuildLimits

_STAT_UTIME = 11
_STAT_STIME = 12
_STAT_CUTIME = 13
_STAT_CSTIME = 14
"""Places in ``/proc/PID/stat`` after the command's name; the last two are of children that ended."""
_PROCESSES_SEEN_MAX = 1_000
_FILES_SEEN_MAX = 10_000
"""Who has more than these has too many: they are not counted further."""


@dataclass(frozen=True, kw_only=True)
class ProcessStats:
    """What the kernel says of a worker and what it started, at one moment."""

    cpu_seconds: float
    """CPU time of all their threads since the worker began."""
    data_bytes: int
    """Memory that they may write to."""
    resident_bytes: int = 0
    """Memory of the host that they have."""
    processes: int = 1
    """How many they are."""
    files_bytes: int = 0
    """What their files take of the disk."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What is known of a worker's life so far."""

    last_busy_at: float
    """When its CPU time was last seen to grow."""
    signs: ProcessStats = ProcessStats(cpu_seconds=0.0, data_bytes=0)
    """As they were last seen."""


def assess(
    watch: Watch, signs: ProcessStats, now: float, limits: BuildLimits
) -> Watch | BuildError:
    """Return the watch to go on with, or why the worker must end."""
    if (excess := _excess(signs, limits)) is not None:
        return excess
    if signs.cpu_seconds > watch.signs.cpu_seconds:
        return Watch(last_busy_at=now, signs=signs)
    asleep_seconds = now - watch.last_busy_at
    if asleep_seconds < limits.stall_timeout.total_seconds():
        return Watch(last_busy_at=watch.last_busy_at, signs=signs)
    if signs.data_bytes > limits.memory_bytes // 2:
        return OutOfMemory(
            f"the compiler fell asleep with {signs.data_bytes} of {limits.memory_bytes} bytes of"
            " memory in use, as it does when an allocation fails"
        )
    return CompilerStalled(f"the compiler did nothing for {asleep_seconds:.0f} seconds")


def _excess(signs: ProcessStats, limits: BuildLimits) -> BuildError | None:
    if signs.processes > limits.processes_max:
        return TooManyProcesses(f"the build started more than {limits.processes_max} processes")
    if signs.data_bytes > limits.memory_bytes:
        return OutOfMemory(f"the build needs more than {limits.memory_bytes} bytes of memory")
    if signs.files_bytes > limits.files_bytes_max:
        return FilesTooLarge(f"the build's files have more than {limits.files_bytes_max} bytes")
    if signs.cpu_seconds > limits.cpu_seconds:
        return BuildTimedOut(
            f"the build took more than {limits.cpu_seconds:g} seconds of processor time"
        )
    return None


def read_process_stats(
    pid: int, *, wrappers: int = 0, folder: Path | None = None
) -> ProcessStats | None:
    """Return the process stats of a process and its descendants, or None once it has ended.

    The first ``wrappers`` of them are not the worker's own, and do not count. ``folder`` has its files.
    """
    if _stats_of(pid) is None:
        return None
    found = [_stats_of(each) for each in descendants(pid)[wrappers:]]
    alive = [each for each in found if each is not None]
    return ProcessStats(
        cpu_seconds=sum(each.cpu_seconds for each in alive),
        data_bytes=sum(each.data_bytes for each in alive),
        resident_bytes=sum(each.resident_bytes for each in alive),
        processes=len(alive),
        files_bytes=0 if folder is None else sum(_sizes(folder)),
    )


def descendants(pid: int) -> list[int]:
    """Return a process and all that it started, each before its children.

    Those of a kernel that does not list children are not among them.
    """
    found = [pid]
    for each in found:
        if len(found) > _PROCESSES_SEEN_MAX:
            break
        with suppress(OSError):
            for task in os.listdir(f"/proc/{each}/task"):
                children = Path(f"/proc/{each}/task/{task}/children").read_text()
                found += map(int, children.split())
    return found


def _stats_of(pid: int) -> ProcessStats | None:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        # The command's name may hold anything, and ends at the last parenthesis.
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    places = (_STAT_UTIME, _STAT_STIME, _STAT_CUTIME, _STAT_CSTIME)
    ticks = sum(int(stat[place]) for place in places)
    kibibytes = _kibibytes(status)
    if "VmData" not in kibibytes:
        # It has ended, and waits to be reaped.
        return None
    return ProcessStats(
        cpu_seconds=ticks / os.sysconf("SC_CLK_TCK"),
        data_bytes=kibibytes["VmData"] * 1024,
        resident_bytes=kibibytes.get("VmRSS", 0) * 1024,
    )


def own_peak_bytes() -> int:
    """Return the most memory of the host that this process has had since it became its program."""
    try:
        return _kibibytes(Path("/proc/self/status").read_text()).get("VmHWM", 0) * 1024
    except OSError:
        return 0


def _kibibytes(status: str) -> dict[str, int]:
    return {
        name: int(value.split()[0])
        for name, _, value in (line.partition(":") for line in status.splitlines())
        if name in {"VmData", "VmRSS", "VmHWM"}
    }


def _sizes(folder: Path) -> Iterator[int]:
    """Yield what each file below takes of the disk; symbolic links are not followed."""
    seen = 0
    waiting = [str(folder)]
    while waiting and seen < _FILES_SEEN_MAX:
        with suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                seen += 1
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    yield entry.stat(follow_symlinks=False).st_blocks * 512
