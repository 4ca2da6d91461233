"""An older name of `seatkeeper.core.tokens`, kept for those who import it."""

from seatkeeper.core.tokens import (
    TokenClaims,
    unverified_claims,
    verify_token,
)

__all__ = [
    "TokenClaims",
    "unverified_claims",
    "verify_token",
]
