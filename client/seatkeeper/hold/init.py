"""Contains a command: a PID namespace that ends with its init, and so with the watchdog.

Theory of operation
-------------------
The watchdog forks the *init*: pid 1 of a new PID namespace, in a mount namespace with a ``/proc`` that
shows what is in it. The init forks the command, pid 2. However the init ends, the kernel then kills
all that is in the namespace, whatever group, session or parent it has; and the init dies with the
watchdog (a parent-death signal). So where watchdog and ``run`` are killed at once, nothing goes on.

The init does nothing else: it has all signals blocked, reaps, reports how the command ended, and ends
when nothing is left. What the command leaves behind keeps it, until the watchdog stops that.

*Process ids.* The watchdog must know the command by the number that it has outside. The command says
one word on a socket, and the kernel adds the sender's number as the receiver sees it.

*Reports*, each a packet: ``forked`` by the command, ``failed ERRNO`` and ``ended STATUS`` by the init.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from seatkeeper.hold.linux import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    die_with_parent,
    enter,
    mount_own_proc,
    unshare,
)

REPORT_BYTES = 64
START_SECONDS_MAX = 10.0
"""How long the command's process may take to be there; the init is killed then."""
INIT = 1
"""The pid of an init, and so of the command's parent, as the command sees it."""
_CREDENTIALS = struct.Struct("iII")
_WALL = 0x40000000
"""``waitpid``: also children that were made by other means than fork."""


@dataclass(frozen=True)
class Contained:
    """A command in a namespace of its own; process ids are those outside of it."""

    init: int
    pid: int
    reports: socket.socket

    def report(self) -> int | None:
        """Return the wait status of the command; None: the init ended without reporting it."""
        try:
            words = self.reports.recv(REPORT_BYTES).split()
        except OSError:
            return None
        return int(words[1]) if words[:1] == [b"ended"] else None


def start_contained(
    become: Callable[[Callable[[], None]], NoReturn], detach: Callable[[int], None]
) -> Contained:
    """Start a command in a namespace of its own; raises ``OSError``. Call it from one thread only.

    ``become`` makes a process the command, and calls what it is given once its group is as it is to be.
    ``detach`` takes from the init all that is the user's, but for one descriptor.
    """
    reports, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reports.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    here = os.open("/proc/self/ns/pid", os.O_RDONLY)
    init = 0
    try:
        unshare(CLONE_NEWPID)
        try:
            init = os.fork()
            if init == 0:
                reports.close()
                _be_init(theirs, become, detach)
        finally:
            # Whatever else we fork is not to be in there; and no thread may start meanwhile.
            enter(here, CLONE_NEWPID)
        theirs.close()
        return Contained(init, _pid_of_command(reports), reports)
    except BaseException:
        reports.close()
        if init:
            with suppress(OSError):
                os.kill(init, signal.SIGKILL)
                os.waitpid(init, 0)
        raise
    finally:
        theirs.close()
        os.close(here)


def why_not_contain() -> OSError | None:
    """Return why no command could be contained here, found by doing it; None: it can be."""

    def become(notify: Callable[[], None]) -> NoReturn:
        notify()
        os._exit(0)

    try:
        tried = start_contained(become, lambda _: None)
    except OSError as error:
        return error
    tried.reports.close()
    os.waitpid(tried.init, 0)
    return None


def _pid_of_command(reports: socket.socket) -> int:
    reports.settimeout(START_SECONDS_MAX)
    said, extra, _, _ = reports.recvmsg(REPORT_BYTES, socket.CMSG_SPACE(_CREDENTIALS.size))
    reports.settimeout(None)
    words = said.split()
    if words[:1] == [b"failed"]:
        number = int(words[1])
        raise OSError(number, os.strerror(number))
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS) and words:
            pid, _, _ = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])
            return int(pid)
    raise OSError(errno.ECHILD, "the init of the namespace ended")


def _be_init(
    reports: socket.socket,
    become: Callable[[Callable[[], None]], NoReturn],
    detach: Callable[[int], None],
) -> NoReturn:
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        # A watchdog that is gone by now never lets the command go on: it waits for its word.
        die_with_parent(signal.SIGKILL)
        unshare(CLONE_NEWNS)
        mount_own_proc()
        command = os.fork()
        if command == 0:
            become(lambda: _say(reports, b"forked"))
        detach(reports.fileno())
        os._exit(_look_after(command, reports))
    except OSError as error:
        _say(reports, b"failed %d" % (error.errno or errno.EINVAL))
    finally:
        os._exit(1)


def _look_after(command: int, reports: socket.socket) -> int:
    """Reap until nothing is left; return the command's exit code, as shells show it."""
    code = 0
    while True:
        try:
            pid, status = os.waitpid(-1, _WALL)
        except ChildProcessError:
            return code
        if pid == command:
            code = os.waitstatus_to_exitcode(status)
            code = code if code >= 0 else 128 - code
            _say(reports, b"ended %d" % status)


def _say(reports: socket.socket, words: bytes) -> None:
    # Without a listener the watchdog is dead, and this process ends too.
    with suppress(OSError):
        reports.send(words)
