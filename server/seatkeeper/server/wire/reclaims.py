"""What clients are shown of a grant that is called back."""

from __future__ import annotations

from seatkeeper.server.domain import Reclaim
from seatkeeper.v1 import seat_pb2


def fill_reclaiming(
    message: seat_pb2.Reclaiming, pool: str, grant_id: str, reclaim: Reclaim | None
) -> None:
    """Fill in what a holder learns of a reclaim; None: its seats are not called back any more."""
    message.pool = pool
    message.grant_id = grant_id
    if reclaim is not None:
        message.within.FromTimedelta(reclaim.within)
        message.message = reclaim.message
        message.rule = reclaim.cause
