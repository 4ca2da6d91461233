"""Signed proof of a grant: JSON Web Tokens (RFC 7519) that any standard library verifies.

Each node signs with a key of its own, unless it is given one, and publishes the public half in the
store; every node serves all of them as one JWKS. A key outlives its node by the longest life of a
token, so that what was signed by a node that died still verifies.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from seatkeeper.core.jws import ALGORITHM, public_jwk
from seatkeeper.server.domain import Grant, Instant

_dumps = json.JSONEncoder(separators=(",", ":")).encode
ISSUER = "seatkeeper"
TOKEN_LIFE_MAX = timedelta(hours=1)
"""No token lives longer: the longest ttl of a session."""


class SigningKeyError(Exception):
    """The file of a signing key cannot be used."""


@dataclass(frozen=True)
class TokenSigner:
    """Signs tokens with one Ed25519 key."""

    key: Ed25519PrivateKey
    kid: str
    jwk_json: str
    """The public half as a JSON Web Key (RFC 8037)."""

    @cached_property
    def _header(self) -> bytes:
        """The first part of every token."""
        header = {"alg": ALGORITHM, "kid": self.kid, "typ": "JWT"}
        return _base64url(_dumps(header).encode()).encode()

    @classmethod
    def generate(cls) -> TokenSigner:
        """Return a signer with a new key."""
        return cls.of(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> TokenSigner:
        """Return a signer with the key in a PEM file. Raises ``SigningKeyError``."""
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise SigningKeyError(f"{path}: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SigningKeyError(
                f"{path}: is not an Ed25519 key; `openssl genpkey -algorithm ed25519` makes one"
            )
        return cls.of(key)

    @classmethod
    def of(cls, key: Ed25519PrivateKey) -> TokenSigner:
        """Return a signer with ``key``; its kid is the key's thumbprint (RFC 7638)."""
        raw = key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        jwk = public_jwk(raw)
        return cls(key, jwk["kid"], json.dumps(jwk, sort_keys=True))

    def sign(
        self,
        pool: str,
        grant: Grant,
        *,
        issued_at: Instant,
        expires_at: Instant,
        certificate_sha256: bytes | None = None,
        machine: str = "",
    ) -> str:
        """Return a token for ``grant``.

        ``expires_at`` must not be later than the end of the session's lease as it stands; it is
        rounded down to a second, and never more than ``TOKEN_LIFE_MAX`` after ``issued_at``.
        ``certificate_sha256`` binds the token to a client certificate (RFC 8705). ``machine``: the
        thumbprint of the key of a machine that has borrowed the seats: the token is bound to that, and
        lives until ``expires_at``, however long.
        """
        life_max = int(TOKEN_LIFE_MAX.total_seconds())
        issued = issued_at // 1000
        claims: dict[str, object] = {
            "iss": ISSUER,
            **grant.attribution.claims(),
            "aud": pool,
            "jti": grant.grant_id,
            "iat": issued,
            "exp": expires_at // 1000
            if machine
            else min(expires_at // 1000, issued + life_max),
            "seats": grant.seats,
            "fence": grant.fence,
        }
        if machine:
            claims["cnf"] = {"jkt": machine}
        elif certificate_sha256 is not None:
            claims["cnf"] = {"x5t#S256": _base64url(certificate_sha256)}
        # As PyJWT would encode it. That makes the header anew for each token, and finds the algorithm.
        signed = b"%s.%s" % (self._header, _base64url(_dumps(claims).encode()).encode())
        return f"{signed.decode()}.{_base64url(self.key.sign(signed))}"


def jwks(jwk_jsons: list[str]) -> str:
    """Return a JSON Web Key Set (RFC 7517) of the given keys."""
    return json.dumps({"keys": [json.loads(jwk) for jwk in jwk_jsons]}, sort_keys=True)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
