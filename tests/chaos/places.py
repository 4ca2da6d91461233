"""Where the harness's processes run: each in a network namespace of its own, or all on loopback.

A namespace is a machine as far as the network is concerned: an address, an interface, a packet filter.
All are plugged into one bridge, in the namespace that the harness itself is in, which has no way out.
Making them takes the rights to, and ``unshare``, ``nsenter``, ``setpriv``, ``ip``, ``iptables``; where
one is missing, everything runs on loopback, and faults of the packet filter cannot be injected.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests import debian_tools

BRIDGE = "chaos0"
NETWORK = "10.213.0"
HUB = f"{NETWORK}.1"
FIRST_HOST = 11
INSIDE = "SEATKEEPER_CHAOS_INSIDE"
MADE_SECONDS_MAX = 10.0
UNSHARE = ("unshare", "--net", "--mount")
PROGRAMS = ("unshare", "nsenter", "setpriv", "ip")


class PlaceError(Exception):
    """Namespaces cannot be made here; the message says why."""


@dataclass(frozen=True)
class Place:
    """Where a process runs."""

    name: str
    host: str
    command: tuple[str, ...] = ()
    """What starts programs there, and becomes them; they die with their parent."""


@dataclass
class Places:
    """Gives places, and filters what arrives at them."""

    is_namespaces: bool
    _iptables: Path | None = None
    _anchors: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _disks: list[Path] = field(default_factory=list)

    @property
    def hub(self) -> str:
        """The address of the harness itself."""
        return HUB if self.is_namespaces else "127.0.0.1"

    def make(self, name: str) -> Place:
        """Return a new place. Raises ``PlaceError``."""
        if not self.is_namespaces:
            return Place(name, "127.0.0.1", _DIES_WITH_US)
        host = f"{NETWORK}.{FIRST_HOST + len(self._anchors)}"
        anchor = subprocess.Popen(
            [*_DIES_WITH_US, "unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL
        )
        self._anchors[name] = anchor
        _wait_for_namespace(anchor)
        link = f"v{len(self._anchors)}"
        _run(
            "ip", "link", "add", link, "type", "veth", "peer", "eth0", "netns", str(anchor.pid)
        )
        _run("ip", "link", "set", link, "master", BRIDGE, "up")
        place = Place(name, host, (*_DIES_WITH_US, *_enter(anchor)))
        for words in (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{host}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
        ):
            _run(*place.command, "ip", *words)
        return place

    def drop(self, undo: ExitStack, place: Place, *rule: str) -> None:
        """Throw away what arrives at ``place`` and matches, until ``undo`` is closed."""
        assert self._iptables is not None
        command = (*place.command, str(self._iptables), "--wait")
        _run(*command, "-A", "INPUT", *rule, "-j", "DROP")
        undo.callback(_run, *command, "-D", "INPUT", *rule, "-j", "DROP")

    def mount_disk(self, folder: Path, megabytes: int) -> None:
        """Have ``folder`` be a disk of its own, of this size, until `close`."""
        folder.mkdir(parents=True, mode=0o700)
        options = f"size={megabytes}m,mode=0700"
        _run("mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder))
        self._disks.append(folder)

    def close(self) -> None:
        """End all namespaces, and unmount all disks. Safe to call twice."""
        while self._disks:
            _run("umount", str(self._disks.pop()))
        while self._anchors:
            _, anchor = self._anchors.popitem()
            anchor.kill()
            anchor.wait()


_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")


def enter_hub(arguments: Sequence[str]) -> str:
    """Become a process that may make places, where this machine allows it, by starting anew.

    Does not return then. Returns why not, or nothing in the process that it has become.
    """
    if not os.environ.get(INSIDE) and not (why := _why_not()):
        os.environ[INSIDE] = "1"
        os.execvp("unshare", [*UNSHARE, sys.executable, "-m", "tests.chaos", *arguments])
    return "" if os.environ.get(INSIDE) else why


def _why_not() -> str:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        return f"{missing[0]} is not installed"
    if debian_tools.find(debian_tools.IPTABLES) is None:
        return "iptables is not installed, and `make chaos-tools` has not fetched it"
    trial = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    return trial.stderr.strip()


def open_places() -> Places:
    """Return namespaces where `enter_hub` has made them possible, else loopback."""
    if not os.environ.get(INSIDE):
        return Places(is_namespaces=False)
    for words in (
        ("link", "set", "lo", "up"),
        ("link", "add", BRIDGE, "type", "bridge"),
        ("addr", "add", f"{HUB}/24", "dev", BRIDGE),
        ("link", "set", BRIDGE, "up"),
    ):
        _run("ip", *words)
    return Places(is_namespaces=True, _iptables=debian_tools.find(debian_tools.IPTABLES))


def _enter(anchor: subprocess.Popen[bytes]) -> tuple[str, ...]:
    return ("nsenter", f"--net=/proc/{anchor.pid}/ns/net")


def _wait_for_namespace(anchor: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + MADE_SECONDS_MAX
    ours = os.readlink("/proc/self/ns/net")
    while os.readlink(f"/proc/{anchor.pid}/ns/net") == ours:
        if time.monotonic() > deadline or anchor.poll() is not None:
            raise PlaceError("a network namespace was not made")
        time.sleep(0.005)


def _run(*command: str) -> None:
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise PlaceError(f"{' '.join(command)}: {answer.stderr.strip()}")
