"""How nodes are reached: gRPC over sockets, or whatever stands for it in a simulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import grpc
import grpc.aio

from seatkeeper.core.channels import dial
from seatkeeper.core.serving.listening import SERVER_OPTIONS, end_connections, listen


class Transport(Protocol):
    """Makes the two ends of calls."""

    def server(
        self, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()
    ) -> grpc.aio.Server:
        """Return a server that listens nowhere yet; ``interceptors`` see each call, first to last."""
        ...

    def listen(
        self, server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None
    ) -> str:
        """Have it listen on ``address`` (port 0: any); return that. Raises ``ListenError``."""
        ...

    def end_connections(self, address: str) -> None:
        """Shut down this side of every connection to ``address``, where this process listens."""
        ...

    def connect(
        self,
        address: str,
        credentials: grpc.ChannelCredentials | None,
        options: Sequence[tuple[str, int]],
    ) -> grpc.aio.Channel:
        """Return a channel to another node."""
        ...


class GrpcTransport:
    """gRPC over sockets."""

    def server(
        self, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()
    ) -> grpc.aio.Server:
        """Return a server with the options of all our servers."""
        return grpc.aio.server(options=SERVER_OPTIONS, interceptors=interceptors)

    def listen(
        self, server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None
    ) -> str:
        """Have it listen on ``address``; return it with its port. Raises ``ListenError``."""
        return listen(server, address, credentials)

    def end_connections(self, address: str) -> None:
        """Shut down this side of every connection to ``address``."""
        end_connections(address)

    def connect(
        self,
        address: str,
        credentials: grpc.ChannelCredentials | None,
        options: Sequence[tuple[str, int]],
    ) -> grpc.aio.Channel:
        """Return a channel: with TLS, if there are credentials."""
        return dial(address, credentials, options)
