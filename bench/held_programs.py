"""The programs that `bench.held` does things to. Each is a process that uses a client as users do."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import mmap
import multiprocessing
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from seatkeeper.client import (
    AsyncSeatClient,
    ClientConfig,
    HoldingState,
    SeatClient,
    ServiceUnavailable,
)
from seatkeeper.client.helper import present

HANG_SECONDS = 90.0
"""A child that has not ended by then hangs."""
CHILDREN_AT_ONCE = 3
BELIEF = struct.Struct("qqq")
"""Of one grant: its fence, when the service decided it, and when it was last believed in."""
BELIEFS_MAX = 4096
LIBC = ctypes.PyDLL(None)
"""Calls through it keep the interpreter, as native code does that does not give it away."""


def boot_ns() -> int:
    """Return the time of the clock that all processes share."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def say(**facts: object) -> None:
    """Report to the observer."""
    os.write(1, json.dumps(facts).encode() + b"\n")


def helper_pid() -> int:
    """Return the process that keeps this one's sessions; 0: this one."""
    running = present.running()
    return 0 if running is None else running.helper_pid


def hold(address: str, seconds: float, ttl: float) -> None:
    """Hold a seat, and the interpreter by one native call."""
    config = ClientConfig(ttl=timedelta(seconds=ttl))
    states: list[HoldingState] = []
    with SeatClient(address, config=config) as client:
        grant = client.acquire("held", on_state=states.append)
        began = boot_ns()
        LIBC.sleep(int(seconds))
        took = (boot_ns() - began) / 1e9
        state = grant.state
        still = (
            client.cluster.verify_token(grant.fetch_token(), pool="held").fence == grant.fence
        )
        say(seconds=took, lost=int(state is HoldingState.LOST or not still))
        grant.release()


def forks(address: str, number: int, ttl: float) -> None:
    """Hold a seat, and fork children of every kind."""
    config = ClientConfig(ttl=timedelta(seconds=ttl))
    states: list[HoldingState] = []
    hangs = crashes = 0
    with SeatClient(address, config=config) as client:
        grant = client.acquire("held", on_state=states.append)
        running: dict[int, float] = {}
        for count in range(number + CHILDREN_AT_ONCE):
            while running and (len(running) >= CHILDREN_AT_ONCE or count >= number):
                hung, crashed = _ended(running)
                hangs, crashes = hangs + hung, crashes + crashed
            if count < number:
                running[_child(count, address, client)] = time.monotonic()
        time.sleep(ttl)
        lost = grant.state is HoldingState.LOST or HoldingState.LOST in states
        client.acquire("held", wait=30).release()
        say(forks=number, lost=int(lost), hangs=hangs, crashes=crashes)


def _ended(running: dict[int, float]) -> tuple[int, int]:
    """Wait for a child, or for one to have run for too long; return hangs and crashes."""
    for pid, began in list(running.items()):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            del running[pid]
            return 0, int(os.waitstatus_to_exitcode(status) != 0)
        if time.monotonic() - began > HANG_SECONDS:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            del running[pid]
            return 1, 0
    time.sleep(0.01)
    return 0, 0


def _child(count: int, address: str, client: SeatClient) -> int:
    pid = os.fork()
    if pid:
        return pid
    kinds = (_sync, _async, _nothing, _execs, _exits, _collects, _closes, _spawns, _forks_again)
    try:
        kinds[count % len(kinds)](address, client)
    except Exception as error:
        os.write(2, f"child: {error!r}\n".encode())
        os._exit(1)
    os._exit(0)


def _sync(address: str, _: SeatClient) -> None:
    with SeatClient(address) as mine, mine.seat("held", wait=HANG_SECONDS):
        pass


def _async(address: str, _: SeatClient) -> None:
    async def use() -> None:
        async with AsyncSeatClient(address) as mine, mine.seat("held", wait=HANG_SECONDS):
            pass

    asyncio.run(use())


def _nothing(_: str, __: SeatClient) -> None:
    time.sleep(0.5)


def _execs(_: str, __: SeatClient) -> None:
    os.execvp("sleep", ["sleep", "0.5"])


def _exits(address: str, client: SeatClient) -> None:
    _sync(address, client)
    sys.exit(0)


def _collects(_: str, __: SeatClient) -> None:
    gc.collect()
    sys.exit(0)


def _closes(_: str, client: SeatClient) -> None:
    client.close()


def _spawns(_: str, __: SeatClient) -> None:
    subprocess.run(["true"], preexec_fn=_quiet, check=True)  # what is tried


def _quiet() -> None:
    """Do what a ``preexec_fn`` does: nothing much."""


def _forks_again(address: str, client: SeatClient) -> None:
    process = multiprocessing.get_context("fork").Process(target=_sync, args=(address, client))
    process.start()
    process.join()
    os._exit(process.exitcode or 0)


def believe(address: str, pool: str, beliefs: str, ttl: float, seed: int) -> None:
    """Take the pool's only seat again and again, and note when it was last believed in."""
    draw = random.Random(seed)
    with Path(beliefs).open("r+b") as file:
        table = mmap.mmap(file.fileno(), 0)
    ahead = time.time_ns() - boot_ns()
    with SeatClient(address, config=ClientConfig(ttl=timedelta(seconds=ttl))) as client:
        for number in range(BELIEFS_MAX):
            try:
                grant = client.acquire(pool)
            except ServiceUnavailable:
                time.sleep(0.1)
                continue
            say(helper=helper_pid())
            decided = grant.granted_at.timestamp() * 1e9 - ahead
            over = time.monotonic() + draw.uniform(1, 3)
            while time.monotonic() < over:
                looked = boot_ns()
                if grant.state is HoldingState.LOST:
                    break
                BELIEF.pack_into(table, number * BELIEF.size, grant.fence, int(decided), looked)
                time.sleep(0.002)
            grant.release()


def hold_until_killed(address: str, ttl: float) -> None:
    """Hold every seat of a pool; a child of C code keeps the sockets open after the end."""
    with SeatClient(address, config=ClientConfig(ttl=timedelta(seconds=ttl))) as client:
        client.acquire("killed")
        child = LIBC.fork()
        if child == 0:
            LIBC.sleep(600)
        say(helper=helper_pid(), child=child)
        time.sleep(600)


def cost(address: str, keeper: str, acquires: int) -> None:
    """Say what a client costs that is kept by a helper, or by the process."""
    config = ClientConfig(keeper="helper" if keeper == "helper" else "process")
    began = time.perf_counter()
    with SeatClient(address, config=config) as client:
        client.cluster.version()
        start = time.perf_counter() - began
        times = []
        for _ in range(acquires):
            before = time.perf_counter()
            grant = client.acquire("held")
            times.append(time.perf_counter() - before)
            grant.release()
        memory = _memory(helper_pid())
        p50 = sorted(times)[len(times) // 2] if times else 0.0
        say(start_ms=start * 1e3, p50_ms=p50 * 1e3, **memory)


def _memory(pid: int) -> dict[str, float]:
    if not pid:
        return {}
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = {
        words[0]: int(words[1]) for line in text.splitlines()[1:] if (words := line.split())
    }
    return {"pss_mb": kilobytes["Pss:"] / 1024, "rss_mb": kilobytes["Rss:"] / 1024}


PROGRAMS: dict[str, Callable[..., None]] = {
    "hold": lambda address, seconds, ttl: hold(address, float(seconds), float(ttl)),
    "forks": lambda address, number, ttl: forks(address, int(number), float(ttl)),
    "believe": lambda address, pool, beliefs, ttl, seed: believe(
        address, pool, beliefs, float(ttl), int(seed)
    ),
    "killed": lambda address, ttl: hold_until_killed(address, float(ttl)),
    "cost": lambda address, keeper, acquires: cost(address, keeper, int(acquires)),
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
