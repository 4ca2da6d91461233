"""Signed texts that any JOSE library verifies: compact JWS (RFC 7515) by Ed25519 keys (RFC 8037)."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import TYPE_CHECKING

# jwt and cryptography are imported where they are used: `seatkeeper.core.tokens` says why.
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ALGORITHM = "EdDSA"
MANIFEST_KIND = "seatkeeper-manifest"
"""The ``typ`` of an engine's manifest: nothing else that is signed passes for one."""
JWS_MAX = 64 * 1024
"""Most characters of one that we make or take."""


class JwsInvalid(ValueError):
    """A text is no JWS of the expected kind, or another key signed it."""


def public_jwk(public_key: bytes) -> dict[str, str]:
    """Return a public key of 32 raw bytes as a JSON Web Key; its kid is its thumbprint (RFC 7638)."""
    public = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(public_key)}
    canonical = json.dumps(public, separators=(",", ":"), sort_keys=True).encode()
    kid = _base64url(hashlib.sha256(canonical).digest())
    return public | {"kid": kid, "use": "sig", "alg": ALGORITHM}


def sign_jws(payload: bytes, key: Ed25519PrivateKey, *, kind: str) -> str:
    """Return ``payload`` as a JWS by ``key``; ``kind`` is its header's ``typ``."""
    import jwt

    kid = public_jwk(key.public_key().public_bytes_raw())["kid"]
    headers = {"kid": kid, "typ": kind}
    return jwt.PyJWS().encode(payload, key, algorithm=ALGORITHM, headers=headers)


def verify_jws(text: str, public_key: bytes, *, kind: str) -> bytes:
    """Return the payload, if the key of 32 raw bytes signed it as one of that kind.

    Raises `JwsInvalid` otherwise. Neither the key nor the algorithm is ever the text's own choice.
    """
    import jwt
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(public_key)
        decoded = jwt.PyJWS().decode_complete(text, key, algorithms=[ALGORITHM])
    except (jwt.PyJWTError, ValueError) as error:
        raise JwsInvalid(f"its signature does not hold: {error}") from error
    if decoded["header"].get("typ") != kind:
        raise JwsInvalid(f"it is no {kind}")
    payload: bytes = decoded["payload"]
    return payload


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
