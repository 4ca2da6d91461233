"""How a pool's lots are used now, for gauges."""

from __future__ import annotations

from seatkeeper.core.lot_use import cost_so_far
from seatkeeper.core.lots import LotKind, LotState
from seatkeeper.server.domain import PoolSpec, PoolState
from seatkeeper.server.events.observer import LotCount


def lot_counts(spec: PoolSpec, state: PoolState, now: int) -> tuple[LotCount, ...]:
    """Return the lots in force, with what is held and what bursts have cost. From any thread."""
    return tuple(
        LotCount(
            *(lot.name, lot.kind.value, state.marked.by_lot[lot.name, lot.began_at]),
            cost=cost_so_far(lot, now) if lot.kind is LotKind.BURST else None,
            currency=lot.price.currency if lot.price is not None else "",
        )
        for lot in spec.lots.lots
        if lot.state is LotState.IN_FORCE
    )
