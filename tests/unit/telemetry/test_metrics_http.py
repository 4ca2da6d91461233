"""The metrics port: three paths, and clients that behave badly."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from tests.unit.kit import eventually

from seatkeeper.server.telemetry import metrics_http
from seatkeeper.server.telemetry.metrics_http import MetricsServer

DEADLINE = 20.0


@asynccontextmanager
async def serving(
    registry: CollectorRegistry | None = None, listen: str = "127.0.0.1:0"
) -> AsyncIterator[tuple[MetricsServer, str]]:
    if registry is None:
        registry = CollectorRegistry()
        Gauge("a_gauge", "One.", registry=registry).set(7)
    server = MetricsServer(registry)
    address = await server.start(listen)
    try:
        yield server, address
    finally:
        await server.stop()


async def ask(address: str, request: str | bytes) -> tuple[str, dict[str, str], str]:
    """Send a request; return status, headers and body of the answer."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    if isinstance(request, str):
        request = f"{request} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    writer.write(request)
    async with asyncio.timeout(DEADLINE):
        answer = (await reader.read()).decode()
    writer.close()
    head, _, body = answer.partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    return status.split(" ")[1], dict(line.split(": ", 1) for line in lines), body


async def test_metrics_are_under_their_path_alone() -> None:
    async with serving() as (_, address):
        status, headers, body = await ask(address, "GET /metrics")
        assert (status, "a_gauge 7.0" in body) == ("200", True)
        assert headers["Content-Type"].startswith("text/plain; version=")
        for path in ("/", "/metrics/", "/metricsx", "/favicon.ico", "//metrics", "/../metrics"):
            status, _, body = await ask(address, f"GET {path}")
            assert (status, "a_gauge" in body) == ("404", False)
        assert (await ask(address, "GET /metrics?name[]=x"))[0] == "200"


async def test_openmetrics_for_clients_that_accept_it() -> None:
    accept = (
        b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n"
    )
    nonsense = accept.replace(b"1.0.0", b"x.y")
    async with serving() as (_, address):
        _, headers, body = await ask(address, accept)
        assert headers["Content-Type"].startswith("application/openmetrics-text")
        assert body.endswith("# EOF\n")
        assert (await ask(address, nonsense))[0] == "200"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "FOO"])
async def test_other_methods_are_refused(method: str) -> None:
    async with serving() as (_, address):
        status, headers, _ = await ask(address, f"{method} /metrics")
    assert (status, headers["Allow"]) == ("405", "GET, HEAD")


async def test_head_has_the_length_and_no_body() -> None:
    async with serving() as (_, address):
        for path in ("/metrics", "/healthz", "/readyz", "/nowhere"):
            got, headers, body = await ask(address, f"GET {path}")
            status, same, nothing = await ask(address, f"HEAD {path}")
            assert (status, nothing) == (got, "")
            if path != "/metrics":
                assert same["Content-Length"] == str(len(body)) == headers["Content-Length"]


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET http://x/metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 60_000 + b"\r\n\r\n",
        b"\xff\xfe \x00 HTTP/1.1\r\n\r\n",
    ],
    ids=("words", "no version", "no target", "proxy", "no colon", "too long", "binary"),
)
async def test_what_is_no_request_is_answered_so(request_: bytes) -> None:
    async with serving() as (_, address):
        assert (await ask(address, request_))[0] == "400"
        assert (await ask(address, "GET /healthz"))[0] == "200"


async def test_readiness_is_more_than_health() -> None:
    async with serving() as (server, address):
        assert (await ask(address, "GET /healthz"))[0] == "200"
        status, _, why = await ask(address, "GET /readyz")
        assert (status, why) == ("503", "starting\n")
        asked = 0

        async def ready() -> str:
            nonlocal asked
            asked += 1
            return ""

        server.readiness = ready
        for status, _, _ in await asyncio.gather(
            *(ask(address, "GET /readyz") for _ in range(8))
        ):
            assert status == "200"
        assert asked == 1, "probes add up"


async def test_a_store_that_is_silent_makes_a_node_unready_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics_http, "READY_SECONDS_MAX", 0.05)

    async def silent() -> str:
        await asyncio.Event().wait()
        return ""

    async with serving() as (server, address):
        server.readiness = silent
        status, _, why = await ask(address, "GET /readyz")
        assert (status, why) == ("503", "the store does not answer\n")
        assert (await ask(address, "GET /healthz"))[0] == "200"


async def test_clients_that_say_nothing_or_never_read_are_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics_http, "CLIENT_SECONDS_MAX", 0.1)
    registry = CollectorRegistry()
    registry.register(_Large())
    async with serving(registry) as (server, address):
        host, _, port = address.rpartition(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
        stuck = socket.create_connection((host, int(port)))
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        stuck.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        async with asyncio.timeout(DEADLINE):
            for reader, _ in silent:
                with suppress(ConnectionResetError):
                    assert await reader.read() == b""
        await eventually(lambda: not server._clients)
        stuck.close()
        for _, writer in silent:
            writer.close()


async def test_who_comes_when_all_places_are_taken_gets_the_oldest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics_http, "CLIENTS_MAX", 4)
    async with serving() as (_, address):
        host, _, port = address.rpartition(":")
        held = [await asyncio.open_connection(host, int(port)) for _ in range(10)]
        assert (await ask(address, "GET /metrics"))[0] == "200"
        for _, writer in held:
            writer.close()


async def test_a_slow_scrape_does_not_hold_up_the_loop() -> None:
    registry, slow = CollectorRegistry(), _Slow()
    registry.register(slow)
    async with serving(registry) as (_, address):
        scrapes = [asyncio.create_task(ask(address, "GET /metrics")) for _ in range(5)]
        assert await asyncio.to_thread(slow.began.wait, DEADLINE)
        assert (await ask(address, "GET /healthz"))[0] == "200"
        slow.go_on.set()
        assert {status for status, _, _ in await asyncio.gather(*scrapes)} == {"200"}
        assert slow.times <= 2, "those who scrape at the same time share one"


async def test_a_scrape_that_fails_is_an_error_of_the_server() -> None:
    registry = CollectorRegistry()
    registry.register(_Broken())
    async with serving(registry) as (_, address):
        assert (await ask(address, "GET /metrics"))[0] == "500"
        assert (await ask(address, "GET /healthz"))[0] == "200"


@pytest.mark.parametrize("listen", ["[::1]:0", "[::]:0", "localhost:0", "0.0.0.0:0"])
async def test_it_listens_on_every_kind_of_address(listen: str) -> None:
    async with serving(listen=listen) as (_, address):
        port = address.rpartition(":")[2]
        assert address.startswith(listen.removesuffix("0"))
        host = "::1" if "::" in listen else "127.0.0.1"
        assert (await ask(f"{host}:{port}", "GET /healthz"))[0] == "200"
        if listen == "[::]:0":
            assert (await ask(f"127.0.0.1:{port}", "GET /healthz"))[0] == "200"


class _Large(Collector):
    def collect(self) -> list[GaugeMetricFamily]:
        family = GaugeMetricFamily("large", "x" * 20_000_000)
        family.add_metric([], 1)
        return [family]


class _Broken(Collector):
    def describe(self) -> list[GaugeMetricFamily]:
        return []

    def collect(self) -> list[GaugeMetricFamily]:
        raise RuntimeError("broken")


class _Slow(Collector):
    def __init__(self) -> None:
        self.began, self.go_on, self.times = threading.Event(), threading.Event(), 0

    def describe(self) -> list[GaugeMetricFamily]:
        return []

    def collect(self) -> list[GaugeMetricFamily]:
        self.times += 1
        self.began.set()
        self.go_on.wait(DEADLINE)
        return []
