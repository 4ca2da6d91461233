"""What an address is, wherever one is given: ``host:port``, of IPv6 ``[host]:port``.

One reading for clients, nodes, agents and tools, so that what one of them takes, all take. A wrong
one is answered by what is wrong with it, before anything is connected to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

PORT_MAX = 65535
HOST_MAX = 253
SHOWN_MAX = 80
"""Characters of a wrong address that its refusal repeats."""

_SCHEMES = ("dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds", "passthrough")
_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?")
_ZONE = re.compile(r"[A-Za-z0-9._-]{1,32}")
_PORT = re.compile(r"[0-9]{1,5}")


class Address(NamedTuple):
    """Where something listens, or is to listen."""

    host: str
    """A name, or an address of IPv4 or IPv6, the latter without brackets."""
    port: int

    def __str__(self) -> str:
        """Return it as people write it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_everywhere(self) -> bool:
        """Whether listening there listens on every address of the machine."""
        return self.host == "0.0.0.0" or (":" in self.host and not int(_ipv6(self.host)))


def parse_address(text: str, *, port_min: int = 1) -> Address:
    """Read one address. ``port_min``: 0 where 0 asks for any free port.

    Raises ``ValueError`` saying what is wrong with it.
    """
    given = text.strip()
    shown = repr(given if len(given) <= SHOWN_MAX else f"{given[:SHOWN_MAX]}...")
    if not given:
        raise ValueError("an address is empty; write host:port, such as seats.example.com:7420")
    if "://" in given or given.partition(":")[0].lower() in _SCHEMES:
        raise ValueError(f"{shown}: write host:port alone, without a scheme or a path")
    if given.startswith("["):
        host, closed, port = given[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            raise ValueError(f"{shown} is not [host]:port, such as [::1]:7420")
        port = port[1:]
        _check_ipv6(host, shown)
    elif given.count(":") > 1:
        raise ValueError(
            f"{shown}: an IPv6 address stands in brackets before its port, such as [::1]:7420"
        )
    else:
        host, _, port = given.partition(":")
        _check_host(host, shown)
    if not port:
        raise ValueError(
            f"{shown} is not host:port, such as seats.example.com:7420: it has no port"
        )
    if port_min and _PORT.fullmatch(port) and not int(port):
        raise ValueError(f"{shown}: port 0 is no port that can be reached; write its number")
    if not _PORT.fullmatch(port) or not port_min <= int(port) <= PORT_MAX:
        raise ValueError(f"{shown}: the port must be a number from {port_min} to {PORT_MAX}")
    return Address(host, int(port))


def parse_list(texts: str | Iterable[str]) -> tuple[Address, ...]:
    """Read addresses separated by commas, in order and each once; one comma at the end is no harm.

    Raises ``ValueError`` for the first that is wrong; an empty list is no error here.
    """
    found: list[Address] = []
    for text in [texts] if isinstance(texts, str) else texts:
        parts = text.split(",")
        if len(parts) > 1 and not parts[-1].strip():
            parts.pop()
        if parts == [""]:
            continue
        for part in parts:
            if not part.strip():
                raise ValueError(f"{text[:SHOWN_MAX]!r} has an empty place between two commas")
            found.append(parse_address(part))
    return tuple(dict.fromkeys(found))


def _check_host(host: str, shown: str) -> None:
    if not host:
        raise ValueError(
            f"{shown} has no host; write host:port (to listen everywhere: 0.0.0.0 or [::])"
        )
    if not host.isascii():
        raise ValueError(f"{shown}: write the host in ASCII (a name in its xn-- form)")
    if host.replace(".", "").isdigit():
        try:
            IPv4Address(host)
        except ValueError:
            raise ValueError(f"{shown}: {host} is no IPv4 address") from None
        return
    labels = host.removesuffix(".").split(".")
    if len(host) > HOST_MAX or not all(
        len(label) <= 63 and _NAME.fullmatch(label) for label in labels
    ):
        raise ValueError(f"{shown} is not host:port, such as seats.example.com:7420")


def _check_ipv6(host: str, shown: str) -> None:
    try:
        _ipv6(host)
    except ValueError:
        raise ValueError(f"{shown}: what is in the brackets is no IPv6 address") from None
    zone = host.partition("%")[2]
    if "%" in host and not _ZONE.fullmatch(zone):
        raise ValueError(f"{shown}: {zone!r} is no zone; write its name, such as fe80::1%eth0")


def _ipv6(host: str) -> IPv6Address:
    return IPv6Address(host.partition("%")[0])
