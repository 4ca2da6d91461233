"""What to do about a refused request. Pure: the time and the wait before a retry are passed in."""

from __future__ import annotations

from dataclasses import dataclass

from seatkeeper.client.session.requests import PendingRequest
from seatkeeper.client.transport.translate import from_denied
from seatkeeper.core.errors import SeatError
from seatkeeper.v1 import seat_pb2

REASKS_MAX = 8
"""How often one request gets a new id because its old one was completed."""

_Reason = seat_pb2.DenialReason


@dataclass(frozen=True, slots=True)
class AskAnew:
    """Ask now, under a new id: this one is completed, and nothing is held under it."""


@dataclass(frozen=True, slots=True)
class AskLater:
    """Ask again at that time."""

    at: float
    refusal: SeatError
    """What to say when there will be no answer."""
    anew: bool
    """Under a new id. Not where the outcome is unknown: two grants might be made then."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Notify the caller."""

    error: SeatError


def next_step(
    ask: PendingRequest, denied: seat_pb2.Denied, now: float, delay: float
) -> AskAnew | AskLater | GiveUp:
    """Decide about a refusal that came at ``now``; ``delay`` is how long to wait before a retry."""
    error = from_denied(denied)
    match denied.reason:
        case _Reason.DENIAL_REASON_FINISHED if ask.attempt < REASKS_MAX:
            return AskAnew()
        case _Reason.DENIAL_REASON_UNAVAILABLE if now + delay < ask.expires_at:
            return AskLater(now + delay, error, anew=False)
        case _Reason.DENIAL_REASON_OVERLOADED:
            if ask.wait is None or now + delay < ask.asked_at + ask.wait:
                return AskLater(now + delay, error, anew=True)
    return GiveUp(error)
