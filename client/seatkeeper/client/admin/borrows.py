"""How seats of a pool are borrowed, as text and as a message."""

from __future__ import annotations

import re
from datetime import timedelta

from seatkeeper.core.borrowing import SKEW_DEFAULT, BorrowRule
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.instants import parse_length
from seatkeeper.v1 import pool_service_pb2 as pb

NO_BORROW = "none"
EXAMPLE = "longest=30d,seats=5"
_SECONDS = re.compile(r"(\d{1,9})(?:\.(\d{1,6}))?", re.ASCII)
_LENGTHS, _NUMBERS = ("longest", "skew"), ("seats", "low_water")


def parse_borrow(text: str) -> pb.BorrowRule:
    """Return what ``text`` says, such as ``longest=30d,seats=5,low_water=2,skew=10m``.

    Lengths as in `parse_length`, or a number of seconds. ``none``: an empty message. Raises
    `InvalidArgument` for what cannot be read; whether the values make sense is for a node to say.
    """
    rule = pb.BorrowRule()
    if text.strip() == NO_BORROW:
        return rule
    found: set[str] = set()
    for part in text.split(","):
        key, equals, value = (each.strip() for each in part.partition("="))
        if not equals or key not in (*_LENGTHS, *_NUMBERS) or key in found:
            names = ", ".join((*_LENGTHS, *_NUMBERS))
            raise InvalidArgument(
                f"borrow: {part[:100]!r} is not one of {names}, each once, as in {EXAMPLE}, or "
                f"{NO_BORROW}"
            )
        found.add(key)
        if key in _LENGTHS:
            getattr(rule, key).FromTimedelta(_length(key, value))
        else:
            setattr(rule, key, _number(key, value))
    if not rule.HasField("longest"):
        raise InvalidArgument(f"borrow: {text[:100]!r} gives no longest=LENGTH")
    return rule


def borrow_rule(message: pb.BorrowRule) -> BorrowRule:
    """Return the rule in a message."""
    return BorrowRule(
        message.longest.ToTimedelta(),
        message.seats if message.HasField("seats") else None,
        message.skew.ToTimedelta() if message.HasField("skew") else SKEW_DEFAULT,
        message.low_water,
    )


def borrow_text(message: pb.BorrowRule) -> str:
    """Return the text that `parse_borrow` reads it from."""
    return str(borrow_rule(message))


def with_borrow(policy: pb.PoolPolicy, rule: pb.BorrowRule | None) -> None:
    """Change how seats are borrowed; None: as before; empty: none are."""
    if rule is None:
        return
    policy.ClearField("borrow")
    if rule.ByteSize():
        policy.borrow.CopyFrom(rule)


def _number(key: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidArgument(f"borrow: {key}={text[:100]} is no number from 0 on")
    return int(text)


def _length(key: str, text: str) -> timedelta:
    if (found := _SECONDS.fullmatch(text)) is not None:
        micros = int((found[2] or "").ljust(6, "0"))
        return timedelta(seconds=int(found[1]), microseconds=micros)
    try:
        return parse_length(text)
    except ValueError as error:
        raise InvalidArgument(f"borrow: {key}={text[:100]}: {error}") from None
