"""Cuts a worker off from the network, and from every process but its own, where the kernel allows.

Linux has namespaces for both. ``enter`` makes three processes of one::

    relay     the child that the agent knows; waits, and ends as the worker did
    └── init      the first process of the namespace: when it ends, the kernel ends all others in it
        └── worker    returns from `enter`; what it starts cannot get out, by ``setsid`` either

The relay has ended only when nothing is left in the namespace. A user namespace around them takes
away what the agent's user may do to the agent: read its memory and environment, or trace it. It is also
what lets a user other than root make the others. Containers often allow none of it.
"""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import os
import select
import signal
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

WRAPPERS = 2
"""Processes around an isolated worker: relay and init."""

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000
_SIGNALLED = 128
"""An init that ends with this and a signal's number says that the worker died of it."""


class IsolationRefused(Exception):
    """The kernel, or a rule of this container, does not allow it."""


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process; one that the kernel does not know is left out."""
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def enter() -> None:
    """Go on in a process that sees no network and no process but its own children.

    The caller must have one thread, and no child. Raises ``IsolationRefused``; then this process may be
    good for nothing but saying so.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        _unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWPID)
        _map_ids(user, group)
    except OSError as error:
        raise IsolationRefused(_explained(error)) from error
    alive, alive_end = os.pipe()
    if (init := os.fork()) != 0:
        os.close(alive)
        _relay(init)
    os.close(alive_end)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if select.select([alive], [], [], 0)[0]:
        os._exit(1)  # the relay died before we asked to die with it
    if (worker := os.fork()) != 0:
        _reap(worker)
    os.close(alive)


def _unshare(flags: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _map_ids(user: int, group: int) -> None:
    """Stay who we were: without a map, every file is a stranger's."""
    own = Path("/proc/self")
    with suppress(FileNotFoundError):  # older kernels have no such rule
        (own / "setgroups").write_text("deny")
    (own / "uid_map").write_text(f"{user} {user} 1")
    (own / "gid_map").write_text(f"{group} {group} 1")


def _relay(init: int) -> NoReturn:
    """Wait until the namespace is empty, and end as the worker did."""
    code = os.waitstatus_to_exitcode(os.waitpid(init, 0)[1])
    number = -code if code < 0 else code - _SIGNALLED
    if number > 0:
        faulthandler.disable()
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(code)


def _reap(worker: int) -> NoReturn:
    """Wait for the worker, and for the orphans that the kernel gives to an init meanwhile."""
    while True:
        pid, status = os.wait()
        if pid == worker:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else _SIGNALLED - code)


def _explained(error: OSError) -> str:
    reasons = {
        errno.EPERM: "not permitted here, as in many containers",
        errno.EINVAL: "this kernel has no such namespaces",
        errno.ENOSPC: "the limit on namespaces is reached (/proc/sys/user)",
    }
    return reasons.get(error.errno or 0, error.strerror or "the kernel refuses")
