"""Waiting for conditions, and what becomes of processes: for all tests that have to do with either."""

from __future__ import annotations

import asyncio
import inspect
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

SECONDS_MAX = 60.0
"""How long something may take on a machine that does much else."""
POLL_SECONDS = 0.005
PAUSE = """
import os, signal
_came, _wake = os.pipe()
os.set_blocking(_wake, False)
signal.set_wakeup_fd(_wake)
def pause():
    os.read(_came, 1)
"""
"""Source of a program's ``pause()``: as ``signal.pause``, which sleeps on past a signal that came just
before it, but also for those. As often as signals came it returns."""


def until(condition: Callable[[], object], what: str = "", within: float = SECONDS_MAX) -> None:
    """Wait until ``condition`` holds; AssertionError when it does not ``within`` seconds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within:g} s: {what or condition}"
        time.sleep(POLL_SECONDS)


async def eventually(
    condition: Callable[[], object] | Callable[[], Awaitable[object]],
    what: str = "",
    *,
    within: float = SECONDS_MAX,
    every: float = POLL_SECONDS,
) -> None:
    """Wait likewise without blocking the event loop; ``condition`` may be a coroutine function."""
    deadline = time.monotonic() + within
    while True:
        holds = condition()
        if await holds if inspect.isawaitable(holds) else holds:
            return
        assert time.monotonic() < deadline, f"not within {within:g} s: {what or condition}"
        await asyncio.sleep(every)


def stat_of(pid: int) -> list[str]:
    """Return what /proc says of a process, from its state on. Raises `OSError` when it is gone."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that has ended and was not waited for does not."""
    try:
        return stat_of(pid)[0] not in "ZX"
    except OSError:
        return False


def is_stopped(pid: int) -> bool:
    """Return whether a process is stopped."""
    return stat_of(pid)[0] == "T"


def free_port() -> int:
    """Return a port on which nothing listens now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
