"""A program that runs while we hold a seat: started, listened to, stopped with all it started.

Theory of operation
-------------------
*Terminal.* With a controlling terminal the program stays in our process group. Then job control
works as if we were not there, also in a pipeline, and Ctrl-C and Ctrl-Z reach the program
once, from the kernel. So such a signal must not be forwarded, and one that somebody *sent* to us
must be: `signals` distinguishes them. Without a terminal the program gets a group of its own,
and every signal is forwarded. What is sent to our whole group by a person arrives twice.

*The watchdog* (`watchdog`) is between us and the program: it starts it, and stops it when we are gone,
stopped, or stuck beyond the lease. It reads until when the seat may be believed in, from shared
memory. It is the one who stops; we do it ourselves only when it is gone or does not answer. A watchdog
that is stopped is continued; one that is killed takes the program along, and we stop what is
left: we are a reaper of orphans, too. A command that is *contained* is in a PID namespace (`init`),
and nothing of it survives its end, or the watchdog's.

All of this is Linux.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence

from seatkeeper.hold.linux import handles, open_process, send, since_boot
from seatkeeper.hold.signals import (
    OF_TERMINAL,
    PERSON,
    STOPS,
    Received,
    Signals,
    stop_ourselves,
)
from seatkeeper.hold.stopping import (
    KILL_SECONDS_MAX,
    POLL_SECONDS,
    Stopping,
    descendants,
    reap,
    running,
)
from seatkeeper.hold.watchdog import Order
from seatkeeper.hold.watchdog_link import READY_SECONDS_MAX, CannotStart, WatchdogLink

__all__ = ["CannotStart", "Program", "has_terminal"]

ANSWER_SECONDS_MAX = 0.5
"""How long the watchdog may take to say that it stops; it shares the lease's margin with the grace."""
END_SECONDS_MAX = 5.0
"""How long after the program's end the watchdog may take to report its exit code."""


class Program:
    """A program under a watchdog, and so under a seat."""

    def __init__(self, signals: Signals, *, grace: float, contain: bool = False) -> None:
        """``grace``: the time that the program has to end by itself, also without a signal.

        ``contain``: start it in a PID namespace, so that nothing it starts outlives it.
        """
        self._signals = signals
        self._shares_our_group = has_terminal()
        self._watchdog = WatchdogLink(
            grace=grace, contain=contain, on_ended=self._ended, on_gone=self._on_watchdog_gone
        )
        self._pid = 0
        self._init = 0
        self._pidfd: int | None = None
        self._ending: int | None = None
        self._pending: list[int] = []
        self._loop = asyncio.get_running_loop()
        self._status: asyncio.Future[int] = self._loop.create_future()

    @property
    def stopped_by_watchdog(self) -> asyncio.Event:
        """Set when the watchdog stopped the program without being asked: the lease was over."""
        return self._watchdog.has_stopped

    @property
    def watchdog_gone(self) -> bool:
        """Whether the watchdog has ended."""
        return self._watchdog.is_gone

    @property
    def pid(self) -> int:
        """The program's process id; 0 before it is started."""
        return self._pid

    async def prepare(self) -> None:
        """Start the watchdog; raises `CannotStart`. Everything that can fail early, fails here."""
        await self._watchdog.start()

    def publish(self, until: float, ends: float) -> None:
        """Say until when the seat may be believed in, and when another may have it."""
        self._watchdog.publish(until, ends)

    async def start(
        self,
        command: Sequence[bytes],
        environment: Mapping[bytes, bytes],
        *,
        closed: tuple[int, ...] = (),
        remove: bytes = b"",
    ) -> None:
        """Start ``command`` with our files and terminal as they are; raises `CannotStart`.

        ``closed``: standard streams that it finds closed. ``remove``: a folder to remove should
        we die.
        """
        if self.watchdog_gone:
            await self.prepare()
        order = Order(
            list(command),
            dict(environment),
            own_group=not self._shares_our_group,
            closed=closed,
            ignored=self._signals.ignored,
            blocked=self._signals.blocked,
            remove=remove,
        ).packed()
        await self._watchdog.send_order(order)
        forked = await self._watchdog.word("forked", READY_SECONDS_MAX)
        if not forked:
            raise CannotStart(0, "the watchdog ended, or does not answer")
        self._pid, self._init = map(int, forked.split())
        # It runs nothing of its own yet, so the number is surely its.
        self._pidfd = open_process(self._pid)
        if self._pidfd is not None:
            self._loop.add_reader(self._pidfd, self._on_seen_to_end)
        outcome = asyncio.ensure_future(self._watchdog.word("started", READY_SECONDS_MAX))
        self._watchdog.say("go")
        failure = await outcome
        if failure not in (None, "", "started"):
            raise CannotStart(int(failure), os.strerror(int(failure)))
        pending, self._pending = self._pending, []
        for number in pending:
            self._forward(number)

    async def wait(self) -> int:
        """Return how it ended: its exit code, or -n when signal n ended it."""
        return await asyncio.shield(self._status)

    def receive(self, received: Received) -> None:
        """Forward a signal that arrived here, or record what has ended."""
        number = received.number
        if number == signal.SIGCHLD:
            self._look_after_children()
            return
        shared = self._shares_our_group
        if received.from_kernel and number in OF_TERMINAL and shared:
            if number in STOPS:
                stop_ourselves(number)
            elif number == signal.SIGHUP and os.getsid(0) == os.getpid():
                # The kernel reports a hang-up to the session's leader alone.
                self._forward(number)
            return
        if received.ends_us:
            self._ending = number
        self._forward(number)
        if number in STOPS and shared:
            # The shell that waits for us is to see that its job has stopped.
            stop_ourselves(number)

    def notify(self, number: int, *, only_if_handled: bool) -> bool:
        """Send the program a signal of ours; return whether it was sent.

        ``only_if_handled``: not where it would end a program that does not expect it.
        """
        if not self._pid or self._status.done():
            return False
        if only_if_handled and not handles(self._pid, number):
            return False
        self._forward(number)
        return True

    async def stop(self, grace: float) -> int:
        """Stop the program and all that it started: ask, wait for ``grace`` seconds, kill.

        Returns how many could not be stopped.
        """
        if not self.watchdog_gone:
            # Somebody may have stopped it.
            send(self._watchdog.pid, signal.SIGCONT)
            stopped = asyncio.ensure_future(
                self._watchdog.word("stopped", grace + KILL_SECONDS_MAX + END_SECONDS_MAX)
            )
            stopping = asyncio.ensure_future(
                self._watchdog.word("stopping", ANSWER_SECONDS_MAX)
            )
            self._watchdog.say(f"stop {int(grace * 1000)}")
            if self.stopped_by_watchdog.is_set() or await stopping is not None:
                left = await stopped
                if left is not None:
                    return int(left or 0)
            stopped.cancel()
            await self._end_watchdog()
        return await self._stop_it_ourselves(grace)

    async def stop_what_is_left(self, grace: float) -> int:
        """Forward a signal that ended the program to those in its group that it left behind.

        A shell dies of SIGTERM and leaves its command running. Daemons, in groups of their own,
        are meant to stay, and so is all that is left when the program has caught a signal that
        only informs it (SIGUSR1), gone on, and ended later. A program whose watchdog is gone was
        killed, and nothing of it stays. Of one that is contained nothing stays either; returns how
        many were ended for that alone.
        """
        if self.watchdog_gone:
            await self._stop_it_ourselves(grace)
        elif self._ending in PERSON or (self._ending and await self.wait() == -self._ending):
            swept = asyncio.ensure_future(
                self._watchdog.word("swept", grace + KILL_SECONDS_MAX + END_SECONDS_MAX)
            )
            self._watchdog.say(f"sweep {self._ending} {int(grace * 1000)}")
            await swept
        if self.watchdog_gone or not self._init:
            return 0
        left = self.left_behind()
        await self.stop(0.0)
        return left

    def left_behind(self) -> int:
        """Return how many processes the program has left, as far as ``/proc`` shows."""
        ours = (self._watchdog.pid, self._init)
        return len(running(pid for pid in descendants() or () if pid not in ours))

    async def leave(self) -> None:
        """Let the watchdog go, and what still runs; the program has ended, or was never started."""
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        self._watchdog.close()

    # The watchdog ----------------------------------------------------------------------------

    def _on_watchdog_gone(self) -> None:
        if self._pid and not self._status.done():
            # The kernel has killed it. Its exit code comes to us as its new parent.
            self._loop.call_later(END_SECONDS_MAX, self._ended, signal.SIGKILL)
        self._look_after_children()

    async def _end_watchdog(self) -> None:
        self._watchdog.kill()
        deadline = since_boot() + END_SECONDS_MAX
        while not self.watchdog_gone and since_boot() < deadline:
            self._look_after_children()
            await asyncio.sleep(POLL_SECONDS)
        self._watchdog.is_gone = True

    # Processes -------------------------------------------------------------------------------

    def _forward(self, number: int) -> None:
        if self._status.done():
            return
        if not self._pid:
            self._pending.append(number)
            return
        send(self._pid, number, descriptor=self._pidfd)

    def _look_after_children(self) -> None:
        reap(self._on_reaped)
        self._watchdog.keep_going()

    def _on_reaped(self, pid: int, status: int) -> None:
        if pid in (self._pid, self._init):
            self._ended(status)
        elif pid == self._watchdog.pid:
            self._watchdog.on_reaped()

    def _ended(self, status: int) -> None:
        if not self._status.done():
            self._status.set_result(os.waitstatus_to_exitcode(status))

    def _on_seen_to_end(self) -> None:
        """Learn from the kernel that the program has ended; the watchdog reports how."""
        assert self._pidfd is not None
        self._loop.remove_reader(self._pidfd)
        if not self._status.done():
            self._loop.call_later(END_SECONDS_MAX, self._miss_the_watchdog)

    def _miss_the_watchdog(self) -> None:
        # It hangs. Without it, the exit code comes to us.
        if not self._status.done():
            self._watchdog.kill()

    async def _stop_it_ourselves(self, grace: float) -> int:
        stopping = Stopping(
            now=since_boot(), grace=grace, ask_with=signal.SIGTERM, first_pid=self._pid
        )
        while not stopping.step(since_boot()):
            await asyncio.sleep(POLL_SECONDS)
            reap(self._on_reaped)
        return stopping.left


def has_terminal() -> bool:
    """Return whether a terminal controls us, wherever our input and output go."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
