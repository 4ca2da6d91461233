"""What a machine that borrows a seat signs of it, and whether it has."""

from __future__ import annotations

import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from seatkeeper.core.jws import JwsInvalid, sign_jws, verify_jws

BORROW_KIND = "seatkeeper-borrow"
RETURN_KIND = "seatkeeper-return"
"""The ``typ`` of what a machine signs: neither passes for the other, nor for a token."""
KEY_BYTES = 32
STATEMENT_MAX = 2_048
"""Most characters of a signed statement."""


def signed_statement(
    key: Ed25519PrivateKey, kind: str, pool: str, grant_id: str, fence: int
) -> str:
    """Return a statement of a grant. The fence makes it good for that grant alone."""
    return sign_jws(json.dumps(_said(pool, grant_id, fence)).encode(), key, kind=kind)


def is_signed(
    statement: str, key: bytes, kind: str, *, pool: str, grant_id: str, fence: int
) -> bool:
    """Return whether the machine of a public key of 32 raw bytes has stated this of a grant."""
    try:
        payload = json.loads(verify_jws(statement, key, kind=kind))
    except (JwsInvalid, ValueError, RecursionError):
        return False
    return bool(payload == _said(pool, grant_id, fence))


def _said(pool: str, grant_id: str, fence: int) -> dict[str, object]:
    return {"pool": pool, "grant_id": grant_id, "fence": fence}
