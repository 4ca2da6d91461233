"""Run etcd as our own child: for ``seatkeeper dev``, the tests and the benchmarks.

EtcdProcessError
├── PortInUseError       somebody else listens on a port that was asked for
├── EtcdDiedError        it ended by itself; the message has its last log lines
└── EtcdNotHealthyError  it runs, and does not serve before the deadline

Every process is stopped by its own pid, and dies with us, however we die.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from seatkeeper.devcluster.launch import launched
from seatkeeper.devcluster.ports import trouble_with

START_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 5.0
"""How long a member has to end by itself before it is killed."""
POLL_SECONDS = 0.01
LOG_LINES_SHOWN = 8


class EtcdProcessError(Exception):
    """Base of what goes wrong with an etcd of our own."""


class PortInUseError(EtcdProcessError):
    """Somebody else listens on a port that was asked for."""


class EtcdDiedError(EtcdProcessError):
    """etcd ended by itself; the message has its last log lines."""


class EtcdNotHealthyError(EtcdProcessError):
    """etcd runs, and does not serve before the deadline."""


@dataclass(frozen=True, kw_only=True)
class EtcdTls:
    """Certificates for the client port. Clients must show one that ``ca_file`` signed."""

    ca_file: Path
    cert_file: Path
    key_file: Path


@dataclass(frozen=True, kw_only=True)
class EtcdOptions:
    """How etcd is run."""

    auto_compaction: timedelta | None = None
    """How much history is kept; None: all of it."""
    quota_bytes: int | None = None
    """Size at which the database is full; None: etcd's default of 2 GiB."""
    auth_token_ttl: timedelta | None = None
    """How long an unused token lives; None: etcd's default of 5 minutes."""
    heartbeat_interval: timedelta = timedelta(milliseconds=100)
    """Time between heartbeats of the leader."""
    election_timeout: timedelta = timedelta(seconds=1)
    """Silence after which a new leader is elected. Leases live at least 1.5 times as long."""
    fsync: bool = True
    """False is for tests: quicker, and a crash of the machine loses what was acknowledged."""
    tls: EtcdTls | None = None
    """None: without TLS."""


@dataclass(frozen=True, kw_only=True)
class EtcdPlace:
    """Where a member runs."""

    host: str = "127.0.0.1"
    """Its address, for clients and for its peers."""
    command: Sequence[str] = ()
    """What starts programs there, such as a network namespace's; it must become the program."""


HERE = EtcdPlace()


@dataclass(frozen=True)
class _Ports:
    client: int
    peer: int
    health: int


class EtcdProcess:
    """One member. It may be stopped and started again on the same folder and ports."""

    def __init__(
        self,
        program: Path,
        folder: Path,
        *,
        name: str,
        ports: _Ports,
        peers: Sequence[tuple[str, str]],
        options: EtcdOptions,
        place: EtcdPlace = HERE,
    ) -> None:
        self.name = name
        self.place = place
        self.folder = folder
        self._program = program
        self._ports = ports
        self._peers = peers
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Its client address, as ``host:port``."""
        return f"{self.place.host}:{self._ports.client}"

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self.running and self._process is not None else None

    @property
    def running(self) -> bool:
        """Whether the process exists; a paused one does."""
        return self._process is not None and self._process.poll() is None

    @property
    def data_folder(self) -> Path:
        """Where it keeps its data."""
        return self.folder / self.name

    @property
    def log_file(self) -> Path:
        """Where it writes what it has to say."""
        return self.folder / f"{self.name}.log"

    def launch(self) -> None:
        """Start the process, without waiting until it serves. Does nothing when it runs."""
        if self.running:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.place is HERE:
            for port in (self._ports.client, self._ports.peer, self._ports.health):
                _check_free(port)
        command = [*self.place.command, str(self._program), *self._arguments()]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                launched(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                # Ctrl-C at a terminal is for the parent process, which ends it last.
                process_group=0,
            )

    async def wait_healthy(self, timeout: float = START_SECONDS_MAX) -> None:
        """Wait until it serves, which takes a quorum. Raises ``EtcdProcessError``."""
        deadline = time.monotonic() + timeout
        while not await self._serves():
            if not self.running:
                raise EtcdDiedError(f"{self.name} ended while starting:\n{self.log_tail()}")
            if time.monotonic() >= deadline:
                raise EtcdNotHealthyError(
                    f"{self.name} does not serve after {timeout:g} s:\n{self.log_tail()}"
                )
            await asyncio.sleep(POLL_SECONDS)

    async def start(self, timeout: float = START_SECONDS_MAX) -> None:
        """Start the process and wait until it serves. Raises ``EtcdProcessError``."""
        self.launch()
        await self.wait_healthy(timeout)

    async def stop(self) -> None:
        """End the process: ask, wait, kill. Its data stays. Safe to call twice."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
            for _ in range(round(STOP_SECONDS_MAX / POLL_SECONDS)):
                if process.poll() is not None:
                    break
                await asyncio.sleep(POLL_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the process as a power cut would. Its data stays. Safe to call twice."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Stop the process in its tracks: its connections stay open and say nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # A busy process runs on for a moment, and could answer one more request.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a paused process go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def log_tail(self) -> str:
        """Return the last lines of its log, without etcd's JSON around them."""
        try:
            lines = self.log_file.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(_message(line) for line in lines[-LOG_LINES_SHOWN:])

    def _arguments(self) -> list[str]:
        options, ports, host = self._options, self._ports, self.place.host
        scheme = "https" if options.tls else "http"
        peers = ",".join(f"{name}=http://{address}" for name, address in self._peers)
        arguments = {
            "name": self.name,
            "data-dir": self.data_folder,
            "listen-client-urls": f"{scheme}://{self.endpoint}",
            "advertise-client-urls": f"{scheme}://{self.endpoint}",
            "listen-peer-urls": f"http://{host}:{ports.peer}",
            "initial-advertise-peer-urls": f"http://{host}:{ports.peer}",
            "initial-cluster": peers,
            # Without TLS, so that looking after it takes no certificate.
            "listen-metrics-urls": f"http://{host}:{ports.health}",
            "heartbeat-interval": _millis(options.heartbeat_interval),
            "election-timeout": _millis(options.election_timeout),
            "log-level": "warn",
        }
        if options.auto_compaction is not None:
            seconds = round(options.auto_compaction.total_seconds())
            arguments["auto-compaction-retention"] = f"{seconds}s"
        if options.quota_bytes is not None:
            arguments["quota-backend-bytes"] = options.quota_bytes
        if options.auth_token_ttl is not None:
            arguments["auth-token-ttl"] = round(options.auth_token_ttl.total_seconds())
        if options.tls is not None:
            arguments["trusted-ca-file"] = options.tls.ca_file
            arguments["cert-file"] = options.tls.cert_file
            arguments["key-file"] = options.tls.key_file
        flags = [f"--{name}={value}" for name, value in arguments.items()]
        if options.tls is not None:
            flags.append("--client-cert-auth")
        if not options.fsync:
            flags.append("--unsafe-no-fsync")
        return flags

    async def _serves(self) -> bool:
        """Ask its health page. A full database serves reads, and that is enough."""
        try:
            async with asyncio.timeout(1):
                reader, writer = await asyncio.open_connection(
                    self.place.host, self._ports.health
                )
                try:
                    writer.write(b"GET /health?exclude=NOSPACE HTTP/1.0\r\n\r\n")
                    answer = await reader.read()
                finally:
                    writer.close()
                    await writer.wait_closed()
        except (OSError, TimeoutError):
            return False
        return b" 200 " in answer.split(b"\r\n", 1)[0] and b'"true"' in answer


class EtcdCluster:
    """One member or several, on loopback ports of their own.

    ``async with EtcdCluster(...) as etcd`` starts it and waits until all members serve. Data and
    logs stay in ``folder``, and the same folder starts the same cluster again when
    ``client_ports`` are the same too.
    """

    def __init__(
        self,
        program: Path,
        folder: Path,
        *,
        members: int = 1,
        client_ports: Sequence[int] = (),
        options: EtcdOptions | None = None,
        places: Sequence[EtcdPlace] = (),
    ) -> None:
        """Choose free ports; ``client_ports`` sets those for clients, one a member.

        A member with a client port that was set has the two ports after it for its peers and its
        health page. ``places``: where each member runs; without them, all on loopback.
        """
        assert not client_ports or len(client_ports) == members
        self.folder = folder
        self._program = program
        self._fixed = bool(client_ports)
        self._options = options or EtcdOptions()
        self._places = places or [HERE] * members
        self._count = members
        self._ports = [_Ports(port, port + 1, port + 2) for port in client_ports]
        self.members: list[EtcdProcess] = []
        self._make_members()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The client addresses, as ``host:port``."""
        return tuple(member.endpoint for member in self.members)

    async def start(self, timeout: float = START_SECONDS_MAX) -> None:
        """Start all members and wait until all serve.

        Raises ``EtcdProcessError``, and then none of them runs.
        """
        for attempts_left in reversed(range(3)):
            try:
                await self._start_once(timeout)
                return
            except PortInUseError:
                # A port that was free when we chose it may be taken when etcd wants it.
                if self._fixed or not attempts_left:
                    raise
                self._make_members()

    async def stop(self) -> None:
        """End all members. Safe to call twice."""
        await asyncio.gather(*(member.stop() for member in self.members))

    def kill(self) -> None:
        """End all members as a power cut would. Safe to call twice."""
        for member in self.members:
            member.kill()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def _make_members(self) -> None:
        if not self._fixed:
            self._ports = _free_ports(self._count)
        names = [f"etcd-{number}" for number in range(1, self._count + 1)]
        where = list(zip(names, self._ports, self._places, strict=True))
        peers = [(name, f"{place.host}:{ports.peer}") for name, ports, place in where]
        self.members = [
            EtcdProcess(
                self._program,
                self.folder,
                name=name,
                ports=ports,
                peers=peers,
                options=self._options,
                place=place,
            )
            for name, ports, place in where
        ]

    async def _start_once(self, timeout: float) -> None:
        fresh = [member for member in self.members if not member.data_folder.exists()]
        try:
            for member in self.members:
                member.launch()
            await asyncio.gather(*(member.wait_healthy(timeout) for member in self.members))
        except BaseException as error:
            tails = [member.log_tail() for member in self.members]
            self.kill()
            for member in fresh:
                # Else the next start would find a cluster that knows other ports.
                shutil.rmtree(member.data_folder, ignore_errors=True)
            if isinstance(error, EtcdDiedError) and any("already in use" in t for t in tails):
                raise PortInUseError(str(error)) from error
            raise


def _free_ports(members: int) -> list[_Ports]:
    """Choose free ports. They are held together, so none is given twice."""
    held = [socket.socket() for _ in range(3 * members)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        ports = [int(each.getsockname()[1]) for each in held]
    finally:
        for each in held:
            each.close()
    return [_Ports(*ports[at : at + 3]) for at in range(0, len(ports), 3)]


def _check_free(port: int) -> None:
    if trouble := trouble_with(port):
        raise PortInUseError(f"port {port}: {trouble}")


def _message(line: str) -> str:
    """Return what a line of etcd's log says."""
    try:
        fields = json.loads(line)
    except ValueError:
        return line
    if not isinstance(fields, dict):
        return line
    return ": ".join(str(fields[name]) for name in ("level", "msg", "error") if name in fields)


def _millis(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))


def _environment() -> dict[str, str]:
    """Return our environment without web proxies: etcd's members reach each other directly.

    etcd would look for a member beyond loopback behind a proxy, and find no leader.
    """
    return {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
