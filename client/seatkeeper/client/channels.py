"""Where every channel of ours is made: to nodes, to agents, between nodes, to etcd.

A Seatkeeper service is reached directly, as etcd and other services of a local network are. gRPC
reads ``grpc_proxy``, ``https_proxy`` and ``http_proxy`` from the environment, and sends what is
for the service to a web proxy that cannot reach it. So no channel of ours looks at them.
A test forbids making a channel anywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from grpc import aio

DIRECT: tuple[str, int] = ("grpc.enable_http_proxy", 0)
"""The option that keeps web proxies of the environment out of the way."""


def dial(
    address: str,
    credentials: grpc.ChannelCredentials | None = None,
    options: Sequence[tuple[str, int | str]] = (),
) -> aio.Channel:
    """Return a channel to ``address``, with TLS if there are credentials; never through a proxy."""
    given = [*options, DIRECT]
    if credentials is None:
        return aio.insecure_channel(address, options=given)
    return aio.secure_channel(address, credentials, options=given)
