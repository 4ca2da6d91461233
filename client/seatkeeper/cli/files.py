"""Files that the user names to be written to."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from seatkeeper.cli.exits import Exit, fail

if TYPE_CHECKING:
    from seatkeeper.client.builds.output import Output

STANDARD_OUTPUT = "/dev/stdout"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def written(text: str) -> Path:
    """Return the file that an option means which names one to write; ``-`` is standard output.

    Read from the text: a path does not distinguish ``./-``, which is a file, from ``-``.
    """
    return Path(STANDARD_OUTPUT if text == "-" else text)


def bytes_of(path: Path, flag: str, most: int) -> bytes:
    """Return what is in a file; of one with more than ``most`` bytes so much that it shows.

    One that cannot be read ends the command.
    """
    try:
        with path.open("rb") as file:
            return file.read(most + 1)
    except FileNotFoundError:
        fail(Exit.NOT_FOUND, f"{flag} {path}: there is no such file")
    except OSError as error:
        fail(Exit.USAGE, f"{flag} {path}: {error.strerror}")


def outputs_at(
    files: Mapping[str, Path | None], *, inputs: Mapping[str, Path], as_json: bool
) -> dict[str, Output]:
    """Return where to write, by option, for those that are given.

    Ends the command unless all can be written to, are different files, and none is what is read: before
    long work, not at the end of it.
    """
    from seatkeeper.client.builds.output import Output, check_apart
    from seatkeeper.core.errors import InvalidArgument

    found: dict[str, Output] = {}
    for flag, path in files.items():
        if path is None:
            continue
        try:
            found[flag] = Output.at(path)
        except InvalidArgument as error:
            fail(_code_of(error.__cause__), f"{flag} {error}")
        if as_json and found[flag].is_standard_output:
            fail(Exit.USAGE, f"{flag} {path}: with --json, standard output is for the JSON")
    try:
        check_apart(found, {name: os.fspath(path) for name, path in inputs.items()})
    except InvalidArgument as error:
        fail(Exit.USAGE, str(error))
    return found


def _code_of(cause: BaseException | None) -> Exit:
    if isinstance(cause, FileNotFoundError):
        return Exit.NOT_FOUND
    no_room = isinstance(cause, OSError) and cause.errno in _NO_ROOM
    return Exit.FAILED if no_room else Exit.USAGE
