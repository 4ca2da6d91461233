"""Libraries that do harm when they are loaded: what a crafted model may have a compiler do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONNECTS = """
import socket
socket.create_connection(("127.0.0.1", {port}), timeout=5).sendall(b"secret")
"""
FORKS = """
import os, time
while True:
    try:
        os.fork()
    except OSError:
        time.sleep(0.01)
"""
LEAVES_A_DAEMON = """
import os, sys, time
from pathlib import Path
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 100)
        while True:
            with open({path!r}, "a") as file:
                file.write(".")
            time.sleep(0.01)
    os._exit(0)
while not os.path.exists({path!r}):
    time.sleep(0.01)
{ending}
"""
WRITES_ONE_FILE = """
def __getattr__(name):
    with open("filling", "wb") as file:
        while True:
            file.write(bytes(1 << 20))
"""
"""As it is used; while it is loaded, the error would be one of loading."""
WRITES_MANY_FILES = """
import time
number = 0
while True:
    with open(f"filling-{number}", "wb") as file:
        file.write(bytes(1 << 20))
    number += 1
    time.sleep(0.001)
"""
EATS_MEMORY = """
import os, time
parts = []
for _ in range(4):
    if os.fork() == 0:
        break
while True:
    parts.append(b"x" * (4 << 20))
    time.sleep(0.005)
"""
SPINS = """
while True:
    pass
"""
READS_THE_PARENT = """
import os
from pathlib import Path
environ = ""
for pid in Path("/proc").iterdir():
    if pid.name.isdigit() and (pid / "environ").exists():
        try:
            environ += (pid / "environ").read_bytes().decode(errors="replace")
        except OSError:
            pass
raise AttributeError("seen" if {secret!r} in environ else "unseen")
"""


def instead_of_the_library(folder: Path, program: str) -> dict[str, str]:
    """Write modules that run ``program`` when imported; return the environment that finds them."""
    folder.mkdir(exist_ok=True)
    names = (
        "onnxruntime_ep_nv_tensorrt_rtx",
        "tensorrt_rtx_bindings",
        "tensorrt_rtx",
        "tensorrt",
    )
    for name in names:
        (folder / f"{name}.py").write_text(program)
    return {"PYTHONPATH": str(folder)}


@contextmanager
def listener() -> Iterator[socket.socket]:
    """A listener on loopback that a worker must not reach."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def port_of(server: socket.socket) -> int:
    """Where it listens."""
    return int(server.getsockname()[1])


def was_reached(server: socket.socket) -> bool:
    """Whether a connection waits to be accepted."""
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True
