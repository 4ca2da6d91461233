"""How long seats of a pool may be held, as text and as a message."""

from __future__ import annotations

from seatkeeper.client.admin.rule_values import length_of, values_in
from seatkeeper.core.amounts import exact_seconds
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.v1 import pool_service_pb2 as pb

EXAMPLE = "longest=8h,warning=10m"
_KEYS = ("longest", "idle", "warning")


def parse_hold(text: str) -> pb.HoldRule:
    """Return what ``text`` says, such as ``longest=8h,warning=10m`` or ``idle=30m,warning=5m``.

    Lengths as in `parse_length`, or a number of seconds. ``none``: an empty message. Raises
    `InvalidArgument` for what cannot be read; whether the values make sense is for a node to say.
    """
    rule = pb.HoldRule()
    values = values_in("hold", text, _KEYS, EXAMPLE)
    for key, value in values.items():
        getattr(rule, key).FromTimedelta(length_of("hold", key, value))
    if values and not rule.HasField("warning"):
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
