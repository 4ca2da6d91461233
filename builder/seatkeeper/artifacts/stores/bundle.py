"""Engines in one file, for machines without a network.

A tar archive, uncompressed, of regular files with exactly these names, in this order:

    bundle.json                what is in it: ``Index`` as JSON
    keys/<public key>.pem      of each signer
    manifests/<key>            a serialised SignedManifest of each engine
    inputs/<key>.npz           samples of an engine's inputs, where there are any
    expected/<key>.npz         the outputs expected of them
    blobs/<sha256>             bytes, each once

A reader checks all of it before it imports any: every name, size and hash, and that each manifest is
signed by a key that its user trusts. The samples are not signed: they show what an engine
computes, not whose it is.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

from google.protobuf.message import DecodeError

from seatkeeper.artifacts.errors import BundleInvalid, EngineDamaged, ManifestUntrusted
from seatkeeper.artifacts.manifest import MANIFEST_BYTES_MAX, verify_manifest
from seatkeeper.artifacts.stores.artifact_store import ArtifactStore, public_key_pem
from seatkeeper.artifacts.stores.objects import CHUNK_BYTES
from seatkeeper.artifacts.trust import check_signer
from seatkeeper.v1 import build_pb2

FORMAT = 1
INDEX = "bundle.json"
ENGINES_MAX = 1_000
INDEX_BYTES_MAX = 1 << 20
SAMPLES_BYTES_MAX = 1 << 30
ENGINE_BYTES_MAX = 64 << 30
_NAME = re.compile(
    r"bundle\.json|keys/[0-9a-f]{64}\.pem|(inputs|expected)/[0-9a-f]{64}\.npz|"
    r"(manifests|blobs)/[0-9a-f]{64}",
    re.ASCII,
)
_SHOWN_CHARS = 100


@dataclass(frozen=True)
class Exported:
    """An engine that is to be exported."""

    signed: build_pb2.SignedManifest
    chunks: Iterable[bytes]
    """Its bytes; read once, and not at all when another engine has the same."""
    inputs: Path | None = None
    expected: Path | None = None


@dataclass(frozen=True)
class BundledEngine:
    """An engine of a bundle that was checked."""

    signed: build_pb2.SignedManifest
    manifest: build_pb2.EngineManifest
    has_samples: bool


class Writable(Protocol):
    """Anything that takes bytes."""

    def write(self, content: bytes, /) -> object:
        """Append them."""


def write_bundle(file: Writable, engines: Sequence[Exported]) -> None:
    """Write a bundle. Raises ``EngineDamaged`` when bytes are not what their manifest says."""
    manifests = [verify_manifest(each.signed, each.signed.public_key) for each in engines]
    files: dict[str, Path] = {}
    for engine, manifest in zip(engines, manifests, strict=True):
        if engine.inputs is not None and engine.expected is not None:
            files[f"inputs/{manifest.key}.npz"] = engine.inputs
            files[f"expected/{manifest.key}.npz"] = engine.expected
    index = {
        "format": FORMAT,
        "engines": [manifest.key for manifest in manifests],
        "samples": {name: _sha256(path) for name, path in files.items()},
    }
    with tarfile.open(
        fileobj=cast("IO[bytes]", file), mode="w|", format=tarfile.GNU_FORMAT
    ) as archive:
        _add(archive, INDEX, json.dumps(index, indent=1).encode())
        for signer in sorted({engine.signed.public_key for engine in engines}):
            _add(archive, f"keys/{signer.hex()}.pem", public_key_pem(signer))
        for engine, manifest in zip(engines, manifests, strict=True):
            _add(archive, f"manifests/{manifest.key}", engine.signed.SerializeToString())
        for name, path in files.items():
            with path.open("rb") as source:
                archive.addfile(_info(name, path.stat().st_size), source)
        written = set()
        for engine, manifest in zip(engines, manifests, strict=True):
            if manifest.file.sha256 not in written:
                written.add(manifest.file.sha256)
                with closing(_Checked(engine.chunks, manifest.file)) as checked:
                    name = f"blobs/{manifest.file.sha256}"
                    archive.addfile(_info(name, manifest.file.size_bytes), checked)
                    checked.finish()


class Bundle:
    """A bundle, of which everything was checked when it was opened."""

    def __init__(
        self, archive: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo]
    ) -> None:
        self._archive = archive
        self._members = members
        self.engines: tuple[BundledEngine, ...] = ()

    @classmethod
    @contextmanager
    def open(cls, path: Path, trusted: Sequence[bytes]) -> Iterator[Bundle]:
        """Open a bundle, and check every byte of it.

        Raises ``BundleInvalid`` for what it must not have or lacks, ``EngineDamaged`` for wrong bytes,
        and ``ManifestUntrusted`` for an engine that is not signed by one of the ``trusted`` keys.
        """
        with path.open("rb") as file:
            try:
                with tarfile.open(fileobj=file, mode="r:") as archive:
                    members = _members(archive)
                    bundle = cls(archive, members)
                    bundle._check(trusted)
                    yield bundle
            except (tarfile.TarError, EOFError) as error:
                raise BundleInvalid(f"{path.name} is no whole tar archive: {error}") from error

    def import_into(self, store: ArtifactStore) -> None:
        """Put every engine into a store, with its samples. Safe to repeat."""
        for engine in self.engines:
            with tempfile.TemporaryDirectory(prefix="seatkeeper-import-") as folder:
                path = Path(folder) / "engine"
                self.extract(engine, path)
                for kind in ("inputs", "expected") if engine.has_samples else ():
                    samples = Path(folder) / kind
                    self.extract_samples(engine, kind, samples)
                    store.objects.put_file(f"{kind}/{engine.manifest.key}.npz", samples)
                store.publish(engine.signed, path)

    def extract(self, engine: BundledEngine, path: Path) -> None:
        """Write an engine's bytes to a new file."""
        self._write(f"blobs/{engine.manifest.file.sha256}", path)

    def extract_samples(self, engine: BundledEngine, kind: str, path: Path) -> None:
        """Write the ``inputs`` or the ``expected`` outputs of an engine to a new file."""
        self._write(f"{kind}/{engine.manifest.key}.npz", path)

    def _check(self, trusted: Sequence[bytes]) -> None:
        index = _index(self._read(INDEX, INDEX_BYTES_MAX))
        wanted, found = {INDEX}, []
        for key in index.engines:
            signed, manifest = self._manifest(key)
            try:
                check_signer(signed, trusted)
            except ManifestUntrusted as error:
                raise ManifestUntrusted(f"engine {key}: {error.message}") from error
            samples = {f"{kind}/{key}.npz" for kind in ("inputs", "expected")}
            wanted |= {f"manifests/{key}", f"blobs/{manifest.file.sha256}"}
            wanted.add(f"keys/{signed.public_key.hex()}.pem")
            has_samples = samples <= index.samples.keys()
            wanted |= samples if has_samples else set()
            found.append(BundledEngine(signed, manifest, has_samples))
        if missing := sorted(wanted - self._members.keys()):
            raise BundleInvalid(f"{missing[0]} is missing")
        if surplus := sorted(self._members.keys() - wanted):
            raise BundleInvalid(f"{surplus[0]} does not belong to any engine")
        for name in wanted & index.samples.keys():
            if self._digest(name, SAMPLES_BYTES_MAX) != index.samples[name]:
                raise BundleInvalid(f"{name} is not what the bundle says")
        for engine in found:
            self._check_bytes(engine.manifest.file)
        self.engines = tuple(found)

    def _manifest(self, key: str) -> tuple[build_pb2.SignedManifest, build_pb2.EngineManifest]:
        content = self._read(f"manifests/{key}", MANIFEST_BYTES_MAX)
        try:
            signed = build_pb2.SignedManifest.FromString(content)
        except DecodeError as error:
            raise BundleInvalid(f"the manifest of engine {key} is damaged") from error
        manifest = verify_manifest(signed, signed.public_key)
        if manifest.key != key:
            raise BundleInvalid(f"the manifest of engine {key} belongs to {manifest.key}")
        return signed, manifest

    def _check_bytes(self, expected: build_pb2.EngineFile) -> None:
        name = f"blobs/{expected.sha256}"
        if self._members[name].size != expected.size_bytes:
            raise EngineDamaged(f"{name} has not the size that its manifest says")
        if self._digest(name, ENGINE_BYTES_MAX) != expected.sha256:
            raise EngineDamaged(f"{name} is not what its manifest says")

    def _opened(self, name: str, size_max: int) -> IO[bytes]:
        member = self._members.get(name)
        if member is None:
            raise BundleInvalid(f"{name} is missing")
        if member.size > size_max:
            raise BundleInvalid(f"{name} has {member.size} bytes; at most {size_max}")
        opened = self._archive.extractfile(member)
        assert opened is not None  # only links have no file
        return opened

    def _read(self, name: str, size_max: int) -> bytes:
        with self._opened(name, size_max) as file:
            content = file.read()
        if len(content) != self._members[name].size:
            raise BundleInvalid(f"the bundle ends within {name}")
        return content

    def _digest(self, name: str, size_max: int) -> str:
        digest, size = hashlib.sha256(), 0
        with self._opened(name, size_max) as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
        if size != self._members[name].size:
            raise BundleInvalid(f"the bundle ends within {name}")
        return digest.hexdigest()

    def _write(self, name: str, path: Path) -> None:
        with self._opened(name, ENGINE_BYTES_MAX) as source, path.open("xb") as target:
            while chunk := source.read(CHUNK_BYTES):
                target.write(chunk)


@dataclass(frozen=True)
class _Index:
    engines: Sequence[str]
    samples: Mapping[str, str]


def signers(path: Path) -> tuple[str, ...]:
    """Return the public keys that a bundle says its engines are signed with. Nothing is checked."""
    with path.open("rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                names = _members(archive)
        except (tarfile.TarError, EOFError) as error:
            raise BundleInvalid(f"{path.name} is no whole tar archive: {error}") from error
    return tuple(sorted(name[5:-4] for name in names if name.startswith("keys/")))


def _members(archive: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """Return the members by name, all of them regular files with a name that there may be."""
    found: dict[str, tarfile.TarInfo] = {}
    for member in archive:
        shown = ascii(member.name[:_SHOWN_CHARS])
        if len(found) >= 5 * ENGINES_MAX:
            raise BundleInvalid(f"it has more than {5 * ENGINES_MAX} files")
        if member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE}:
            raise BundleInvalid(f"{shown} is no regular file")
        if not _NAME.fullmatch(member.name):
            raise BundleInvalid(f"{shown} is no name that a bundle has")
        if member.name in found:
            raise BundleInvalid(f"{shown} is there twice")
        found[member.name] = member
    return found


def _index(content: bytes) -> _Index:
    try:
        said: Any = json.loads(content)
        number, engines, samples = said["format"], said["engines"], said["samples"]
        known = all(isinstance(key, str) and len(key) == 64 for key in engines)
        known = known and all(isinstance(each, str) for each in samples.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BundleInvalid(f"{INDEX} is not one of a bundle") from error
    if number != FORMAT:
        raise BundleInvalid(f"it has format {ascii(number)[:20]}; this version reads {FORMAT}")
    if not (known and 0 < len(engines) <= ENGINES_MAX and len(set(engines)) == len(engines)):
        raise BundleInvalid(f"{INDEX} does not name 1 to {ENGINES_MAX} engines")
    return _Index(engines, samples)


class _Checked:
    """Reads chunks as a file, and finds out whether they are what they should be."""

    def __init__(self, chunks: Iterable[bytes], expected: build_pb2.EngineFile) -> None:
        self._source = chunks
        self._chunks = iter(chunks)
        self._expected = expected
        self._chunk = io.BytesIO()
        self._digest = hashlib.sha256()

    def read(self, size: int = 0, /) -> bytes:
        """Return exactly so many bytes. Raises ``EngineDamaged`` when there are fewer."""
        pieces = []
        while size:
            piece = self._chunk.read(size)
            if not piece:
                following = next(self._chunks, None)
                if following is None:
                    raise EngineDamaged("the engine has fewer bytes than its manifest says")
                self._chunk = io.BytesIO(following)
                continue
            self._digest.update(piece)
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Close what the bytes come from, where it can be."""
        if isinstance(self._source, Generator):
            self._source.close()

    def finish(self) -> None:
        """Raise ``EngineDamaged`` unless what was read is the engine."""
        if self._digest.hexdigest() != self._expected.sha256:
            raise EngineDamaged(f"the engine's bytes do not hash to {self._expected.sha256}")


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = 0o644
    return info


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    archive.addfile(_info(name, len(content)), io.BytesIO(content))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
