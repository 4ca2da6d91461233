"""The calls of Linux that Python has no function for, and those that old kernels lack."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x2, 0x4, 0x8
MS_REC, MS_SLAVE = 0x4000, 0x80000

_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent(number: int) -> None:
    """Ask the kernel to send us ``number`` when the thread that started us is gone."""
    _libc.prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of whatever our descendants leave behind."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def unshare(flags: int) -> None:
    """Leave namespaces: ours for mounts, those of our next children for PIDs. Raises ``OSError``."""
    _check(_libc.unshare(flags))


def enter(descriptor: int, kind: int) -> None:
    """Enter a namespace, or have our next children in it. Raises ``OSError``."""
    _check(_libc.setns(descriptor, kind))


def mount_own_proc() -> None:
    """Have a ``/proc`` of our PID namespace, in our mount namespace alone. Raises ``OSError``.

    What is mounted outside later is seen here as well.
    """
    _check(_libc.mount(b"none", b"/", None, MS_REC | MS_SLAVE, None))
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
    _check(_libc.mount(b"proc", b"/proc", b"proc", flags, None))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def reset_hidden_signals() -> None:
    """Let 32 and 33 be as they are by default: ``posix_spawn`` of the GNU C library ignores them.

    The C library uses them itself and hides them, so only the kernel can be asked.
    """
    number_of_call = {"x86_64": 13, "aarch64": 134}.get(os.uname().machine)
    if number_of_call is not None:
        for hidden in (32, 33):
            _libc.syscall(number_of_call, hidden, ctypes.create_string_buffer(64), None, 8)


def since_boot() -> float:
    """Return seconds since boot, those included for which the machine was suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def open_process(pid: int) -> int | None:
    """Return a descriptor of a process, readable once it has ended; None: the kernel has none."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        # Old or restricted kernels. A process that is gone is noticed by its parent otherwise.
        return None


def send(pid: int, number: int, *, descriptor: int | None = None) -> bool:
    """Send a signal; return False where the process is gone or became another user's (sudo).

    With a ``descriptor`` it cannot reach a process that was given the number since.
    """
    try:
        if descriptor is None:
            os.kill(pid, number)
        else:
            signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    return True


def handles(pid: int, number: int) -> bool:
    """Return whether a process has a handler for a signal, or keeps it back to read it itself.

    One that has neither would be ended by most signals. False when that cannot be found out.
    """
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
            said = dict(line.split(":", 1) for line in status if ":" in line)
        masks = int(said["SigCgt"], 16) | int(said["SigBlk"], 16)
    except (OSError, KeyError, ValueError):
        return False
    return bool(masks >> (number - 1) & 1)


def keep_going(child: int) -> None:
    """Continue a child of ours where somebody has stopped it."""
    with suppress(OSError):
        if os.waitid(os.P_PID, child, os.WSTOPPED | os.WNOHANG):
            send(child, signal.SIGCONT)


def send_to_group(group: int, number: int) -> bool:
    """Send a signal to a process group; return False if no process in it can be reached."""
    try:
        os.killpg(group, number)
    except OSError:
        return False
    return True
