"""Engines that outlive the agents that built them.

    blobs/<sha256>         an engine's bytes; several keys may share them
    manifests/<key>        a serialised SignedManifest; an engine can be had once this is there
    keys/<public key>      the public keys of agents that have stored engines, as PEM
    pins/<key>             engines that are kept, with the hash of their bytes
    inputs/<key>.npz       samples to check an engine with, of an imported bundle
    expected/<key>.npz     the outputs that are expected of them
    unreferenced/<sha256>  when `collect` first found that no manifest names these bytes

The order keeps it whole: bytes, then the signer's key, then the manifest. What dies in between leaves
bytes that no manifest names, which `collecting` removes a day later at the earliest. Nodes'
catalogue decides which engines are published; this store has what it needs to serve them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf.message import DecodeError

from seatkeeper.artifacts.errors import EngineDamaged, EngineNotFound, ManifestUntrusted
from seatkeeper.artifacts.manifest import check_engine_bytes, verify_manifest
from seatkeeper.artifacts.stores.address import BUCKET_SCHEMES, StoreAddress
from seatkeeper.artifacts.stores.file_system import FileSystemObjects
from seatkeeper.artifacts.stores.folder import FolderObjects
from seatkeeper.artifacts.stores.object_store import BucketObjects
from seatkeeper.artifacts.stores.objects import Found, Objects
from seatkeeper.v1 import build_pb2

UPLOADS_MAX = 2
"""How often bytes are uploaded, should they be collected before their manifest is there."""
_HEX_DIGITS = frozenset("0123456789abcdef")


class ArtifactStore:
    """Engines under their keys, for all who have the store's address. Every method blocks.

    Each raises a ``StoreError`` when the store does not do what it was asked for.
    """

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    @classmethod
    def at(cls, address: str) -> ArtifactStore:
        """Return the store at a folder or URL. Nothing is asked of it yet.

        Raises ``StoreAddressInvalid``, also when a library that it needs is not installed.
        """
        parsed = StoreAddress.parse(address)
        if not parsed.scheme:
            return cls(FolderObjects(Path(parsed.path)))
        kind = BucketObjects if parsed.scheme in BUCKET_SCHEMES else FileSystemObjects
        return cls(kind(parsed))

    @property
    def shown(self) -> str:
        """Where it is, for people and logs."""
        return self.objects.shown

    @property
    def store_id(self) -> str:
        """The same for all who share this store."""
        return self.objects.store_id

    def check(self, nonce: str) -> None:
        """Raise a ``StoreError`` unless something can be written to it, and removed.

        ``nonce`` is different for each caller.
        """
        name = f"probes/{hashlib.sha256(nonce.encode()).hexdigest()}"
        self.objects.put(name, b"a probe: may be removed\n")
        self.objects.delete(name)

    # Publishing -----------------------------------------------------------------------------

    def publish(self, signed: build_pb2.SignedManifest, engine: Path) -> None:
        """Store an engine: bytes first, then the manifest. Safe to repeat.

        Raises ``EngineDamaged`` when the file is not what the manifest says; nothing is stored then.
        """
        manifest = verify_manifest(signed, signed.public_key)
        for attempt in range(UPLOADS_MAX):
            self.put_bytes(engine, manifest.file)
            try:
                self.put_manifest(signed)
            except EngineNotFound:
                if attempt == UPLOADS_MAX - 1:
                    raise
            else:
                return

    def put_bytes(self, engine: Path, expected: build_pb2.EngineFile) -> None:
        """Store an engine's bytes, unless they are there. Without a manifest they are not served."""
        with engine.open("rb") as file:
            check_engine_bytes(file, expected)
        blob, marker = _blob(expected.sha256), f"unreferenced/{expected.sha256}"
        if self.objects.find(marker) is not None:
            # A collection may be about to remove them: they do not count as being there.
            self.objects.delete(marker)
        else:
            there = self.objects.find(blob)
            if there is not None and there.size_bytes == expected.size_bytes:
                return
        self.objects.put_file(blob, engine)

    def put_manifest(self, signed: build_pb2.SignedManifest) -> None:
        """Make an engine available whose bytes are stored. Safe to repeat.

        A manifest of a newer fence of the same pool stays. Raises ``EngineNotFound`` when its bytes
        are not there.
        """
        manifest = verify_manifest(signed, signed.public_key)
        if self._has_newer(manifest):
            return
        self.objects.put(f"keys/{signed.public_key.hex()}", public_key_pem(signed.public_key))
        self.objects.put(_manifest(manifest.key), signed.SerializeToString())
        there = self.objects.find(_blob(manifest.file.sha256))
        if there is None or there.size_bytes != manifest.file.size_bytes:
            raise EngineNotFound(f"{self.shown} has not all bytes of engine {manifest.key}")

    def _has_newer(self, manifest: build_pb2.EngineManifest) -> bool:
        try:
            _, there = self.manifest(manifest.key)
        except (EngineNotFound, EngineDamaged, ManifestUntrusted):
            return False
        return there.pool == manifest.pool and there.fence > manifest.fence

    # Reading --------------------------------------------------------------------------------

    def engines(self) -> list[str]:
        """Return the keys of all engines, sorted."""
        return sorted(_base(found) for found in self.objects.list("manifests"))

    def manifest(self, key: str) -> tuple[build_pb2.SignedManifest, build_pb2.EngineManifest]:
        """Return an engine's manifest, whose signature holds by a key that the store has.

        Raises ``EngineNotFound``, ``EngineDamaged``, or ``ManifestUntrusted`` when the store does not
        have the key.
        """
        if not is_key(key):
            raise EngineNotFound(f"{key[:100]!r} is no engine's key")
        serialised = self.objects.get(_manifest(key))
        if serialised is None:
            raise EngineNotFound(f"{self.shown} has no engine {key}")
        try:
            signed = build_pb2.SignedManifest.FromString(serialised)
            manifest = verify_manifest(signed, signed.public_key)
        except (DecodeError, ManifestUntrusted) as error:
            raise EngineDamaged(f"the manifest of engine {key} is damaged") from error
        if manifest.key != key:
            raise EngineDamaged(f"the manifest of engine {key} belongs to another key")
        if self.objects.get(f"keys/{signed.public_key.hex()}") != public_key_pem(
            signed.public_key
        ):
            raise ManifestUntrusted(
                f"engine {key} is signed with {signed.public_key.hex()}, a key that {self.shown} "
                "does not have"
            )
        return signed, manifest

    def has_bytes(self, expected: build_pb2.EngineFile) -> bool:
        """Return whether an engine's bytes are there. Only their number is checked."""
        found = self.objects.find(_blob(expected.sha256))
        return found is not None and found.size_bytes == expected.size_bytes

    def read(self, expected: build_pb2.EngineFile, offset: int = 0) -> Iterator[bytes]:
        """Return an engine's bytes from ``offset`` on, in pieces. The reader checks their hash.

        Raises ``EngineNotFound`` when they are not there.
        """
        chunks = self.objects.read(_blob(expected.sha256), offset)
        if chunks is None:
            raise EngineNotFound(f"{self.shown} does not have the bytes {expected.sha256}")
        return chunks

    # Keeping --------------------------------------------------------------------------------

    def pin(self, key: str) -> None:
        """Keep an engine, and the bytes that it has now, until it is unpinned."""
        _, manifest = self.manifest(key)
        self.objects.put(f"pins/{key}", f"{manifest.file.sha256}\n".encode())

    def unpin(self, key: str) -> None:
        """Keep an engine no longer. Raises ``EngineNotFound`` when it is not pinned."""
        if not is_key(key) or self.objects.find(f"pins/{key}") is None:
            raise EngineNotFound(f"{key[:100]} is not pinned in {self.shown}")
        self.objects.delete(f"pins/{key}")

    def pins(self) -> dict[str, str]:
        """Return the hashes of the bytes that are pinned, by key."""
        found = {}
        for each in self.objects.list("pins"):
            content = self.objects.get(each.name)
            if content is not None:
                found[_base(each)] = content.decode("ascii", errors="replace").strip()
        return found


def is_key(text: str) -> bool:
    """Return whether it is written as an engine's key is."""
    return len(text) == 64 and _HEX_DIGITS.issuperset(text)


def public_key_pem(public_key: bytes) -> bytes:
    """Return a raw Ed25519 public key as PEM."""
    return Ed25519PublicKey.from_public_bytes(public_key).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _blob(sha256: str) -> str:
    return f"blobs/{sha256}"


def _manifest(key: str) -> str:
    return f"manifests/{key}"


def _base(found: Found) -> str:
    return found.name.rpartition("/")[2]
