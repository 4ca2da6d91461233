"""Every kind of store keeps the same contract: engines appear whole, and stay."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from tests.builder.signed import ENGINE, signed_for
from tests.s3_server import S3Server, running_s3

from seatkeeper.artifacts.errors import EngineDamaged, EngineNotFound, ManifestUntrusted
from seatkeeper.artifacts.manifest import AgentKey
from seatkeeper.artifacts.stores.artifact_store import ArtifactStore
from seatkeeper.artifacts.stores.collecting import GRACE_MIN, collect, time_of
from seatkeeper.v1 import build_pb2

KEY = AgentKey.generate()
SIGNED = signed_for(ENGINE, KEY)
MANIFEST = build_pb2.EngineManifest.FromString(SIGNED.manifest)
LATER = GRACE_MIN + timedelta(minutes=1)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with running_s3(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["folder", "memory", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store."""
    name = f"{tmp_path.parent.name}-{tmp_path.name}"
    match request.param:
        case "folder":
            return str(tmp_path / "store")
        case "memory":
            pytest.importorskip("fsspec", reason="needs the extra `store`")
            return f"memory://{name}"
        case _:
            server: S3Server = request.getfixturevalue("s3")
            return server.address(name)


@pytest.fixture
def store(address: str) -> ArtifactStore:
    return ArtifactStore.at(address)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "engine"
    path.write_bytes(ENGINE)
    return path


def names(store: ArtifactStore) -> list[str]:
    folders = ("blobs", "manifests", "keys", "pins", "unreferenced")
    return sorted(
        found.name.partition("/")[0] for each in folders for found in store.objects.list(each)
    )


def bytes_of(store: ArtifactStore, offset: int = 0) -> bytes:
    return b"".join(store.read(MANIFEST.file, offset))


def test_an_engine_is_had_by_all_who_have_the_address(
    store: ArtifactStore, address: str, engine: Path
) -> None:
    store.publish(SIGNED, engine)
    other = ArtifactStore.at(address)
    assert other.store_id == store.store_id
    assert other.engines() == [MANIFEST.key]
    assert other.manifest(MANIFEST.key) == (SIGNED, MANIFEST)
    assert bytes_of(other) == ENGINE
    assert names(other) == ["blobs", "keys", "manifests"]


def test_bytes_are_read_from_any_offset(store: ArtifactStore, engine: Path) -> None:
    store.publish(SIGNED, engine)
    for offset in (1, 1_000, len(ENGINE) - 1, len(ENGINE)):
        assert bytes_of(store, offset) == ENGINE[offset:]


def test_an_engine_of_many_parts_is_stored_whole(store: ArtifactStore, engine: Path) -> None:
    large = os.urandom(20 << 20)
    engine.write_bytes(large)
    signed = signed_for(large, KEY)
    store.publish(signed, engine)
    _, manifest = store.manifest(store.engines()[0])
    assert b"".join(store.read(manifest.file)) == large


def test_equal_bytes_are_stored_once(store: ArtifactStore, engine: Path) -> None:
    store.publish(SIGNED, engine)
    store.publish(signed_for(ENGINE, KEY, model="another"), engine)
    assert len(store.engines()) == 2
    assert names(store).count("blobs") == 1


def test_without_a_manifest_there_is_no_engine(store: ArtifactStore, engine: Path) -> None:
    store.put_bytes(engine, MANIFEST.file)
    assert store.engines() == []
    with pytest.raises(EngineNotFound):
        store.manifest(MANIFEST.key)


def test_a_manifest_without_its_bytes_is_refused(store: ArtifactStore) -> None:
    with pytest.raises(EngineNotFound):
        store.put_manifest(SIGNED)
    with pytest.raises(EngineNotFound):
        bytes_of(store)


def test_other_bytes_than_the_manifest_says_are_not_stored(
    store: ArtifactStore, engine: Path
) -> None:
    engine.write_bytes(ENGINE[:-1])
    with pytest.raises(EngineDamaged):
        store.publish(SIGNED, engine)
    assert names(store) == []


def test_an_older_fence_does_not_replace_a_newer_one(
    store: ArtifactStore, engine: Path
) -> None:
    store.publish(SIGNED, engine)
    older = build_pb2.EngineManifest.FromString(SIGNED.manifest)
    older.fence -= 1
    store.publish(KEY.sign(older), engine)
    assert store.manifest(MANIFEST.key)[0] == SIGNED


def test_a_manifest_by_a_key_that_the_store_does_not_have_is_not_believed(
    store: ArtifactStore, engine: Path
) -> None:
    store.publish(SIGNED, engine)
    forged = signed_for(ENGINE, AgentKey.generate())
    store.objects.put(f"manifests/{MANIFEST.key}", forged.SerializeToString())
    with pytest.raises(ManifestUntrusted):
        store.manifest(MANIFEST.key)


@pytest.mark.parametrize("content", [b"", b"\xff\xff", SIGNED.SerializeToString()[:-1]])
def test_a_damaged_manifest_is_found(
    store: ArtifactStore, engine: Path, content: bytes
) -> None:
    store.publish(SIGNED, engine)
    store.objects.put(f"manifests/{MANIFEST.key}", content)
    with pytest.raises(EngineDamaged):
        store.manifest(MANIFEST.key)
    # While it is not known what that one names, nothing is removed.
    with pytest.raises(EngineDamaged):
        collect(store, time_of(store) + LATER)
    assert "blobs" in names(store)


@pytest.mark.parametrize("key", ["", "../keys/x", "A" * 64, "ab" * 31, "ab" * 33])
def test_what_is_no_key_is_not_found(store: ArtifactStore, key: str) -> None:
    with pytest.raises(EngineNotFound):
        store.manifest(key)
    with pytest.raises(EngineNotFound):
        store.unpin(key)


def test_unreferenced_bytes_live_a_day_after_they_were_first_seen(
    store: ArtifactStore, engine: Path
) -> None:
    store.put_bytes(engine, MANIFEST.file)
    now = time_of(store)
    # However old they are: they may just now have been replaced, and are still being fetched.
    assert collect(store, now + timedelta(days=99)).waiting == (MANIFEST.file.sha256,)
    assert collect(store, now + GRACE_MIN - timedelta(minutes=1)).removed == ()
    assert store.has_bytes(MANIFEST.file)
    assert collect(store, now + LATER, dry_run=True).removed == (MANIFEST.file.sha256,)
    assert store.has_bytes(MANIFEST.file)
    collected = collect(store, now + LATER)
    assert (collected.removed, collected.removed_bytes) == (
        (MANIFEST.file.sha256,),
        len(ENGINE),
    )
    assert names(store) == []


def test_an_engine_that_is_published_meanwhile_is_not_collected(
    store: ArtifactStore, engine: Path
) -> None:
    store.put_bytes(engine, MANIFEST.file)
    now = time_of(store)
    collect(store, now)
    store.publish(SIGNED, engine)
    assert collect(store, now + LATER).removed == ()
    assert bytes_of(store) == ENGINE
    assert "unreferenced" not in names(store)


def test_bytes_that_a_collection_has_seen_are_uploaded_again(
    store: ArtifactStore, engine: Path
) -> None:
    store.put_bytes(engine, MANIFEST.file)
    collect(store, time_of(store))
    # The collection that decided to remove them does so only now.
    store.put_bytes(engine, MANIFEST.file)
    store.objects.delete(f"blobs/{MANIFEST.file.sha256}")
    store.publish(SIGNED, engine)
    assert bytes_of(store) == ENGINE


def test_what_is_pinned_stays_whatever_its_age(store: ArtifactStore, engine: Path) -> None:
    store.publish(SIGNED, engine)
    store.pin(MANIFEST.key)
    now = time_of(store)
    day = timedelta(days=1)
    assert collect(store, now, engines_older_than=day).dropped == ()
    store.unpin(MANIFEST.key)
    assert collect(store, now, engines_older_than=day).dropped == (MANIFEST.key,)
    assert store.engines() == []
    # Its bytes are found unreferenced from now on.
    assert collect(store, now).waiting == (MANIFEST.file.sha256,)
    assert collect(store, now + LATER).removed == (MANIFEST.file.sha256,)


def test_pinned_bytes_stay_when_their_engine_is_replaced(
    store: ArtifactStore, engine: Path, tmp_path: Path
) -> None:
    store.publish(SIGNED, engine)
    store.pin(MANIFEST.key)
    newer = build_pb2.EngineManifest.FromString(signed_for(b"newer", KEY).manifest)
    newer.fence += 1
    (tmp_path / "newer").write_bytes(b"newer")
    store.publish(KEY.sign(newer), tmp_path / "newer")
    now = time_of(store)
    collect(store, now)
    assert collect(store, now + LATER).removed == ()
    assert bytes_of(store) == ENGINE


def test_engines_without_bytes_are_named(store: ArtifactStore, engine: Path) -> None:
    store.publish(SIGNED, engine)
    store.objects.delete(f"blobs/{MANIFEST.file.sha256}")
    assert collect(store, time_of(store)).missing == (MANIFEST.key,)


def test_a_grace_of_less_than_a_day_is_refused(store: ArtifactStore) -> None:
    with pytest.raises(AssertionError):
        collect(store, time_of(store), grace=timedelta(hours=23))


def test_a_probe_leaves_nothing(store: ArtifactStore) -> None:
    store.check("nonce")
    with suppress(StopIteration):
        pytest.fail(next(store.objects.list("probes")).name)
