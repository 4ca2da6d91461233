"""Tokens that nodes sign are tokens that clients and agents verify."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from datetime import UTC, datetime
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kit import NOW, POOL, a_grant, changed, uuid7

from seatkeeper.core.errors import (
    TokenExpired,
    TokenForged,
    TokenForOtherPool,
    TokenKeyUnknown,
)
from seatkeeper.core.tokens import verify_token
from seatkeeper.server.domain import Instant
from seatkeeper.server.tokens.signer import TOKEN_LIFE_MAX, SigningKeyError, TokenSigner, jwks

SIGNER = TokenSigner.generate()
KEYS = jwks([SIGNER.jwk_json])
GRANT = changed(a_grant(1, fence=42, seats=3), holder="anna@ci", project="nlp")
EXPIRES = Instant(NOW + 15_999)


def at(millis: int) -> datetime:
    return datetime.fromtimestamp(millis / 1000, UTC)


def token(*, issued_at: int = NOW, expires_at: int = EXPIRES) -> str:
    return SIGNER.sign(
        POOL, GRANT, issued_at=Instant(issued_at), expires_at=Instant(expires_at)
    )


def test_a_token_proves_what_its_grant_says() -> None:
    claims = verify_token(token(), KEYS, pool=POOL, now=at(NOW))

    assert (claims.holder, claims.pool, claims.project) == ("anna@ci", POOL, "nlp")
    assert (claims.grant_id, claims.seats, claims.fence) == (uuid7(1), 3, 42)
    assert claims.issued_at == at(NOW)
    assert claims.key_id == SIGNER.kid
    assert claims.certificate_sha256 is None


def test_a_token_is_bound_to_the_certificate_of_its_holder() -> None:
    digest = hashlib.sha256(b"der").digest()
    bound = SIGNER.sign(
        POOL, GRANT, issued_at=Instant(NOW), expires_at=EXPIRES, certificate_sha256=digest
    )
    expected = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert verify_token(bound, KEYS, now=at(NOW)).certificate_sha256 == expected


@given(st.integers(0, 2**40), st.integers(-10_000, 10**8))
def test_a_token_never_outlives_the_lease_nor_the_longest_life(issued: int, life: int) -> None:
    claims = jwt.decode(
        token(issued_at=issued, expires_at=issued + life), options={"verify_signature": False}
    )
    assert claims["exp"] * 1000 <= issued + life
    assert claims["exp"] - claims["iat"] <= TOKEN_LIFE_MAX.total_seconds()
    if 0 <= life <= TOKEN_LIFE_MAX.total_seconds() * 1000:
        assert claims["exp"] * 1000 > issued + life - 2000, "no shorter than it must be"


def test_a_token_expires_with_the_lease_it_was_signed_for() -> None:
    ends = EXPIRES // 1000 * 1000 + 10_000  # the leeway
    verify_token(token(), KEYS, now=at(ends - 1))
    with pytest.raises(TokenExpired):
        verify_token(token(), KEYS, now=at(ends))


def test_a_token_for_one_pool_proves_nothing_for_another() -> None:
    with pytest.raises(TokenForOtherPool):
        verify_token(token(), KEYS, pool="other", now=at(NOW))


def test_a_token_of_a_key_that_is_not_published_is_refused() -> None:
    with pytest.raises(TokenKeyUnknown):
        verify_token(token(), jwks([TokenSigner.generate().jwk_json]), now=at(NOW))


def test_a_token_with_another_fence_under_the_old_signature_is_refused() -> None:
    header, payload, signature = token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["fence"] += 1
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    with pytest.raises(TokenForged):
        verify_token(f"{header}.{forged}.{signature}", KEYS, now=at(NOW))


def test_tokens_of_several_nodes_are_verified_with_one_key_set() -> None:
    other = TokenSigner.generate()
    both = jwks([SIGNER.jwk_json, other.jwk_json])
    signed = other.sign(POOL, GRANT, issued_at=Instant(NOW), expires_at=EXPIRES)

    assert verify_token(token(), both, now=at(NOW)).key_id == SIGNER.kid
    assert verify_token(signed, both, now=at(NOW)).key_id == other.kid


def test_the_key_id_is_the_thumbprint_of_the_standard() -> None:
    """The example of RFC 8037, appendix A.3."""
    d = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="
    key = ed25519.Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(d))
    assert TokenSigner.of(key).kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_only_the_public_half_of_a_key_is_published() -> None:
    published = json.loads(SIGNER.jwk_json)
    assert set(published) == {"alg", "crv", "kid", "kty", "use", "x"}
    assert (published["alg"], published["crv"], published["use"]) == ("EdDSA", "Ed25519", "sig")


def pem(
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, password: bytes = b""
) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password)
        if password
        else serialization.NoEncryption(),
    )


def test_a_key_file_makes_the_same_signer_at_every_start(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(pem(SIGNER.key))
    assert TokenSigner.load(file).kid == TokenSigner.load(file).kid == SIGNER.kid


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", ""),
        (b"not a key", ""),
        (pem(ec.generate_private_key(ec.SECP256R1())), "openssl genpkey -algorithm ed25519"),
        (pem(ed25519.Ed25519PrivateKey.generate(), b"secret"), "encrypted"),
    ],
    ids=["empty", "no key", "another kind", "encrypted"],
)
def test_a_key_file_that_cannot_be_used_is_named(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(content)
    with pytest.raises(SigningKeyError) as caught:
        TokenSigner.load(file)
    assert str(file) in str(caught.value)
    assert reason in str(caught.value)


def test_a_key_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SigningKeyError, match=os.fspath(tmp_path / "none.pem")):
        TokenSigner.load(tmp_path / "none.pem")
