"""Where every channel of ours is made: to nodes, to agents, between nodes, to etcd.

A Seatkeeper service is reached directly, as etcd and other services of a local network are. gRPC
reads ``grpc_proxy``, ``https_proxy`` and ``http_proxy`` from the environment, and sends what is
for the service to a web proxy that cannot reach it. So no channel of ours looks at them.
A test forbids making a channel anywhere else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import grpc
from grpc import aio

from seatkeeper.core.errors import ForkedProcess

DIRECT: tuple[str, int] = ("grpc.enable_http_proxy", 0)
"""The option that keeps web proxies of the environment out of the way."""


_first: list[int] = []
"""The process that was the first to run gRPC; children that are forked later inherit the entry."""


def check_fork() -> None:
    """Raise `ForkedProcess` where gRPC cannot run, because a process above this one has run it.

    Its threads are not here and its locks may be held forever. Nor would it harm only this
    process: both share the parent's event poll, and the parent loses its connections.
    """
    if _first and _first[0] != os.getpid():
        raise ForkedProcess(
            "this process was forked from one that ran gRPC, which cannot run here: use the "
            'default, ClientConfig(keeper="helper"), in the parent and here; or start this process '
            "by spawn; or fork before the parent's first client"
        )


def dial(
    address: str,
    credentials: grpc.ChannelCredentials | None = None,
    options: Sequence[tuple[str, int | str]] = (),
) -> aio.Channel:
    """Return a channel to ``address``, with TLS if there are credentials; never through a proxy.

    Raises `ForkedProcess` as `check_fork` does.
    """
    check_fork()
    _first[:] = [os.getpid()]
    given = [*options, DIRECT]
    if credentials is None:
        return aio.insecure_channel(address, options=given)
    return aio.secure_channel(address, credentials, options=given)
