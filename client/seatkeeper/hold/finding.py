"""Whether a command can be run: everything about it that can be known before there is a seat."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass

HEAD_BYTES = 256
"""How much of a file the kernel looks at to know what it is."""
ENVIRONMENT_BYTES_MORE = 4096
"""What the command gets from us in its environment, at most."""
ARGUMENT_BYTES_MAX = 131_072
"""The kernel's limit of one argument, or one variable: 32 pages."""


@dataclass(frozen=True)
class Problem:
    """Why a command cannot be run."""

    message: str
    is_missing: bool
    """Whether it was not found; otherwise it was, and cannot be executed."""


def find_problem(command: list[str]) -> Problem | None:
    """Return why ``command`` cannot be run, as a shell would say it; None when it can.

    What is found here may change until it is run. That is an error as well, and later.
    """
    name = command[0]
    if not name:
        return Problem("the command's name is empty", is_missing=True)
    if os.sep in name:
        places = [name]
    else:
        places = [os.path.join(folder or ".", name) for folder in os.get_exec_path()]
    found = [place for place in places if _is_file(place)]
    if not found:
        if os.sep in name and os.path.isdir(name):
            return Problem(f"{name}: is a folder", is_missing=False)
        return Problem(f"{name}: command not found", is_missing=True)
    place = next((place for place in found if os.access(place, os.X_OK)), None)
    if place is None:
        return Problem(f"{name}: not executable (chmod +x?)", is_missing=False)
    why = _cannot_be_read_as_program(place) or _is_too_long(command)
    return None if why is None else Problem(f"{name}: {why}", is_missing=False)


def explain_start(name: str, number: int) -> Problem:
    """Return why starting ``name`` failed, by the kernel's error number."""
    missing = number in (errno.ENOENT, errno.ENOTDIR)
    return Problem(f"{name}: {os.strerror(number)}", is_missing=missing)


def _is_file(place: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(place).st_mode)
    except (OSError, ValueError):
        return False


def _cannot_be_read_as_program(place: str) -> str | None:
    """Return why the kernel, or `/bin/sh` for what has no ``#!``, cannot run it."""
    try:
        with open(place, "rb") as opened:
            head = opened.read(HEAD_BYTES)
    except OSError:
        return None  # a program need not be readable
    if head.startswith(b"#!"):
        interpreter = (head[2:].split(b"\n")[0].split() or [b""])[0]
        if not os.path.isabs(interpreter) or os.path.exists(interpreter):
            return None
        return f"bad interpreter {os.fsdecode(interpreter)}: no such file"
    line = head.partition(b"\n")[0]
    if b"\0" in line and not head.startswith(b"\x7fELF") and not _is_registered():
        return "cannot be executed: its format is unknown"
    return None


def _is_registered() -> bool:
    """Return whether the kernel may know more formats (``binfmt_misc``: Java, Wine, QEMU)."""
    try:
        return bool(set(os.listdir("/proc/sys/fs/binfmt_misc")) - {"register", "status"})
    except OSError:
        return False


def _is_too_long(command: list[str]) -> str | None:
    """Return why the kernel cannot take the arguments with the environment that they will get."""
    words = [os.fsencode(word) for word in command]
    words += [name + b"=" + value for name, value in os.environb.items()]
    if any(len(word) >= ARGUMENT_BYTES_MAX for word in words):
        return f"an argument, or a variable, is longer than {ARGUMENT_BYTES_MAX} bytes"
    pointer = 8
    total = sum(len(word) + 1 + pointer for word in words) + ENVIRONMENT_BYTES_MORE
    if total > os.sysconf("SC_ARG_MAX"):
        return "the argument list is too long; give the arguments in a file"
    return None
