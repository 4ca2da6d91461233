"""Mutual TLS, with a certificate authority of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from tests.client.certificates import Authority
from tests.client.scripted import ScriptedNode, ScriptedService

from seatkeeper.client import (
    AsyncSeatClient,
    ClientConfig,
    InvalidArgument,
    ServiceUnavailable,
    TlsConfig,
)

SHORT = ClientConfig(
    connect_timeout=timedelta(seconds=0.5), attempt_timeout=timedelta(seconds=0.3)
)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
async def secure_node(
    service: ScriptedService, authority: Authority
) -> AsyncIterator[ScriptedNode]:
    node = ScriptedNode(service, "secure")
    cert, key = authority.issue("seats.test")
    node.credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), cert.read_bytes())], authority.ca.read_bytes(), True
    )
    await node.start()
    yield node
    await node.kill()


async def test_both_sides_show_a_certificate(
    secure_node: ScriptedNode, authority: Authority
) -> None:
    cert, key = authority.issue("alice")
    tls = TlsConfig(ca=authority.ca, cert=cert, key=key)
    async with (
        AsyncSeatClient(secure_node.address, tls=tls) as client,
        client.seat("tensorrt") as grant,
    ):
        assert grant.fence == 1


async def test_a_node_may_be_known_by_another_name(
    secure_node: ScriptedNode, authority: Authority
) -> None:
    cert, key = authority.issue("alice")
    address = secure_node.address.replace("127.0.0.1", "localhost")
    tls = TlsConfig(ca=authority.ca, cert=cert, key=key, server_name="seats.test")
    async with AsyncSeatClient(address, tls=tls) as client, client.seat("tensorrt") as grant:
        assert grant.pool == "tensorrt"


@pytest.mark.parametrize("shown", ["nothing", "a certificate of another authority"])
async def test_a_client_the_node_does_not_trust_is_not_served(
    secure_node: ScriptedNode, authority: Authority, tmp_path: Path, shown: str
) -> None:
    tls = TlsConfig(ca=authority.ca)
    if shown != "nothing":
        folder = tmp_path / "other"
        folder.mkdir()
        cert, key = Authority(folder).issue("mallory")
        tls = TlsConfig(ca=authority.ca, cert=cert, key=key)
    async with AsyncSeatClient(secure_node.address, tls=tls, config=SHORT) as client:
        with pytest.raises(ServiceUnavailable):
            await client.acquire("tensorrt")


async def test_a_node_the_client_does_not_trust_is_not_asked(
    secure_node: ScriptedNode, authority: Authority, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    cert, key = authority.issue("alice")
    tls = TlsConfig(ca=Authority(folder).ca, cert=cert, key=key)
    async with AsyncSeatClient(secure_node.address, tls=tls, config=SHORT) as client:
        with pytest.raises(ServiceUnavailable):
            await client.acquire("tensorrt")
    assert not secure_node.calls


def test_files_that_no_handshake_could_use_are_refused_at_once(
    authority: Authority, tmp_path: Path
) -> None:
    cert, key = authority.issue("alice")
    _, others = authority.issue("bob")
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    locked = tmp_path / "locked.key"
    plain = serialization.load_pem_private_key(key.read_bytes(), None)
    locked.write_bytes(
        plain.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"a password"),
        )
    )
    TlsConfig(ca=authority.ca, cert=cert, key=key)
    for wrong in (others, locked, cert, broken):
        with pytest.raises(InvalidArgument, match="cannot be used with") as refused:
            TlsConfig(cert=cert, key=wrong)
        assert refused.value.field == "tls.key"
    with pytest.raises(InvalidArgument, match="cannot be read") as refused:
        TlsConfig(ca=broken)
    assert refused.value.field == "tls.ca"
