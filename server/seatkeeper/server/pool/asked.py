"""A request for seats as it comes from a client, and the command that it is."""

from __future__ import annotations

from datetime import timedelta

from seatkeeper.core.validate import check_id_age
from seatkeeper.server.domain import Acquire, Attribution, Instant, TakeOver
from seatkeeper.server.sessions.sessions import Session
from seatkeeper.server.wire.gangs import seats_of
from seatkeeper.server.wire.validate import check_acquire
from seatkeeper.v1 import seat_pb2


def asked(
    request: seat_pb2.Acquire,
    session: Session,
    host: str,
    now: Instant,
    *,
    wait_max: timedelta | None,
    heeds_reclaim: bool,
) -> Acquire | TakeOver:
    """Return the command that a session's request is. Raises ``Malformed``.

    ``host``: the client's, where the pool looks at that; ``wait_max``: how long a request without a
    wait waits; ``heeds_reclaim``: whether who asks is who renews, and so learns of reclaims.
    """
    check_acquire(request)
    check_id_age("grant_id", request.grant_id, now)
    heeds_within = session.ttl if session.heeds_reclaim and heeds_reclaim else None
    if request.take_over:
        return TakeOver(
            *(request.grant_id, session.session_id, session.lease_id, session.holder),
            taken_id=request.take_over,
            host=host,
            heeds_within=heeds_within,
        )
    wait = request.wait.ToTimedelta() if request.HasField("wait") else wait_max
    return Acquire(
        grant_id=request.grant_id,
        session_id=session.session_id,
        lease_id=session.lease_id,
        attribution=Attribution.asked(
            request, holder=session.holder, project=session.project, host=host
        ),
        seats=seats_of(request),
        wait=wait,
        may_wait=wait is None or wait > timedelta(0),
        heeds_within=heeds_within,
    )
