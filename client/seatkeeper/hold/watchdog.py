"""The watchdog: a small process that starts the command, and outlives the process that asked for it.

Theory of operation
-------------------
``run`` (here: the *keeper*, for it keeps the seat) starts the watchdog before it asks for a seat. The
watchdog forks the command, so the command and all it starts are descendants of the watchdog, and of the
keeper above it; both are reapers of orphans.

*What the watchdog watches.* The keeper, by a pidfd and by its end of a socket: when the keeper is gone,
the command is stopped at once. The lease, by two numbers that the keeper writes into shared memory:
until when the seat may be believed in, by the clock that counts suspended time too. When that time
has come and the keeper has done nothing (it is stopped, or stuck, or starved), the command is
stopped just the same. Nothing of this needs the keeper to run.

*What the watchdog survives.* It is in a group of its own, and where there is a terminal in a session of
its own, with all signals blocked, and holds none of the user's files. A signal to the terminal's
group, or to the keeper's, does not reach it. Where it is killed all the same, the kernel kills the
command (a parent-death signal), and the keeper, which inherits what is left, stops that. Where both
are killed, what the command started goes on, unless it is contained: see `init`.

*Words.* Lines on the socket; numbers are decimal.
keeper: ``start BYTES`` and so many bytes, ``go``, ``stop GRACE_MS``, ``sweep SIGNAL GRACE_MS``,
``end``.
watchdog: ``ready``, ``refused ERRNO`` (to contain), ``forked PID INIT`` (0: none), ``started``,
``failed ERRNO``, ``ended STATUS``, ``stopping``, ``stopped LEFT``, ``swept LEFT``.

It is started without site-packages, and imports the standard library only.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NoReturn

from seatkeeper.hold.init import INIT, Contained, start_contained, why_not_contain
from seatkeeper.hold.linux import (
    adopt_orphans,
    die_with_parent,
    keep_going,
    open_process,
    reset_hidden_signals,
    since_boot,
)
from seatkeeper.hold.stopping import POLL_SECONDS, Stopping, Sweeping, reap

LEASE_BYTES = 16
LOOK_SECONDS = 0.5
"""Longest between two looks at the lease: timers do not count suspended time, the lease does."""
KILL_EARLY_SECONDS = 0.2
"""So long before another may have the seat, what still runs is killed."""
GRACE_MIN_SECONDS = 0.1
READ_BYTES = 1 << 16
FIELDS = 6
"""Of the head of ``start``: the others are arguments and environment."""


class Order:
    """What to start, and how it is to find its surroundings; as it is sent to the watchdog."""

    def __init__(
        self,
        command: list[bytes],
        environment: dict[bytes, bytes],
        *,
        own_group: bool,
        closed: tuple[int, ...] = (),
        ignored: tuple[int, ...] = (),
        blocked: tuple[int, ...] = (),
        remove: bytes = b"",
    ) -> None:
        """``remove``: a folder of files, the token's, that is removed when the keeper is gone."""
        self.command = command
        self.environment = environment
        self.own_group = own_group
        self.closed = closed
        self.ignored = ignored
        self.blocked = blocked
        self.remove = remove

    def packed(self) -> bytes:
        """Return it as bytes. Neither arguments nor environment can hold a NUL."""
        numbers = (b" ".join(b"%d" % n for n in t) for t in self._numbers())
        head = [b"%d" % self.own_group, *numbers, self.remove, b"%d" % len(self.command)]
        pairs = [name + b"=" + value for name, value in self.environment.items()]
        return b"\0".join([*head, *self.command, *pairs])

    @classmethod
    def unpacked(cls, data: bytes) -> Order:
        """Return what `packed` made."""
        own_group, closed, ignored, blocked, remove, count, *rest = data.split(b"\0")
        words, pairs = rest[: int(count)], rest[int(count) :]
        environment = dict(pair.split(b"=", 1) for pair in pairs)
        closed_, ignored_, blocked_ = (
            tuple(int(n) for n in t.split()) for t in (closed, ignored, blocked)
        )
        return cls(
            words,
            environment,
            own_group=own_group == b"1",
            closed=closed_,
            ignored=ignored_,
            blocked=blocked_,
            remove=remove,
        )

    def _numbers(self) -> tuple[tuple[int, ...], ...]:
        return self.closed, self.ignored, self.blocked


def pack_lease(until: float, ends: float) -> bytes:
    """Return what the keeper writes into the shared memory; 0: there is nothing to watch."""
    return b"".join(
        int(t * 1000).to_bytes(LEASE_BYTES // 2, sys.byteorder) for t in (until, ends)
    )


def unpack_lease(data: bytes) -> tuple[float, float]:
    """Return until when the seat is believed in, and when another may have it."""
    if len(data) < LEASE_BYTES:
        return 0.0, 0.0
    half = LEASE_BYTES // 2
    until, ends = (int.from_bytes(part, sys.byteorder) for part in (data[:half], data[half:]))
    return until / 1000, ends / 1000


class Watchdog:
    """Starts one command and sees to its end."""

    def __init__(self, control: int, lease: int, keeper: int, *, contains: bool) -> None:
        self._control = control
        self._contains = contains
        self._lease = lease
        self._keeper_pid = keeper
        self._keeper = open_process(keeper)
        self._keeper_is_there = os.getppid() == keeper
        self._unread = b""
        self._payload_bytes: int | None = None
        self._order: Order | None = None
        self._pid = 0
        self._go = -1
        self._failure = -1
        self._contained: Contained | None = None
        self._has_ended = False
        self._busy: Stopping | Sweeping | None = None
        self._poll = select.poll()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        for watched in (control, self._woken, self._keeper):
            if watched is not None:
                self._poll.register(watched, select.POLLIN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})

    def run(self) -> None:
        """Do all of it, to the end."""
        if self._contains and (error := why_not_contain()) is not None:
            self._say(f"refused {error.errno or errno.EINVAL}")
            return
        self._say("ready")
        while not self._is_over():
            for descriptor, _ in self._poll.poll(self._pause() * 1000):
                self._attend(descriptor)
            reap(self._on_reaped)
            if self._contained is not None:
                keep_going(self._contained.init)
            if self._keeper_is_there and os.getppid() != self._keeper_pid:
                self._keeper_is_there = False
            self._watch_the_lease()
            if self._busy is not None and self._busy.step(since_boot()):
                self._finish()
        if not self._keeper_is_there:
            self._remove()

    def _is_over(self) -> bool:
        return (
            not self._keeper_is_there and (self._pid == 0 or self._has_ended) and not self._busy
        )

    def _pause(self) -> float:
        if self._busy is not None:
            return POLL_SECONDS
        if not self._pid or self._has_ended:
            return LOOK_SECONDS
        until, _ = self._read_lease()
        return max(0.0, min(LOOK_SECONDS, until - since_boot())) if until else LOOK_SECONDS

    def _attend(self, descriptor: int) -> None:
        if descriptor == self._woken:
            os.read(self._woken, READ_BYTES)
        elif descriptor == self._keeper:
            self._poll.unregister(descriptor)
            self._keeper_is_there = False
        elif descriptor == self._failure:
            self._learn_whether_it_started()
        elif self._contained is not None and descriptor == self._contained.reports.fileno():
            self._poll.unregister(descriptor)
            self._on_report(self._contained)
        else:
            self._receive()

    # What the keeper says ------------------------------------------------------------------------

    def _receive(self) -> None:
        try:
            data = os.read(self._control, READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._poll.unregister(self._control)
            self._keeper_is_there = False
            return
        self._unread += data
        while True:
            if self._payload_bytes is not None:
                if len(self._unread) < self._payload_bytes:
                    return
                payload = self._unread[: self._payload_bytes]
                self._unread = self._unread[self._payload_bytes :]
                self._payload_bytes = None
                self._start(Order.unpacked(payload))
            line, newline, rest = self._unread.partition(b"\n")
            if not newline:
                return
            self._unread = rest
            self._obey(line.split())

    def _obey(self, words: list[bytes]) -> None:
        match words:
            case [b"start", length]:
                self._payload_bytes = int(length)
            case [b"go"]:
                os.write(self._go, b"g")
                os.close(self._go)
            case [b"stop", grace]:
                self._stop(int(grace) / 1000)
            case [b"sweep", number, grace]:
                self._sweep(int(number), int(grace) / 1000)
            case _:  # "end"
                self._has_ended = True
                self._keeper_is_there = False

    def _say(self, line: str) -> None:
        # Never blocks: a keeper that does not read has not asked for much either.
        try:
            os.write(self._control, line.encode() + b"\n")
        except OSError:
            return

    # The command -----------------------------------------------------------------------------

    def _start(self, order: Order) -> None:
        self._order = order
        waits, self._go = os.pipe()
        self._failure, fails = os.pipe()
        watchdog = os.getpid()

        def become(notify: Callable[[], None], parent: int = INIT) -> NoReturn:
            os.close(self._go)
            _become(order, parent, waits, fails, notify)

        def detach(own: int) -> None:
            _leave([own], own_session=not order.own_group)

        if self._contains:
            self._contained = start_contained(become, detach)
            self._pid = self._contained.pid
            self._poll.register(self._contained.reports, select.POLLIN)
        else:
            self._pid = os.fork()
            if self._pid == 0:
                become(lambda: None, watchdog)
        os.close(waits)
        os.close(fails)
        if order.own_group:
            with suppress(OSError):  # it may have done so itself, and become the program
                os.setpgid(self._pid, self._pid)
        self._poll.register(self._failure, select.POLLIN)
        _leave(self._own_descriptors(), own_session=not order.own_group)
        self._say(f"forked {self._pid} {self._contained.init if self._contained else 0}")

    def _own_descriptors(self) -> list[int]:
        own = [self._control, self._lease, self._woken, self._wake, self._go, self._failure]
        if self._contained is not None:
            own.append(self._contained.reports.fileno())
        return own if self._keeper is None else [*own, self._keeper]

    def _learn_whether_it_started(self) -> None:
        failure = os.read(self._failure, 16)
        self._poll.unregister(self._failure)
        os.close(self._failure)
        self._failure = -1
        self._say(f"failed {failure.decode()}" if failure else "started")

    def _on_reaped(self, pid: int, status: int) -> None:
        if self._contained is None:
            if pid == self._pid:
                self._on_ended(status)
        elif pid == self._contained.init:
            with suppress(KeyError):
                self._poll.unregister(self._contained.reports)
            self._on_report(self._contained)
            self._contained.reports.close()
            self._contained = None
            # Nothing is left in there. One that was killed could not report how the command ended.
            self._on_ended(status)

    def _on_report(self, contained: Contained) -> None:
        if (status := contained.report()) is not None:
            self._on_ended(status)

    def _on_ended(self, status: int) -> None:
        if self._has_ended:
            return
        if self._failure >= 0:
            self._learn_whether_it_started()
        self._has_ended = True
        self._say(f"ended {status}")

    # The end ---------------------------------------------------------------------------------

    def _read_lease(self) -> tuple[float, float]:
        return unpack_lease(os.pread(self._lease, LEASE_BYTES, 0))

    def _watch_the_lease(self) -> None:
        nothing_runs = self._has_ended and self._contained is None
        if not self._pid or nothing_runs or self._busy is not None:
            return
        until, _ = self._read_lease()
        if not self._keeper_is_there or (until and since_boot() >= until):
            self._stop(self._grace())

    def _grace(self) -> float:
        return int(sys.argv[4]) / 1000

    def _stop(self, grace: float) -> None:
        """Stop everything. Killed is, in any case, before another may have the seat."""
        if isinstance(self._busy, Stopping):
            return
        now = since_boot()
        _, ends = self._read_lease()
        if ends > now:
            grace = min(grace, max(GRACE_MIN_SECONDS, ends - KILL_EARLY_SECONDS - now))
        self._busy = Stopping(
            now=now, grace=grace, ask_with=signal.SIGTERM, first_pid=self._pid
        )
        self._say("stopping")

    def _sweep(self, number: int, grace: float) -> None:
        if self._busy is None and self._order is not None:
            own = self._order.own_group
            self._busy = Sweeping(
                now=since_boot(),
                grace=grace,
                ask_with=number,
                group=self._pid if own else int(sys.argv[5]),
                first_pid=self._pid,
            )

    def _finish(self) -> None:
        busy, self._busy = self._busy, None
        if isinstance(busy, Stopping):
            self._has_ended = True
            self._say(f"stopped {busy.left}")
        elif busy is not None:
            self._say(f"swept {busy.left}")

    def _remove(self) -> None:
        """Remove the token's folder: the keeper did not live to do it."""
        folder = self._order.remove if self._order is not None else b""
        if not folder:
            return
        try:
            for name in os.listdir(folder):
                os.unlink(os.path.join(folder, name))
            os.rmdir(folder)
        except OSError:
            return


def _leave(own: Iterable[int], *, own_session: bool) -> None:
    """Leave the terminal, the user's files and the folder that we were started in.

    Where there is no terminal, we stay in the session: the kernel lets TSTP stop only a group that
    somebody outside of it, and in its session, looks after.
    """
    with suppress(OSError):  # the leader of a group already
        if own_session:
            os.setsid()
        else:
            os.setpgid(0, 0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)
    before = 3
    for descriptor in (*sorted(own), _descriptors_max()):
        os.closerange(before, descriptor)
        before = descriptor + 1
    with suppress(OSError):
        os.chdir("/")
    # Only root may; the command, forked before, is as it was.
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as opened:
        opened.write("-1000")


def _descriptors_max() -> int:
    try:
        return max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    except (OSError, ValueError):
        return min(os.sysconf("SC_OPEN_MAX"), 1 << 16)


def _become(
    order: Order, parent: int, waits: int, fails: int, notify: Callable[[], None]
) -> NoReturn:
    """Become the command: what it inherits is what it would have found without us."""
    try:
        if order.own_group:
            os.setpgid(0, 0)
        die_with_parent(signal.SIGKILL)
        notify()
        if os.getppid() != parent or os.read(waits, 1) != b"g":
            os._exit(1)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
            # Python ignores the first two, and has a handler for the last.
            if number not in order.ignored:
                signal.signal(number, signal.SIG_DFL)
        signal.signal(
            signal.SIGCHLD,
            signal.SIG_IGN if signal.SIGCHLD in order.ignored else signal.SIG_DFL,
        )
        reset_hidden_signals()
        for standard in order.closed:
            os.close(standard)
        signal.pthread_sigmask(signal.SIG_SETMASK, order.blocked)
        _execute(order)
    except OSError as error:
        os.write(fails, b"%d" % (error.errno or errno.EINVAL))
    except BaseException:
        os.write(fails, b"%d" % errno.EINVAL)
    os._exit(127)


def _execute(order: Order) -> None:
    """Do what ``execvp`` of C does; Python's does not know programs without ``#!``."""
    name = order.command[0]
    if b"/" in name:
        places = [name]
    else:
        path = order.environment.get(b"PATH")
        folders = (path or os.fsencode(os.defpath)).split(b":")
        places = [os.path.join(folder or b".", name) for folder in folders]
    worst = errno.ENOENT
    for place in places:
        try:
            os.execve(place, order.command, order.environment)
        except OSError as error:
            if error.errno == errno.ENOEXEC and not _is_binary(place):
                words = [b"/bin/sh", place, *order.command[1:]]
                os.execve(b"/bin/sh", words, order.environment)
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                continue
            worst = error.errno or errno.EINVAL
            if error.errno != errno.EACCES:
                break
    raise OSError(worst, "")


def _is_binary(place: bytes) -> bool:
    """Return whether a shell would read nonsense: as bash decides it."""
    try:
        with open(place, "rb") as opened:
            return b"\0" in opened.read(256).partition(b"\n")[0]
    except OSError:
        return True


def main() -> None:
    """Be the watchdog.

    Arguments: socket, shared memory, the keeper, its grace (ms), its group, 1 to contain the command.
    """
    control, lease, keeper = (int(word) for word in sys.argv[1:4])
    for descriptor in (control, lease):
        os.set_inheritable(descriptor, False)
    adopt_orphans()
    Watchdog(control, lease, keeper, contains=sys.argv[6] == "1").run()
