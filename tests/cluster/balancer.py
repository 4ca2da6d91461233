"""A real HAProxy, run on one of the configurations in ``deploy/haproxy``."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, STDOUT, Popen, TimeoutExpired

import psutil
from tests import processes
from tests.tree import ROOT

CONFIGS = ROOT / "deploy" / "haproxy"
SECONDS_MAX = 20.0
POLL_SECONDS = 0.05
STOP_SECONDS_MAX = 10.0


@dataclass
class Balancer:
    """A master and its workers."""

    process: Popen[bytes]
    address: str
    admin: str
    log: Path

    async def servers(self) -> dict[str, str]:
        """Return whether each node gets anything: UP, DOWN, ...."""
        return await self._of_each("status")

    async def answers(self) -> dict[str, str]:
        """Return how each node's last health check went: L7OK, L7STS: does not serve, ...."""
        return await self._of_each("check_status")

    async def wait_for(self, server: str, state: str) -> None:
        """Wait until the health check says so of a node."""

        async def is_so() -> bool:
            return (await self.servers()).get(server) == state

        await until(is_so, f"{server} {state}: {self.log.read_text()[-2000:]}")

    async def wait_serving(self) -> None:
        """Wait until it serves, with a node to go to."""

        async def is_so() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"haproxy ended: {self.log.read_text()[-2000:]}")
            return "200" in await page(f"http://{self.admin}/ready")

        await until(is_so, "haproxy is ready")

    async def _of_each(self, what: str) -> dict[str, str]:
        found = re.findall(
            rf'^haproxy_server_{what}{{proxy="nodes",server="([^"]+)",state="([^"]+)"}} 1',
            await page(f"http://{self.admin}/metrics"),
            re.MULTILINE,
        )
        return dict(found)

    def workers(self) -> set[int]:
        """The processes that serve."""
        return {child.pid for child in psutil.Process(self.process.pid).children()}

    async def reload(self) -> int:
        """Reload as an operator does; return the worker that is leaving."""
        (old,) = self.workers()
        self.process.send_signal(signal.SIGUSR2)

        async def is_reloaded() -> bool:
            return len(self.workers() - {old}) == 1

        await until(is_reloaded, "a new worker")
        await self.wait_serving()
        return old

    def stop(self) -> None:
        """End master and workers. Safe to call twice."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS_MAX)
        except TimeoutExpired:
            for worker in self.workers():
                os.kill(worker, signal.SIGKILL)
            self.process.kill()
            self.process.wait()


def launch(
    program: Path,
    mode: str,
    nodes: Sequence[str],
    folder: Path,
    *,
    config: Path | None = None,
    **settings: str,
) -> Balancer:
    """Start HAProxy on ``deploy/haproxy/MODE.cfg``, or on ``config``, in front of three nodes."""
    listen, admin = (f"127.0.0.1:{port}" for port in free_ports(2))
    named = {f"NODE_{number}": node for number, node in enumerate(nodes, start=1)}
    given = {"HAPROXY_LISTEN": listen, "HAPROXY_ADMIN_LISTEN": admin} | named | settings
    log = folder / f"haproxy-{mode}-{admin.rpartition(':')[2]}.log"
    with log.open("wb") as file:
        process = Popen(
            [program, "-W", "-f", config or CONFIGS / f"{mode}.cfg"],
            stdin=DEVNULL,
            stdout=file,
            stderr=STDOUT,
            env=os.environ | given,
            process_group=0,
        )
    return Balancer(process, listen, admin, log)


def free_ports(number: int) -> list[int]:
    """Return ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


async def page(url: str) -> str:
    """Return status and text of a page; empty without an answer."""

    def read() -> str:
        try:
            with urllib.request.urlopen(url, timeout=SECONDS_MAX) as answer:
                return f"{answer.status}\n{answer.read().decode()}"
        except urllib.error.HTTPError as error:
            with error:
                return f"{error.code}\n"
        except OSError:
            return ""

    return await asyncio.to_thread(read)


until = processes.eventually
