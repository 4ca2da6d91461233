"""Decides from a worker's process stats whether it must be ended.

The kernel's limit alone is not enough: TensorRT-RTX 1.7 was seen to sleep forever after an
allocation failed. So the worker is watched for two things: memory over its limit, which ends it
before the kernel's somewhat higher limit does, and sleep in every thread for too long.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from seatkeeper.artifacts.errors import BuildError, CompilerStalled, OutOfMemory
from seatkeeper.builder.job import BuildLimits

_STAT_UTIME = 11
_STAT_STIME = 12
"""Places in ``/proc/PID/stat`` after the command's name."""


@dataclass(frozen=True, kw_only=True)
class ProcessStats:
    """What the kernel says of a worker at one moment."""

    cpu_seconds: float
    """CPU time of all its threads since it began."""
    data_bytes: int
    """Memory that it may write to."""


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
    if signs.data_bytes > limits.memory_bytes:
        return OutOfMemory(f"the build needs more than {limits.memory_bytes} bytes of memory")
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


def read_process_stats(pid: int) -> ProcessStats | None:
    """Return the process stats of a process, or None once it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        # The command's name may hold anything, and ends at the last parenthesis.
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    ticks = int(stat[_STAT_UTIME]) + int(stat[_STAT_STIME])
    data = [line.split()[1] for line in status.splitlines() if line.startswith("VmData:")]
    if not data:
        # It has ended, and waits to be reaped.
        return None
    return ProcessStats(
        cpu_seconds=ticks / os.sysconf("SC_CLK_TCK"), data_bytes=int(data[0]) * 1024
    )
