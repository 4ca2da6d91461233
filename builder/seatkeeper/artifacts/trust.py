"""Whose signature a user trusts: public keys, in files or by their digits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from seatkeeper.artifacts.errors import ManifestUntrusted
from seatkeeper.v1 import build_pb2

KEY_FILE_BYTES_MAX = 4_096
_DIGITS = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


def trusted_key(text: str) -> bytes:
    """Return the public key that ``text`` has: its 64 hexadecimal digits, or a file with them or PEM.

    Raises ``ManifestUntrusted`` for anything else, and ``OSError`` for a file that cannot be read.
    """
    # Imported here: `seatkeeper.core.tokens` says why.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if _DIGITS.fullmatch(text):
        return bytes.fromhex(text)
    with Path(text).open("rb") as file:
        content = file.read(KEY_FILE_BYTES_MAX)
    said = content.decode("ascii", errors="replace").strip()
    if _DIGITS.fullmatch(said):
        return bytes.fromhex(said)
    try:
        key = load_pem_public_key(content)
    except ValueError:
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ManifestUntrusted(f"{text} has no Ed25519 public key")
    return key.public_bytes_raw()


def check_signer(signed: build_pb2.SignedManifest, trusted: Iterable[bytes]) -> None:
    """Raise ``ManifestUntrusted`` unless one of the trusted keys is named as the signer's."""
    if signed.public_key not in set(trusted):
        raise ManifestUntrusted(
            f"it is signed with {signed.public_key.hex()}, which is none of the keys to trust"
        )
