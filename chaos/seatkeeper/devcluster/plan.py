"""What a development cluster runs, and on which ports. Pure.

::

    ClusterFailed        the cluster cannot run; `is_fixable` says whether the user can change that
    ├── FolderUnusable   the state folder cannot be made or opened
    ├── FolderInUse      another cluster runs on the state folder
    ├── StateDamaged     what the last start wrote down cannot be read
    ├── PlanChanged      a setting differs from what etcd's data was made with
    ├── PortTaken        another process listens on a port of the plan
    ├── EtcdMissing      no etcd program is found
    └── ServiceFailed    a process does not start, or refuses what it must do
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

PORT_DEFAULT = 7420
AGENT_OFFSET = 20
ETCD_OFFSET = 30
PORTS_PER_MEMBER = 3
HOST = "127.0.0.1"


class ClusterFailed(Exception):
    """The cluster cannot run; the message says why."""

    is_fixable = True
    """Whether the user's settings or machine are to be changed."""


class FolderUnusable(ClusterFailed):
    """The state folder cannot be made or opened."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(f"{folder}: {reason}")
        self.folder = folder
        self.reason = reason


class FolderInUse(ClusterFailed):
    """Another cluster runs on the state folder."""

    def __init__(self, folder: Path, pid: str) -> None:
        super().__init__(f"another cluster (pid {pid}) runs on {folder}")
        self.folder = folder
        self.pid = pid


class StateDamaged(ClusterFailed):
    """What the last start wrote down cannot be read."""


class PlanChanged(ClusterFailed):
    """A setting differs from what etcd's data was made with."""

    def __init__(self, setting: str, kept: int) -> None:
        super().__init__(f"{setting} was {kept} when the state was made, which etcd remembers")
        self.setting = setting
        """``port`` or ``etcd_members``."""
        self.kept = kept


class PortTaken(ClusterFailed):
    """Another process listens on a port of the plan."""

    def __init__(self, port: int, reason: str) -> None:
        super().__init__(f"port {port}: {reason}")
        self.port = port


class EtcdMissing(ClusterFailed):
    """No etcd program is found."""


class ServiceFailed(ClusterFailed):
    """A process does not start, or refuses what it must do."""

    is_fixable = False


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What must stay the same from one start to the next, because etcd's data has it."""

    port: int
    etcd_members: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run, and where."""

    nodes: int
    members: int = 1
    seats: int
    """Of the pool, when it is made; a pool that exists keeps its own."""
    port: int = PORT_DEFAULT
    pool: str = "tensorrt"
    agent_id: str = "dev-agent"

    @classmethod
    def of(
        cls, kept: Kept | None, *, nodes: int, members: int | None, seats: int, port: int | None
    ) -> Self:
        """Return the plan that the options and the state make together; None: not given.

        Raises ``PlanChanged`` when they contradict each other.
        """
        if kept is None:
            kept = Kept(port=port or PORT_DEFAULT, etcd_members=members or 1)
        for setting, given, before in (
            ("port", port, kept.port),
            ("etcd_members", members, kept.etcd_members),
        ):
            if given is not None and given != before:
                raise PlanChanged(setting, before)
        return cls(nodes=nodes, members=kept.etcd_members, seats=seats, port=kept.port)

    @property
    def kept(self) -> Kept:
        """What the next start must find."""
        return Kept(port=self.port, etcd_members=self.members)

    @property
    def node_addresses(self) -> list[str]:
        """Where the nodes listen."""
        return [f"{HOST}:{self.port + number}" for number in range(self.nodes)]

    @property
    def agent_address(self) -> str:
        """Where the agent listens."""
        return f"{HOST}:{self.port + AGENT_OFFSET}"

    @property
    def etcd_ports(self) -> list[int]:
        """Where etcd listens for clients; the two ports after each are its own."""
        first = self.port + ETCD_OFFSET
        return [first + PORTS_PER_MEMBER * number for number in range(self.members)]

    @property
    def ports(self) -> list[int]:
        """Every port."""
        etcd = [port + more for port in self.etcd_ports for more in range(PORTS_PER_MEMBER)]
        nodes = [self.port + number for number in range(self.nodes)]
        return [*nodes, self.port + AGENT_OFFSET, *etcd]
