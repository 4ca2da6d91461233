"""Between for how long seats are kept and its message, and checks of requests about it. Pure."""

from __future__ import annotations

from datetime import timedelta

from seatkeeper.core.stay import KEYS, LINGER_MAX, LOSS_MAX, STAY_MIN, StayRule
from seatkeeper.core.validate import Malformed, check_duration
from seatkeeper.v1 import pool_service_pb2


def encode_stay(rule: StayRule) -> pool_service_pb2.StayRule:
    """Return the message for a rule."""
    message = pool_service_pb2.StayRule()
    for key in KEYS:
        time: timedelta | None = getattr(rule, key)
        if time is not None:
            getattr(message, key).FromTimedelta(time)
    return message


def decode_stay(message: pool_service_pb2.StayRule) -> StayRule:
    """Return the rule in a message."""
    given = {field.name for field, _ in message.ListFields()}
    return StayRule(
        *(getattr(message, key).ToTimedelta() if key in given else None for key in KEYS)
    )


def check_stay(rule: pool_service_pb2.StayRule) -> None:
    """Check for how long seats of a pool are kept."""
    where = "spec.policy.stay"
    given = {field.name for field, _ in rule.ListFields()}
    for name, most, text in (
        ("linger", LINGER_MAX, "1 s to 90 days"),
        ("resurrection", LOSS_MAX, "1 s to 1 day"),
        ("lock_delay", LOSS_MAX, "1 s to 1 day"),
    ):
        if name in given:
            check_duration(f"{where}.{name}", getattr(rule, name), STAY_MIN, most, text)
    for name, why in decode_stay(rule).faults():
        raise Malformed(f"{where}.{name}" if name else where, why)


def kept_by(was_released: bool, may_return: bool) -> str:
    """Return the name of the rule by which seats are kept."""
    if was_released:
        return "linger"
    return "resurrection" if may_return else "lock_delay"
