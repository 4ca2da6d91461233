"""What many tests share: a real etcd, started once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from seatkeeper.server.etcd_binary import EtcdNotFoundError, find_etcd
from seatkeeper.server.etcd_process import EtcdCluster, EtcdOptions

QUICK_ETCD = EtcdOptions(
    heartbeat_interval=timedelta(milliseconds=50),
    election_timeout=timedelta(milliseconds=500),
    fsync=False,
)
"""Elects within a second and grants leases of 1 s."""


class TcpProxy:
    """Stands between a client and a server, and can be the network at its worst."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = host, int(port)
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._losing_replies = False
        self._pumps: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def endpoint(self) -> str:
        """Where it listens, as ``host:port``."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    def freeze(self) -> None:
        """Nothing gets through, and nobody is told."""
        self._flowing.clear()

    def lose_replies(self) -> None:
        """Requests arrive, answers do not, and nobody is told."""
        self._losing_replies = True

    def cut(self) -> None:
        """Every connection there is breaks."""
        for pump in self._pumps:
            pump.cancel()

    def heal(self) -> None:
        """All is well again, for connections made from now on."""
        self.cut()
        self._losing_replies = False
        self._flowing.set()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.heal()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        writers = [writer]
        try:
            remote_reader, remote_writer = await asyncio.open_connection(*self._target)
            writers.append(remote_writer)
            pumps = {
                asyncio.create_task(self._pump(reader, remote_writer, replies=False)),
                asyncio.create_task(self._pump(remote_reader, writer, replies=True)),
            }
            self._pumps |= pumps
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
            self._pumps -= pumps
        except OSError:
            pass
        finally:
            for each in writers:
                each.transport.abort()
            await asyncio.sleep(0)  # a transport ends in the loop's next turn

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        try:
            while data := await reader.read(65536):
                await self._flowing.wait()
                if not (replies and self._losing_replies):
                    writer.write(data)
                    await writer.drain()
        except OSError:
            return


async def add_users(etcd_program: Path, etcd: EtcdCluster, prefix: str) -> None:
    """Give etcd users: root, and ``node`` (``hush``), who may use keys below a prefix only."""
    for command in (
        "user add root:secret",
        "user grant-role root root",
        "role add ours",
        f"role grant-permission ours --prefix=true readwrite {prefix}",
        "user add node:hush",
        "user grant-role node ours",
        "auth enable",
    ):
        process = await asyncio.create_subprocess_exec(
            etcd_program.parent / "etcdctl",
            f"--endpoints={etcd.endpoints[0]}",
            *command.split(),
            stdout=asyncio.subprocess.DEVNULL,
        )
        assert await process.wait() == 0


@pytest.fixture
async def proxy_to() -> AsyncIterator[Callable[[str], Awaitable[TcpProxy]]]:
    """Make a proxy to a ``host:port``; it is closed after the test."""
    proxies: list[TcpProxy] = []

    async def make(target: str) -> TcpProxy:
        proxy = TcpProxy(target)
        await proxy.start()
        proxies.append(proxy)
        return proxy

    yield make
    for proxy in proxies:
        await proxy.close()


@pytest.fixture(scope="session")
def etcd_program() -> Path:
    """The etcd program to test with."""
    try:
        return find_etcd().path
    except EtcdNotFoundError as error:
        pytest.fail(f"these tests need a real etcd: run `make etcd`. {error}", pytrace=False)


@pytest.fixture(scope="session")
def etcd_options() -> EtcdOptions:
    """How tests run etcd."""
    return QUICK_ETCD


@pytest.fixture(scope="session")
def etcd(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EtcdCluster]:
    """One member, shared by all tests: keep below a key prefix of your own, and break nothing."""
    cluster = EtcdCluster(etcd_program, tmp_path_factory.mktemp("etcd"), options=etcd_options)
    asyncio.run(cluster.start())
    yield cluster
    cluster.kill()
