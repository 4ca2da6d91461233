"""When a pool calls lent seats back, as text and as a message."""

from __future__ import annotations

import re
from datetime import timedelta

from seatkeeper.core.amounts import exact_seconds
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.reclaim import HOURLY_DEFAULT, MINIMUM_HOLD_DEFAULT
from seatkeeper.v1 import pool_service_pb2 as pb

NO_RECLAIM = "none"
EXAMPLE = "notice=60,minimum_hold=600,hourly=20"
_SECONDS = re.compile(r"(\d{1,9})(?:\.(\d{1,6}))?", re.ASCII)
_KEYS = ("notice", "minimum_hold", "hourly")


def parse_reclaim(text: str) -> pb.ReclaimRule:
    """Return what ``text`` says, such as ``notice=60,minimum_hold=600,hourly=20``.

    Times in seconds; all but ``notice`` may be left out. ``none``: an empty message. Raises
    `InvalidArgument` for what cannot be read; whether the values make sense is for a node to say.
    """
    if text.strip() == NO_RECLAIM:
        return pb.ReclaimRule()
    found: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = (each.strip() for each in part.partition("="))
        if not equals or key not in _KEYS or key in found:
            raise InvalidArgument(
                f"reclaim: {part[:100]!r} is not one of {', '.join(_KEYS)}, each once, as in "
                f"{EXAMPLE}, or {NO_RECLAIM}"
            )
        found[key] = value
    if "notice" not in found:
        raise InvalidArgument(f"reclaim: {text[:100]!r} gives no notice=SECONDS")
    rule = pb.ReclaimRule(hourly=HOURLY_DEFAULT)
    rule.minimum_hold.FromTimedelta(MINIMUM_HOLD_DEFAULT)
    rule.notice.FromTimedelta(_seconds("notice", found["notice"]))
    if "minimum_hold" in found:
        rule.minimum_hold.FromTimedelta(_seconds("minimum_hold", found["minimum_hold"]))
    if "hourly" in found:
        hourly = found["hourly"]
        if not (hourly.isascii() and hourly.isdecimal() and len(hourly) < 10):
            raise InvalidArgument(
                f"reclaim: hourly={hourly[:100]} is no whole number from 0 on"
            )
        rule.hourly = int(hourly)
    return rule


def reclaim_text(rule: pb.ReclaimRule) -> str:
    """Return the text that `parse_reclaim` reads it from."""
    notice = exact_seconds(rule.notice.ToTimedelta())
    hold = exact_seconds(rule.minimum_hold.ToTimedelta())
    return f"notice={notice},minimum_hold={hold},hourly={rule.hourly}"


def _seconds(key: str, text: str) -> timedelta:
    match = _SECONDS.fullmatch(text)
    if match is None:
        raise InvalidArgument(
            f"reclaim: {key}={text[:100]} is no number of seconds, with at most 6 digits after a "
            "point"
        )
    micros = int((match[2] or "").ljust(6, "0"))
    return timedelta(seconds=int(match[1]), microseconds=micros)
