"""The grants that one client holds, by grant id, and their ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from datetime import timedelta

from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.session.lease import Lease
from seatkeeper.client.session.reclaiming import Recall
from seatkeeper.client.session.requests import CLIENT_CLOSED, Held, PendingRequest
from seatkeeper.client.transport.translate import as_duration, seconds
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb


def longest_hold(granted: seat_pb2.Granted) -> timedelta | None:
    """Return after how long a grant is called back by its pool; None: it is not."""
    if not granted.HasField("longest_hold"):
        return None
    return timedelta(seconds=seconds(granted.longest_hold))


class Holdings:
    """What is held, and which of it may be called back."""

    def __init__(self, *, kills: bool) -> None:
        """``kills``: a grant that is lost ends this process at that moment."""
        self._kills = kills
        self.held: dict[str, Held] = {}
        """All of it."""
        self.recallable: dict[str, Held] = {}
        """Those of them whose seats may be called back: each has a ``recall``."""

    def hold(
        self, ask: PendingRequest, granted: seat_pb2.Granted, lease: Lease, sent_at: float
    ) -> Held:
        """Hand seats to their caller, who asked for them, or had them confirmed, at ``sent_at``."""
        self.held[ask.grant_id] = held = Held(
            grant_id=ask.grant_id,
            wanted=ask.wanted,
            fence=granted.fence,
            token=granted.token,
            granted_at=granted.granted_at,
            lease=lease,
            on_state=ask.on_state,
            holder=granted.holder,
            project=granted.project,
            longest_hold=longest_hold(granted),
            notice=granted.notice,
            granted_seats=granted.seats,
        )
        if granted.reclaimable and lease.view is not None:
            held.recall = Recall.of(lease.view, sent_at)
            self.recallable[ask.grant_id] = held
        ask.future.set_result(held)
        return held

    def make_recallable(self, grant_id: str, now: float) -> Held | None:
        """Have a grant confirmed from now on that could not be called back; None: it is not held.

        Nothing is taken before a renewal has named it, which is sent after ``now``.
        """
        held = self.held.get(grant_id)
        view = held.lease.view if held is not None and isinstance(held.lease, Lease) else None
        if held is None or view is None:
            return None
        held.recall = Recall.of(view, now)
        self.recallable[grant_id] = held
        return held

    def forget(self, grant_id: str) -> Held | None:
        """Take a grant out that is given back; return it."""
        self.recallable.pop(grant_id, None)
        return self.held.pop(grant_id, None)

    def activity(self, now: float) -> list[pb.GrantActivity]:
        """Return for how long nothing was done with what programs report on."""
        return [
            pb.GrantActivity(
                grant=pb.GrantRef(pool=held.pool, grant_id=held.grant_id),
                idle_for=as_duration(max(0.0, now - held.active_at)),
            )
            for held in self.recallable.values()
            if held.active_at is not None
        ]

    def notify(self, state: HoldingState) -> None:
        """Notify every holder, but for those who know that their seats are called back."""
        for held in list(self.held.values()):
            if held.called is None:
                held.notify(state)

    def keep_tokens(self, refreshed: Iterable[pb.TokenRefresh]) -> None:
        """Keep new tokens."""
        for refresh in refreshed:
            held = self.held.get(refresh.grant.grant_id)
            if held is not None:
                held.renew_token(refresh.token)

    def lose(self, held: Held, message: str) -> None:
        """End a grant, and notify its holder."""
        self.forget(held.grant_id)
        held.lost = message
        if self._kills and message != CLIENT_CLOSED:
            os.kill(os.getpid(), signal.SIGKILL)
        held.notify(HoldingState.LOST)

    def lose_all(self, message: str) -> None:
        """End every grant."""
        for held in list(self.held.values()):
            self.lose(held, message)
