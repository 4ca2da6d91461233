"""For how long seats are kept that were released or lost, as text and as a message."""

from __future__ import annotations

from seatkeeper.client.admin.rule_values import length_of, values_in
from seatkeeper.core.amounts import exact_seconds
from seatkeeper.core.stay import KEYS
from seatkeeper.v1 import pool_service_pb2 as pb

EXAMPLE = "linger=10m,lock_delay=15"


def parse_stay(text: str) -> pb.StayRule:
    """Return what ``text`` says, such as ``linger=10m,resurrection=2m,lock_delay=15``.

    Lengths as in `parse_length`, or a number of seconds. ``none``: an empty message. Raises
    `InvalidArgument` for what cannot be read; whether the values make sense is for a node to say.
    """
    rule = pb.StayRule()
    for key, value in values_in("stay", text, KEYS, EXAMPLE).items():
        getattr(rule, key).FromTimedelta(length_of("stay", key, value))
    return rule


def stay_text(rule: pb.StayRule) -> str:
    """Return the text that `parse_stay` reads it from."""
    said = {field.name for field, _ in rule.ListFields()}
    return ",".join(
        f"{key}={exact_seconds(getattr(rule, key).ToTimedelta())}"
        for key in KEYS
        if key in said
    )


def with_stay(policy: pb.PoolPolicy, rule: pb.StayRule | None) -> None:
    """Change for how long seats are kept; None: as before; empty: they are not."""
    if rule is None:
        return
    policy.ClearField("stay")
    if rule.ByteSize():
        policy.stay.CopyFrom(rule)
