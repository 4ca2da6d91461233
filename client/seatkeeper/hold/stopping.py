"""Stops every process below this one, finds them in more than one way, and verifies the end.

Theory of operation
-------------------
The stopping process is the reaper of orphans (`linux.adopt_orphans`), so whatever the command started,
however deep, in whatever group or session, stays a descendant. Hence an exact test of the end, which
needs neither ``/proc`` nor rights: *a reaper without children has no descendants*, and the kernel
answers ``waitid`` with ECHILD then. All ways to find processes only serve to reach that:

1. the command's own process group, where it has one: reached in one call, also while it forks;
2. ``/proc``: all descendants, at once;
3. without ``/proc``, or when it hides some: the kernel is asked of each process number whether it is a
   child of ours. Those that are killed leave their own children to us, which are found next.

Asked to end are those that exist when the stopping begins. What they start meanwhile to clean up
is not, and like everything else is killed when the grace is over, again and again until
nothing is left or `KILL_SECONDS_MAX` are over: a process may be stuck in a device, or have
become another user's.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable

from seatkeeper.hold.linux import send, send_to_group

POLL_SECONDS = 0.02
KILL_SECONDS_MAX = 5.0
"""How long the kernel has to carry out a SIGKILL; a process may be stuck in a device."""
PID_MAX = 4_194_304
"""The kernel's own limit."""
_WALL = 0x40000000
"""``waitid``: also children that were made by other means than fork."""


class Stopping:
    """Asks, waits, kills, and looks whether anything is left. `step` it every `POLL_SECONDS`."""

    def __init__(self, *, now: float, grace: float, ask_with: int, first_pid: int) -> None:
        """``first_pid``: the command; processes are looked for from there on."""
        self._kill_at = now + grace
        self._ask_with = ask_with
        self._first_pid = first_pid
        self._asked = False
        self.left = 0
        """How many were still there when we gave up."""

    def step(self, now: float) -> bool:
        """Do what is due; return whether it is over."""
        if not has_children():
            return True
        if not self._asked:
            self._asked = True
            self._notify(self._find(), self._ask_with)
            return not has_children()
        if now >= self._kill_at:
            self._notify(self._find(), signal.SIGKILL)
            if now >= self._kill_at + KILL_SECONDS_MAX:
                self.left = max(1, len(self._find()))
                return True
        return False

    def _find(self) -> list[int]:
        found = descendants()
        # A /proc that shows nothing of ours is none, or hides us.
        return found or children_by_asking(self._first_pid)

    def _notify(self, pids: list[int], number: int) -> None:
        group = self._first_pid
        # Only where one of ours is in it: the number may have been given to a stranger since.
        ours = any(group_of(pid) == group for pid in pids)
        group_signalled = ours and own_group(group, number)
        for pid in pids:
            if group_signalled and group_of(pid) == group:
                continue
            send(pid, number)
            if number != signal.SIGKILL:
                send(pid, signal.SIGCONT)


class Sweeping:
    """Forwards a signal that ended the command to the processes it left in its group."""

    def __init__(
        self, *, now: float, grace: float, ask_with: int, group: int, first_pid: int
    ) -> None:
        self._kill_at = now + grace
        self._ask_with = ask_with
        self._group = group
        self._first_pid = first_pid
        self._asked = False
        self.left = 0

    def step(self, now: float) -> bool:
        """Do what is due; return whether it is over."""
        number = self._ask_with if not self._asked else signal.SIGKILL
        members = [pid for pid in self._find() if group_of(pid) == self._group]
        if not members:
            return True
        if now >= self._kill_at + KILL_SECONDS_MAX:
            self.left = len(members)
            return True
        if not self._asked or now >= self._kill_at:
            self._asked = True
            for pid in members:
                send(pid, number)
                if number != signal.SIGKILL:
                    send(pid, signal.SIGCONT)
        return False

    def _find(self) -> list[int]:
        found = descendants()
        if found is None:
            return children_by_asking(self._first_pid) if has_children() else []
        return found


def own_group(pid: int, number: int) -> bool:
    """Send ``number`` to the group that ``pid`` leads, unless it is ours; return whether it was."""
    if os.getpgrp() == pid or not send_to_group(pid, number):
        return False
    if number != signal.SIGKILL:
        send_to_group(pid, signal.SIGCONT)
    return True


def has_children() -> bool:
    """Return whether there is any process below this one; an ended one counts until it is reaped."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL)
    except ChildProcessError:
        return False
    return True


def reap(ended: Callable[[int, int], None]) -> None:
    """Take note of all children that have ended: call ``ended(pid, status)`` for each."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | _WALL)
        except ChildProcessError:
            return
        if pid == 0:
            return
        ended(pid, status)


def descendants() -> list[int] | None:
    """Return the processes that we and ours started; None: there is no ``/proc`` that knows us.

    Also those that seem to have ended: one whose first thread has ended may run in others.
    """
    children: dict[int, list[int]] = {}
    seen_ourselves = False
    try:
        entries = os.listdir("/proc")
    except OSError:
        return None
    for entry in entries:
        if not entry.isdigit():
            continue
        if (parent := _parent_of(entry)) is None:
            continue
        seen_ourselves = seen_ourselves or int(entry) == os.getpid()
        children.setdefault(parent, []).append(int(entry))
    if not seen_ourselves:
        return None
    found = list(children.get(os.getpid(), ()))
    for pid in found:
        found.extend(children.get(pid, ()))
    return found


def running(pids: Iterable[int]) -> list[int]:
    """Return those of ``pids`` that have not ended, as far as ``/proc`` shows."""
    return [pid for pid in pids if (_stat(str(pid)) or ["Z"])[0] not in ("Z", "X")]


def children_by_asking(first_pid: int) -> list[int]:
    """Return our own children, without ``/proc``: by asking the kernel of each number.

    Numbers are given out in order, and from the start again after the last; so those between
    ``first_pid`` and the newest come first, and mostly are enough.
    """
    newest = _newest_pid()
    if newest >= first_pid:
        found = [pid for pid in range(first_pid, newest + 1) if is_child(pid)]
        if found:
            return found
        return [pid for pid in range(2, first_pid) if is_child(pid)]
    wrapped = (*range(2, newest + 1), *range(first_pid, PID_MAX))
    return [pid for pid in wrapped if is_child(pid)]


def is_child(pid: int) -> bool:
    """Return whether ``pid`` is a child of ours, ended or not."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL)
    except OSError:
        return False
    return True


def group_of(pid: int) -> int:
    """Return the process group of ``pid``; -1 when it is gone."""
    try:
        return os.getpgid(pid)
    except OSError:
        return -1


def _newest_pid() -> int:
    """Return the number that was given out last: threads and processes share one counter."""
    numbers: list[int] = []
    probe = threading.Thread(target=lambda: numbers.append(threading.get_native_id()))
    probe.start()
    probe.join()
    return numbers[0]


def _stat(pid: str) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as opened:
            text = opened.read()
    except OSError:
        return None
    # The name may hold anything, also blanks and brackets; what follows it does not.
    fields = text.rpartition(b")")[2].split()
    return [field.decode() for field in fields] if len(fields) > 1 else None


def _parent_of(pid: str) -> int | None:
    fields = _stat(pid)
    return int(fields[1]) if fields is not None and fields[1].isdigit() else None
