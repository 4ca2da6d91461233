"""An engine in the store is whole, or it is not there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.builder.full_disks import can_mount, create_file_with_room, tiny_disk
from tests.builder.signed import ENGINE, signed_for

from seatkeeper.artifacts.errors import (
    DiskFull,
    EngineDamaged,
    EngineNotFound,
    ManifestUntrusted,
)
from seatkeeper.artifacts.manifest import AgentKey
from seatkeeper.artifacts.store import EngineStore
from seatkeeper.v1 import build_pb2

KEY = AgentKey.generate()
SIGNED = signed_for(ENGINE, KEY)
ROOMY = 1 << 30


def key_of(signed: build_pb2.SignedManifest) -> str:
    return build_pb2.EngineManifest.FromString(signed.manifest).key


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "engine"
    path.write_bytes(ENGINE)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> EngineStore:
    return EngineStore(folder)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read(store: EngineStore, key: str) -> bytes:
    with store.open(key) as stored:
        return b"".join(stored.chunks())


def test_a_published_engine_is_found_whole(store: EngineStore, engine: Path) -> None:
    key = key_of(SIGNED)
    assert not store.has(key)
    store.publish(SIGNED, engine)

    assert store.has(key)
    assert store.keys() == [key]
    assert store.manifest(key) == SIGNED
    assert read(store, key) == ENGINE
    assert engine.exists()


def test_an_engine_is_sent_in_pieces_that_fit_a_message(
    store: EngineStore, engine: Path
) -> None:
    large = ENGINE * 9
    engine.write_bytes(large)
    signed = signed_for(large, KEY)
    store.publish(signed, engine)
    with store.open(key_of(signed)) as stored:
        pieces = list(stored.chunks())
        assert b"".join(pieces) == b"".join(stored.chunks()) == large
    assert max(map(len, pieces)) == 1 << 20


def test_an_engine_is_still_there_after_a_restart(store: EngineStore, engine: Path) -> None:
    store.publish(SIGNED, engine)
    again = EngineStore(store.staging.parent)
    again.sweep()
    assert read(again, key_of(SIGNED)) == ENGINE


def test_what_is_not_published_is_not_found(store: EngineStore) -> None:
    for key in ("ab" * 32, "", "../../etc/passwd", "AB" * 32):
        assert not store.has(key)
        with pytest.raises(EngineNotFound):
            store.manifest(key)
        with pytest.raises(EngineNotFound), store.open(key):
            pass
        store.remove(key)


def test_an_engine_that_is_not_its_manifests_is_not_published(
    store: EngineStore, folder: Path, engine: Path
) -> None:
    engine.write_bytes(ENGINE[:-1])
    with pytest.raises(EngineDamaged):
        store.publish(SIGNED, engine)
    assert files(folder) == []


def test_a_manifest_whose_signature_does_not_hold_is_not_published(
    store: EngineStore, folder: Path, engine: Path
) -> None:
    forged = signed_for(ENGINE, AgentKey.generate())
    forged.public_key = KEY.public_key
    with pytest.raises(ManifestUntrusted):
        store.publish(forged, engine)
    assert files(folder) == []


@pytest.mark.parametrize("rooms", [(100_000,), (len(ENGINE), 10)], ids=["engine", "manifest"])
def test_a_disk_that_is_full_leaves_nothing_behind(
    folder: Path, engine: Path, rooms: tuple[int, ...]
) -> None:
    store = EngineStore(folder, create_file=create_file_with_room(*rooms))
    with pytest.raises(DiskFull) as caught:
        store.publish(SIGNED, engine)
    assert caught.value.retryable
    assert files(folder) == []


def test_a_disk_that_fills_keeps_what_was_there(folder: Path, engine: Path) -> None:
    """The second model's engine has the same bytes, so its blob must survive the failure."""
    rooms = (ROOMY, ROOMY, ROOMY, 10)
    store = EngineStore(folder, create_file=create_file_with_room(*rooms))
    store.publish(SIGNED, engine)
    with pytest.raises(DiskFull):
        store.publish(signed_for(ENGINE, KEY, model="other"), engine)
    assert store.keys() == [key_of(SIGNED)]
    assert read(store, key_of(SIGNED)) == ENGINE


if can_mount():

    @pytest.fixture
    def full_disk(tmp_path: Path) -> Iterator[Path]:
        mounted = tmp_path / "disk"
        mounted.mkdir()
        with tiny_disk(mounted) as disk:
            yield disk

    def test_a_real_disk_that_is_full_leaves_nothing_behind(
        full_disk: Path, engine: Path
    ) -> None:
        store = EngineStore(full_disk / "store")
        with pytest.raises(DiskFull):
            store.publish(SIGNED, engine)
        assert files(full_disk) == []


@pytest.mark.parametrize("part", ["blobs", "manifests"])
def test_damage_on_the_disk_is_reported_before_a_byte_is_served(
    store: EngineStore, folder: Path, engine: Path, part: str
) -> None:
    store.publish(SIGNED, engine)
    (path,) = (folder / part).iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(EngineDamaged), store.open(key_of(SIGNED)):
        pass

    store.remove(key_of(SIGNED))
    assert files(folder) == []


def test_lost_bytes_are_damage(store: EngineStore, folder: Path, engine: Path) -> None:
    store.publish(SIGNED, engine)
    next((folder / "blobs").iterdir()).unlink()
    with pytest.raises(EngineDamaged, match="missing"), store.open(key_of(SIGNED)):
        pass


def test_publishing_again_repairs_the_damage(
    store: EngineStore, folder: Path, engine: Path
) -> None:
    store.publish(SIGNED, engine)
    next((folder / "blobs").iterdir()).write_bytes(b"damaged")
    store.publish(SIGNED, engine)
    assert read(store, key_of(SIGNED)) == ENGINE


def test_a_manifest_under_another_key_is_damage(
    store: EngineStore, folder: Path, engine: Path
) -> None:
    store.publish(SIGNED, engine)
    (path,) = (folder / "manifests").iterdir()
    path.rename(path.with_name("ab" * 32))
    with pytest.raises(EngineDamaged, match="another key"):
        store.manifest("ab" * 32)


def test_bytes_that_two_keys_share_live_as_long_as_either(
    store: EngineStore, folder: Path, engine: Path
) -> None:
    other = signed_for(ENGINE, KEY, model="other")
    store.publish(SIGNED, engine)
    store.publish(other, engine)
    assert len(list((folder / "blobs").iterdir())) == 1

    store.remove(key_of(SIGNED))
    assert read(store, key_of(other)) == ENGINE
    store.remove(key_of(other))
    store.remove(key_of(other))
    assert files(folder) == []


def test_a_rebuilt_engine_replaces_the_old_one_and_its_bytes(
    store: EngineStore, folder: Path, engine: Path
) -> None:
    store.publish(SIGNED, engine)
    engine.write_bytes(ENGINE[::-1])
    store.publish(signed_for(ENGINE[::-1], KEY), engine)
    assert read(store, key_of(SIGNED)) == ENGINE[::-1]
    assert len(list((folder / "blobs").iterdir())) == 1


def test_an_engine_that_is_being_sent_survives_its_removal(
    store: EngineStore, engine: Path
) -> None:
    store.publish(SIGNED, engine)
    with store.open(key_of(SIGNED)) as stored:
        store.remove(key_of(SIGNED))
        assert b"".join(stored.chunks()) == ENGINE


def test_what_a_crash_left_is_swept_away(
    store: EngineStore, folder: Path, engine: Path
) -> None:
    store.publish(SIGNED, engine)
    (folder / "blobs" / ("cd" * 32)).write_bytes(b"published halfway")
    (store.staging / "draft").write_bytes(b"half")
    (store.staging / ".build-x").mkdir()
    (store.staging / ".build-x" / "engine").write_bytes(b"half")

    store.sweep()
    assert len(files(folder)) == 2
    assert list(store.staging.iterdir()) == []
    assert read(store, key_of(SIGNED)) == ENGINE
