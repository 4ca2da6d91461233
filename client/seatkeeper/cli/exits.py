"""Exit codes, the same for every command, and how a command fails.

They follow sysexits.h where that has a fitting one, so that a script can distinguish "try again" from
"fix the command". `seatkeeper --help` lists them; `failures` says which error has which.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from enum import IntEnum
from typing import NoReturn, Self

from seatkeeper.cli.encoding import as_json
from seatkeeper.core.text import printable


class Exit(IntEnum):
    """Exit codes, each with what it means."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Self:
        """Make a code that knows what it means."""
        self = int.__new__(cls, code)
        self._value_ = code
        self.meaning = meaning
        return self

    OK = (0, "Done.")
    FAILED = (1, "Something went wrong that has no code of its own.")
    USAGE = (2, "The command line, or an argument, is wrong; trying again will not help.")
    DIFFERS = (
        3,
        "`pool plan --exit-code`: the file would change something. `import`: something has no "
        "counterpart.",
    )
    REFUSED = (65, "The input was refused: a bad model, a bad token, a damaged engine.")
    NOT_FOUND = (66, "What was named does not exist: a pool, an engine, a file.")
    UNAVAILABLE = (69, "No node, agent or store answered; trying again may help.")
    NO_SEAT = (75, "No seat became free in time; trying again may help.")
    SEAT_LOST = (76, "The seat was lost while in use; what was run has been stopped.")
    CONFIG = (78, "A setting is wrong, or something to install is missing.")
    NOT_EXECUTABLE = (126, "`run`: the command was found and cannot be executed.")
    NO_COMMAND = (127, "`run`: the command was not found.")
    INTERRUPTED = (130, "Interrupted by Ctrl-C; 128+N: ended by signal N, as a shell shows it.")


def exit_codes() -> str:
    """Return the table of exit codes, for the end of a help text."""
    lines = [f"  {code:>3}  {code.meaning}" for code in Exit]
    return "\n".join(["Exit codes:", *lines])


HOW_COMMANDS_FAIL = (
    "A command that fails says why at the end of standard error. With `--json` its last line there "
    "is an object: `event` is `failed`, `error` says why in words, `exit_code` and `exit_name` are "
    "from this table. Of what it ran and of the seat it held, `run` reports by its events `ended` "
    "and `lost` instead."
)
"""For every command, and for the documentation."""

NEW_LINE = "\n"
"""Some reasons have several lines."""

_as_json = False


def fail_in_json(wanted: bool) -> None:
    """Decide for whom `fail` writes from now on: for programs, or else for people."""
    global _as_json  # one command a process, and it can fail anywhere
    _as_json = wanted


def fail(code: Exit, message: str) -> NoReturn:
    """End the command: ``message`` on standard error, then exit with ``code``."""
    say_failed(code, message)
    raise SystemExit(int(code))


def say_interrupted(number: int, message: str) -> None:
    """Say by which signal we end, and what became of what we held."""
    say_failed(Exit.INTERRUPTED, f"ended by {name_of(number)}: {message}", as_code=128 + number)


def name_of(number: int) -> str:
    """Return a signal's name; one of real time has only its number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def say_failed(code: Exit, message: str, *, as_code: int | None = None) -> None:
    """Write ``message`` on standard error, as the last that the command says."""
    if _as_json:
        failed = {
            "exit_code": int(code if as_code is None else as_code),
            "exit_name": code.name,
        }
        reported = as_json({"event": "failed", "error": message} | failed)
    else:
        reported = f"seatkeeper: {printable(message, keep=NEW_LINE)}"
    print(reported, file=sys.stderr)


class EndedBySignal(SystemExit):
    """Ends the command as a signal ends it, once all that it held is given back.

    Without `die_of`, the exit code is the one that a shell would show.
    """

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = int(number)


def die_of(number: int) -> NoReturn:
    """Die of a signal, as if we had not caught it.

    A shell that runs a script or a loop ends it after Ctrl-C only when the command *died* of it:
    a command that exits with 130 has handled it, and the shell goes on.
    """
    with suppress(OSError, ValueError, ImportError):
        # QUIT leaves no image of our memory, with its tokens: the user has asked another program.
        import resource

        resource.setrlimit(
            resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1])
        )
    with suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
    # The first process of a container does not die of signals.
    os._exit(128 + number)
