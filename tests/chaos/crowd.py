"""A process of thousands of sessions: ``python -m tests.chaos.crowd ADDRESSES COUNT CA CERT KEY NAME``.

It says ``ready`` when all are open, and ends when its input does.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import grpc.aio
from bench.many_sessions import ManySessions

from seatkeeper.client import ClientConfig, TlsConfig
from seatkeeper.client.transport.channels import open_channel

READY_SECONDS_MAX = 120.0
TTL = timedelta(seconds=8)


class CrowdProcess:
    """Such a process, as its starter sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def running(
        cls, addresses: Sequence[str], tls: TlsConfig, count: int, folder: Path
    ) -> AsyncIterator[CrowdProcess]:
        """Start one; its sessions are open when this begins. Raises ``TimeoutError``."""
        names = (tls.ca, tls.cert, tls.key, tls.server_name)
        with (folder / "crowd.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.chaos.crowd", ",".join(addresses), str(count)),
                *map(str, names),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        crowd = cls(process)
        try:
            assert process.stdout is not None
            async with asyncio.timeout(READY_SECONDS_MAX):
                if not await process.stdout.readline():
                    raise TimeoutError("a crowd could not open its sessions; see crowd.log")
            yield crowd
        finally:
            crowd.kill()
            await process.wait()

    def kill(self) -> None:
        """End it as a power cut would. Safe to call twice."""
        if self._process.returncode is None:
            self._process.kill()


async def main() -> None:
    """Open sessions, and keep them."""
    addresses, count, ca, cert, key, name = sys.argv[1:]
    tls = TlsConfig(ca=Path(ca), cert=Path(cert), key=Path(key), server_name=name)

    def connect(address: str) -> grpc.aio.Channel:
        return open_channel(address, ClientConfig(), tls)

    many = ManySessions(addresses.split(","), TTL, connect=connect)
    await many.open(int(count))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
