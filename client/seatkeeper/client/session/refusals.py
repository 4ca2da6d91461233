"""What to do about a refused request or release. Pure: time and the wait before a retry are given.

After ``UNAVAILABLE`` the same id is repeated, at another node. The node that says so has waited for
the store in vain, is stopping, or does not understand a record of the pool: it will not know better
in a second, and another may know now. So the client moves after the first such answer and not after the
second; but only when the retry time has passed, with everything that was denied on the stream, and to
each node once in a while (`NodePicker.denied`). ``OVERLOADED`` is the pool's, at every node: it is
asked again where the client is.
"""

from __future__ import annotations

from dataclasses import dataclass

from seatkeeper.client.session.requests import PendingRequest
from seatkeeper.client.transport.translate import from_denied
from seatkeeper.core.errors import SeatError
from seatkeeper.v1 import seat_pb2

REASKS_MAX = 8
"""How often one request gets a new id because its old one was completed."""

AGAIN_SECONDS = 120.0
"""For how long a lost grant is asked for again while its lease lives; clients stop before it ends."""

_Reason = seat_pb2.DenialReason
_NOTHING_HELD = frozenset(
    {
        _Reason.DENIAL_REASON_POOL_NOT_FOUND,
        _Reason.DENIAL_REASON_NOT_YOURS,
        _Reason.DENIAL_REASON_INVALID_ARGUMENT,
        # These answer the request that is being given up, and end it as well as a release does.
        _Reason.DENIAL_REASON_FINISHED,
        _Reason.DENIAL_REASON_NO_SEAT_FREE,
        _Reason.DENIAL_REASON_TOO_MANY_SEATS,
        _Reason.DENIAL_REASON_WORK_ENDED,
        _Reason.DENIAL_REASON_REMOVED,
        _Reason.DENIAL_REASON_NOT_ALLOWED,
        _Reason.DENIAL_REASON_TOO_MANY_TICKETS,
        _Reason.DENIAL_REASON_POOL_DRAINED,
        _Reason.DENIAL_REASON_UNKNOWN_COST_CLASS,
        _Reason.DENIAL_REASON_GRANTED_ELSEWHERE,
        _Reason.DENIAL_REASON_NOT_TAKEN_OVER,
    }
)
"""Denials that leave a release nothing to do. The end of the session is dealt with elsewhere."""


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
        case _Reason.DENIAL_REASON_NOT_YOURS if _may_end(ask, now + delay):
            return AskLater(now + delay, error, anew=False)
        case _Reason.DENIAL_REASON_FINISHED if ask.attempt < REASKS_MAX:
            return AskAnew()
        case _Reason.DENIAL_REASON_UNAVAILABLE if now + delay < ask.expires_at:
            return AskLater(now + delay, error, anew=False)
        case _Reason.DENIAL_REASON_OVERLOADED:
            if ask.wait is None or now + delay < ask.asked_at + ask.wait:
                return AskLater(now + delay, error, anew=True)
    return GiveUp(error)


def _may_end(ask: PendingRequest, at: float) -> bool:
    """Return whether a grant that is asked for again may be kept for us soon: its lease lives still."""
    return ask.is_again and at < min(ask.asked_at + AGAIN_SECONDS, ask.expires_at)


def is_released(denied: seat_pb2.Denied) -> bool:
    """Return whether nothing is held any more under the id of a release that was denied.

    False: it is undecided, or denied for a reason of a newer service, and must be repeated: a seat
    that is taken for released would be held for as long as the session is renewed.
    """
    return denied.reason in _NOTHING_HELD


def is_undecided(denied: seat_pb2.Denied) -> bool:
    """Return whether the node does not know what became of a command: another one may."""
    return denied.reason == _Reason.DENIAL_REASON_UNAVAILABLE
