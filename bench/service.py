"""A service to measure: etcd and nodes as processes of their own, on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, Popen

from seatkeeper.client import ClientConfig
from seatkeeper.devcluster.etcd_binary import find_etcd
from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdOptions
from seatkeeper.devcluster.launch import launched

IN_PROCESS = ClientConfig(keeper="process")
"""Of clients that make load: theirs is a process of its own already."""
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 15.0


@dataclass
class ServerProcess:
    """A node or an agent as a process, logging JSON lines to a file."""

    process: Popen[bytes]
    log: Path
    address: str = ""

    @property
    def name(self) -> str:
        """What it was started as; a node's id."""
        return self.log.stem

    async def wait_serving(self) -> None:
        """Wait until it has logged where it serves. Raises ``RuntimeError`` with its stderr tail."""
        deadline = asyncio.get_running_loop().time() + START_SECONDS_MAX
        while not (address := self._logged_address()):
            late = asyncio.get_running_loop().time() > deadline
            if late or self.process.poll() is not None:
                raise RuntimeError(f"did not start: {self.log.read_text()[-2000:]}")
            await asyncio.sleep(0.02)
        self.address = address

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Stop it in its tracks: its connections stay open and say nothing."""
        self.process.send_signal(signal.SIGSTOP)
        # A busy process runs on for a moment, and could answer one more request.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Resume it after a pause."""
        self.process.send_signal(signal.SIGCONT)

    async def stop(self) -> int:
        """End it as its operator would, and return its exit code. Safe to call twice."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.resume()
        try:
            return await asyncio.to_thread(self.process.wait, STOP_SECONDS_MAX)
        finally:
            if self.process.poll() is None:
                self.kill()

    def _logged_address(self) -> str | None:
        for line in self.log.read_text().splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if record.get("event") == "serving":
                return str(record["address"])
        return None


@dataclass
class Service:
    """A running service."""

    folder: Path
    etcd: EtcdCluster
    nodes: list[ServerProcess] = field(default_factory=list)

    @property
    def addresses(self) -> list[str]:
        """Where the nodes are."""
        return [node.address for node in self.nodes]


def spawn(
    folder: Path,
    name: str,
    arguments: Sequence[str],
    *,
    command: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] = (),
) -> ServerProcess:
    """Start ``seatkeeper ARGUMENTS`` with its log in ``folder``.

    ``command`` starts it where it is to run, and becomes it; ``environment`` is added to ours.
    ``program`` is another version's command line, in the place of ours. It dies when we do, however
    we die.
    """
    log = folder / f"{name}.log"
    program = program or (str(Path(sys.executable).with_name("seatkeeper")),)
    with log.open("wb") as file:
        process = Popen(
            launched([*command, *program, *arguments]),
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=file,
            env=clean_environment() | dict(environment or {}),
            process_group=0,  # Ctrl-C is for us, who then stop it in order
        )
    return ServerProcess(process, log)


async def start_node(
    service: Service, name: str, flags: Sequence[str] = (), *, listen: str = "127.0.0.1:0"
) -> ServerProcess:
    """Start a node of ``service``, and wait until it serves.

    One of that name that has ended is replaced; ``listen`` can give the new one its address.
    """
    node = spawn(
        service.folder,
        name,
        [
            *("serve", "--node-id", name, "--listen", listen),
            *("--etcd-endpoints", ",".join(service.etcd.endpoints), *flags),
        ],
    )
    if not listen.endswith(":0"):
        node.address = listen  # clients that are made before it serves go there
    names = [each.name for each in service.nodes]
    if name in names:
        service.nodes[names.index(name)] = node
    else:
        service.nodes.append(node)
    await node.wait_serving()
    return node


@asynccontextmanager
async def running_service(
    *, nodes: int = 1, etcd_members: int = 1, flags: Sequence[str] = ()
) -> AsyncIterator[Service]:
    """Start etcd and nodes in a folder of their own; stop and remove all of it at the end."""
    with tempfile.TemporaryDirectory(prefix="seatkeeper-bench-") as folder:
        etcd = EtcdCluster(
            find_etcd().path, Path(folder) / "etcd", members=etcd_members, options=EtcdOptions()
        )
        async with etcd:
            service = Service(Path(folder), etcd)
            try:
                for number in range(1, nodes + 1):
                    await start_node(service, f"node-{number}", flags)
                yield service
            finally:
                await asyncio.gather(*(node.stop() for node in service.nodes))


def clean_environment() -> dict[str, str]:
    """Return our environment without settings that would change what is measured."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SEATKEEPER_")}
