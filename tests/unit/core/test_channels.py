"""Every channel is made in one place, which knows what a web proxy is no good for."""

from __future__ import annotations

import ast
import errno
import socket
from datetime import timedelta
from pathlib import Path

import grpc.aio
import pytest
from tests.tree import PORTIONS, ROOT

from seatkeeper.client import AsyncSeatClient, ClientConfig
from seatkeeper.core.address import parse_address
from seatkeeper.core.channels import DIRECT, dial
from seatkeeper.core.serving.listening import why_not
from seatkeeper.server.config import NodeConfig
from seatkeeper.server.node import Node

PLACE = ROOT / "core/seatkeeper/core/channels.py"
OURS = [
    path
    for part in (*PORTIONS, "bench")
    for path in sorted((ROOT / part).rglob("*.py"))
    if "_pb2" not in path.name and path != PLACE
]


def test_no_channel_is_made_anywhere_else() -> None:
    made = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in OURS
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr.endswith("secure_channel"))
        or (isinstance(node, ast.ImportFrom) and _names_one(node))
    ]
    assert made == [], "make it with seatkeeper.core.channels.dial"


def _names_one(node: ast.ImportFrom) -> bool:
    return any(alias.name.endswith("secure_channel") for alias in node.names)


def test_every_channel_is_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def remember(address: str, *rest: object, options: list[tuple[str, int]]) -> None:
        seen.append(options)

    monkeypatch.setattr(grpc.aio, "insecure_channel", remember)
    monkeypatch.setattr(grpc.aio, "secure_channel", remember)
    dial("a:1")
    dial("a:1", grpc.ssl_channel_credentials(), [("grpc.use_local_subchannel_pool", 1)])
    assert seen == [[DIRECT], [("grpc.use_local_subchannel_pool", 1), DIRECT]]


PROXIES = dict.fromkeys(
    (
        "http_proxy",
        "https_proxy",
        "grpc_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ),
    "http://127.0.0.1:9",
)
"""Nothing listens there."""


async def test_a_service_is_reached_past_the_proxies_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From client to node, and from node to node."""
    for name, value in PROXIES.items():
        monkeypatch.setenv(name, value)
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    config = NodeConfig(node_id="n-1", listen="127.0.0.1:0", store="memory")
    node = await Node.start(config)
    try:
        quick = ClientConfig(call_timeout=timedelta(seconds=10))
        async with AsyncSeatClient(node.address, config=quick) as client:
            await client.pools.create("p", seats=1)
            async with client.seat("p") as grant:
                assert grant.seats == 1
            # The report asks every node over a channel between nodes.
            report = await client.cluster.report()
            assert [each.failure for each in report.nodes] == [""]
    finally:
        await node.stop()


@pytest.mark.parametrize("address", ["[::1]:0", "[::]:0"])
async def test_a_node_is_reached_over_ipv6(address: str) -> None:
    config = NodeConfig(
        node_id="n-1",
        listen=address,
        store="memory",
        advertise="" if address == "[::1]:0" else "[::1]:7420",
    )
    node = await Node.start(config)
    try:
        at = f"[::1]:{parse_address(node.address).port}"
        async with AsyncSeatClient(at) as client:
            await client.pools.create("p", seats=1)
            async with client.seat("p", wait=5) as grant:
                assert (grant.pool, (await client.pools.get("p")).free) == ("p", 0)
    finally:
        await node.stop()


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("192.0.2.1:0", "not an address of this machine"),
        ("nowhere.invalid:7420", "the host is not known"),
    ],
)
def test_why_nothing_can_listen_is_reported(address: str, why: str) -> None:
    assert why in why_not(address)


def test_a_forbidden_port_is_not_called_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(self: socket.socket, place: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", bind)
    assert "ports of this number are for root" in why_not("127.0.0.1:80")


def test_a_port_in_use_is_called_so() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        assert "in use by another process" in why_not(f"[::1]:{taken.getsockname()[1]}")
