"""Verifies the proof of a seat offline. The client, the node and the build agent all use this.

A token is a JWS (RFC 7515) with the claims of a JWT, signed with Ed25519; any standard library can
verify it. What is checked here, and nothing may switch it off: the algorithm is ours (never the
one that the token would like), the key is the one that the header's ``kid`` names, the issuer, the
times with leeway, and that every claim is there and of its type. There is no ``nbf``: clocks
differ by seconds, and a token that is not valid *yet* has stopped many a job that had its seat.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from seatkeeper.core.clock import wall_time
from seatkeeper.core.errors import (
    InvalidArgument,
    TokenExpired,
    TokenForged,
    TokenForOtherPool,
    TokenInvalid,
    TokenKeyUnknown,
    TokenMalformed,
)
from seatkeeper.core.jws import ALGORITHM
from seatkeeper.core.typed import check_type

# jwt and cryptography are imported where they are used. Every program that takes a seat has this
# module, few verify a token, and the two would be a sixth of the time of `import seatkeeper.client`.
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

ISSUER = "seatkeeper"
LEEWAY = timedelta(seconds=10)
TOKEN_BYTES_MAX = 8192
"""Longer ones are refused unread."""

_TEXT_CLAIMS = ("sub", "aud", "jti", "project")
_NUMBER_CLAIMS = ("iat", "exp", "seats", "fence")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClaims:
    """What a verified token proves."""

    holder: str
    """Who holds the seats (``sub``)."""
    pool: str
    """Of which pool (``aud``)."""
    grant_id: str
    """Under which grant (``jti``)."""
    project: str
    """Who is charged."""
    seats: int
    """How many seats."""
    fence: int
    """Strictly increasing over the grants of a pool; a lower fence is stale."""
    issued_at: datetime
    """When it was signed, by the signing node's clock."""
    expires_at: datetime
    """When it stops proving anything, by that clock. Never later than the lease."""
    key_id: str
    """The key that signed it (``kid``)."""
    certificate_sha256: str | None = None
    """Thumbprint of the holder's certificate (``cnf.x5t#S256``, RFC 8705); None without mTLS."""
    machine: str | None = None
    """Thumbprint of the key of the machine that has borrowed the seats (``cnf.jkt``): the token proves
    nothing for who cannot sign with that key. None: the seats are not borrowed."""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What the request that was granted was labelled with."""


def verify_token(
    token: str,
    jwks: str | Mapping[str, Any],
    *,
    pool: str | None = None,
    leeway: timedelta = LEEWAY,
    now: datetime | None = None,
) -> TokenClaims:
    """Return what ``token`` proves, checked against the public keys in ``jwks``.

    ``jwks`` is a JSON Web Key Set, as text or parsed; ``pool`` is the pool it must be for, where
    that matters. Raises a `TokenInvalid`: `TokenExpired` (also when it was signed further in the
    future than ``leeway``), `TokenForged`, `TokenForOtherPool`, `TokenKeyUnknown` (the key set may
    be old: fetch it again) or `TokenMalformed`. Says nothing about whether the grant still lives.
    Raises `InvalidArgument` for a ``leeway`` that is no timedelta.
    """
    check_type("leeway", leeway, timedelta)
    key_id, key = _key_of(token, jwks)
    claims = _verified_claims(token, key)
    _check_times(claims, leeway, now or wall_time())
    if pool is not None and claims["aud"] != pool:
        raise TokenForOtherPool(f"the token is for pool {claims['aud']!r}, not {pool!r}")
    return TokenClaims(
        holder=claims["sub"],
        pool=claims["aud"],
        grant_id=claims["jti"],
        project=claims["project"],
        seats=claims["seats"],
        fence=claims["fence"],
        issued_at=datetime.fromtimestamp(claims["iat"], UTC),
        expires_at=datetime.fromtimestamp(claims["exp"], UTC),
        key_id=key_id,
        certificate_sha256=_thumbprint(claims, "x5t#S256"),
        machine=_thumbprint(claims, "jkt"),
        labels=_labels(claims),
    )


def unverified_claims(token: str) -> Mapping[str, Any]:
    """Return the claims of ``token``, with any signature; nothing if it is no token.

    For showing. A token that came over the client's own connection is as good as what else came.
    """
    import jwt

    if len(token) > TOKEN_BYTES_MAX:
        return {}
    try:
        claims: Mapping[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return {}
    return claims


def _key_of(token: str, jwks: str | Mapping[str, Any]) -> tuple[str, Ed25519PublicKey]:
    import jwt

    if len(token) > TOKEN_BYTES_MAX:
        raise TokenMalformed(f"a token has at most {TOKEN_BYTES_MAX} characters")
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError as error:
        raise TokenMalformed(f"not a token: {error}") from error
    # The algorithm is a fact about our keys. Believing the token's own word is how "none" and
    # "HS256 with the public key as the secret" got in elsewhere.
    if header.get("alg") != ALGORITHM:
        raise TokenForged(f"signed with {header.get('alg')!r}; only {ALGORITHM} is accepted")
    key_id = header.get("kid")
    if not isinstance(key_id, str) or not key_id:
        raise TokenMalformed("the header names no key")
    text = jwks if isinstance(jwks, str) else json.dumps(jwks, sort_keys=True)
    key = _keys(text).get(key_id)
    if key is None:
        raise TokenKeyUnknown(f"key {key_id!r} is not in the key set; fetch the set again")
    return key_id, key


@functools.lru_cache(maxsize=16)
def _keys(jwks_json: str) -> Mapping[str, Ed25519PublicKey]:
    """Return the Ed25519 keys of a set by id; keys of other kinds are not ours to check."""
    import jwt
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        found = json.loads(jwks_json)
    except (ValueError, RecursionError) as error:
        raise _no_key_set("it is not JSON") from error
    entries = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise _no_key_set("it is not an object with a list `keys`")
    keys: dict[str, Ed25519PublicKey] = {}
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            raise _no_key_set(f"key {number} is not an object")
        if entry.get("kty") != "OKP" or entry.get("crv") != "Ed25519" or not entry.get("kid"):
            continue
        if not isinstance(entry["kid"], str):
            raise _no_key_set(f"the `kid` of key {number} is not text")
        try:
            key = jwt.PyJWK(entry, algorithm=ALGORITHM).key
        except (ValueError, TypeError, AttributeError, jwt.PyJWTError) as error:
            raise _no_key_set(f"the `x` of key {number} is not an Ed25519 key") from error
        if isinstance(key, Ed25519PublicKey):
            keys[entry["kid"]] = key
    return keys


def _no_key_set(why: str) -> InvalidArgument:
    return InvalidArgument(f"jwks is not a JSON Web Key Set: {why}", field="jwks")


def _verified_claims(token: str, key: Ed25519PublicKey) -> dict[str, Any]:
    import jwt

    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[ALGORITHM],
            issuer=ISSUER,
            # Times are checked below, against the caller's clock and with leeway on each; the
            # `aud` claim, too, so that its error can name both pools.
            options={
                "require": ["iss", *_TEXT_CLAIMS, *_NUMBER_CLAIMS],
                "verify_aud": False,
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
    except jwt.InvalidSignatureError as error:
        raise TokenForged from error
    except jwt.InvalidIssuerError as error:
        raise TokenForged(f"not issued by {ISSUER!r}") from error
    except jwt.InvalidTokenError as error:
        raise TokenMalformed(f"not a token of this service: {error}") from error
    for name in _TEXT_CLAIMS:
        if not isinstance(claims[name], str):
            raise TokenMalformed(f"claim {name!r} is not text")
    for name in _NUMBER_CLAIMS:
        if type(claims[name]) is not int:
            raise TokenMalformed(f"claim {name!r} is not a whole number")
    return claims


def _check_times(claims: Mapping[str, Any], leeway: timedelta, now: datetime) -> None:
    seconds, slack = now.timestamp(), leeway.total_seconds()
    if seconds >= claims["exp"] + slack:
        raise TokenExpired(f"the token expired {seconds - claims['exp']:.0f} s ago")
    if seconds < claims["iat"] - slack:
        raise TokenExpired(
            f"the token was signed {claims['iat'] - seconds:.0f} s in the future; "
            "set the clocks of this machine and of the nodes"
        )


def _labels(claims: Mapping[str, Any]) -> Mapping[str, str]:
    labels = claims.get("labels", {})
    if not isinstance(labels, dict) or not all(isinstance(v, str) for v in labels.values()):
        raise TokenMalformed("claim 'labels' is no object of texts")
    return labels


def _thumbprint(claims: Mapping[str, Any], kind: str) -> str | None:
    confirmation = claims.get("cnf")
    if confirmation is None:
        return None
    known = {"x5t#S256", "jkt"}
    if not isinstance(confirmation, dict) or not known & confirmation.keys():
        raise TokenMalformed("claim 'cnf' names neither a certificate nor a machine's key")
    thumbprint = confirmation.get(kind)
    if thumbprint is not None and not isinstance(thumbprint, str):
        raise TokenMalformed(f"{kind!r} of claim 'cnf' is not text")
    return thumbprint


__all__ = ["ALGORITHM", "ISSUER", "LEEWAY", "TokenClaims", "TokenInvalid", "verify_token"]
