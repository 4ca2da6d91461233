"""When certificates end: read from their files, which may have been renewed since."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cryptography import x509

from seatkeeper.v1 import cluster_service_pb2 as pb


def certificates(files: Mapping[str, Path]) -> list[pb.Certificate]:
    """Return the certificate that ends first in each file, by the setting that names the file.

    A file that cannot be read, or holds none, is in the answer with the reason.
    """
    return [_soonest(setting, file) for setting, file in files.items()]


def _soonest(setting: str, file: Path) -> pb.Certificate:
    told = pb.Certificate(setting=setting)
    try:
        found = x509.load_pem_x509_certificates(file.read_bytes())
    except OSError as error:
        told.failure = f"{file}: {error.strerror}"
        return told
    except ValueError:
        told.failure = f"{file}: holds no certificate in PEM"
        return told
    soonest = min(found, key=lambda certificate: certificate.not_valid_after_utc)
    told.subject = soonest.subject.rfc4514_string()
    told.not_after.FromDatetime(soonest.not_valid_after_utc)
    return told
