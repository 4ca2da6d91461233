"""What a client sends to nodes about its program, so that `seatkeeper status` can say which one it is.

Host, process id and the program's name: no arguments, no environment and no folders, which may hold
secrets. ``ClientConfig(program="")`` sends none of it.
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import replace

from seatkeeper.client.config.values import ClientConfig
from seatkeeper.core.text import is_shown
from seatkeeper.core.version import seatkeeper_version
from seatkeeper.v1 import seat_pb2

NAME_MAX = 100
HOST_MAX = 253


def introduced(config: ClientConfig) -> ClientConfig:
    """Return ``config`` with the description of this process, wherever the session is kept later."""
    program = program_name() if config.program is None else shown(config.program, NAME_MAX)
    pid = os.getpid() if config.program_pid is None else config.program_pid
    return replace(config, program=program, program_pid=pid)


def client_info(config: ClientConfig) -> seat_pb2.ClientInfo | None:
    """Return what is sent to nodes; None: nothing."""
    if not config.program:
        return None
    return seat_pb2.ClientInfo(
        host=shown(socket.gethostname(), HOST_MAX),
        pid=config.program_pid or 0,
        command=config.program,
        library=f"seatkeeper-python/{seatkeeper_version()}",
    )


def program_name() -> str:
    """Return the name of what runs: a script's without its folder, or a module's."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return shown(spec.name.removesuffix(".__main__"), NAME_MAX)
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    if name in {"", "-", "-c"}:
        name = os.path.basename(sys.executable or "") or "python"
    return shown(name, NAME_MAX)


def shown(text: str, length_max: int) -> str:
    """Return ``text`` as it may be shown anywhere: what cannot be printed becomes ``?``."""
    kept = "".join(letter if is_shown(letter) else "?" for letter in text)
    return kept[:length_max]
