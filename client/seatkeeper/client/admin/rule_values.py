"""Rules of a pool as text: keys and values, such as ``longest=8h,warning=10m``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta

from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.instants import parse_length

NONE = "none"
"""What says that a pool has no such rule."""
_SECONDS = re.compile(r"(\d{1,9})(?:\.(\d{1,6}))?", re.ASCII)


def values_in(rule: str, text: str, keys: Sequence[str], example: str) -> dict[str, str]:
    """Return what a text gives for the keys of a rule; nothing: it is ``none``.

    Raises `InvalidArgument` for other keys, and for one that is given twice.
    """
    found: dict[str, str] = {}
    if text.strip() == NONE:
        return found
    for part in text.split(","):
        key, equals, value = (each.strip() for each in part.partition("="))
        if not equals or key not in keys or key in found:
            raise InvalidArgument(
                f"{rule}: {part[:100]!r} is not one of {', '.join(keys)}, each once, as in {example}, "
                f"or {NONE}"
            )
        found[key] = value
    return found


def seconds_in(text: str) -> timedelta | None:
    """Return a number of seconds, with at most six digits after a point; None: it is none."""
    if (found := _SECONDS.fullmatch(text)) is None:
        return None
    micros = int((found[2] or "").ljust(6, "0"))
    return timedelta(seconds=int(found[1]), microseconds=micros)


def length_of(rule: str, key: str, text: str) -> timedelta:
    """Return a length of time as in `parse_length`, or a number of seconds.

    Raises `InvalidArgument`.
    """
    if (seconds := seconds_in(text)) is not None:
        return seconds
    try:
        return parse_length(text)
    except ValueError as error:
        raise InvalidArgument(f"{rule}: {key}={text[:100]}: {error}") from None


def is_whole(text: str) -> bool:
    """Return whether a text is a whole number from 0 on, of a size that a rule may have."""
    return text.isascii() and text.isdecimal() and len(text) < 10
