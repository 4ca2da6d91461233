"""What every gRPC server of ours has in common: options, certificates, and a port of its own."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from contextlib import suppress
from pathlib import Path

import grpc
import grpc.aio

from seatkeeper.core.address import parse_address

# A port taken by another process must be an error, not a second server that gets half the calls.
# Clients ping every 20 s through balancers that cut idle connections; gRPC's default is to
# punish that. Without the ping timeout, a paused peer is noticed only after a minute.
SERVER_OPTIONS: list[tuple[str, int]] = [
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
]


class ListenError(Exception):
    """The address cannot be listened on."""


class CertificateError(ListenError):
    """A certificate, its key or a CA cannot be used. The message names the file."""


class ServerCertificates:
    """The certificate of a server of ours, which can be read again while it serves.

    A connection keeps what it was made with; each new one gets what was read last.
    """

    def __init__(self, cert_file: Path, key_file: Path, client_ca_file: Path | None) -> None:
        """Read the files; with ``client_ca_file``, clients must have a certificate of that CA.

        Raises ``CertificateError``.
        """
        self._needs_client = client_ca_file is not None
        self._latest = _read_certificates(cert_file, key_file, client_ca_file)
        self._pending: grpc.ServerCertificateConfiguration | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a port is opened with."""
        return grpc.dynamic_ssl_server_credentials(
            self._latest,
            self._fetch,  # type: ignore[arg-type]  # None is taken, and means no change
            require_client_authentication=self._needs_client,
        )

    def reload(self, cert_file: Path, key_file: Path, client_ca_file: Path | None) -> None:
        """Read the files again. Raises ``CertificateError``, and goes on with what it had."""
        if (client_ca_file is not None) != self._needs_client:
            raise CertificateError(
                "whether clients must have certificates cannot change while the server runs; "
                "restart it"
            )
        self._pending = _read_certificates(cert_file, key_file, client_ca_file)

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        # Called by gRPC at each handshake, on a thread of its own; None: the same as before.
        pending, self._pending = self._pending, None
        return pending


def _read_certificates(
    cert_file: Path, key_file: Path, client_ca_file: Path | None
) -> grpc.ServerCertificateConfiguration:
    """Return what gRPC needs of the files; it would notice what is wrong only at a handshake."""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Without the callback, an encrypted key would ask for its password on the terminal.
        context.load_cert_chain(cert_file, key_file, password=lambda: "")
        if client_ca_file is not None:
            context.load_verify_locations(client_ca_file)
        return grpc.ssl_server_certificate_configuration(
            [(key_file.read_bytes(), cert_file.read_bytes())],
            root_certificates=client_ca_file.read_bytes() if client_ca_file else None,
        )
    except (OSError, ValueError) as error:
        files = ", ".join(map(str, filter(None, (cert_file, key_file, client_ca_file))))
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CertificateError(
            f"one of {files} cannot be used ({why}): each must be PEM, and the key, without a "
            "password, that of the certificate"
        ) from error


def listen(
    server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None
) -> str:
    """Have ``server`` listen on ``address`` (port 0: any) and return it with its port.

    Raises ``ListenError``.
    """
    wanted = parse_address(address, port_min=0)
    try:
        port = (
            server.add_secure_port(address, credentials)
            if credentials
            else server.add_insecure_port(address)
        )
    except RuntimeError as error:
        raise ListenError(_cannot(address)) from error
    if port == 0 or wanted.port not in {0, port}:
        raise ListenError(_cannot(address))
    return str(wanted._replace(port=port))


def end_connections(address: str) -> int:
    """Shut down this side of every connection to ``address``; return how many there were.

    What was sent before still arrives. A client whose call has come too late to be read sees a
    connection that ended, which is ``UNAVAILABLE``. ``Server.stop`` would send it ``CANCELLED``, as if
    it had given up itself. Does nothing where there is no ``/proc``.
    """
    port = int(address.rpartition(":")[2])
    ended = 0
    with suppress(OSError):
        for name in os.listdir("/proc/self/fd"):
            ended += _end_if_connected_to(port, int(name))
    return ended


def _end_if_connected_to(port: int, descriptor: int) -> bool:
    """Shut down this side of a connection to ``port``; return whether the descriptor is one."""
    try:
        copy = os.dup(descriptor)  # the number itself may be another file's at any moment
    except OSError:
        return False
    try:
        connection = socket.socket(fileno=copy)
    except OSError:  # no socket
        os.close(copy)
        return False
    with connection:
        name = connection.getsockname()
        if connection.type != socket.SOCK_STREAM or not isinstance(name, tuple):
            return False
        if len(name) < 2 or name[1] != port:
            return False
        try:
            connection.shutdown(socket.SHUT_WR)
        except OSError:  # not connected, or not any more
            return False
        return True


def _cannot(address: str) -> str:
    return f"cannot listen on {address}: {why_not(address)}"


def why_not(address: str, flag: str = "--listen") -> str:
    """Return why nothing can listen on ``address`` now, and what to do: gRPC does not say.

    Tries it, and leaves it free again.
    """
    host, port = parse_address(address, port_min=0)
    elsewhere = f"choose another address with {flag}"
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        return f"the host is not known ({error.strerror}); {elsewhere}"
    for family, kind, protocol, _, place in found:
        try:
            with socket.socket(family, kind, protocol) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                tried.bind(place)
                tried.listen()
        except OSError as error:
            return _REASONS.get(error.errno or 0, f"{error.strerror}; {{}}").format(elsewhere)
    return f"the port was in use by another process just now; {elsewhere}"


_REASONS = {
    errno.EADDRINUSE: "the port is in use by another process; {}",
    errno.EADDRNOTAVAIL: "it is not an address of this machine; {}",
    errno.EACCES: "ports of this number are for root (EACCES): choose one above 1023 with "
    "--listen, or give the process CAP_NET_BIND_SERVICE",
    errno.EAFNOSUPPORT: "this machine has no addresses of this kind (IPv6 may be off); {}",
}
