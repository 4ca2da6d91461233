"""Names of callers: as settings give them, and as certificates do.

A name has a type, that of the certificate's subject alternative name (SAN), and two names are the same
only when their types are. So a certificate authority that lets a job choose its own URI cannot
make it an administrator whose name is a DNS name.

=========================  =====================================================================
``dns:admin.example``      case does not count, nor does a dot at the end
``uri:spiffe://a/ops``     to the character
``email:ops@example.org``  to the character before the ``@``; case does not count after it
``ip:10.0.0.7``            as an address: ``ip:::1`` is ``ip:0:0:0:0:0:0:0:1``
``admin.example``          short for ``dns:admin.example``
=========================  =====================================================================

Nothing else is a name: no wildcards on either side, no letters outside ASCII (write a host's
``xn--`` form), and no common name (CN), which certificate authorities check less than SANs.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from cryptography import x509

ENTRIES_MAX = 1_000
"""Most names in one setting."""
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_DNS = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_DNS_LENGTH_MAX = 253
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]+")
_EMAIL = re.compile(r"([!-?A-~]+)@([!-~]+)")
_LENGTH_MAX = 2048


@dataclass(frozen=True, slots=True)
class Name:
    """A name of a caller, in the one form that it is compared in."""

    kind: str
    """``dns``, ``uri``, ``email`` or ``ip``; ``anonymous`` is no SAN's."""
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}" if self.value else self.kind


ANONYMOUS = Name("anonymous", "")
"""In a setting: callers that show no certificate, because the node does not ask for one."""


def parse_names(setting: str) -> frozenset[Name]:
    """Return the names of a setting, separated by commas; empty: none. Raises ``ValueError``."""
    if not setting.strip():
        return frozenset()
    entries = setting.split(",")
    if len(entries) > ENTRIES_MAX:
        raise ValueError(f"{len(entries)} names; at most {ENTRIES_MAX}")
    return frozenset(map(_parse_entry, entries))


def _parse_entry(entry: str) -> Name:
    entry = entry.strip()
    if not entry:
        raise ValueError("an entry is empty; put one comma between two names")
    if entry == ANONYMOUS.kind:
        return ANONYMOUS
    kind, colon, value = entry.partition(":")
    if not colon:
        kind, value = "dns", entry
    elif kind == "cn":
        raise ValueError(
            f"{entry!r}: common names are not matched; issue a certificate with a subject "
            "alternative name, and give that, such as dns:admin.example"
        )
    if kind not in _CANONICAL:
        raise ValueError(
            f"{entry!r} begins with none of {', '.join(f'{known}:' for known in _CANONICAL)}"
        )
    try:
        return Name(kind, _CANONICAL[kind](value))
    except ValueError as error:
        raise ValueError(f"{entry!r}: {error}") from None


def _dns(value: str) -> str:
    name = value.lower().removesuffix(".")
    if "*" in name:
        raise ValueError("a wildcard names no client in particular; list the names")
    if not name.isascii():
        raise ValueError("not ASCII; write its xn-- form")
    if len(name) > _DNS_LENGTH_MAX or not _DNS.fullmatch(name):
        hint = "; write email: before it" if "@" in name else ""
        raise ValueError(f"not a DNS name{hint}")
    if re.fullmatch(r"[0-9.]+", name):
        raise ValueError("an address; write ip: before it")
    return name


def _uri(value: str) -> str:
    if len(value) > _LENGTH_MAX or not _URI.fullmatch(value):
        raise ValueError("not an absolute URI of printable ASCII")
    return value


def _email(value: str) -> str:
    match = _EMAIL.fullmatch(value)
    if match is None or len(value) > _LENGTH_MAX:
        raise ValueError("not an email address of printable ASCII")
    return f"{match[1]}@{_dns(match[2])}"


def _ip(value: str) -> str:
    if "%" in value:
        raise ValueError("an address with a zone is of one machine only")
    return str(ipaddress.ip_address(value))


_CANONICAL = {"dns": _dns, "uri": _uri, "email": _email, "ip": _ip}


@lru_cache(maxsize=1024)
def names_in(certificate_pem: bytes) -> tuple[Name, ...]:
    """Return a certificate's SANs, in its order; those that no setting can name are left out.

    Empty for a certificate that cannot be read, or has none. The chain was verified before.
    """
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return tuple(dict.fromkeys(_names_of(sans.value)))
    except (ValueError, TypeError, x509.ExtensionNotFound, x509.DuplicateExtension):
        return ()
    except x509.UnsupportedGeneralNameType:
        return ()


def _names_of(sans: x509.SubjectAlternativeName) -> Iterator[Name]:
    for san in sans:
        match san:
            case x509.DNSName():
                kind = "dns"
            case x509.UniformResourceIdentifier():
                kind = "uri"
            case x509.RFC822Name():
                kind = "email"
            case x509.IPAddress():
                kind = "ip"
            case _:
                continue
        try:
            yield Name(kind, _CANONICAL[kind](str(san.value)))
        except ValueError:
            continue  # a wildcard, a NUL: no name of a client
