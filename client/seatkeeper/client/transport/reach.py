"""Why a service cannot be reached, found with plain sockets.

`check_reachable`, before anything is asked: where every address refuses the connection outright,
nothing listens there, and waiting would not help; a second is given to a node that is just starting
again. `trouble_with`, after no node answered: the other side's answer to a handshake distinguishes
one mistake about TLS from another, where gRPC reports the same status for all.

Both block, for a bounded time an address. From a coroutine, call them in a thread.
"""

from __future__ import annotations

import errno
import socket
import ssl
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from seatkeeper.core.address import Address, parse_address
from seatkeeper.core.errors import ServiceUnavailable

if TYPE_CHECKING:
    from seatkeeper.client.config.values import TlsConfig

REFUSED_SECONDS = 0.75
"""How long connections that are refused are tried again."""
PAUSE_SECONDS = 0.25
CONNECT_SECONDS = 0.5
"""An address that takes longer may be far away: that is for the command to wait for."""
ANSWER_SECONDS = 1.0
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How a client of gRPC begins: with an empty frame of settings, which the other side answers."""
_ALERT = 0x15
_SETTINGS = 4
_VERIFICATION = {
    7: "its certificate is of a CA that is not the one in {ca}",
    9: "its certificate is not valid yet: see the clocks",
    10: "its certificate has expired: renew it",
    18: "its certificate is signed by itself, and is not the one in {ca}",
    19: "its certificate is of a CA that is not the one in {ca}",
    20: "its certificate is of a CA that is not the one in {ca}",
    21: "its certificate is of a CA that is not the one in {ca}",
    62: "its certificate is for another name: call it by a name that it carries",
    64: "its certificate is for another address: call it by a name that it carries",
}
"""By OpenSSL's code. What is not in here is left to gRPC, which checks with another library."""


class TlsNames(NamedTuple):
    """What the reader of an explanation calls the parts of a `TlsConfig`."""

    ca: str = "tls.ca"
    cert: str = "tls.cert"
    key: str = "tls.key"


NAMES_IN_PYTHON = TlsNames()


def check_reachable(addresses: Sequence[str], *, seconds: float | None = None) -> None:
    """Return unless every address refuses a connection for so long; None: `REFUSED_SECONDS`.

    Raises `ServiceUnavailable` saying so. Blocks for as long.
    """
    deadline = time.monotonic() + (REFUSED_SECONDS if seconds is None else seconds)
    while True:
        refusals = []
        for address in addresses:
            why = _refusal(parse_address(address))
            if not why:
                return
            refusals.append(f"{why} at {address}")
        if time.monotonic() >= deadline:
            raise ServiceUnavailable(f"no node answered: {', '.join(refusals)}")
        time.sleep(PAUSE_SECONDS)


def trouble_with(
    addresses: Sequence[str], tls: TlsConfig | None, *, names: TlsNames = NAMES_IN_PYTHON
) -> str:
    """Return what is wrong about how the first address is spoken to that answers; empty: nothing.

    ``names``: how the explanation calls what is to be changed.
    """
    for address in addresses:
        try:
            at = parse_address(address)
            with socket.create_connection(at, CONNECT_SECONDS) as connection:
                connection.settimeout(ANSWER_SECONDS)
                why = (
                    _of_plain(connection, at, names)
                    if tls is None
                    else _of_tls(connection, at, tls, names)
                )
        except (OSError, ValueError):
            continue
        return f"{address}: {why}" if why else ""
    return ""


def _refusal(address: Address) -> str:
    try:
        socket.create_connection(address, CONNECT_SECONDS).close()
    except ConnectionRefusedError:
        return "connection refused"
    except socket.gaierror as error:
        return "host not known" if error.errno == socket.EAI_NONAME else ""
    except OSError as error:
        if error.errno in (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EINVAL):
            return str(error.strerror).lower()
    return ""


def _of_plain(connection: socket.socket, at: Address, names: TlsNames) -> str:
    try:
        connection.sendall(_PREFACE)
        answer = connection.recv(9)
    except TimeoutError:
        return ""
    except OSError:
        answer = b""
    if answer[:1] == bytes((_ALERT,)) or (not answer and _speaks_tls(at)):
        return f"it speaks TLS: give the CA of its certificate with {names.ca}"
    if answer.startswith(b"HTTP/"):
        return "it speaks HTTP/1, not gRPC: is that the port for metrics?"
    if not answer:
        return "it hangs up on plain text"
    return "" if answer[3:4] == bytes((_SETTINGS,)) else "what answers there is no gRPC service"


def _speaks_tls(at: Address) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(at, CONNECT_SECONDS) as connection:
        connection.settimeout(ANSWER_SECONDS)
        try:
            context.wrap_socket(connection).close()
        except ssl.SSLError as error:
            return "ALERT" in (error.reason or "")
        except OSError:
            return False
    return True


def _of_tls(connection: socket.socket, at: Address, tls: TlsConfig, names: TlsNames) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    try:
        if tls.ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(tls.ca)
        if tls.cert is not None:
            context.load_cert_chain(tls.cert, tls.key)
    except ssl.SSLError as error:
        return f"{names.ca}, {names.cert} or {names.key} cannot be used ({error.reason})"
    try:
        with context.wrap_socket(
            connection, server_hostname=tls.server_name or at.host.partition("%")[0]
        ) as wrapped:
            return "" if wrapped.recv(1) else _hung_up(tls, names)
    except ssl.SSLCertVerificationError as error:
        return _VERIFICATION.get(error.verify_code, "").format(ca=names.ca)
    except ssl.SSLError as error:
        return _of_alert(error.reason or "", tls, names)
    except TimeoutError:
        return ""
    except OSError:
        return _hung_up(tls, names)


def _of_alert(reason: str, tls: TlsConfig, names: TlsNames) -> str:
    if "CERTIFICATE_REQUIRED" in reason or ("HANDSHAKE_FAILURE" in reason and tls.cert is None):
        return f"it demands a client certificate: give {names.cert} and {names.key}"
    if "ALERT" in reason:
        words = reason.lower().replace("_", " ")
        return f"it does not accept our certificate ({words}): see {names.cert}"
    if "VERSION" in reason or "HTTP_REQUEST" in reason or "RECORD" in reason or "EOF" in reason:
        return f"it speaks plain text: leave out {names.ca}, {names.cert} and {names.key}"
    return ""


def _hung_up(tls: TlsConfig, names: TlsNames) -> str:
    if tls.cert is None:
        return (
            "it hangs up: if it demands a client certificate, "
            f"give {names.cert} and {names.key}"
        )
    return f"it hangs up on our certificate: see that {names.cert} is of a CA that it trusts"
