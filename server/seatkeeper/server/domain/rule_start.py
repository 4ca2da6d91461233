"""Whether a pool's rule starts a burst now: what nodes and replays ask alike. Pure."""

from __future__ import annotations

from collections.abc import Iterable

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
