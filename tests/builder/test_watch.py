"""A worker is ended when it takes too much or sleeps too long, and not before."""

from __future__ import annotations

import os
from datetime import timedelta

from seatkeeper.artifacts.errors import CompilerStalled, OutOfMemory
from seatkeeper.builder._watch import (
    ProcessStats,
    Watch,
    assess,
    own_peak_bytes,
    read_process_stats,
)
from seatkeeper.builder.job import BuildLimits

LIMITS = BuildLimits(memory_bytes=1_000, stall_timeout=timedelta(seconds=60))
BUSY_AT_0 = Watch(last_busy_at=0.0, signs=ProcessStats(cpu_seconds=5.0, data_bytes=100))


def signs(cpu_seconds: float, data_bytes: int) -> ProcessStats:
    return ProcessStats(cpu_seconds=cpu_seconds, data_bytes=data_bytes)


def test_a_worker_at_its_limit_goes_on_and_over_it_ends() -> None:
    at_limit = assess(BUSY_AT_0, signs(6.0, 1_000), 1.0, LIMITS)
    assert at_limit == Watch(last_busy_at=1.0, signs=signs(6.0, 1_000))
    assert isinstance(assess(BUSY_AT_0, signs(6.0, 1_001), 1.0, LIMITS), OutOfMemory)


def test_a_silent_compiler_that_works_is_left_alone() -> None:
    """Its callbacks can stay silent for most of a build."""
    watch = BUSY_AT_0
    for hour in range(1, 5):
        checked = assess(watch, signs(5.0 + hour, 100), hour * 3_600.0, LIMITS)
        assert isinstance(checked, Watch)
        watch = checked
    assert watch.last_busy_at == 4 * 3_600.0


def test_a_worker_that_sleeps_is_ended_when_its_time_is_up() -> None:
    asleep = signs(5.0, 100)
    assert assess(BUSY_AT_0, asleep, 59.9, LIMITS) == BUSY_AT_0
    assert isinstance(assess(BUSY_AT_0, asleep, 60.0, LIMITS), CompilerStalled)


def test_a_worker_that_falls_asleep_near_its_limit_lacks_memory() -> None:
    watch = Watch(last_busy_at=0.0, signs=signs(5.0, 900))
    assert isinstance(assess(watch, signs(5.0, 900), 60.0, LIMITS), OutOfMemory)


def test_the_signs_are_the_kernels() -> None:
    mine = read_process_stats(os.getpid())
    assert mine is not None
    assert mine.cpu_seconds > 0
    assert mine.data_bytes > 1 << 20


def test_the_own_peak_stays_when_the_memory_is_given_back() -> None:
    size = 2 * own_peak_bytes()
    grown = bytearray(b"\1") * size
    del grown
    assert own_peak_bytes() > size


def test_who_has_ended_has_no_signs() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert read_process_stats(pid) is None  # ended, not reaped
    os.waitpid(pid, 0)
    assert read_process_stats(pid) is None
