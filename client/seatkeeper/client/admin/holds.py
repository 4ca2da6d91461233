"""How long seats of a pool may be held, as text and as a message."""

from __future__ import annotations

import re
from datetime import timedelta

from seatkeeper.core.amounts import exact_seconds
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.instants import parse_length
from seatkeeper.v1 import pool_service_pb2 as pb

NO_HOLD = "none"
EXAMPLE = "longest=8h,warning=10m"
_SECONDS = re.compile(r"(\d{1,9})(?:\.(\d{1,6}))?", re.ASCII)
_KEYS = ("longest", "idle", "warning")


def parse_hold(text: str) -> pb.HoldRule:
    """Return what ``text`` says, such as ``longest=8h,warning=10m`` or ``idle=30m,warning=5m``.

    Lengths as in `parse_length`, or a number of seconds. ``none``: an empty message. Raises
    `InvalidArgument` for what cannot be read; whether the values make sense is for a node to say.
    """
    rule = pb.HoldRule()
    if text.strip() == NO_HOLD:
        return rule
    found: set[str] = set()
    for part in text.split(","):
        key, equals, value = (each.strip() for each in part.partition("="))
        if not equals or key not in _KEYS or key in found:
            raise InvalidArgument(
                f"hold: {part[:100]!r} is not one of {', '.join(_KEYS)}, each once, as in {EXAMPLE}, "
                f"or {NO_HOLD}"
            )
        found.add(key)
        getattr(rule, key).FromTimedelta(length_of("hold", key, value))
    if not rule.HasField("warning"):
        raise InvalidArgument(f"hold: {text[:100]!r} gives no warning=LENGTH")
    return rule


def hold_text(rule: pb.HoldRule) -> str:
    """Return the text that `parse_hold` reads it from."""
    said = [field.name for field, _ in rule.ListFields()]
    said.sort(key=_KEYS.index)
    return ",".join(f"{key}={exact_seconds(getattr(rule, key).ToTimedelta())}" for key in said)


def with_hold(policy: pb.PoolPolicy, rule: pb.HoldRule | None) -> None:
    """Change how long seats may be held; None: as before; empty: as long as holders like."""
    if rule is None:
        return
    policy.ClearField("hold")
    if rule.ByteSize():
        policy.hold.CopyFrom(rule)


def length_of(what: str, key: str, text: str) -> timedelta:
    """Return a length of time, or a number of seconds; ``what`` and ``key`` say of what.

    Raises `InvalidArgument`.
    """
    if (found := _SECONDS.fullmatch(text)) is not None:
        micros = int((found[2] or "").ljust(6, "0"))
        return timedelta(seconds=int(found[1]), microseconds=micros)
    try:
        return parse_length(text)
    except ValueError as error:
        raise InvalidArgument(f"{what}: {key}={text[:100]}: {error}") from None
