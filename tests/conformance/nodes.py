"""Nodes to run the suite against: real ones, as processes on loopback."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bench.service import ServerProcess, spawn
from tests.conformance.script import Result, Script
from tests.conformance.server_runner import Target, run_scripts


class RestartedNode:
    """A node that scripts stop, kill and start again: the controls of this harness."""

    def __init__(self, folder: Path, flags: Sequence[str]) -> None:
        self._folder = folder
        self._flags = flags
        self._listen = "127.0.0.1:0"
        self._process: ServerProcess | None = None

    async def start(self) -> None:
        """Start it, where it was before."""
        arguments = ["serve", "--node-id", "restarted", "--listen", self._listen, *self._flags]
        self._process = spawn(self._folder, "restarted", arguments)
        await self._process.wait_serving()
        self._listen = self._process.address

    async def stop(self) -> None:
        """Ask it to stop, and let it begin to; what it still answers is for the script to see."""
        assert self._process is not None
        self._process.process.terminate()
        await asyncio.to_thread(self._process.process.wait)

    async def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()

    def target(self) -> Target:
        """Return it as a target with its controls."""
        controls = {"start_node": self.start, "stop_node": self.stop, "kill_node": self.kill}
        return Target((self._listen,), controls)


@asynccontextmanager
async def running(folder: Path, *flags: Sequence[str]) -> AsyncIterator[Target]:
    """Run one node for each of ``flags``."""
    nodes = [
        spawn(folder, f"node-{number}", ["serve", "--listen", "127.0.0.1:0", *each])
        for number, each in enumerate(flags)
    ]
    try:
        for node in nodes:
            await node.wait_serving()
        yield Target(tuple(node.address for node in nodes))
    finally:
        for node in nodes:
            node.kill()


async def in_memory(folder: Path, chosen: Sequence[Script]) -> list[Result]:
    """Run scripts against one node with its store in memory."""
    async with running(folder, ["--store", "memory"]) as target:
        return await run_scripts(target, chosen)


async def on_etcd(
    folder: Path, endpoints: Sequence[str], chosen: Sequence[Script]
) -> list[Result]:
    """Run scripts against two nodes over etcd; those with controls against a third, by itself."""
    etcd = ["--etcd-endpoints", ",".join(endpoints)]
    prefix, other = (f"conformance-{secrets.token_hex(4)}" for _ in range(2))
    flags = [*etcd, "--prefix", prefix]
    node = RestartedNode(folder, [*etcd, "--prefix", other])
    plain = [script for script in chosen if not script.needs]
    async with running(folder, flags, flags) as target:
        try:
            await node.start()
            done = await asyncio.gather(
                run_scripts(target, plain),
                # One after the other: each stops the node under all others.
                run_scripts(node.target(), [s for s in chosen if s.needs], at_once=1),
            )
        finally:
            await node.kill()
    return [result for results in done for result in results]
