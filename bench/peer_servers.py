"""Servers of peers as processes of ours, on loopback or a socket in a folder of ours.

Each dies when we do, however we die (``seatkeeper.devcluster.launch``), and syncs its log to the disk
for every commit, as etcd does.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, Popen, TimeoutExpired

from bench.peer_programs import (
    JAVA,
    POSTGRES,
    REDIS,
    ZOOKEEPER,
    UnavailableError,
    environment,
    need,
)
from seatkeeper.devcluster.launch import launched

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 10.0
POLL_SECONDS = 0.02
LOG_CHARACTERS_SHOWN = 500
LESSER_UID = 65534
"""The user without any rights, on every Debian."""
CONNECTIONS_MAX = 500
JARS = (
    *("zookeeper", "zookeeper-jute", "slf4j-api", "slf4j-simple", "netty-all", "netty-handler"),
    *("netty-transport", "netty-common", "snappy-java", "metrics-core", "commons-cli"),
)


@asynccontextmanager
async def redis_server(folder: Path) -> AsyncIterator[Path]:
    """Run Redis with a log that is synced for every command; yield its socket."""
    program, address = need(REDIS), folder / "redis.sock"
    command = [
        *(str(program), "--port", "0", "--unixsocket", str(address), "--dir", str(folder)),
        *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
    ]
    ready = partial(listens, socket.AF_UNIX, str(address))
    async with running(command, folder / "redis.log", environment(program), ready):
        yield address


@asynccontextmanager
async def zookeeper_server(folder: Path) -> AsyncIterator[str]:
    """Run one ZooKeeper; yield its address. It forces its log to the disk by default."""
    java, jar = need(JAVA), need(ZOOKEEPER)
    port = free_port()
    settings = folder / "zoo.cfg"
    settings.write_text(
        f"tickTime=2000\ndataDir={folder}/data\nclientPort={port}\n"
        f"clientPortAddress=127.0.0.1\nadmin.enableServer=false\nmaxClientCnxns=0\n"
    )
    jars = ":".join(str(jar.with_name(f"{name}.jar")) for name in JARS)
    command = [
        *(str(java), "-Xmx512m", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", jars),
        *("org.apache.zookeeper.server.quorum.QuorumPeerMain", str(settings)),
    ]
    ready = partial(listens, socket.AF_INET, ("127.0.0.1", port))
    async with running(command, folder / "zookeeper.log", environment(java), ready):
        yield f"127.0.0.1:{port}"


@asynccontextmanager
async def postgres_server(folder: Path) -> AsyncIterator[Path]:
    """Run PostgreSQL with ``fsync`` and ``synchronous_commit`` on; yield its socket's folder."""
    program = need(POSTGRES).resolve()
    first = as_lesser_user(folder, program)
    data, around = folder / "data", environment(program)
    making = [
        *(str(program.with_name("initdb")), "-D", str(data), "-U", "bench", "--auth=trust"),
        *("-E", "UTF8", "--locale=C", "--no-sync"),
    ]
    log = folder / "initdb.log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *launched([*first, *making]), stdin=DEVNULL, stdout=file, stderr=file, env=around
        )
        if await process.wait() != 0:
            raise UnavailableError(f"initdb failed: {tail(log)}")
    command = [
        *(*first, str(program), "-D", str(data), "-k", str(folder)),
        *("-c", "listen_addresses=", "-c", f"max_connections={CONNECTIONS_MAX}"),
        *("-c", "synchronous_commit=on", "-c", "fsync=on"),
    ]
    async with running(command, folder / "postgres.log", around, says_ready, signal.SIGINT):
        yield folder


def as_lesser_user(folder: Path, program: Path) -> list[str]:
    """Return what starts a program that refuses root, and give it ``folder``. Raises when it cannot."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise UnavailableError("it refuses to run as root, and there is no setpriv")
    if not all(parent.stat().st_mode & 0o001 for parent in program.parents):
        raise UnavailableError(f"it refuses to run as root, and others may not read {program}")
    user = pwd.getpwuid(LESSER_UID)
    folder.parent.chmod(0o711)
    os.chown(folder, user.pw_uid, user.pw_gid)
    return [
        *(setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"),
        # The kernel forgets at a change of user what the launcher asked for.
        *("--pdeathsig=KILL", "--"),
    ]


@asynccontextmanager
async def running(
    command: Sequence[str],
    log: Path,
    around: Mapping[str, str],
    ready: Callable[[str], bool],
    stop_signal: signal.Signals = signal.SIGTERM,
) -> AsyncIterator[None]:
    """Run a server while the block runs. ``ready`` is given its log. Raises ``UnavailableError``."""
    process = launch(command, log, around)
    try:
        deadline = asyncio.get_running_loop().time() + START_SECONDS_MAX
        while not ready(text_of(log)):
            late = asyncio.get_running_loop().time() > deadline
            if late or process.poll() is not None:
                raise UnavailableError(f"{log.stem} did not start: {tail(log)}")
            await asyncio.sleep(POLL_SECONDS)
        yield
    finally:
        if process.poll() is None:
            process.send_signal(stop_signal)
        try:
            await asyncio.to_thread(process.wait, STOP_SECONDS_MAX)
        except TimeoutExpired:
            process.kill()
            process.wait()


def launch(command: Sequence[str], log: Path, around: Mapping[str, str]) -> Popen[bytes]:
    """Start a server that dies when we do, with what it prints in ``log``."""
    with log.open("wb") as file:
        return Popen(
            launched(command),
            stdin=DEVNULL,
            stdout=file,
            stderr=file,
            env=dict(around),
            process_group=0,  # Ctrl-C is for us, who then stop it in order
        )


def says_ready(log: str) -> bool:
    """Return whether PostgreSQL says in its log that it serves."""
    return "ready to accept connections" in log


def listens(family: socket.AddressFamily, address: str | tuple[str, int], _log: str) -> bool:
    """Return whether something listens there, whatever the log says."""
    with socket.socket(family) as probe:
        probe.settimeout(1)
        try:
            probe.connect(address)
        except OSError:
            return False
    return True


def free_port() -> int:
    """Return a port of the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tail(log: Path) -> str:
    """Return the end of a log, in one line."""
    return " ".join(text_of(log).split())[-LOG_CHARACTERS_SHOWN:]


def text_of(log: Path) -> str:
    """Return all of a log."""
    return log.read_text(errors="replace")
