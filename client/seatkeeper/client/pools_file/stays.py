"""For how long seats are kept, in ``pools.yaml``: what is wrong with it, and how it is written."""

from __future__ import annotations

from collections.abc import Iterator

from seatkeeper.core.amounts import exact_seconds
from seatkeeper.core.stay import KEYS
from seatkeeper.v1 import pool_service_pb2 as pb

NEEDS_ONE = f"needs one of {', '.join(KEYS)}: for how long seats are kept"


def stay_fields(rule: pb.StayRule) -> Iterator[tuple[str, str]]:
    """Yield the keys of a rule and what they say, in seconds."""
    for key in KEYS:
        if rule.HasField(key):  # type: ignore[arg-type]  # one of its fields
            yield key, exact_seconds(getattr(rule, key).ToTimedelta())
