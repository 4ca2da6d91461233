"""The walk-through of docs/how-to/start-a-service.md, run literally: three nodes over etcd, with TLS.

Only ports are changed, to free ones, because other programs may run on this machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.cluster.balancer import free_ports
from tests.tree import ROOT

from seatkeeper.devcluster.etcd_binary import find_etcd

PAGE = ROOT / "docs" / "how-to" / "start-a-service.md"
SECTION = "## Three nodes over etcd, with TLS"
SECONDS_MAX = 120


def blocks() -> list[tuple[str, str]]:
    """Return the section's blocks of code, each with its language."""
    text = PAGE.read_text()
    section = text[text.index(SECTION) :]
    section = section[: section.index("\n## ")]
    return re.findall(r"```(\w+)\n(.*?)```", section, re.DOTALL)


def with_free_ports(text: str) -> str:
    """Replace every port of the page by a free one, the same in each place."""
    ports = sorted(
        set(
            re.findall(
                r"(?<=127\.0\.0\.1:)\d+|\b\d{4,5}(?= \d{4,5})|(?<= )\d{4,5}\b(?=[;\n])", text
            )
        )
    )
    free = dict(zip(ports, free_ports(len(ports)), strict=True))
    return re.sub(
        "|".join(rf"(?<=[: ]){port}\b" for port in ports), lambda m: str(free[m[0]]), text
    )


class Walk:
    """A shell that has done what the page says, and the processes that it left in the background."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        here = Path(sys.executable).parent
        etcd = find_etcd().path.parent
        self._environ = {
            **{name: value for name, value in os.environ.items() if "SEATKEEPER" not in name},
            "PATH": os.pathsep.join([str(etcd), str(here), os.environ["PATH"]]),
        }
        script = "set -e\n"
        for language, code in blocks():
            if language == "toml":
                script += f"cat > node.toml <<'END'\n{code}END\n"
            else:
                script += code
        self.script = with_free_ports(script)
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> str:
        """Run the page; return what it printed. What it started goes on."""
        # Not bash -c: what it prints and the environment are wanted afterwards, also by `more`.
        script = self.folder / "walk.sh"
        script.write_text(self.script + "export -p > exported\n")
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            self._process = subprocess.Popen(
                ["bash", script.name],
                cwd=self.folder,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
            code = self._process.wait(timeout=SECONDS_MAX)
        assert code == 0, (self.folder / "err").read_text()[-3000:]
        return (self.folder / "out").read_text()

    def more(self, command: str, certificate: str) -> subprocess.CompletedProcess[str]:
        """Run one more command where the page ended, under another certificate."""
        tls = f"SEATKEEPER_TLS_CERT={certificate}.pem SEATKEEPER_TLS_KEY={certificate}.key"
        return subprocess.run(
            ["bash", "-c", f". ./exported; {tls} {command}"],
            cwd=self.folder,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )

    def end(self) -> None:
        """End everything that the page started: all of it is of one session, made for it."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    walk = Walk(tmp_path)
    yield walk
    walk.end()


def test_the_walk_through_works_and_only_its_administrator_administers(walk: Walk) -> None:
    printed = walk.run()
    assert "ci-runner" in printed, printed

    ordinary = walk.more("seatkeeper pool update tensorrt --seats 1000", "ci-runner")
    assert ordinary.returncode != 0
    assert "dns:ci-runner" in ordinary.stderr
    assert "`administrators`" in ordinary.stderr
    deadline = time.monotonic() + 30
    drained = walk.more("seatkeeper node drain node-2", "agent")
    while "no node 'node-2'" in drained.stderr and time.monotonic() < deadline:
        drained = walk.more("seatkeeper node drain node-2", "agent")  # it has not joined yet
    assert drained.returncode != 0
    assert "DrainNode needs a name" in drained.stderr

    shown = walk.more("seatkeeper status tensorrt --json", "ci-runner")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["seats"] == 2

    updated = walk.more("seatkeeper pool update tensorrt --seats 3", "admin")
    assert updated.returncode == 0, updated.stderr
    logs = (walk.folder / "err").read_text()
    acts = [json.loads(line) for line in logs.splitlines() if '"pool_updated"' in line]
    assert [(act["seats_before"], act["seats_after"]) for act in acts] == [(2, 3)]
    assert acts[0]["by"].startswith("dns:admin")
    doctor = walk.more("seatkeeper doctor --json", "ci-runner")
    access = [f for f in json.loads(doctor.stdout)["findings"] if f["about"] == "access"]
    assert access == []
    gone = walk.more("seatkeeper node drain node-3", "admin")
    assert gone.returncode == 0, gone.stderr
