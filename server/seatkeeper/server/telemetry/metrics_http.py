"""The metrics port: ``/metrics``, ``/healthz`` and ``/readyz`` over HTTP.

Served on the node's own event loop, so ``/healthz`` answers only while that turns. Text for a scrape
is made in a thread. A client that is slow, or never reads, has ``CLIENT_SECONDS_MAX`` and one of
``CLIENTS_MAX`` places; what it costs the node is bounded.

Every answer ends its connection: scrapes are rare, and this keeps the server as small as it is.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

logger = logging.getLogger(__name__)

REQUEST_BYTES_MAX = 16 * 1024
CLIENT_SECONDS_MAX = 10.0
"""Longest that one client may take, from its first byte to our last."""
CLIENTS_MAX = 64
READY_SECONDS_MAX = 3.0
"""Longest that finding out about readiness may take."""
READY_KEPT_SECONDS = 1.0
"""How long an answer about readiness is good for: probes do not add up to load on the store."""

_TEXT = "text/plain; charset=utf-8"
_READ = ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: HTTPStatus
    body: bytes
    kind: str = _TEXT
    more: Mapping[str, str] = field(default_factory=dict)


class MetricsServer:
    """Serves one node's metrics and health. Start it before the node, so that both are seen early."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.readiness: Callable[[], Awaitable[str]] | None = None
        """Says why the node is not ready; empty: it is. None: it has not started."""
        self._registry = registry
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.Task[None], None] = {}
        self._scrapes: dict[str, asyncio.Future[_Answer]] = {}
        self._scraper = ThreadPoolExecutor(1, "scrape")
        self._ready: asyncio.Task[str] | None = None
        self._ready_at = 0.0

    async def start(self, address: str) -> str:
        """Listen on ``address`` (port 0: any) and return it with its port. Raises ``OSError``."""
        host, _, port = address.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        listening = _listen(host, int(port))
        self._server = await asyncio.start_server(
            self._connected, sock=listening, limit=REQUEST_BYTES_MAX
        )
        return f"{address.rpartition(':')[0]}:{listening.getsockname()[1]}"

    async def stop(self) -> None:
        """Stop listening, and end the connections there are."""
        if self._server is not None:
            self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)
        if self._ready is not None:
            self._ready.cancel()
        self._scraper.shutdown(wait=False, cancel_futures=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._clients) >= CLIENTS_MAX:
            # The one that has had the longest time.
            oldest = next(iter(self._clients))
            del self._clients[oldest]
            oldest.cancel()
        client = asyncio.create_task(self._serve_in_time(reader, writer))
        self._clients[client] = None
        client.add_done_callback(lambda _: self._clients.pop(client, None))

    async def _serve_in_time(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            with suppress(TimeoutError, OSError, asyncio.IncompleteReadError):
                async with asyncio.timeout(CLIENT_SECONDS_MAX):
                    await self._serve(reader, writer)
        finally:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, headers = _parse(head)
        except (asyncio.LimitOverrunError, ValueError):
            method, answer = "GET", _words(HTTPStatus.BAD_REQUEST)
        else:
            try:
                answer = await self._answer(method, target, headers)
            except Exception:
                logger.exception("scrape_failed", extra={"target": target[:200]})
                answer = _words(HTTPStatus.INTERNAL_SERVER_ERROR)
        body = b"" if method == "HEAD" else answer.body
        lines = [
            f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
            f"Content-Type: {answer.kind}",
            f"Content-Length: {len(answer.body)}",
            "Cache-Control: no-store",
            "Connection: close",
            *(f"{name}: {value}" for name, value in answer.more.items()),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await writer.drain()
        writer.write_eof()
        # Until the client has it all: an aborted connection would take what is on its way along.
        while await reader.read(1024):
            pass

    async def _answer(self, method: str, target: str, headers: Mapping[str, str]) -> _Answer:
        path = target.partition("?")[0]
        if path not in ("/metrics", "/healthz", "/readyz"):
            return _words(HTTPStatus.NOT_FOUND, "there are /metrics, /healthz and /readyz")
        if method not in _READ:
            allowed = {"Allow": ", ".join(_READ)}
            return _words(HTTPStatus.METHOD_NOT_ALLOWED, more=allowed)
        if path == "/healthz":
            return _words(HTTPStatus.OK, "ok")
        if path == "/readyz":
            why = await self._why_not_ready()
            return (
                _words(HTTPStatus.SERVICE_UNAVAILABLE, why)
                if why
                else _words(HTTPStatus.OK, "ok")
            )
        return await self._metrics(headers.get("accept", ""))

    async def _metrics(self, accept: str) -> _Answer:
        """Return the metrics. Those who scrape at the same time get the same ones."""
        if (scrape := self._scrapes.get(accept)) is None:
            loop = asyncio.get_running_loop()
            work = partial(_scraped, self._registry, accept)
            scrape = self._scrapes[accept] = loop.run_in_executor(self._scraper, work)
            scrape.add_done_callback(partial(self._scrape_ended, accept))
        return await asyncio.shield(scrape)

    def _scrape_ended(self, accept: str, scrape: asyncio.Future[_Answer]) -> None:
        del self._scrapes[accept]
        if not scrape.cancelled():
            scrape.exception()  # the callers get the error; there may be none left

    async def _why_not_ready(self) -> str:
        if self.readiness is None:
            return "starting"
        is_old = time.monotonic() >= self._ready_at + READY_KEPT_SECONDS
        if self._ready is None or (self._ready.done() and is_old):
            self._ready = asyncio.ensure_future(self._look(self.readiness))
        return await asyncio.shield(self._ready)

    async def _look(self, readiness: Callable[[], Awaitable[str]]) -> str:
        try:
            async with asyncio.timeout(READY_SECONDS_MAX):
                why = await readiness()
        except TimeoutError:
            why = "the store does not answer"
        self._ready_at = time.monotonic()
        return why


def _scraped(registry: CollectorRegistry, accept: str) -> _Answer:
    try:
        encode, kind = choose_encoder(accept)
    except Exception:  # whatever the library makes of what a client accepts
        encode, kind = choose_encoder("")
    return _Answer(HTTPStatus.OK, encode(registry), kind)


def _words(
    status: HTTPStatus, text: str = "", more: Mapping[str, str] | None = None
) -> _Answer:
    return _Answer(status, f"{text or status.phrase}\n".encode(), more=more or {})


def _parse(head: bytes) -> tuple[str, str, dict[str, str]]:
    """Return method, target and headers of a request. Raises ``ValueError``."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, version = first.split(" ")
    if not version.startswith("HTTP/1.") or not target.startswith("/"):
        raise ValueError(first)
    headers = {}
    for line in filter(None, lines):
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(line)
        headers[name.strip().lower()] = value.strip()
    return method, target, headers


def _listen(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    # As gRPC does: an address of everything takes IPv4 and IPv6.
    both = family is socket.AF_INET6 and host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server(address[:2], family=family, dualstack_ipv6=both)
