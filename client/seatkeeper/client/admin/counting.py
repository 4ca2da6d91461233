"""How a pool counts requests, as text and as messages: whether it is advisory, and what seats cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from seatkeeper.core.errors import InvalidArgument
from seatkeeper.v1 import pool_service_pb2 as pb

NONE = "none"


def parse_costs(texts: Iterable[str]) -> dict[str, int]:
    """Return what texts say, such as ``a100=4`` and ``t4=1``; ``none`` alone: no costs.

    Raises `InvalidArgument` for what cannot be read; whether the values make sense is for a node to
    say.
    """
    texts = [part.strip() for text in texts for part in text.split(",")]
    if texts == [NONE]:
        return {}
    costs: dict[str, int] = {}
    for text in texts:
        name, equals, value = (each.strip() for each in text.partition("="))
        if not equals or not name:
            raise InvalidArgument(f"{text[:100]!r} is not CLASS=N, and {NONE} stands alone")
        if name in costs:
            raise InvalidArgument(f"cost class {name} is given twice")
        if not (value.isascii() and value.isdecimal() and len(value) < 10):
            raise InvalidArgument(f"{name}={value[:100]} is no whole number from 0 on")
        costs[name] = int(value)
    return costs


def parse_count_once(texts: Iterable[str]) -> list[str]:
    """Return what texts say, such as ``holder`` and ``label:display``; ``none`` alone: nothing."""
    named = [part.strip() for text in texts for part in text.split(",")]
    return [] if named == [NONE] else named


def costs_text(counting: pb.Counting) -> str:
    """Return a text that `parse_costs` reads the costs from."""
    return ",".join(f"{each.name}={each.seats}" for each in counting.costs) or NONE


def with_counting(
    policy: pb.PoolPolicy, advisory: bool | None, costs: Mapping[str, int] | None
) -> None:
    """Change how a pool counts. None: it stays; ``costs`` take the place of all there are."""
    counting = pb.Counting()
    counting.CopyFrom(policy.counting)
    if advisory is not None:
        counting.advisory = advisory
    if costs is not None:
        del counting.costs[:]
        for name, seats in costs.items():
            counting.costs.add(name=name, seats=seats)
    policy.ClearField("counting")
    if counting.ByteSize():
        policy.counting.CopyFrom(counting)
