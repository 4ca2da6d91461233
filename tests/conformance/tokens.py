"""Verifies a token with a JWT library and a key set, as docs/how-to/verify-tokens.md has it."""

from __future__ import annotations

import json
from typing import Any

import jwt


class TokenRefused(Exception):
    """A token does not hold."""


def claims_of(token: object, jwks: object) -> dict[str, Any]:
    """Return the claims of a token that a key of ``jwks`` (JSON text) signed. Raises `TokenRefused`."""
    try:
        keys = {key["kid"]: jwt.PyJWK(key) for key in json.loads(str(jwks))["keys"]}
        header = jwt.get_unverified_header(str(token))
        key = keys[header["kid"]]
        claims: dict[str, Any] = jwt.decode(
            str(token),
            key,
            algorithms=["EdDSA"],
            issuer="seatkeeper",
            leeway=10,
            options={"verify_aud": False, "require": ["exp", "iat", "aud", "jti", "sub"]},
        )
    except (jwt.PyJWTError, KeyError, ValueError) as error:
        raise TokenRefused(f"{type(error).__name__}: {error}") from error
    return claims
