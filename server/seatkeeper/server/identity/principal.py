"""Who calls, as far as the connection proves it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import unquote

from seatkeeper.core.serving.failure import Context
from seatkeeper.server.identity.names import Name, names_in

SHOWN_MAX = 8
"""Most names of one certificate that are written down."""


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller."""

    names: tuple[Name, ...] = ()
    """The SANs of its verified certificate; empty where it has none, or showed none."""
    has_certificate: bool = False
    address: str = ""
    """Where it calls from, as gRPC says it: ``ipv4:127.0.0.1:40000``. It proves little."""

    @property
    def is_local(self) -> bool:
        """Whether it calls from this machine, or through a balancer on it."""
        kind, _, rest = self.address.partition(":")
        if kind == "unix":
            return True
        if kind not in {"ipv4", "ipv6"}:
            return False
        host = rest.rpartition(":")[0].strip("[]").partition("%")[0]
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return bool((mapped or address).is_loopback)

    def __str__(self) -> str:
        """Return who it is, for a log line: its names, or where it calls from."""
        if self.has_certificate:
            return ", ".join(map(str, self.names[:SHOWN_MAX])) or "a certificate without names"
        return f"anonymous at {self.address}"


def principal_of(context: Context) -> Principal:
    """Return who makes a call. Under mutual TLS the certificate was verified before."""
    certificate = next(iter(context.auth_context().get("x509_pem_cert", ())), None)
    return Principal(
        names=names_in(bytes(certificate)) if certificate else (),
        has_certificate=bool(certificate),
        address=unquote(context.peer() or ""),
    )
