"""Signals are taken when they come, and not with whatever happens next."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.processes import POLL_SECONDS, SECONDS_MAX

from seatkeeper.cli.command import run_to_end
from seatkeeper.cli.exits import EndedBySignal
from seatkeeper.hold.signals import PERSON

LOOKS = 10


@pytest.mark.parametrize("number", PERSON)
def test_a_signal_that_another_thread_got_ends_a_command_that_waits(
    number: signal.Signals,
) -> None:
    was = _handlers()
    ends: list[str] = []

    async def wait() -> None:
        def send() -> None:
            _wait_until_asleep()
            signal.pthread_kill(threading.get_ident(), number)
            is_left.wait(SECONDS_MAX)

        is_left = threading.Event()
        sender = threading.Thread(target=send)
        sender.start()
        try:
            await asyncio.sleep(SECONDS_MAX)
            ends.append("slept on")
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        finally:
            is_left.set()

    with pytest.raises(EndedBySignal) as ended:
        run_to_end(wait())
    assert (ends, ended.value.number) == (["cancelled"], number)
    assert _handlers() == was


def _wait_until_asleep() -> None:
    """Wait until the main thread waits for more than its turn: it has slept whenever we looked."""
    status = Path(f"/proc/self/task/{threading.main_thread().native_id}/stat")
    looks = 0
    while looks < LOOKS:
        time.sleep(POLL_SECONDS)
        looks = looks + 1 if status.read_text().rpartition(")")[2].split()[0] == "S" else 0


def _handlers() -> tuple[list[object], int]:
    signal.set_wakeup_fd(woken := signal.set_wakeup_fd(-1))
    return [signal.getsignal(number) for number in PERSON], woken


WAITS = """
import os, signal
from seatkeeper.hold.signals import wait_for_child

numbers = [signal.SIGTERM, signal.SIGHUP]
signal.pthread_sigmask(signal.SIG_BLOCK, {*numbers, signal.SIGCHLD})
child = os.fork()
if child == 0:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*numbers, signal.SIGCHLD})
    signal.pause()
os.kill(os.getpid(), signal.SIGHUP)  # before anybody waits
seen = []

def forward(number):
    seen.append(number)
    os.kill(child, signal.SIGTERM)

status = wait_for_child(child, forward, numbers)
assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM, status
assert seen == [signal.SIGHUP], seen
"""


def test_a_signal_before_the_wait_for_a_child_is_handed_to_it() -> None:
    subprocess.run([sys.executable, "-c", WAITS], check=True, timeout=SECONDS_MAX)
