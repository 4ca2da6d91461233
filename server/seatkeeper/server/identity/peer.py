"""The identity of a caller, as far as its certificate shows it."""

from __future__ import annotations

import hashlib
import ssl
from dataclasses import dataclass

from seatkeeper.core.serving.failure import Context


@dataclass(frozen=True, slots=True)
class Identity:
    """A client's identity under mutual TLS; empty without."""

    name: str = ""
    certificate_sha256: bytes | None = None
    """SHA-256 of the DER certificate, as RFC 8705 has it."""


ANONYMOUS = Identity()


def identity_of(context: Context) -> Identity:
    """Return the identity in the caller's certificate: its first alternative name, or its CN."""
    auth = context.auth_context()
    certificate = list(auth.get("x509_pem_cert", ()))
    names = [*auth.get("x509_subject_alternative_name", ()), *auth.get("x509_common_name", ())]
    if not certificate or not names:
        return ANONYMOUS
    der = ssl.PEM_cert_to_DER_cert(certificate[0].decode())
    return Identity(names[0].decode(), hashlib.sha256(der).digest())
