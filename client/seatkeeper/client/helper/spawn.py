"""Starts a helper: a fresh interpreter that nothing of this process leaks into.

It must work in programs of all kinds: with standard streams closed, a working directory that is
gone, modules that shadow the standard library's, signals blocked or ignored, few descriptors.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import socket
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import google.protobuf
import grpc

from seatkeeper.client.helper.slots import TABLE_BYTES, boot_ms
from seatkeeper.core.errors import HelperLost

READY_SECONDS_MAX = 30.0
"""How long a helper may take to start. A machine under load needs seconds for the imports."""
STDERR_TAIL_BYTES = 2000
_BUSY = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Refusals that pass: they are reported when a helper is started, and are no reason to do without."""

# The first process ends at once: the helper has no parent, so no program waits for it by
# mistake (`os.wait()`), and none has to. Until the modules of ours are imported, only what is in
# every Python is used, of the interpreter's own folders.
_LAUNCHER = """
import os, signal, sys
for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD,
        signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP,
        signal.SIGSYS, signal.SIGCONT, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}:
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
signal.pthread_sigmask(signal.SIG_SETMASK, [])
if os.fork():
    os._exit(0)
import json, struct
def exactly(size):
    data = b""
    while len(data) < size:
        more = os.read(int(sys.argv[1]), size - len(data))
        if not more:
            os._exit(0)
        data += more
    return data
reported = json.loads(exactly(struct.unpack("!I", exactly(4))[0]))
# Python's own modules first, which nothing may shadow; then packages in the program's own order.
own = [entry for entry in sys.path if not entry.endswith(("site-packages", "dist-packages"))]
sys.path[:] = dict.fromkeys([*own, *reported["path"], *sys.path])
import types
for name, path in reported["packages"].items():
    sys.modules[name] = package = types.ModuleType(name)
    package.__path__ = path
from seatkeeper.client.helper.main import main
main(*map(int, sys.argv[1:]))
"""


@dataclass
class Helper:
    """What a program has of its helper."""

    socket: socket.socket
    memory: mmap.mmap
    asked_at_ms: int
    """When it was asked for, by the clock that both must read."""
    errors: int
    """A descriptor of what the helper prints, in memory."""

    def stderr_tail(self) -> str:
        """Return the end of what it printed; empty where it printed nothing."""
        try:
            size = os.fstat(self.errors).st_size
            data = os.pread(self.errors, STDERR_TAIL_BYTES, max(0, size - STDERR_TAIL_BYTES))
        except OSError:
            return ""
        return data.decode(errors="replace").strip()

    def close(self) -> None:
        """Let go of it. The memory stays, for the grants that still read it."""
        self.socket.close()
        if self.errors >= 0:
            os.close(self.errors)
            self.errors = -1


def why_none() -> str:
    """Return why no helper can be had here; empty where one can."""
    if sys.platform != "linux":
        return "it needs Linux"
    if getattr(sys, "frozen", False):
        return "this program is one file, with no Python interpreter to start"
    name = Path(sys.executable or "").name.lower()
    if not name.startswith(("python", "pypy")):
        return f"sys.executable is no Python interpreter: {sys.executable!r}"
    try:
        os.close(os.pidfd_open(os.getpid()))
        os.close(os.memfd_create("seatkeeper"))
    except OSError as error:
        if error.errno in _BUSY:
            return ""
        return f"the kernel refuses pidfd_open or memfd_create: {error.strerror}"
    return ""


def start() -> Helper:
    """Start a helper; it is not ready yet. Raises `HelperLost` when that fails."""
    ours: list[int] = []
    theirs: list[int] = []
    began = boot_ms()
    try:
        here, there = socket.socketpair()
        ours.append(_high(here.detach()))
        theirs.append(_high(there.detach()))
        memory = _high(os.memfd_create("seatkeeper"))
        theirs.append(memory)
        os.ftruncate(memory, TABLE_BYTES)
        # Of this process itself, so that no other can ever be meant by the number.
        theirs.append(_high(os.pidfd_open(os.getpid())))
        ours.append(_high(os.memfd_create("seatkeeper-helper")))
        errors = ours[1]
        table = mmap.mmap(memory, TABLE_BYTES, prot=mmap.PROT_READ)
        _spawn(theirs, errors)
        helper = Helper(socket.socket(fileno=ours[0]), table, began - 1, errors)
        ours.clear()
        _send_paths(helper)
        return helper
    except (OSError, subprocess.SubprocessError) as error:
        raise HelperLost(
            f"the helper process could not be started: {error}; free what it needs, or make the "
            'client with ClientConfig(keeper="process")'
        ) from error
    finally:
        for number in (*ours, *theirs):
            os.close(number)


def _spawn(theirs: list[int], errors: int) -> None:
    command = [sys.executable, "-I", "-c", _LAUNCHER, *map(str, theirs)]
    # A session of its own: what a terminal sends to the program is not meant for the helper.
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        cwd="/",
        pass_fds=theirs,
        start_new_session=True,
        restore_signals=True,
    )
    try:
        child.wait(READY_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        raise
    if child.returncode:
        words = os.pread(errors, STDERR_TAIL_BYTES, 0).decode(errors="replace").strip()
        raise OSError(f"{sys.executable} ended with {child.returncode}: {words or 'no words'}")


def _send_paths(helper: Helper) -> None:
    # What is relative or empty means another folder there, and may hold anything here.
    path = [entry for entry in sys.path if isinstance(entry, str) and os.path.isabs(entry)]
    # In front, the places where this process found what the helper needs: files that have come to
    # shadow it since are not what runs here.
    found = [Path(grpc.__file__).parents[1], Path(google.protobuf.__file__).parents[2]]
    path = [*map(str, found), *path]
    # The very code that runs here; and without the parts that only users of the library need.
    packages = {
        name: [str(entry) for entry in sys.modules[name].__path__]
        for name in ("seatkeeper", "seatkeeper.client")
    }
    reported = json.dumps({"path": path, "packages": packages}).encode()
    try:
        helper.socket.settimeout(READY_SECONDS_MAX)
        helper.socket.sendall(struct.pack("!I", len(reported)) + reported)
    except OSError:
        helper.close()
        raise


def _high(number: int) -> int:
    """Return the descriptor, moved out of the way of the standard streams if those are closed."""
    # Not everywhere; this code runs on Linux only.
    import fcntl

    if number > 2:
        return number
    moved = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(number)
    return moved
