"""How long seats of a pool may be held, in ``pools.yaml``: its faults, and how it is written."""

from __future__ import annotations

from collections.abc import Iterator

from seatkeeper.core.amounts import exact_seconds
from seatkeeper.core.hold import HoldRule
from seatkeeper.v1 import pool_service_pb2 as pb

_KEYS = ("longest", "idle", "warning")


def hold_faults(rule: pb.HoldRule) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a rule whose values are within their bounds: the key, and why."""
    return HoldRule(
        rule.warning.ToTimedelta(),
        rule.longest.ToTimedelta() if rule.HasField("longest") else None,
        rule.idle.ToTimedelta() if rule.HasField("idle") else None,
    ).faults()


def hold_fields(rule: pb.HoldRule) -> Iterator[tuple[str, str]]:
    """Yield the keys of a rule and what they say, in seconds."""
    for key in _KEYS:
        if rule.HasField(key):  # type: ignore[arg-type]  # one of its fields
            yield key, exact_seconds(getattr(rule, key).ToTimedelta())
