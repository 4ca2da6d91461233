"""``seatkeeper engines`` on a store that agents share: no node, no agent, no seat."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import jwt
import numpy as np
import numpy.typing as npt
import pytest
from tests.builder.signed import ENGINE, signed_for
from tests.cli.commands import Result, in_process

from seatkeeper.artifacts.manifest import AgentKey
from seatkeeper.artifacts.store import EngineStore
from seatkeeper.artifacts.stores.artifact_store import ArtifactStore
from seatkeeper.cli.exits import Exit
from seatkeeper.v1 import build_pb2

KEY = AgentKey.generate()
SIGNED = signed_for(ENGINE, KEY)
MANIFEST = build_pb2.EngineManifest.FromString(SIGNED.manifest)
SIGNER = SIGNED.public_key.hex()


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "built"
    path.write_bytes(ENGINE)
    return path


@pytest.fixture
def store(tmp_path: Path, engine: Path) -> ArtifactStore:
    store = ArtifactStore.at(str(tmp_path / "store"))
    store.publish(SIGNED, engine)
    return store


def engines(store: ArtifactStore, *arguments: str) -> Result:
    return in_process("engines", *arguments, "--store", store.shown)


def test_an_engine_is_pulled_without_any_service(store: ArtifactStore, tmp_path: Path) -> None:
    file, manifest = tmp_path / "model.engine", tmp_path / "model.manifest"
    pull = ("pull", MANIFEST.key[:8], "-o", str(file), "--manifest", str(manifest))
    said = engines(store, *pull, "--trust", SIGNER, "--json").check().json
    assert file.read_bytes() == ENGINE
    assert manifest.read_bytes() == SIGNED.SerializeToString()
    assert (said["transferred_bytes"], said["resumed_bytes"]) == (len(ENGINE), 0)
    assert said["signer"] == SIGNER
    again = engines(store, *pull, "--json").check().json
    assert again["transferred_bytes"] == 0


def test_a_manifest_is_had_as_a_jws_that_any_library_verifies(
    store: ArtifactStore, tmp_path: Path
) -> None:
    file, manifest = tmp_path / "model.engine", tmp_path / "model.jws"
    pull = ("pull", MANIFEST.key, "-o", str(file), "--manifest", str(manifest))
    engines(store, *pull).check()
    x = base64.urlsafe_b64encode(KEY.public_key).rstrip(b"=").decode()
    key = jwt.PyJWK({"kty": "OKP", "crv": "Ed25519", "x": x})
    read = jwt.PyJWS().decode(manifest.read_text().strip(), key, algorithms=["EdDSA"])
    assert json.loads(read)["file"] == {
        "sha256": MANIFEST.file.sha256,
        "size_bytes": str(len(ENGINE)),
    }
    push = ("push", str(file), "--manifest", str(manifest))
    assert "other form" in engines(store, *push).refused(Exit.USAGE)


def test_an_older_agents_manifest_has_no_jws(tmp_path: Path, engine: Path) -> None:
    older = build_pb2.SignedManifest.FromString(SIGNED.SerializeToString())
    older.ClearField("jws")
    store = ArtifactStore.at(str(tmp_path / "store"))
    store.publish(older, engine)
    pull = ("pull", MANIFEST.key, "-o", str(tmp_path / "x"), "--manifest")
    engines(store, *pull, str(tmp_path / "x.manifest")).check()
    assert "no JWS" in engines(store, *pull, str(tmp_path / "x.jws")).refused(Exit.NOT_FOUND)


def test_a_pull_that_was_cut_off_is_resumed(store: ArtifactStore, tmp_path: Path) -> None:
    file = tmp_path / "model.engine"
    part = tmp_path / f".{file.name}.{MANIFEST.file.sha256[:16]}.part"
    part.write_bytes(ENGINE[:100_000])
    said = engines(store, "pull", MANIFEST.key, "-o", str(file), "--json").check().json
    assert (said["transferred_bytes"], said["resumed_bytes"]) == (
        len(ENGINE) - 100_000,
        100_000,
    )
    assert file.read_bytes() == ENGINE
    assert not part.exists()


def test_a_rest_that_is_wrong_is_pulled_from_the_beginning(
    store: ArtifactStore, tmp_path: Path
) -> None:
    file = tmp_path / "model.engine"
    part = tmp_path / f".{file.name}.{MANIFEST.file.sha256[:16]}.part"
    part.write_bytes(bytes(100_000))
    said = engines(store, "pull", MANIFEST.key, "-o", str(file), "--json").check().json
    assert said["transferred_bytes"] == len(ENGINE)
    assert file.read_bytes() == ENGINE


def test_an_engine_by_another_signer_is_refused(store: ArtifactStore, tmp_path: Path) -> None:
    file, other = tmp_path / "model.engine", AgentKey.generate().public_key.hex()
    pull = ("pull", MANIFEST.key, "-o", str(file), "--trust", other)
    assert SIGNER in engines(store, *pull).refused(Exit.REFUSED)
    assert not file.exists()
    key_file = tmp_path / "agent.pem"
    key_file.write_bytes(store.objects.get(f"keys/{SIGNER}") or b"")
    engines(store, *pull, "--trust", str(key_file)).check()
    assert file.read_bytes() == ENGINE


def test_damaged_bytes_are_refused_and_the_engine_in_use_stays(
    store: ArtifactStore, tmp_path: Path
) -> None:
    file = tmp_path / "model.engine"
    file.write_bytes(b"in use")
    store.objects.put(f"blobs/{MANIFEST.file.sha256}", bytes(len(ENGINE)))
    engines(store, "pull", MANIFEST.key, "-o", str(file)).refused(Exit.REFUSED)
    assert file.read_bytes() == b"in use"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["pull", "abcdef12", "-o", "{folder}/x"], Exit.NOT_FOUND),
        (["pull", "ab" * 32, "-o", "{folder}/x"], Exit.NOT_FOUND),
        (["pull", "abc", "-o", "{folder}/x"], Exit.USAGE),
        (["pull", "ab" * 32, "-o", "{folder}/no/x"], Exit.NOT_FOUND),
        (["pull", "ab" * 32, "-o", "{folder}/x", "--trust", "{folder}/built"], Exit.REFUSED),
        (["pin", "ab" * 32], Exit.NOT_FOUND),
        (["unpin", "ab" * 32], Exit.NOT_FOUND),
        (["gc", "--older-than", "23"], Exit.USAGE),
        (["push"], Exit.USAGE),
        (["push", "--folder", "{folder}"], Exit.NOT_FOUND),
        (["push", "{folder}/built", "--manifest", "{folder}/built"], Exit.REFUSED),
    ],
)
def test_what_cannot_be_is_refused(
    store: ArtifactStore, tmp_path: Path, words: list[str], code: Exit
) -> None:
    engines(store, *(word.format(folder=tmp_path) for word in words)).refused(code)
    assert store.engines() == [MANIFEST.key]


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("s3://user:hunter2@bucket", Exit.CONFIG),
        ("s3://bucket?endpoint=http://127.0.0.1:1", Exit.UNAVAILABLE),
        ("nosuch://place", Exit.CONFIG),
    ],
)
def test_a_store_that_cannot_be_used_is_refused(
    monkeypatch: pytest.MonkeyPatch, address: str, code: Exit
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "hunter2-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-secret")
    line = in_process("engines", "gc", "--store", address).refused(code)
    assert "hunter2" not in line


def test_an_agents_folder_is_pushed(tmp_path: Path, engine: Path) -> None:
    EngineStore(tmp_path / "agent").publish(SIGNED, engine)
    empty = ArtifactStore.at(str(tmp_path / "empty"))
    said = engines(empty, "push", "--folder", str(tmp_path / "agent"), "--json").check().json
    assert [each["key"] for each in said["engines"]] == empty.engines() == [MANIFEST.key]


def test_a_file_is_pushed_with_its_manifest(tmp_path: Path, engine: Path) -> None:
    empty = ArtifactStore.at(str(tmp_path / "empty"))
    manifest = tmp_path / "manifest"
    manifest.write_bytes(SIGNED.SerializeToString())
    engines(empty, "push", str(engine), "--manifest", str(manifest)).check()
    assert empty.engines() == [MANIFEST.key]


def test_a_pinned_engine_is_not_dropped(store: ArtifactStore) -> None:
    engines(store, "pin", MANIFEST.key[:8]).check()
    assert "pinned" in engines(store, "list").check().out
    gc = ("gc", "--drop-older-than", "1", "--json")
    assert engines(store, *gc).check().json["dropped"] == []
    engines(store, "unpin", MANIFEST.key[:8]).check()
    assert engines(store, *gc, "--dry-run").check().json["dropped"] == [MANIFEST.key]
    assert store.engines() == [MANIFEST.key]
    said = engines(store, *gc).check().json
    assert said["dropped"] == [MANIFEST.key]
    # Its bytes have only now become unreferenced.
    assert (said["removed"], said["waiting"]) == ([], [MANIFEST.file.sha256])
    assert engines(store, "gc").check().out.startswith("engines")
    assert store.has_bytes(MANIFEST.file)


def test_engines_whose_bytes_are_missing_are_named(store: ArtifactStore) -> None:
    store.objects.delete(f"blobs/{MANIFEST.file.sha256}")
    assert MANIFEST.key in engines(store, "gc").check(Exit.REFUSED).err


def test_a_store_is_listed(store: ArtifactStore) -> None:
    (listed,) = engines(store, "list", "--json").check().json["engines"]
    assert (listed["key"], listed["pinned"], listed["signer"]) == (MANIFEST.key, False, SIGNER)


def test_engines_go_to_a_machine_without_a_network_in_one_file(
    store: ArtifactStore, tmp_path: Path
) -> None:
    bundle, there = tmp_path / "engines.bundle", ArtifactStore.at(str(tmp_path / "there"))
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=np.ones((2, 4)))
    given = ("--samples", str(samples), "--expected", str(samples))
    export = ("export", MANIFEST.key[:8], "-o", str(bundle))
    assert SIGNER in engines(store, *export, *given).check().out
    # Whose it is must be said; who it says it is of is shown.
    assert SIGNER in engines(there, "import", str(bundle)).refused(Exit.USAGE)
    other = AgentKey.generate().public_key.hex()
    engines(there, "import", str(bundle), "--trust", other).refused(Exit.REFUSED)
    assert there.engines() == []
    imported = ("import", str(bundle), "--trust", other, "--trust", SIGNER, "--json")
    (said,) = engines(there, *imported).check().json["engines"]
    assert (said["key"], said["samples"]) == (MANIFEST.key, True)
    engines(there, "pull", MANIFEST.key, "-o", str(tmp_path / "engine")).check()
    assert (tmp_path / "engine").read_bytes() == ENGINE


def test_an_export_that_fails_leaves_no_file(store: ArtifactStore, tmp_path: Path) -> None:
    bundle = tmp_path / "engines.bundle"
    store.objects.put(f"blobs/{MANIFEST.file.sha256}", bytes(len(ENGINE)))
    engines(store, "export", MANIFEST.key, "-o", str(bundle)).refused(Exit.REFUSED)
    assert not bundle.exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["import", "{folder}/built", "--trust", SIGNER], Exit.REFUSED),
        (["import", "{folder}/none", "--trust", SIGNER], Exit.NOT_FOUND),
        (["import", "{folder}/built", "--trust", "{folder}/none"], Exit.REFUSED),
        (["export", "abcdef12", "-o", "{folder}/x"], Exit.NOT_FOUND),
        (["export", "ab" * 32, "-o", "{folder}/x", "--samples", "{folder}/built"], Exit.USAGE),
    ],
)
def test_what_is_no_bundle_is_refused(
    store: ArtifactStore, tmp_path: Path, words: list[str], code: Exit
) -> None:
    given = [word.format(folder=tmp_path) for word in words]
    line = engines(store, *given)
    assert line.code in {code, Exit.NOT_FOUND}
    assert "Traceback" not in line.err
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "command",
    [
        ("list",),
        ("gc",),
        ("pull", MANIFEST.key, "-o", "{folder}/x"),
        ("pin", MANIFEST.key),
        ("unpin", MANIFEST.key),
        ("export", MANIFEST.key, "-o", "{folder}/x"),
        ("check", MANIFEST.key),
    ],
    ids=lambda words: words[0],
)
def test_a_folder_that_is_not_there_is_no_empty_store(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    words = [word.format(folder=tmp_path) for word in command]
    typo = tmp_path / "typo"
    result = in_process("engines", *words, "--store", str(typo))
    assert "no such folder" in result.refused(Exit.NOT_FOUND)
    assert not typo.exists()


def test_a_pull_warns_of_an_engine_that_was_not_proven(tmp_path: Path, engine: Path) -> None:
    manifest = build_pb2.EngineManifest.FromString(SIGNED.manifest)
    manifest.precision.precision = "int8"
    manifest.precision.accuracy.outputs.add(output="y", relative_l2=0.001)
    store = ArtifactStore.at(str(tmp_path / "store"))
    store.publish(KEY.sign(manifest), engine)
    pulled = engines(store, "pull", manifest.key, "-o", str(tmp_path / "x")).check()
    assert "unproven: it was measured with noise" in pulled.err


@pytest.mark.parametrize(
    ("samples", "expected", "said"),
    [
        ({"x": np.ones((2, 4))}, {"y": np.full((2, 4), np.nan)}, "no number but NaN"),
        ({"x": np.ones((0, 4))}, {"y": np.ones((2, 4))}, "array 'x' is empty"),
        ({"x": np.ones((2, 4))}, {}, "there are no expected outputs"),
    ],
)
def test_what_no_engine_could_be_checked_with_is_not_exported(
    store: ArtifactStore,
    tmp_path: Path,
    samples: dict[str, npt.NDArray[np.float64]],
    expected: dict[str, npt.NDArray[np.float64]],
    said: str,
) -> None:
    np.savez(tmp_path / "in.npz", **samples)  # type: ignore[arg-type]  # its last is a flag
    np.savez(tmp_path / "out.npz", **expected)  # type: ignore[arg-type]  # its last is a flag
    given = ("--samples", str(tmp_path / "in.npz"), "--expected", str(tmp_path / "out.npz"))
    bundle = tmp_path / "bundle"
    result = engines(store, "export", MANIFEST.key, "-o", str(bundle), *given)
    assert said in result.refused(Exit.USAGE)
    assert not bundle.exists()
