"""A node's own certificates: as a server, and as a client of other nodes."""

from __future__ import annotations

import grpc

from seatkeeper.core.serving.listening import CertificateError, ServerCertificates
from seatkeeper.server.config import NodeConfig


class Certificates:
    """What a node proves itself with. None of it without TLS. Can be read again."""

    def __init__(self, config: NodeConfig) -> None:
        """Read the files. Raises ``CertificateError``."""
        self._server: ServerCertificates | None = None
        self._channel: grpc.ChannelCredentials | None = None
        if config.tls_cert_file and config.tls_key_file:
            self._server = ServerCertificates(
                config.tls_cert_file, config.tls_key_file, config.tls_client_ca_file
            )
            self._channel = _channel_credentials(config)

    def server(self) -> grpc.ServerCredentials | None:
        """Return what the node's port is opened with; None: plain text."""
        return self._server.credentials() if self._server else None

    def channel(self) -> grpc.ChannelCredentials | None:
        """Return what a connection to another node is made with; None: plain text."""
        return self._channel

    def reload(self, config: NodeConfig) -> None:
        """Read the files again. Raises ``CertificateError``, and changes nothing."""
        if self._server is None:
            return
        if config.tls_cert_file is None or config.tls_key_file is None:
            raise CertificateError("TLS cannot be turned off while the node runs; restart it")
        channel = _channel_credentials(config)
        self._server.reload(
            config.tls_cert_file, config.tls_key_file, config.tls_client_ca_file
        )
        self._channel = channel


def _channel_credentials(config: NodeConfig) -> grpc.ChannelCredentials:
    assert config.tls_cert_file is not None
    assert config.tls_key_file is not None
    ca_file = config.tls_peer_ca_file or config.tls_client_ca_file
    try:
        return grpc.ssl_channel_credentials(
            root_certificates=ca_file.read_bytes() if ca_file else None,
            private_key=config.tls_key_file.read_bytes(),
            certificate_chain=config.tls_cert_file.read_bytes(),
        )
    except OSError as error:
        raise CertificateError(f"{error.filename}: {error.strerror}") from error
