"""``seatkeeper token``: proof of a seat, checked without asking anybody."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.cli.commands import Result, in_process, seatkeeper
from tests.cli.conftest import Cluster

from seatkeeper.cli.exits import Exit


@dataclass(frozen=True)
class Issuer:
    """A key of a node, and a folder with its public side."""

    key: Ed25519PrivateKey
    folder: Path

    @property
    def jwks(self) -> Path:
        return self.folder / "keys.json"

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        return {
            "iss": "seatkeeper",
            "sub": "alice@host",
            "aud": "tensorrt",
            "jti": "01a207f5-97a5-74d7-84f5-ec1a940159a8",
            "iat": now,
            "exp": now + 60,
            "seats": 1,
            "project": "cv",
            "fence": 41,
        } | changes

    def sign(self, *, kid: str = "node-1", **changes: Any) -> str:
        return jwt.encode(
            self.claims(**changes), self.key, algorithm="EdDSA", headers={"kid": kid}
        )

    def verify(self, token: str, *options: str) -> Result:
        file = self.folder / "token"
        file.write_text(token)
        return seatkeeper("token", "verify", str(file), "--jwks", str(self.jwks), *options)


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    key = Ed25519PrivateKey.generate()
    x = base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).rstrip(b"=").decode()
    keys = {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "node-1", "x": x}]}
    issuer = Issuer(key, tmp_path)
    issuer.jwks.write_text(json.dumps(keys))
    return issuer


def test_a_good_token_says_what_it_proves(issuer: Issuer) -> None:
    claims = issuer.verify(issuer.sign(), "--pool", "tensorrt", "--json").check().json
    assert claims["valid"] is True
    assert (claims["holder"], claims["pool"], claims["fence"]) == ("alice@host", "tensorrt", 41)
    assert claims["labels"] == {}
    text = issuer.verify(issuer.sign(labels={"team": "cv", "a": "\x1b[31m"})).check().out
    assert "alice@host" in text
    assert r"a=\x1b[31m team=cv" in text


def test_a_token_that_proves_nothing_is_refused_with_the_reason(issuer: Issuer) -> None:
    now = int(time.time())
    good = issuer.sign()
    head, _, signature = good.split(".")
    other = json.dumps(issuer.claims(sub="mallory")).encode()
    forged_body = base64.urlsafe_b64encode(other).rstrip(b"=").decode()
    stranger = Issuer(Ed25519PrivateKey.generate(), issuer.folder)
    for token, why, options in (
        (issuer.sign(iat=now - 100, exp=now - 60), "expired", ()),
        (issuer.sign(iat=now + 100, exp=now + 160), "future", ()),
        (f"{head}.{forged_body}.{signature}", "signature", ()),
        (stranger.sign(), "signature", ()),
        (issuer.sign(kid="node-2"), "fetch the set again", ()),
        (issuer.sign(iss="somebody"), "issued by", ()),
        (issuer.sign(seats="many"), "seats", ()),
        (jwt.encode(issuer.claims(), "", algorithm="none"), "signed with", ()),
        (good, "'tensorrt', not 'other'", ("--pool", "other")),
        ("hello", "not a token", ()),
        ("x" * 9000, "at most", ()),
        ("", "no token", ()),
    ):
        assert why in issuer.verify(token, *options).refused(Exit.REFUSED), token[:60]


def test_files_that_are_missing_or_wrong_are_named(
    issuer: Issuer, write: Callable[[str, str], Path]
) -> None:
    token = write("good", issuer.sign())
    absent = str(issuer.folder / "absent")
    verify = ("token", "verify")
    assert "absent" in in_process(*verify, absent, "--jwks", str(issuer.jwks)).refused(66)
    assert "absent" in in_process(*verify, str(token), "--jwks", absent).refused(66)
    wrong = write("wrong.json", '{"keys": 7}')
    assert "wrong.json" in in_process(*verify, str(token), "--jwks", str(wrong)).refused(65)
    for text, why in (
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "list `keys`"),
        ('{"keys": 7}', "list `keys`"),
        ('{"keys": [7]}', "key 1 is not an object"),
        ('{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": 7}]}', "`kid` of key 1"),
        ('{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a", "x": 7}]}', "`x` of key 1"),
        ('{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "a"}]}', "`x` of key 1"),
    ):
        wrong.write_text(text)
        said = in_process(*verify, str(token), "--jwks", str(wrong)).refused(65)
        assert why in said
        assert said.endswith("; `seatkeeper token jwks` fetches one")
    binary = issuer.folder / "binary"
    binary.write_bytes(bytes(range(128, 256)))
    assert "not text" in in_process(*verify, str(binary), "--jwks", str(issuer.jwks)).refused(
        65
    )
    folder = in_process(*verify, str(issuer.folder), "--jwks", str(issuer.jwks))
    assert "directory" in folder.refused(Exit.FAILED)


def test_a_token_may_come_from_standard_input(issuer: Issuer) -> None:
    options = ("--jwks", str(issuer.jwks), "--json")
    good = in_process("token", "verify", "-", *options, stdin=issuer.sign() + "\n").check()
    assert good.json["project"] == "cv"


def test_showing_a_token_says_that_nothing_was_verified(issuer: Issuer) -> None:
    expired = issuer.sign(exp=7)
    shown = in_process("token", "show", "-", "--json", stdin=expired).check().json
    assert shown["verified"] is False
    assert (shown["header"]["kid"], shown["claims"]["exp"]) == ("node-1", 7)
    text = in_process("token", "show", "-", stdin=expired).check()
    assert "not verified" in text.err
    assert "1970-01-01T00:00:07" in text.out
    assert "not a token" in in_process("token", "show", "-", stdin="hello").refused(65)


def test_a_real_token_is_verified_with_the_nodes_own_keys(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    jwks = tmp_path / "keys.json"
    jwks.write_text(cluster.here("token", "jwks").check().out)
    assert cluster.here("token", "jwks", "--json").check().json == json.loads(jwks.read_text())
    verify = (
        f"seatkeeper token verify $SEATKEEPER_TOKEN_FILE --pool {pool} --jwks {jwks} --json"
    )
    claims = cluster("run", "--pool", pool, "--", "sh", "-c", verify).check().json
    assert (claims["pool"], claims["fence"]) == (pool, cluster.look(pool).fence)
