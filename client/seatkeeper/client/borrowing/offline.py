"""Whether this machine has a borrowed seat now, without any node.

What is looked at: the token's signature against the keys that came with it, its times against this
machine's clock, that the key it is bound to is here and signs, and that the clock is not behind what it
has shown before. What cannot be seen offline: that an administrator freed the seat, that the folder was
copied to another machine, and that the clock was set back to a time that was never seen as over.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from seatkeeper.client.borrowing.folder import BorrowedSeat, SeatState, thumbprint_of
from seatkeeper.core.errors import (
    ClockSetBack,
    TokenExpired,
    TokenForOtherMachine,
    TokenInvalid,
)
from seatkeeper.core.jws import JwsInvalid, sign_jws, verify_jws
from seatkeeper.core.tokens import TokenClaims, verify_token

PROOF_KIND = "seatkeeper-proof"
CLOCK_LEEWAY = timedelta(minutes=2)
"""By how much a clock may be behind what it has shown: it is corrected by so much."""


def prove(key: Ed25519PrivateKey, challenge: bytes) -> str:
    """Return what shows to who chose the challenge that the key is here: a JWS of it."""
    return sign_jws(challenge, key, kind=PROOF_KIND)


def verify_borrowed(
    seat: BorrowedSeat,
    key: Ed25519PrivateKey,
    *,
    now: datetime,
    latest_millis: int,
    challenge: bytes,
) -> TokenClaims:
    """Return what a borrowed seat proves here and now.

    ``latest_millis``: the latest time that was seen; ``challenge``: random bytes. Raises a
    `TokenInvalid`: `ClockSetBack`, `TokenExpired` from the day on, `TokenForOtherMachine`, or as
    `verify_token`.
    """
    if seat.state is not SeatState.BORROWED:
        raise TokenInvalid(
            f"the seat of {seat.pool} is not borrowed: it is {seat.state}; "
            "`seatkeeper borrow return` ends that"
        )
    seen = datetime.fromtimestamp(latest_millis / 1000, UTC)
    if now + CLOCK_LEEWAY < seen:
        raise ClockSetBack(
            f"the clock of this machine says {now:%Y-%m-%d %H:%M}, and it has said "
            f"{seen:%Y-%m-%d %H:%M} before: set it right"
        )
    claims = verify_token(seat.token, seat.jwks, pool=seat.pool, now=now)
    if now >= claims.expires_at:  # without leeway: the skew is the pool's
        raise TokenExpired(
            f"the seat was borrowed until {claims.expires_at:%Y-%m-%d %H:%M} UTC"
        )
    public = key.public_key().public_bytes_raw()
    try:
        signed = verify_jws(prove(key, challenge), public, kind=PROOF_KIND)
    except JwsInvalid:
        signed = b""
    if signed != challenge or claims.machine != thumbprint_of(key):
        raise TokenForOtherMachine("the seat was borrowed with another key than is here")
    return claims
