"""Engine manifests: who says what about an engine, and whether it is true."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf.message import DecodeError

from seatkeeper.client.errors import EngineDamaged
from seatkeeper.v1 import build_pb2


def verify_manifest(
    signed: build_pb2.SignedManifest, *, public_key: bytes, key: str
) -> build_pb2.EngineManifest:
    """Return what ``signed`` says, if it is of the engine ``key`` and signed by ``public_key``.

    ``public_key`` must come from the catalogue, never from the manifest itself. Raises
    `EngineDamaged` for anything else.
    """
    if signed.public_key != public_key:
        raise EngineDamaged("the manifest is signed by another agent than the catalogue says")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signed.signature, signed.manifest)
        manifest = build_pb2.EngineManifest.FromString(signed.manifest)
    except (InvalidSignature, ValueError, DecodeError) as error:
        raise EngineDamaged("the manifest's signature does not hold") from error
    if manifest.key != key:
        raise EngineDamaged(f"the manifest is of engine {manifest.key[:64]!r}, not {key!r}")
    return manifest
