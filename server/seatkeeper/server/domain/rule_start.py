"""What is to come of a pool's lots: whether its rule starts a burst now, and what begins next. Pure.

Nodes, replays, and the answer to why a request waits ask alike.
"""

from __future__ import annotations

from collections.abc import Iterable

from seatkeeper.core.lots import LotState
from seatkeeper.core.rule_bursts import obstacle
from seatkeeper.server.domain.state import PoolSpec
from seatkeeper.server.domain.wait_counts import WaitCounts, is_long


def may_start(spec: PoolSpec | None, now: int) -> bool:
    """Return whether a pool's rule may start a burst, whatever the waits are."""
    return (
        spec is not None
        and bool(spec.lots.rule)
        and spec.drain is None
        and not obstacle(spec.lots, now)
    )


def is_wanted(
    spec: PoolSpec, waits: WaitCounts, waiting_since: Iterable[int], now: int
) -> bool:
    """Return whether the waits are long enough for the rule, which there is."""
    rule = spec.lots.rule
    assert rule is not None
    return is_long(waits, rule, waiting_since, now)


def why_no_burst(spec: PoolSpec, now: int) -> str:
    """Return why the pool's rule starts no burst, whatever the waits are; empty: it may start one."""
    return "the pool is drained" if spec.drain is not None else obstacle(spec.lots, now)


def begins_next(spec: PoolSpec) -> tuple[int, str, int] | None:
    """Return when the next contract or burst begins, its name and its seats; None: none is to come."""
    to_come = [
        (lot.begins or 0, lot.name, lot.seats)
        for lot in spec.lots.lots
        if lot.state is LotState.PENDING
    ]
    return min(to_come, default=None)
