"""The limit that etcd itself sets: guarded transactions by a load generator written in C.

Raw transactions through our own client stack are slower than etcd, because Python is. What etcd can do
on a machine is what ``h2load`` (Debian's ``nghttp2-client``) gets out of it: the same transaction, one
connection, as many in flight, from a program that costs next to nothing.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.debian_tools import H2LOAD, find

from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store import Put, Store, Unchanged
from seatkeeper.server.store.etcd.calls import TXN
from seatkeeper.server.store.etcd.kv import build_transaction

GRPC_HEADER = 5
"""Bytes before a message: whether it is compressed, and its length."""
EXTRA_SECONDS_MAX = 30.0
NO_LOAD_GENERATOR = (
    "there is no h2load on PATH: `python -m tests.debian_tools fetch h2load` gets one on Debian"
)


@dataclass(frozen=True)
class EtcdLimit:
    """Asks one etcd for as much as it can do."""

    program: Path
    endpoint: str
    store: Store
    """Says how far etcd is: each transaction that was made is one revision."""
    in_flight: int

    @classmethod
    def of(cls, endpoint: str, store: Store, in_flight: int) -> EtcdLimit | None:
        """Return one; None: this machine has no load generator."""
        program = find(H2LOAD)
        address = endpoint.removeprefix("http://")
        return None if program is None else cls(program, address, store, in_flight)

    async def transactions_per_s(self, value: bytes, seconds: float) -> float:
        """Return how many transactions of one comparison and one put of ``value`` etcd makes.

        Raises ``RuntimeError`` when the generator fails, or counts what etcd has not made.
        """
        before = (await self.store.status()).revision
        with tempfile.TemporaryDirectory(prefix="seatkeeper-bench-") as folder:
            request = Path(folder) / "request"
            request.write_bytes(framed(guarded_put("bench/limit", value)))
            output = await self._generate(request, seconds)
        rate, succeeded = read_report(output)
        made = (await self.store.status()).revision - before
        if made < succeeded:
            raise RuntimeError(f"h2load counts {succeeded} transactions, and etcd made {made}")
        return rate

    async def _generate(self, request: Path, seconds: float) -> str:
        process = await asyncio.create_subprocess_exec(
            *(str(self.program), f"--duration={round(1000 * seconds)}ms", "--clients=1"),
            *("--threads=1", f"--max-concurrent-streams={self.in_flight}"),
            *("--data", str(request), "--header=te: trailers"),
            *("--header=content-type: application/grpc", f"http://{self.endpoint}{TXN.path}"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(seconds + EXTRA_SECONDS_MAX):
                output = (await process.communicate())[0].decode(errors="replace")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            raise RuntimeError(f"h2load failed: {output[-500:]}")
        return output


def guarded_put(key: str, value: bytes) -> bytes:
    """Return a transaction that puts ``value`` while another key does not exist."""
    absent = Unchanged("bench/never", 0)
    request: pb.TxnRequest = build_transaction([Put(key, value)], [absent], [])
    return request.SerializeToString()


def framed(message: bytes) -> bytes:
    """Return a message as gRPC sends it, uncompressed."""
    return b"\0" + len(message).to_bytes(GRPC_HEADER - 1, "big") + message


def read_report(output: str) -> tuple[float, int]:
    """Return requests a second, and how many succeeded, as ``h2load`` reports them.

    Raises ``RuntimeError`` where there are none, or some that failed.
    """
    rate = re.search(r"^finished in .*?, ([\d.]+) req/s", output, re.MULTILINE)
    counts = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored", output)
    if rate is None or counts is None or not int(counts[1]):
        raise RuntimeError(f"h2load reports no requests: {output[-500:]}")
    if int(counts[2]) or int(counts[3]):
        raise RuntimeError(f"h2load reports failures: {counts[0]}")
    return float(rate[1]), int(counts[1])
