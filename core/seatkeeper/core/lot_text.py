"""What a pool's lots come to, for people who read or change its specification."""

from __future__ import annotations

from seatkeeper.core.amounts import count
from seatkeeper.core.instants import instant_shown
from seatkeeper.core.lot_messages import decode_lots
from seatkeeper.core.projects import PoolPolicy, ProjectShare
from seatkeeper.v1 import pool_service_pb2 as pb


def has_lots(spec: pb.PoolSpec) -> bool:
    """Return whether a pool has lots, or a rule that starts bursts, by its specification."""
    return bool(spec.lots.lots) or spec.lots.burst_rule.seats > 0


def plain_seats(spec: pb.PoolSpec) -> int:
    """Return the seats that a pool has without a contract, by its specification."""
    return spec.lots.seats if has_lots(spec) else spec.seats


def shortfall_text(spec: pb.PoolSpec, now_millis: int) -> str:
    """Return from when on guarantees are not covered by a pool's lots; empty: they always are."""
    lots = decode_lots(spec.lots)
    policy = PoolPolicy(
        tuple(
            ProjectShare(project=each.project, guaranteed=each.guaranteed, parent=each.parent)
            for each in spec.policy.projects
        )
    )
    guaranteed = sum(policy.guaranteed[name] for name in policy.parts.get("", ()))
    found = lots.shortfall(guaranteed, now_millis) if lots else None
    if found is None:
        return ""
    at, seats = found
    when = "now" if at <= now_millis else f"from {instant_shown(at)} on"
    return (
        f"{when}, the {guaranteed} guaranteed seats are more than the {count(seats, 'seat')} in "
        "force: projects share what there is, and no guarantee is refused for it"
    )
