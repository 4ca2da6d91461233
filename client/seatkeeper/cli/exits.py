"""Exit codes, the same for every command, and how a command fails.

They follow sysexits.h where that has a fitting one, so that a script can tell "try again" from
"mend the command".
"""

from __future__ import annotations

import sys
from enum import IntEnum
from typing import NoReturn


class Exit(IntEnum):
    """Exit codes."""

    OK = 0
    FAILED = 1
    """Something went wrong that has no code of its own."""
    USAGE = 2
    """The command line, or an argument, is wrong; trying again will not help."""
    REFUSED = 65
    """The input was refused: a bad model, a bad token, a damaged engine."""
    NOT_FOUND = 66
    """What was named does not exist: a pool, an engine, a file."""
    UNAVAILABLE = 69
    """No node, agent or store answered; trying again may help."""
    NO_SEAT = 75
    """No seat became free in time; trying again may help."""
    SEAT_LOST = 76
    """The seat was lost while it was in use; what was run has been stopped."""
    CONFIG = 78
    """A setting is wrong; the message names it."""


def fail(code: Exit, message: str) -> NoReturn:
    """End the command: ``message`` on standard error, then exit with ``code``."""
    print(f"seatkeeper: {message}", file=sys.stderr)
    raise SystemExit(int(code))
