from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from seatkeeper.core.errors import (
    InvalidArgument,
    TokenExpired,
    TokenForged,
    TokenForOtherPool,
    TokenInvalid,
    TokenKeyUnknown,
    TokenMalformed,
)
from seatkeeper.core.tokens import TokenClaims, verify_token

KEY = Ed25519PrivateKey.generate()
OTHER_KEY = Ed25519PrivateKey.generate()
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CLAIMS: dict[str, Any] = {
    "iss": "seatkeeper",
    "sub": "alice@host",
    "aud": "tensorrt",
    "jti": "01890a5d-ac96-774b-bcce-b302099a8057",
    "iat": int(NOW.timestamp()) - 10,
    "exp": int(NOW.timestamp()) + 20,
    "seats": 2,
    "project": "cv",
    "fence": 7,
}


def jwk(key: Ed25519PrivateKey, kid: str) -> dict[str, str]:
    x = base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x, "use": "sig", "alg": "EdDSA"}


JWKS = {"keys": [jwk(KEY, "k1"), jwk(OTHER_KEY, "k2")]}


def sign(
    claims: dict[str, Any] | None = None, *, kid: str = "k1", key: Ed25519PrivateKey = KEY
) -> str:
    return jwt.encode(claims or CLAIMS, key, algorithm="EdDSA", headers={"kid": kid})


def test_a_token_proves_what_it_says() -> None:
    claims = verify_token(sign(), JWKS, pool="tensorrt", now=NOW)
    assert claims == TokenClaims(
        holder="alice@host",
        pool="tensorrt",
        grant_id="01890a5d-ac96-774b-bcce-b302099a8057",
        project="cv",
        seats=2,
        fence=7,
        issued_at=NOW - timedelta(seconds=10),
        expires_at=NOW + timedelta(seconds=20),
        key_id="k1",
    )


def test_a_key_set_may_be_text_and_the_pool_may_not_matter() -> None:
    assert verify_token(sign(), json.dumps(JWKS), now=NOW).fence == 7


def test_a_token_may_have_labels() -> None:
    claims = verify_token(sign(CLAIMS | {"labels": {"team": "cv"}}), JWKS, now=NOW)
    assert claims.labels == {"team": "cv"}
    assert verify_token(sign(), JWKS, now=NOW).labels == {}
    assert hash(claims) == hash(verify_token(sign(), JWKS, now=NOW))


@pytest.mark.parametrize("labels", ["team", ["team"], {"team": 1}, {"team": None}, 7])
def test_labels_that_are_none_are_no_claim(labels: object) -> None:
    with pytest.raises(TokenMalformed, match="labels"):
        verify_token(sign(CLAIMS | {"labels": labels}), JWKS, now=NOW)


def test_a_token_may_be_bound_to_a_certificate() -> None:
    token = sign(CLAIMS | {"cnf": {"x5t#S256": "thumb"}})
    assert verify_token(token, JWKS, now=NOW).certificate_sha256 == "thumb"


@pytest.mark.parametrize("seconds", [0, 29])
def test_clocks_may_differ_by_the_leeway_at_the_end(seconds: int) -> None:
    claims = verify_token(sign(), JWKS, now=NOW + timedelta(seconds=seconds))
    assert claims == verify_token(sign(), JWKS, now=NOW)


def test_a_token_ends_after_its_time_and_the_leeway() -> None:
    with pytest.raises(TokenExpired, match="expired 10 s ago"):
        verify_token(sign(), JWKS, now=NOW + timedelta(seconds=30))


@pytest.mark.parametrize("skew", [1, 6, 10])
def test_a_signer_whose_clock_is_ahead_is_believed_within_the_leeway(skew: int) -> None:
    claims = verify_token(sign(), JWKS, now=NOW - timedelta(seconds=10 + skew))
    assert claims == verify_token(sign(), JWKS, now=NOW)


def test_a_token_from_the_far_future_is_refused() -> None:
    with pytest.raises(TokenExpired, match="in the future"):
        verify_token(sign(), JWKS, now=NOW - timedelta(seconds=60))


def test_a_token_without_leeway_ends_on_the_second() -> None:
    with pytest.raises(TokenExpired):
        verify_token(sign(), JWKS, leeway=timedelta(0), now=NOW + timedelta(seconds=20))


def test_a_token_of_another_pool_is_named() -> None:
    with pytest.raises(TokenForOtherPool, match="'tensorrt', not 'matlab'"):
        verify_token(sign(), JWKS, pool="matlab", now=NOW)


def test_a_signature_by_another_key_is_forged() -> None:
    with pytest.raises(TokenForged):
        verify_token(sign(key=OTHER_KEY), JWKS, now=NOW)


def test_a_changed_claim_breaks_the_signature() -> None:
    header, _, signature = sign().split(".")
    payload = base64.urlsafe_b64encode(json.dumps(CLAIMS | {"seats": 99}).encode())
    with pytest.raises(TokenForged):
        verify_token(f"{header}.{payload.rstrip(b'=').decode()}.{signature}", JWKS, now=NOW)


def test_another_issuer_is_forged() -> None:
    with pytest.raises(TokenForged):
        verify_token(sign(CLAIMS | {"iss": "somebody"}), JWKS, now=NOW)


def test_an_unknown_key_says_to_fetch_the_set_again() -> None:
    with pytest.raises(TokenKeyUnknown, match="fetch"):
        verify_token(sign(kid="k9"), JWKS, now=NOW)


def _handmade(header: dict[str, Any]) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part(header)}.{part(CLAIMS)}."


def test_no_algorithm_is_forged() -> None:
    with pytest.raises(TokenForged):
        verify_token(_handmade({"alg": "none", "kid": "k1"}), JWKS, now=NOW)


def test_a_public_key_is_no_shared_secret() -> None:
    public = KEY.public_key().public_bytes_raw()
    token = jwt.encode(CLAIMS, public, algorithm="HS256", headers={"kid": "k1"})
    with pytest.raises(TokenForged, match="HS256"):
        verify_token(token, JWKS, now=NOW)


def test_a_key_of_another_kind_in_the_set_is_not_used() -> None:
    numbers = rsa.generate_private_key(65537, 2048).public_key()
    foreign = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(numbers)) | {"kid": "k1"}
    with pytest.raises(TokenKeyUnknown):
        verify_token(sign(), {"keys": [foreign]}, now=NOW)


@pytest.mark.parametrize("claim", [name for name in CLAIMS if name != "iss"])
def test_every_claim_must_be_there(claim: str) -> None:
    token = sign({name: value for name, value in CLAIMS.items() if name != claim})
    with pytest.raises(TokenMalformed):
        verify_token(token, JWKS, now=NOW)


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("seats", "2"),
        ("seats", True),
        ("fence", 1.5),
        ("exp", "tomorrow"),
        ("project", 3),
        ("aud", ["tensorrt", "matlab"]),
        ("cnf", "thumb"),
        ("cnf", {"other": "thumb"}),
        ("cnf", {"jkt": 3}),
    ],
)
def test_a_claim_of_another_type_is_refused(claim: str, value: object) -> None:
    with pytest.raises(TokenInvalid):
        verify_token(sign(CLAIMS | {claim: value}), JWKS, now=NOW)


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "." * 5, "é.é.é", "A" * 9000])
def test_what_is_no_token_is_malformed(text: str) -> None:
    with pytest.raises(TokenMalformed):
        verify_token(text, JWKS, now=NOW)


@pytest.mark.parametrize("jwks", ["", "[]", "{}", '{"keys": 3}', {"keys": [{"kty": "OKP"}, 5]}])
def test_what_is_no_key_set_is_the_callers_mistake(jwks: str | dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument):
        verify_token(sign(), jwks, now=NOW)
