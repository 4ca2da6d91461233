"""How seats of a pool are borrowed, in ``pools.yaml``: from what the reader found, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from google.protobuf.duration_pb2 import Duration

from seatkeeper.core.amounts import exact_seconds
from seatkeeper.core.borrowing import SKEW_DEFAULT
from seatkeeper.v1 import pool_service_pb2 as pb


def borrow_of(values: Mapping[str, object]) -> pb.BorrowRule:
    """Return the message of what the keys are given."""
    rule = pb.BorrowRule()
    rule.skew.FromTimedelta(SKEW_DEFAULT)
    for key, value in values.items():
        if isinstance(value, Duration):
            getattr(rule, key).CopyFrom(value)
        elif isinstance(value, Mapping):
            if any(value.values()):
                getattr(rule, key).CopyFrom(pb.Who(**value))
        else:
            setattr(rule, key, value)
    return rule


def borrow_fields(policy: pb.PoolPolicy) -> Iterator[tuple[str, str]]:
    """Yield the keys of a policy's rule and what they say, lengths in seconds."""
    if not policy.HasField("borrow"):
        return
    rule = policy.borrow
    yield "longest", exact_seconds(rule.longest.ToTimedelta())
    if rule.HasField("seats"):
        yield "seats", str(rule.seats)
    if rule.low_water:
        yield "low_water", str(rule.low_water)
    if rule.HasField("per_project"):
        yield "per_project", str(rule.per_project)
    yield (
        "skew",
        exact_seconds(rule.skew.ToTimedelta() if rule.HasField("skew") else SKEW_DEFAULT),
    )
