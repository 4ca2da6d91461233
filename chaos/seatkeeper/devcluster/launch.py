"""Starts programs that die when we do: nodes, agents, etcd."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# Python has no safe way to run anything between fork and exec while there are threads, so a small
# program does what must be done there, and becomes the program. Python ignores SIGPIPE; programs
# expect it to end them.
_LAUNCHER = """
import ctypes, os, signal, sys
parent, command = int(sys.argv[1]), sys.argv[2:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
    if number != signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
os.execvp(command[0], command)
"""


def launched(command: Sequence[str]) -> list[str]:
    """Return what to start in place of ``command``, so that it dies when we do, however we die.

    To be started from a thread that lives as long as we do: the kernel counts threads.
    """
    launcher = (sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()))
    return [*launcher, *command]
