"""Text that any terminal, pipe or file takes, whatever the locale says of it."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from typing import Any


def take_any_text() -> None:
    r"""Have standard output and error escape what their encoding lacks, as ``\xe9``, forever.

    Output is no reason to fail, least of all under a seat: ``LC_ALL=C`` knows only ASCII, and a name
    of a file may hold what no encoding has.
    """
    for stream in (sys.stdout, sys.stderr):
        # None where it is closed; of another kind where a program runs our commands within itself.
        with suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a stream of text that may be replaced by any other


def as_json(value: Any, *, indent: int | None = None) -> str:  # noqa: ANN401  # anything that JSON has
    r"""Return JSON in ASCII: the same under every locale, and harmless on a terminal.

    Whatever is not ASCII is one of JSON's escapes, which a reader undoes. Text stays data: nothing is
    replaced. A byte of a file's name that is not UTF-8 is a lone ``\udce9``, of which Python's
    ``os.fsencode`` makes that byte again.
    """
    return json.dumps(value, indent=indent)
