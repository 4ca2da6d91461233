"""One member of etcd and the channel to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio

from seatkeeper.core.channels import dial
from seatkeeper.server.store.errors import StoreUnavailable
from seatkeeper.server.store.etcd.calls import Method, Req, Resp
from seatkeeper.server.store.etcd.config import EtcdConfig

if TYPE_CHECKING:
    UnaryCall = grpc.aio.UnaryUnaryMultiCallable[Req, Resp]
    StreamCall = grpc.aio.StreamStreamMultiCallable[Req, Resp]

RECONNECT_MIN_MILLIS = 100
RECONNECT_MAX_MILLIS = 1000


class Endpoint:
    """One member. Its channel is made at first use, and again when the TLS files changed."""

    avoided_until = 0.0
    """Event-loop time until which other members are preferred."""
    verified = False
    """It was seen to be of our cluster, and no call to it has failed since."""
    recheck_at = 0.0
    """Event-loop time from which on a foreign one may be looked at again."""

    def __init__(self, address: str, config: EtcdConfig) -> None:
        self.address = address
        self._config = config
        self._channel: grpc.aio.Channel | None = None
        self._calls: dict[object, Any] = {}
        self._tls_stamp: tuple[int, ...] = ()
        self._closed = False

    def ready(self) -> bool:
        """Return whether a request would leave now. Where not, start connecting."""
        if self._channel is None:
            if self._closed:
                return False
            self._channel = self._open_channel()
        state = self._channel.get_state(try_to_connect=True)
        return state is grpc.ChannelConnectivity.READY

    def unary(self, method: Method[Req, Resp]) -> UnaryCall[Req, Resp]:
        """Return the stub of a method with one request and one answer.

        Raises ``StoreUnavailable`` where ``ready`` no longer holds because the channel was dropped.
        """
        call = self._calls.get(method)
        if call is None:
            call = self._calls[method] = self._opened().unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return cast("UnaryCall[Req, Resp]", call)

    def stream(self, method: Method[Req, Resp]) -> StreamCall[Req, Resp]:
        """Return the stub of a method that streams both ways. Raises as ``unary`` does."""
        call = self._calls.get(method)
        if call is None:
            call = self._calls[method] = self._opened().stream_stream(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return cast("StreamCall[Req, Resp]", call)

    async def renew_channel(self) -> None:
        """Drop a channel that is not connected and whose TLS files have changed.

        grpc reads certificates once a channel; a rotated client certificate needs a new one.
        """
        if self._channel is None or self.ready() or self._tls_stamp == self._stamp_files():
            return
        await self._drop_channel()

    async def close(self) -> None:
        """End every call, for good. Safe to call twice."""
        self._closed = True
        await self._drop_channel()

    def _opened(self) -> grpc.aio.Channel:
        if self._channel is None:
            raise StoreUnavailable(f"{self.address}: the connection was closed")
        return self._channel

    async def _drop_channel(self) -> None:
        channel, self._channel = self._channel, None
        self._calls.clear()
        if channel is not None:
            await channel.close()

    def _open_channel(self) -> grpc.aio.Channel:
        config = self._config
        ping_timeout_millis = _millis(config.ping_timeout.total_seconds())
        options: list[tuple[str, Any]] = [
            ("grpc.keepalive_time_ms", _millis(config.ping_interval.total_seconds())),
            ("grpc.keepalive_timeout_ms", ping_timeout_millis),
            # The one that counts: left at its default of a minute, a stopped member kept its
            # connection for 64 s, whatever the keepalive timeout said.
            ("grpc.http2.ping_timeout_ms", ping_timeout_millis),
            ("grpc.http2.max_pings_without_data", 0),
            # etcd bounds what it takes, not what it sends; a page or a revision may be large.
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            # A retry below us could run a transaction twice.
            ("grpc.enable_retries", 0),
            ("grpc.service_config_disable_resolution", 1),
            ("grpc.initial_reconnect_backoff_ms", RECONNECT_MIN_MILLIS),
            ("grpc.min_reconnect_backoff_ms", RECONNECT_MAX_MILLIS),
            ("grpc.max_reconnect_backoff_ms", RECONNECT_MAX_MILLIS),
            # A connection of our own, not one shared with another store of this process.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        if not config.tls:
            return dial(self.address, None, options)
        self._tls_stamp = self._stamp_files()
        credentials = grpc.ssl_channel_credentials(
            root_certificates=_contents(config.ca_file),
            private_key=_contents(config.key_file),
            certificate_chain=_contents(config.cert_file),
        )
        return dial(self.address, credentials, options)

    def _stamp_files(self) -> tuple[int, ...]:
        files = (self._config.ca_file, self._config.cert_file, self._config.key_file)
        return tuple(file.stat().st_mtime_ns for file in files if file and file.exists())


def _contents(file: Path | None) -> bytes | None:
    return file.read_bytes() if file else None


def _millis(seconds: float) -> int:
    return round(seconds * 1000)
