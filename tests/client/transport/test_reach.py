"""Why a service cannot be reached: found at once where that is certain, and explained."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from unittest import mock

import pytest
from tests.cli.commands import address_of, serving
from tests.client import certificates
from tests.client.certificates import Authority
from tests.ports import HeldPort, closed_address

from seatkeeper.client import TlsConfig
from seatkeeper.client.transport import reach
from seatkeeper.core.errors import ServiceUnavailable


def test_what_refuses_everywhere_is_given_up_soon() -> None:
    addresses = [closed_address(), closed_address("::1")]
    before = time.monotonic()
    with pytest.raises(ServiceUnavailable) as refused:
        reach.check_reachable(addresses)
    assert time.monotonic() - before < 8  # not the ten seconds of a silent one
    assert str(refused.value) == (
        f"no node answered: connection refused at {addresses[0]}, connection refused at {addresses[1]}"
    )


def test_one_that_listens_is_enough() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach.check_reachable([closed_address(), f"127.0.0.1:{server.getsockname()[1]}"])


def test_a_node_that_starts_again_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "REFUSED_SECONDS", 60.0)
    held = HeldPort()
    started: list[socket.socket] = []

    def start() -> None:
        held.let_go()
        started.append(socket.create_server(("127.0.0.1", held.port)))

    timer = threading.Timer(0.3, start)
    timer.start()
    reach.check_reachable([held.address])
    timer.join()
    started[0].close()


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Something that listens and is no node."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(30)
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join(30)


def test_what_is_no_node_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def http(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    def ssh(connection: socket.socket) -> None:
        connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

    with answering(http) as address:
        assert "HTTP/1" in reach.trouble_with([address], None)
    with answering(ssh) as address:
        assert "no gRPC service" in reach.trouble_with([address], None)


@pytest.mark.parametrize("days", [-400, 400])
def test_a_certificate_out_of_its_time_is_reported(tmp_path: Path, days: int) -> None:
    authority = Authority(tmp_path)
    shifted = mock.Mock(wraps=datetime)
    shifted.now.side_effect = lambda zone: datetime.now(zone) + timedelta(days=days)
    with mock.patch.object(certificates, "datetime", shifted):
        cert, key = authority.issue("node")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    def handshake(connection: socket.socket) -> None:
        with pytest.raises((ssl.SSLError, OSError)):
            context.wrap_socket(connection, server_side=True).recv(1)

    with answering(handshake) as address:
        why = reach.trouble_with([address], TlsConfig(ca=authority.ca))
    assert ("expired" if days < 0 else "not valid yet") in why


def test_tls_mistakes_are_distinguished(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    cert, key = authority.issue("node")
    ours, our_key = authority.issue("alice")
    theirs, their_key = other.issue("mallory")
    flags = ("--tls-cert-file", str(cert), "--tls-key-file", str(key))
    asking = ("--tls-client-ca-file", str(authority.ca))
    ca, good = authority.ca, TlsConfig(ca=authority.ca, cert=ours, key=our_key)
    with (
        serving(tmp_path / "tls", *flags) as tls,
        serving(tmp_path / "mutual", *flags, *asking) as mutual,
        serving(tmp_path / "plain") as plain,
    ):
        of_tls, of_mutual, of_plain = map(address_of, (tls, mutual, plain))
        assert reach.trouble_with([of_plain], None) == ""
        assert reach.trouble_with([of_tls], TlsConfig(ca=ca)) == ""
        assert reach.trouble_with([of_mutual], good) == ""
        for address, config, why in (
            (of_tls, None, "speaks TLS"),
            (of_mutual, None, "speaks TLS"),
            (of_plain, TlsConfig(ca=ca), "speaks plain text"),
            (of_plain, good, "speaks plain text"),
            (of_tls, TlsConfig(ca=other.ca), "is not the one in tls.ca"),
            (of_tls, TlsConfig(ca=ca, server_name="elsewhere"), "for another name"),
            (of_mutual, TlsConfig(ca=ca), "client certificate"),
            (of_mutual, TlsConfig(ca=ca, cert=theirs, key=their_key), "certificate"),
        ):
            assert why in reach.trouble_with([address], config), (config, why)
        localhost = of_tls.replace("127.0.0.1", "127.0.0.2")
        assert reach.trouble_with([localhost, closed_address()], TlsConfig(ca=ca)) == ""


def test_an_explanation_uses_the_words_of_its_reader() -> None:
    def tls(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(bytes((0x15, 3, 1, 0, 2, 2, 40)))

    words = reach.TlsNames("--tls-ca", "--tls-cert", "--tls-key")
    with answering(tls) as address:
        assert reach.trouble_with([address], None).endswith("certificate with tls.ca")
    with answering(tls) as address:
        assert reach.trouble_with([address], None, names=words).endswith("with --tls-ca")
