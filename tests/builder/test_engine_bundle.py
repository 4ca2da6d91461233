"""A bundle is imported whole, or nothing of it is."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.builder.signed import ENGINE, signed_for

from seatkeeper.artifacts.errors import (
    BuildError,
    BundleInvalid,
    EngineDamaged,
    ManifestUntrusted,
)
from seatkeeper.artifacts.manifest import AgentKey
from seatkeeper.artifacts.stores.artifact_store import ArtifactStore
from seatkeeper.artifacts.stores.bundle import Bundle, Exported, signers, write_bundle
from seatkeeper.v1 import build_pb2

KEY = AgentKey.generate()
SIGNED = signed_for(ENGINE, KEY)
MANIFEST = build_pb2.EngineManifest.FromString(SIGNED.manifest)
BLOB = f"blobs/{MANIFEST.file.sha256}"
Files = dict[str, bytes]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore.at(str(tmp_path / "store"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    path = tmp_path / "engines.bundle"
    for name in ("inputs", "expected"):
        (tmp_path / name).write_bytes(name.encode() * 1_000)
    engine = Exported(
        SIGNED, [ENGINE[:10], ENGINE[10:]], tmp_path / "inputs", tmp_path / "expected"
    )
    with path.open("wb") as file:
        write_bundle(file, [engine])
    return path


def files_of(bundle: Path) -> Files:
    with tarfile.open(bundle) as archive:
        files = {}
        for member in archive:
            opened = archive.extractfile(member)
            assert opened is not None
            files[member.name] = opened.read()
        return files


def write(bundle: Path, files: Files, *more: tuple[tarfile.TarInfo, bytes]) -> None:
    with tarfile.open(bundle, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for info, content in more:
            archive.addfile(info, io.BytesIO(content))


def import_(bundle: Path, store: ArtifactStore, *trusted: bytes) -> None:
    with Bundle.open(bundle, trusted or (KEY.public_key,)) as opened:
        opened.import_into(store)


def is_empty(store: ArtifactStore) -> bool:
    return not Path(store.shown).exists()


def test_what_was_exported_is_imported(bundle: Path, store: ArtifactStore) -> None:
    import_(bundle, store)
    assert store.manifest(MANIFEST.key) == (SIGNED, MANIFEST)
    assert b"".join(store.read(MANIFEST.file)) == ENGINE
    assert store.objects.get(f"inputs/{MANIFEST.key}.npz") == b"inputs" * 1_000
    assert store.objects.get(f"expected/{MANIFEST.key}.npz") == b"expected" * 1_000
    assert signers(bundle) == (KEY.public_key.hex(),)


def test_bytes_that_engines_share_are_there_once(tmp_path: Path, store: ArtifactStore) -> None:
    path = tmp_path / "two.bundle"
    other = signed_for(ENGINE, KEY, model="another")
    with path.open("wb") as file:
        write_bundle(file, [Exported(SIGNED, [ENGINE]), Exported(other, [ENGINE])])
    assert sum(name.startswith("blobs/") for name in files_of(path)) == 1
    import_(path, store)
    assert len(store.engines()) == 2


def test_wrong_bytes_are_not_exported(tmp_path: Path) -> None:
    for chunks in ([ENGINE[:-1]], [bytes(len(ENGINE))]):
        with pytest.raises(EngineDamaged):
            write_bundle(io.BytesIO(), [Exported(SIGNED, chunks)])


def test_an_engine_by_a_key_that_is_not_trusted_is_refused(
    bundle: Path, store: ArtifactStore
) -> None:
    with pytest.raises(ManifestUntrusted, match=KEY.public_key.hex()):
        import_(bundle, store, AgentKey.generate().public_key)
    assert is_empty(store)


def forged(files: Files) -> None:
    said = build_pb2.SignedManifest.FromString(files[f"manifests/{MANIFEST.key}"])
    manifest = build_pb2.EngineManifest.FromString(said.manifest)
    manifest.project = "other"
    said.manifest = manifest.SerializeToString()
    files[f"manifests/{MANIFEST.key}"] = said.SerializeToString()


def renamed(files: Files) -> None:
    other = signed_for(ENGINE, KEY, model="another")
    files[f"manifests/{MANIFEST.key}"] = other.SerializeToString()


def indexed(change: Callable[[dict[str, object]], object]) -> Callable[[Files], None]:
    def changed(files: Files) -> None:
        index = json.loads(files["bundle.json"])
        change(index)
        files["bundle.json"] = json.dumps(index).encode()

    return changed


def put(name: str, content: bytes) -> Callable[[Files], None]:
    return lambda files: files.__setitem__(name, content)


def lost(name: str) -> Callable[[Files], None]:
    return lambda files: files.__delitem__(name)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (put(BLOB, bytes(len(ENGINE))), EngineDamaged, "manifest says"),
        (put(BLOB, ENGINE[:-1]), EngineDamaged, "size"),
        (put(BLOB, ENGINE + b"x"), EngineDamaged, "size"),
        (lost(BLOB), BundleInvalid, "missing"),
        (lost(f"manifests/{MANIFEST.key}"), BundleInvalid, "missing"),
        (lost(f"keys/{KEY.public_key.hex()}.pem"), BundleInvalid, "missing"),
        (lost(f"inputs/{MANIFEST.key}.npz"), BundleInvalid, "missing"),
        (lost("bundle.json"), BundleInvalid, "missing"),
        (put(f"inputs/{MANIFEST.key}.npz", b"other"), BundleInvalid, "not what"),
        (forged, ManifestUntrusted, "does not hold"),
        (renamed, BundleInvalid, "belongs to"),
        (put(f"manifests/{MANIFEST.key}", b"\xff"), BundleInvalid, "damaged"),
        (put("bundle.json", b"{"), BundleInvalid, "bundle.json"),
        (put("bundle.json", b"[" * 100_000), BundleInvalid, "bundle.json"),
        (put("bundle.json", b" " * (2 << 20)), BundleInvalid, "at most"),
        (put("bundle.json", b"[]"), BundleInvalid, "bundle.json"),
        (indexed(lambda index: index.update(format=2)), BundleInvalid, "format 2"),
        (indexed(lambda index: index.update(engines=[])), BundleInvalid, "1 to"),
        (indexed(lambda index: index.update(engines=["../x"])), BundleInvalid, "1 to"),
        (put("blobs/" + "a" * 64, b"x"), BundleInvalid, "does not belong"),
        (put("../outside", b"x"), BundleInvalid, "no name"),
        (put("/etc/passwd", b"x"), BundleInvalid, "no name"),
        (put("blobs/../../x", b"x"), BundleInvalid, "no name"),
        (put("x" * 5_000, b"x"), BundleInvalid, "no name"),
    ],
)
def test_a_bundle_that_is_not_right_is_refused_whole(
    bundle: Path,
    store: ArtifactStore,
    change: Callable[[Files], None],
    kind: type[BuildError],
    said: str,
) -> None:
    files = files_of(bundle)
    change(files)
    write(bundle, files)
    with pytest.raises(kind, match=said):
        import_(bundle, store)
    assert is_empty(store)


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE],
)
def test_what_is_no_regular_file_is_refused(
    bundle: Path, store: ArtifactStore, kind: bytes
) -> None:
    info = tarfile.TarInfo("blobs/" + "a" * 64)
    info.type, info.linkname = kind, "/etc/passwd"
    write(bundle, files_of(bundle), (info, b""))
    with pytest.raises(BundleInvalid, match="no regular file"):
        import_(bundle, store)
    assert is_empty(store)


def test_a_name_that_is_there_twice_is_refused(bundle: Path, store: ArtifactStore) -> None:
    info = tarfile.TarInfo(BLOB)
    info.size = len(ENGINE)
    write(bundle, files_of(bundle), (info, ENGINE))
    with pytest.raises(BundleInvalid, match="twice"):
        import_(bundle, store)
    assert is_empty(store)


def test_a_bundle_that_is_cut_off_anywhere_is_refused(
    bundle: Path, store: ArtifactStore
) -> None:
    whole = bundle.read_bytes()
    ends = bundle.read_bytes().rstrip(b"\0")
    for length in [0, 1, 100, 511, *range(512, len(ends), len(ends) // 40)]:
        bundle.write_bytes(whole[:length])
        with pytest.raises(BundleInvalid):
            import_(bundle, store)
    assert is_empty(store)


def test_what_is_no_bundle_is_refused(bundle: Path, store: ArtifactStore) -> None:
    for content in (
        b"",
        b"x" * 10_000,
        b"\x1f\x8b" + bytes(1_000),
        b"PK\x03\x04" + bytes(1_000),
    ):
        bundle.write_bytes(content)
        with pytest.raises(BundleInvalid):
            import_(bundle, store)
        with pytest.raises(BundleInvalid):
            import_(bundle, store, KEY.public_key)
    assert is_empty(store)
