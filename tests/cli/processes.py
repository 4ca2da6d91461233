"""Processes that tests start under `seatkeeper run`, and what became of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests import processes
from tests.cli.commands import Running, address_of, eventually, is_running, seatkeeper, serving

TTL_SECONDS = 4.0

# One child in the command's group, one in a session of its own, and a daemon that has left its
# parent; then the command waits forever.
FAMILY = (
    "sleep 300 & echo child $!; setsid sleep 300 & echo child $!; "
    "setsid sh -c 'sleep 300 & echo child $!' & "
    "echo ready $$; while :; do wait; sleep 0.2; done"
)
FAMILY_SIZE = 4


def family_of(running: Running) -> list[int]:
    """The pids of a `FAMILY`, the command's own first."""
    eventually(lambda: len(_pids(running.out)) == FAMILY_SIZE, "the whole family")
    return _pids(running.out)


def _pids(out: str) -> list[int]:
    words = [line.split() for line in out.splitlines() if out.endswith("\n")]
    ready = [int(w[1]) for w in words if w[:1] == ["ready"]]
    return ready + [int(w[1]) for w in words if w[:1] == ["child"]]


def all_end(pids: list[int], seconds_max: float = 20.0) -> None:
    """Wait until none of them runs."""
    eventually(lambda: not any(is_running(pid) for pid in pids), "their end", seconds_max)


def parent_of(pid: int) -> int:
    """The parent: of a command under `seatkeeper run`, its watchdog."""
    return int(stat_of(pid)[1])


stat_of = processes.stat_of


@contextmanager
def ending(pids: list[int]) -> Iterator[None]:
    """Leave nothing behind when a test fails."""
    try:
        yield
    finally:
        for pid in pids:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def short_leases(folder: Path) -> Iterator[tuple[Running, str]]:
    """A node of its own whose sessions end soon, with a pool ``p`` of one seat; its address."""
    with serving(folder / "node", "--session-ttl", str(TTL_SECONDS)) as node:
        address = address_of(node)
        seatkeeper("pool", "create", "p", "--seats", "1", "--nodes", address).check()
        yield node, address
