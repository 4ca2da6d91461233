"""The folder that keeps a development cluster's state.

::

    <state>/lock       held by the one cluster that runs here; has its pid
    <state>/dev.json   what must stay the same from one start to the next
    <state>/etcd/      data and logs of etcd
    <state>/engines/   what the agent published
    <state>/logs/      one file a process
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from seatkeeper.devcluster.plan import FolderInUse, FolderUnusable, Kept, StateDamaged


class StateFolder:
    """The folder of one cluster, locked for as long as it runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def __enter__(self) -> Self:
        """Make and lock it. Raises ``FolderUnusable``, or ``FolderInUse`` when another has it."""
        try:
            (self.path / "logs").mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise FolderUnusable(self.path, str(error.strerror)) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise FolderInUse(self.path, pid) from None
        os.truncate(lock, 0)
        os.write(lock, f"{os.getpid()}\n".encode())
        self._lock = lock
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Unlock it."""
        if self._lock is not None:
            os.close(self._lock)

    @property
    def etcd(self) -> Path:
        """Where etcd keeps data and logs."""
        return self.path / "etcd"

    @property
    def engines(self) -> Path:
        """Where the agent keeps what it published."""
        return self.path / "engines"

    def log(self, name: str) -> Path:
        """Return the log file of a process."""
        return self.path / "logs" / f"{name}.log"

    def read(self) -> Kept | None:
        """Return what the last start wrote down; None: there was none. Raises ``StateDamaged``."""
        try:
            found = json.loads((self.path / "dev.json").read_text())
            return Kept(port=int(found["port"]), etcd_members=int(found["etcd_members"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StateDamaged(
                f"{self.path / 'dev.json'} is damaged ({error}); remove {self.path} to start anew"
            ) from error

    def write(self, kept: Kept) -> None:
        """Write down what must stay the same."""
        record = {"port": kept.port, "etcd_members": kept.etcd_members}
        (self.path / "dev.json").write_text(json.dumps(record) + "\n")
