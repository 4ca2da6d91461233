"""TLS with certificates on both sides, and users whose tokens end."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from tests.conftest import add_users

from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdOptions, EtcdTls
from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store import (
    Delete,
    Put,
    PutNew,
    StoreRefused,
    StoreUnavailable,
    UnwrittenBelow,
    WatchEnded,
)
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore
from seatkeeper.server.store.etcd.auth import Credentials
from seatkeeper.server.store.etcd.calls import AUTHENTICATE, RANGE

LEASE = 4711
TOKEN_TTL = timedelta(seconds=1)


class Authority:
    """A certificate authority and its files."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / name
        self._folder.mkdir()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._certificate(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file = self._folder / "ca.crt"
        self.ca_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return the files of a new certificate for this CN, good for both sides, and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            self._certificate(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]),
                critical=False,
            )
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        cert_file = self._folder / f"{name}.crt"
        key_file = self._folder / f"{name}.key"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return cert_file, key_file

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
        )


# ---- TLS


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
async def tls_etcd(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path: Path, authority: Authority
) -> AsyncIterator[EtcdCluster]:
    cert_file, key_file = authority.issue("server")
    tls = EtcdTls(ca_file=authority.ca_file, cert_file=cert_file, key_file=key_file)
    cluster = EtcdCluster(
        etcd_program, tmp_path / "etcd", options=replace(etcd_options, tls=tls)
    )
    await cluster.start()
    yield cluster
    cluster.kill()


async def test_with_certificates_on_both_sides(
    tls_etcd: EtcdCluster, authority: Authority
) -> None:
    cert_file, key_file = authority.issue("node")
    store = EtcdStore(
        EtcdConfig(
            endpoints=("https://" + tls_etcd.endpoints[0],),
            ca_file=authority.ca_file,
            cert_file=cert_file,
            key_file=key_file,
        )
    )
    assert (await store.commit([Put("/a", b"")])).succeeded
    await store.grant_lease(LEASE, timedelta(seconds=60))
    await store.keep_alive(LEASE)
    async with aclosing(store.watch("/", from_revision=1)) as watch:
        await anext(watch)
        assert (await anext(watch)).changes
    await store.close()


async def test_without_a_certificate_nothing_leaves(
    tls_etcd: EtcdCluster, authority: Authority
) -> None:
    store = EtcdStore(
        EtcdConfig(
            endpoints=tls_etcd.endpoints,
            ca_file=authority.ca_file,
            call_timeout=timedelta(milliseconds=500),
        )
    )
    # With TLS 1.3 the client is done before the server refuses it, so the request may have left.
    with pytest.raises(StoreUnavailable):
        await store.get("/a")
    await store.close()


async def test_a_server_of_another_authority_is_not_spoken_to(
    tls_etcd: EtcdCluster, authority: Authority, tmp_path: Path
) -> None:
    cert_file, key_file = authority.issue("node")
    store = EtcdStore(
        EtcdConfig(
            endpoints=tls_etcd.endpoints,
            ca_file=Authority(tmp_path, "theirs").ca_file,
            cert_file=cert_file,
            key_file=key_file,
            call_timeout=timedelta(milliseconds=500),
        )
    )
    with pytest.raises(StoreUnavailable):
        await store.commit([Put("/a", b"")])
    await store.close()


async def test_a_new_certificate_is_used_without_a_new_store(
    tls_etcd: EtcdCluster, authority: Authority, tmp_path: Path
) -> None:
    wrong_cert, wrong_key = Authority(tmp_path, "theirs").issue("node")
    cert_file, key_file = tmp_path / "node.crt", tmp_path / "node.key"
    shutil.copy(wrong_cert, cert_file)
    shutil.copy(wrong_key, key_file)
    store = EtcdStore(
        EtcdConfig(
            endpoints=tls_etcd.endpoints,
            ca_file=authority.ca_file,
            cert_file=cert_file,
            key_file=key_file,
            call_timeout=timedelta(seconds=1),
        )
    )
    with pytest.raises(StoreUnavailable):
        await store.get("/a")

    right_cert, right_key = authority.issue("node")
    shutil.copy(right_cert, cert_file)
    shutil.copy(right_key, key_file)

    assert await _get_with_retries(store) is None
    await store.close()


# ---- users


@pytest.fixture
async def auth_etcd(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path: Path
) -> AsyncIterator[EtcdCluster]:
    """An etcd with users: root, and one who may use keys below /ours/ only."""
    options = replace(etcd_options, auth_token_ttl=TOKEN_TTL)
    cluster = EtcdCluster(etcd_program, tmp_path, options=options)
    await cluster.start()
    await add_users(etcd_program, cluster, "/ours/")
    yield cluster
    cluster.kill()


def auth_store(cluster: EtcdCluster, username: str, password: str) -> EtcdStore:
    return EtcdStore(
        EtcdConfig(endpoints=cluster.endpoints, username=username, password=password)
    )


async def use_everything(store: EtcdStore, lease: int) -> None:
    """Make each kind of call once."""
    await store.grant_lease(lease, timedelta(seconds=60))
    done = await store.commit([Put("/ours/a", b"", lease_id=lease)])
    assert await store.get("/ours/a") is not None
    assert len((await store.list("/ours/")).entries) == 1
    await store.keep_alive(lease)
    await store.lease_remaining(lease)
    async with aclosing(store.watch("/ours/", from_revision=done.revision)) as watch:
        await anext(watch)
        assert (await anext(watch)).changes
    status = await store.status()
    assert status.cluster_id != 0
    assert status.revision >= done.revision
    assert await store.alarms() == frozenset()
    health = await store.health()
    assert [(member.name, member.failure) for member in health.members] == [("etcd-1", "")]
    assert health.read_time is not None
    await store.revoke_lease(lease)
    below = UnwrittenBelow("/ours/pools/", (await store.list("/ours/")).revision)
    large = [PutNew(f"/ours/pools/{n}", b"") for n in range(200)]
    assert (await store.commit_large(large, unwritten_below=below)).succeeded
    await store.commit([Delete(f"/ours/pools/{n}") for n in range(100)])
    await store.commit([Delete(f"/ours/pools/{n}") for n in range(100, 200)])


async def test_a_user_with_a_password(auth_etcd: EtcdCluster) -> None:
    store = auth_store(auth_etcd, "node", "hush")
    await use_everything(store, LEASE)
    await store.close()


async def test_a_wrong_password_is_refused(auth_etcd: EtcdCluster) -> None:
    for username, password in (("node", "loud"), ("stranger", "hush"), ("", "")):
        store = auth_store(auth_etcd, username, password)
        with pytest.raises(StoreRefused):
            await store.get("/ours/a")
        with pytest.raises(StoreRefused):
            await store.commit([Put("/ours/a", b"")])
        await store.close()


async def test_a_key_of_others_is_refused(auth_etcd: EtcdCluster) -> None:
    store = auth_store(auth_etcd, "node", "hush")
    with pytest.raises(StoreRefused):
        await store.commit([Put("/ours/a", b""), Put("/theirs/a", b"")])
    large = [Put("/ours/a", b""), Put("/theirs/a", b"")]
    with pytest.raises(StoreRefused):
        await store.commit_large(large, unwritten_below=UnwrittenBelow("/ours/", 1))
    with pytest.raises(StoreRefused):
        await store.commit_large([Put("/ours/a", b"")], unwritten_below=UnwrittenBelow("/", 9))
    with pytest.raises(StoreRefused):
        await store.list("/")
    with pytest.raises(WatchEnded, match="permission denied"):
        await anext(store.watch("/theirs/", from_revision=1))
    assert (await store.list("/ours/")).entries == ()
    await store.close()


async def test_a_username_is_fine_where_there_are_no_users(etcd: EtcdCluster) -> None:
    store = auth_store(etcd, "node", "hush")
    assert await store.get("/ours/never") is None
    await store.close()


async def test_a_token_that_ended_is_replaced(auth_etcd: EtcdCluster) -> None:
    """First it lies unused for its ttl, then etcd restarts, which forgets all tokens."""
    store = auth_store(auth_etcd, "node", "hush")
    await use_everything(store, LEASE)

    await _let_tokens_end(auth_etcd)
    await use_everything(store, LEASE)

    (member,) = auth_etcd.members
    member.kill()
    await member.start()
    assert await _get_with_retries(store) is None
    await use_everything(store, LEASE)
    await store.close()


async def test_a_watch_opened_with_a_token_that_ended_works_at_the_second_try(
    auth_etcd: EtcdCluster,
) -> None:
    store = auth_store(auth_etcd, "node", "hush")
    await store.commit([Put("/ours/a", b"")])
    await _let_tokens_end(auth_etcd)
    with pytest.raises(WatchEnded):
        await anext(store.watch("/ours/", from_revision=1))
    async with aclosing(store.watch("/ours/", from_revision=1)) as watch:
        await anext(watch)
        assert (await anext(watch)).changes
    await store.close()


async def test_callers_share_one_new_token(
    auth_etcd: EtcdCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = 0
    authenticate = Credentials._authenticate

    async def counted(*arguments: object) -> grpc.aio.Metadata:
        nonlocal fetched
        fetched += 1
        return await authenticate(*arguments)  # type: ignore[arg-type]  # forwarded as it came

    monkeypatch.setattr(Credentials, "_authenticate", counted)
    store = auth_store(auth_etcd, "node", "hush")

    await asyncio.gather(*(store.commit([Put(f"/ours/{n}", b"")]) for n in range(30)))
    assert fetched == 1

    await _let_tokens_end(auth_etcd)
    await asyncio.gather(*(store.commit([Put(f"/ours/{n}", b"")]) for n in range(30)))
    assert fetched == 2
    await store.close()


async def _let_tokens_end(etcd: EtcdCluster) -> None:
    """Wait until a token has ended that is younger than those in use.

    Asking whether a token is still good keeps it alive, so each is asked about once.
    """
    async with grpc.aio.insecure_channel(etcd.endpoints[0]) as channel:
        authenticate: grpc.aio.UnaryUnaryMultiCallable[
            pb.AuthenticateRequest, pb.AuthenticateResponse
        ] = channel.unary_unary(
            AUTHENTICATE.path,
            request_serializer=pb.AuthenticateRequest.SerializeToString,
            response_deserializer=pb.AuthenticateResponse.FromString,
        )
        read: grpc.aio.UnaryUnaryMultiCallable[pb.RangeRequest, pb.RangeResponse] = (
            channel.unary_unary(
                RANGE.path,
                request_serializer=pb.RangeRequest.SerializeToString,
                response_deserializer=pb.RangeResponse.FromString,
            )
        )
        login = pb.AuthenticateRequest(name="node", password="hush")
        tokens = [(await authenticate(login, timeout=10)).token for _ in range(12)]
        for token in tokens:
            await asyncio.sleep(0.25)
            call = read(
                pb.RangeRequest(key=b"/ours/a"),
                timeout=10,
                metadata=grpc.aio.Metadata(("token", token)),
            )
            if await call.code() is grpc.StatusCode.UNAUTHENTICATED:
                return
    pytest.fail("the tokens do not end")


async def _get_with_retries(store: EtcdStore) -> object:
    for _ in range(20):
        try:
            return await store.get("/ours/never")
        except StoreUnavailable:
            continue
    return await store.get("/ours/never")
