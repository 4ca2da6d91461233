"""When certificates end, and whether their keys fit: by their files, as they are now."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from seatkeeper.v1 import cluster_service_pb2 as pb

KEY_SUFFIX = "_key_file"
CERTIFICATE_SUFFIX = "_cert_file"


def certificates(files: Mapping[str, Path]) -> list[pb.Certificate]:
    """Return the certificate that ends first in each file, by the setting that names the file.

    A file that cannot be read, or holds none, is in the answer with the reason; so is a key that
    is not that of its certificate. A key that is right is not.
    """
    reported: list[pb.Certificate] = []
    for setting, file in files.items():
        if not setting.endswith(KEY_SUFFIX):
            reported.append(_soonest(setting, file))
        elif failure := _wrong_with_key(setting, files):
            reported.append(pb.Certificate(setting=setting, failure=failure))
    return reported


def _soonest(setting: str, file: Path) -> pb.Certificate:
    reported = pb.Certificate(setting=setting)
    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())
    except OSError as error:
        reported.failure = f"{file}: {error.strerror}"
        return reported
    except ValueError:
        reported.failure = f"{file}: holds no certificate in PEM"
        return reported
    soonest = min(found, key=lambda certificate: certificate.not_valid_after_utc)
    reported.subject = soonest.subject.rfc4514_string()
    reported.not_after.FromDatetime(soonest.not_valid_after_utc)
    return reported


def _wrong_with_key(setting: str, files: Mapping[str, Path]) -> str:
    """Return why a key is of no use; empty: it is."""
    file = files[setting]
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except OSError as error:
        return f"{file}: {error.strerror}"
    except (ValueError, TypeError):
        return f"{file}: holds no unencrypted private key in PEM"
    certificate_file = files.get(setting.removesuffix(KEY_SUFFIX) + CERTIFICATE_SUFFIX)
    try:
        assert certificate_file is not None, "the settings go together"
        certificate = x509.load_pem_x509_certificates(certificate_file.read_bytes())[0]
    except (OSError, ValueError):
        return ""  # reported with the certificate already
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if certificate.public_key().public_bytes(*form) != key.public_key().public_bytes(*form):
        return f"{file}: is not the key of {certificate_file}"
    return ""
