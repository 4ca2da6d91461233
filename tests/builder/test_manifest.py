"""An engine can be checked wherever it is copied, with nothing but the agent's public key."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from tests.builder.signed import ENGINE, signed_for

from seatkeeper.artifacts.errors import AgentKeyUnusable, EngineDamaged, ManifestUntrusted
from seatkeeper.artifacts.manifest import (
    AgentKey,
    BuiltEngineFile,
    SeatUsed,
    SourceModel,
    build_manifest,
    verify_engine_file,
    verify_jws_manifest,
    verify_manifest,
)
from seatkeeper.artifacts.plan import BuildPlan, engine_key
from seatkeeper.core.jws import MANIFEST_KIND, sign_jws
from seatkeeper.v1 import build_pb2

KEY = AgentKey.generate()


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "engine"
    path.write_bytes(ENGINE)
    return path


def test_what_was_signed_is_what_is_read(engine: Path) -> None:
    manifest = verify_engine_file(engine, signed_for(ENGINE, KEY), KEY.public_key)
    assert manifest.file.size_bytes == len(ENGINE)
    assert manifest.fence == 7


def test_a_manifest_says_everything_that_was_known() -> None:
    plan = BuildPlan(backend="tensorrt_rtx", targets=("SM86",))
    manifest = build_manifest(
        plan,
        SourceModel(sha256="cd" * 32, name="/home/alice/secret/../model.onnx"),
        BuiltEngineFile(
            sha256="ab" * 32,
            size_bytes=9,
            backend_version="1.7",
            built_at=datetime(2026, 1, 2, tzinfo=UTC),
            build_time=timedelta(seconds=1.5),
        ),
        SeatUsed(pool="tensorrt", grant_id="grant", fence=7, holder="alice", project="cv"),
        agent_id="agent",
    )
    assert manifest.key == engine_key("cd" * 32, plan, "1.7")
    assert manifest.model_name == "model.onnx"
    assert manifest.build_millis == 1_500
    assert manifest.built_at.ToDatetime(UTC) == datetime(2026, 1, 2, tzinfo=UTC)
    assert manifest.options.targets == ["SM86"]


@pytest.mark.parametrize(
    "damaged", [b"", ENGINE[:-1], ENGINE + b"x", b"\0" + ENGINE[1:]], ids=len
)
def test_a_damaged_engine_is_reported(engine: Path, damaged: bytes) -> None:
    engine.write_bytes(damaged)
    with pytest.raises(EngineDamaged):
        verify_engine_file(engine, signed_for(ENGINE, KEY), KEY.public_key)


def test_another_agents_signature_is_not_this_agents() -> None:
    signed = signed_for(ENGINE, AgentKey.generate())
    with pytest.raises(ManifestUntrusted, match="another key"):
        verify_manifest(signed, KEY.public_key)

    signed.public_key = KEY.public_key
    with pytest.raises(ManifestUntrusted, match="does not hold"):
        verify_manifest(signed, KEY.public_key)


def test_a_manifest_that_was_changed_is_not_believed() -> None:
    signed = signed_for(ENGINE, KEY)
    manifest = build_pb2.EngineManifest.FromString(signed.manifest)
    manifest.fence += 1
    signed.manifest = manifest.SerializeToString()
    with pytest.raises(ManifestUntrusted, match="does not hold"):
        verify_manifest(signed, KEY.public_key)


def test_a_manifest_is_also_a_jws_of_the_same() -> None:
    signed = signed_for(ENGINE, KEY)
    assert verify_jws_manifest(signed.jws, KEY.public_key) == verify_manifest(
        signed, KEY.public_key
    )


@pytest.mark.parametrize(
    ("jws", "said"),
    [
        (signed_for(ENGINE, AgentKey.generate()).jws, "signature does not hold"),
        (signed_for(b"another engine", KEY).jws, "another engine"),
        ("nonsense", "signature does not hold"),
    ],
)
def test_a_jws_that_is_not_this_manifest_is_not_believed(jws: str, said: str) -> None:
    signed = signed_for(ENGINE, KEY)
    signed.jws = jws
    with pytest.raises(ManifestUntrusted, match=said):
        verify_manifest(signed, KEY.public_key)


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (b"[" * 100_000, MANIFEST_KIND),
        (b"{}", MANIFEST_KIND),
        (b"\xff", MANIFEST_KIND),
        (b'{"key": 1}', MANIFEST_KIND),
        (b"{}", "JWT"),
    ],
    ids=["deep", "empty", "no text", "wrong type", "another kind"],
)
def test_a_jws_of_something_else_is_no_manifest(payload: bytes, kind: str) -> None:
    private = Ed25519PrivateKey.generate()
    text = sign_jws(payload, private, kind=kind)
    with pytest.raises(ManifestUntrusted):
        verify_jws_manifest(text, private.public_key().public_bytes_raw())


def test_what_a_newer_agent_says_in_its_jws_is_passed_over() -> None:
    private = Ed25519PrivateKey.generate()
    fields = {"key": "a" * 64, "file": {"sha256": "b" * 64}, "of_a_later_version": [1]}
    text = sign_jws(json.dumps(fields).encode(), private, kind=MANIFEST_KIND)
    manifest = verify_jws_manifest(text, private.public_key().public_bytes_raw())
    assert manifest.key == "a" * 64


def test_a_manifest_too_large_for_both_forms_has_one() -> None:
    manifest = build_pb2.EngineManifest.FromString(signed_for(ENGINE, KEY).manifest)
    manifest.model_name = "x" * 100_000
    signed = KEY.sign(manifest)
    assert not signed.jws
    assert verify_manifest(signed, KEY.public_key) == manifest


def test_a_good_signature_over_nonsense_is_no_manifest() -> None:
    empty = KEY.sign(build_pb2.EngineManifest())
    with pytest.raises(ManifestUntrusted, match="names no engine"):
        verify_manifest(empty, KEY.public_key)


@pytest.mark.parametrize("public_key", [b"", b"short"])
def test_a_key_that_is_none_trusts_nothing(public_key: bytes) -> None:
    signed = signed_for(ENGINE, KEY)
    signed.public_key = public_key
    with pytest.raises(ManifestUntrusted):
        verify_manifest(signed, public_key)


def test_the_agents_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "agent.pem"
    umask_before = os.umask(0)
    try:
        made = AgentKey.load_or_create(path)
    finally:
        os.umask(umask_before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert AgentKey.load_or_create(path).public_key == made.public_key
    assert [file.name for file in tmp_path.iterdir()] == ["agent.pem"]


def test_a_key_that_others_can_read_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "agent.pem"
    AgentKey.load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(AgentKeyUnusable, match="open to other users"):
        AgentKey.load_or_create(path)


X25519_PEM = X25519PrivateKey.generate().private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)


@pytest.mark.parametrize("content", [b"", b"not a key", X25519_PEM])
def test_a_damaged_key_is_not_replaced_silently(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "agent.pem"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(AgentKeyUnusable):
        AgentKey.load_or_create(path)
    assert path.read_bytes() == content
