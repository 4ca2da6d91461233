"""A client's channels to nodes and agents: one place for credentials and options."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import grpc
from grpc import aio

from seatkeeper.client.config.values import ClientConfig, TlsConfig
from seatkeeper.core.channels import dial

MESSAGE_BYTES_MAX = 16 << 20
"""Largest message either way. Models travel in pieces of 1 MiB."""


def open_channel(
    address: str,
    config: ClientConfig,
    tls: TlsConfig | None,
    *,
    keepalive: timedelta | None = None,
) -> aio.Channel:
    """Return a channel to one node or agent, with a connection of its own.

    ``keepalive`` is the time between pings, where it is not the configured one. The files of ``tls``
    are read now: gRPC keeps what it was given for as long as a channel lives, so a renewed certificate
    needs a new channel. Raises `ForkedProcess` as `check_fork` does.
    """
    options: list[tuple[str, int | str]] = [
        ("grpc.keepalive_time_ms", int((keepalive or config.keepalive).total_seconds() * 1000)),
        ("grpc.keepalive_timeout_ms", 2000),
        # Without this one, a peer that stopped answering is noticed only after 60 s more.
        ("grpc.http2.ping_timeout_ms", 2000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Channels to one address share a connection otherwise, and with it its death.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        # We choose the next node ourselves; a channel that sleeps between tries is in the way.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
    ]
    if tls is None:
        return dial(address, None, options)
    if tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return dial(address, _credentials(tls), options)


def _credentials(tls: TlsConfig) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_bytes(tls.ca),
        private_key=_bytes(tls.key),
        certificate_chain=_bytes(tls.cert),
    )


def _bytes(path: Path | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
