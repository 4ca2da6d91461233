"""Events of a session stream on their way to the wire. Tokens are signed here, ahead if possible."""

from __future__ import annotations

from collections.abc import Iterable

from seatkeeper.server.domain import Denied, Grant, Released
from seatkeeper.server.pool.subscribers import (
    Position,
    SeatsCalledBack,
    SeatsGranted,
    SeatsLost,
    Update,
)
from seatkeeper.server.service.seat_api import Core
from seatkeeper.server.sessions.sessions import Session
from seatkeeper.server.wire.denials import encode_basis, encode_denied, fill_estimate
from seatkeeper.server.wire.reclaims import fill_reclaiming
from seatkeeper.v1 import seat_pb2, seat_service_pb2

EXPECTED_MAX = 1024
"""Grants signed ahead of their commit."""
Event = seat_service_pb2.SessionEvent
Unencoded = Event | tuple[str, Update]
"""An event, or what becomes one: a pool's name, and what happened there."""


class EventEncoder:
    """Makes the events of one stream."""

    def __init__(self, core: Core, certificate_sha256: bytes | None) -> None:
        """Sign tokens that are bound to the client's certificate, if it has one."""
        self._core = core
        self._certificate_sha256 = certificate_sha256
        self._signed: dict[tuple[str, Grant], seat_pb2.Granted] = {}
        self._without_token: set[tuple[str, str]] = set()
        """Requests whose grants need no token, by pool and grant id."""

    def want_token(self, name: tuple[str, str], *, wanted: bool) -> None:
        """Note whether the client wants a token with the grant of that name."""
        if wanted:
            self._without_token.discard(name)
        else:
            self._without_token.add(name)

    def expect(self, session: Session, pool: str, grant: Grant) -> None:
        """Sign a grant's token while the store commits the grant."""
        if (pool, grant.grant_id) in self._without_token:
            return
        if len(self._signed) >= EXPECTED_MAX:  # grants whose commit failed
            self._signed.clear()
        signed = self._signed[pool, grant] = seat_pb2.Granted()
        self._fill_granted(signed, session, pool, grant)

    def encode(
        self, session: Session | None, events: Iterable[Unencoded]
    ) -> seat_service_pb2.SessionResponse:
        """Return the message of some events. Signs tokens: done here, while the next batch commits."""
        response = seat_service_pb2.SessionResponse()
        for unencoded in events:
            self.fill(response.events.add(), session, unencoded)
        return response

    def fill(self, event: Event, session: Session | None, unencoded: Unencoded) -> None:
        """Fill in one event, in its place in the message: a copy costs as much as the event."""
        if isinstance(unencoded, Event):
            event.CopyFrom(unencoded)
            return
        pool, update = unencoded
        assert session is not None, "pools have nothing to say to a stream without a session"
        match update:
            case SeatsGranted(grant):
                # Of this very grant only: what was signed for one that came to nothing is no proof.
                expected = self._signed.pop((pool, grant), None) if self._signed else None
                if expected is not None:
                    event.granted.CopyFrom(expected)
                else:
                    self._fill_granted(event.granted, session, pool, grant)
            case Released(grant_id):
                event.released.grant_id = grant_id
            case Position(grant_id, position, estimate, basis, waits_for_work):
                queued = seat_pb2.Queued(
                    grant_id=grant_id,
                    position=position,
                    basis=encode_basis(basis),
                    waits_for_work=waits_for_work,
                )
                fill_estimate(queued, estimate)
                event.queued.CopyFrom(queued)
            case Denied():
                event.denied.CopyFrom(encode_denied(update))
            case SeatsCalledBack(grant_id, reclaim):
                fill_reclaiming(event.reclaiming, pool, grant_id, reclaim)
            case SeatsLost(grant_id, message, is_forced, is_reclaimed):
                reason = seat_pb2.LOST_REASON_SESSION_EXPIRED
                if is_forced:
                    reason = seat_pb2.LOST_REASON_FORCED
                if is_reclaimed:
                    reason = seat_pb2.LOST_REASON_RECLAIMED
                lost = seat_pb2.Lost(grant_id=grant_id, reason=reason, message=message)
                event.lost.CopyFrom(lost)

    def _fill_granted(
        self, granted: seat_pb2.Granted, session: Session, pool: str, grant: Grant
    ) -> None:
        with_token = (pool, grant.grant_id) not in self._without_token
        certificate = self._certificate_sha256
        self._core.fill_granted(
            *(granted, pool, grant, session, certificate), with_token=with_token
        )
