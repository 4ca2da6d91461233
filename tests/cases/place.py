"""Where a case happens: nodes, an agent and commands of its own, and all of them gone at the end.

A case runs in a process that uses no gRPC itself: everything is asked of the console script, as a
user would, so that a case may fork, close its streams and be killed without spoiling the answer.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests import processes

SCRIPT: Final = Path(sys.executable).with_name("seatkeeper")
START_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 10.0
POLL_SECONDS: Final = 0.1
PROXIES: Final = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "no_proxy")
DROPPED: Final = frozenset({"COLUMNS", "LINES", *PROXIES, *(name.upper() for name in PROXIES)})


class CannotRun(Exception):
    """This machine cannot run the case; the message says what is missing."""


@dataclass(frozen=True)
class Server:
    """A node or an agent that runs beside the case."""

    process: subprocess.Popen[bytes]
    address: str
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def pause(self) -> None:
        """Stop it from running (SIGSTOP): no answers, no broken connection."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on (SIGCONT)."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Ask it to stop (SIGTERM), and return its exit code."""
        self.process.terminate()
        return self.process.wait(START_SECONDS_MAX)


class Node(Server):
    """A node on the memory store, with a pool ``p``."""


class Agent(Server):
    """A build agent, with a pool ``tensorrt``."""


class Place:
    """Makes what a case needs, and ends it. Not for use from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """A folder of the case's own; removed afterwards."""
        self.env: dict[str, str] = {}
        """Added to the environment of every command, beneath what the command itself gets."""
        self.node: Node | None = None
        """The node that was started first: the one that commands call."""
        self._processes: list[subprocess.Popen[bytes]] = []

    def start_node(self, *flags: str, seats: int = 2) -> Node:
        """Start ``seatkeeper serve --store memory`` on a free port, and make its pool ``p``.

        ``flags`` come after our own, so they win. Raises AssertionError, with the log, when it
        does not start.
        """
        process, log = self._start(
            "serve", "--store", "memory", "--listen", "127.0.0.1:0", *flags
        )
        node = Node(process, self._serving(process, log), log)
        self.node = self.node or node
        self.pool("p", seats, at=node)
        return node

    def start_agent(self, *flags: str) -> Agent:
        """Start a build agent beside the node (which is started, too, if there is none).

        Raises `CannotRun` where no agent can run.
        """
        needs("onnx", "tensorrt_rtx_bindings", extra="'.[server,builder,tensorrt-rtx]'")
        node = self.node or self.start_node()
        self.pool("tensorrt", 2, at=node)
        engines = str(self.folder / "engines")
        process, log = self._start(
            "agent",
            "--nodes",
            node.address,
            "--listen",
            "127.0.0.1:0",
            "--engines",
            engines,
            *flags,
        )
        return Agent(process, self._serving(process, log), log)

    def pool(self, name: str, seats: int, *, at: Node | None = None) -> None:
        """Create a pool."""
        env = {"SEATKEEPER_NODES": at.address} if at else None
        made = self.seatkeeper("pool", "create", name, "--seats", str(seats), env=env)
        assert made.returncode == 0, f"no pool {name}: {made.stderr.decode(errors='replace')}"

    def model(self, seed: int = 1) -> Path:
        """Write a tiny ONNX model, another for each ``seed``."""
        needs("onnx", extra="'.[builder]'")
        import onnx
        from onnx import TensorProto, helper

        shape = [1, 4]
        graph = helper.make_graph(
            [
                helper.make_node("Add", ["x", "c"], ["y"]),
                helper.make_node("Relu", ["y"], ["z"]),
            ],
            "tiny",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("z", TensorProto.FLOAT, shape)],
            [helper.make_tensor("c", TensorProto.FLOAT, [4], [float(seed), 1.0, 2.0, 3.0])],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 9
        path = self.folder / f"model-{seed}.onnx"
        onnx.save(model, str(path))
        return path

    def seatkeeper(
        self,
        *args: str | bytes | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        timeout: float = 60,
        **popen: Any,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command of ours to its end; ``popen`` as for ``subprocess.run``."""
        popen.setdefault("stdout", subprocess.PIPE)
        popen.setdefault("stderr", subprocess.PIPE)
        if "input" not in popen:
            popen.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(
            [SCRIPT, *args], env=self.environment(env), timeout=timeout, check=False, **popen
        )

    def spawn(
        self,
        *args: str | bytes | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        **popen: Any,
    ) -> subprocess.Popen[bytes]:
        """Start a command of ours; its output is in pipes unless ``popen`` says otherwise.

        It is killed at the end, if it still runs.
        """
        popen.setdefault("stdin", subprocess.DEVNULL)
        popen.setdefault("stdout", subprocess.PIPE)
        popen.setdefault("stderr", subprocess.PIPE)
        process = subprocess.Popen([SCRIPT, *args], env=self.environment(env), **popen)
        self._processes.append(process)
        return process

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a user who has no settings but the node's address, and ``more``."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("SEATKEEPER_") and name not in DROPPED
        }
        kept["PATH"] = f"{SCRIPT.parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
        if self.node is not None:
            kept["SEATKEEPER_NODES"] = self.node.address
        return kept | self.env | dict(more or {})

    def held(self, pool: str = "p") -> int:
        """Return how many seats of a pool are held."""
        listed = self.seatkeeper("pool", "list", "--json")
        assert listed.returncode == 0, listed.stderr.decode(errors="replace")
        pools = json.loads(listed.stdout)["pools"]
        return int(next(each["held"] for each in pools if each["name"] == pool))

    def wait_until(
        self, condition: Callable[[], object], deadline: float = 30.0, what: str = ""
    ) -> None:
        """Wait until ``condition`` holds; AssertionError when it does not within ``deadline`` s."""
        processes.until(condition, what, deadline)

    def close(self) -> None:
        """End everything that was started."""
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self._processes:
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, *args: str) -> tuple[subprocess.Popen[bytes], Path]:
        log = self.folder / f"{args[0]}-{len(self._processes)}.log"
        with log.open("wb") as file:
            return self.spawn(*args, stdout=file, stderr=file, start_new_session=True), log

    def _serving(self, process: subprocess.Popen[bytes], log: Path) -> str:
        """Wait until it serves; return where, from its log."""

        def serves() -> bool:
            return any(_addresses(log)) or process.poll() is not None

        self.wait_until(serves, START_SECONDS_MAX, f"serving, in {log.name}")
        for address in _addresses(log):
            return address
        raise AssertionError(f"it ended with {process.returncode}: {log.read_text()[-600:]}")


runs = processes.is_running


def needs(*modules: str, extra: str) -> None:
    """Raise `CannotRun` unless all of the modules are installed."""
    import importlib.util

    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise CannotRun(
            f"{', '.join(missing)} not installed: pip install {extra} in the checkout"
        )


def needs_root() -> None:
    """Raise `CannotRun` unless we are root."""
    if os.geteuid() != 0:
        raise CannotRun("needs root")


def _addresses(log: Path) -> Iterator[str]:
    for line in log.read_text(errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("event") == "serving":
            yield str(entry["address"])
