"""The tutorial, docs/tutorial/first-build.md, run literally: every command after the installation.

Only ports and the state's folder are changed, because another service may run on this machine.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from tests.cli.commands import environment, started
from tests.tree import ROOT

PAGE = ROOT / "docs" / "tutorial" / "first-build.md"
START = "seatkeeper dev\n"
SETUP = "make setup etcd\n. .venv/bin/activate\n"
"""Not run: the installation is that of the machine that runs this test."""
SECONDS_MAX = 240


def blocks() -> list[tuple[str, str]]:
    """The page's blocks of code, each with its language."""
    return re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def free_base() -> int:
    """The first of a row of ports that are free now."""
    for base in range(21_000, 60_000, 50):
        try:
            for offset in (0, 1, 2, 20, 30, 31):
                with closing(socket.socket()) as probe:
                    probe.bind(("127.0.0.1", base + offset))
        except OSError:
            continue
        return base
    raise AssertionError("no free ports")


def script(base: int, folder: Path) -> str:
    """The commands of the second terminal, in order; Python blocks are written to files."""
    lines = []
    for language, code in blocks():
        if language == "python":
            name = re.match(r"# (\w+\.py)", code)
            assert name is not None, "a file of the tutorial has its name in the first line"
            (folder / name[1]).write_text(code, encoding="utf-8")
        elif code not in (SETUP, START):
            lines.append(code.replace(". .venv/bin/activate\n", ""))
    text = "\n".join(lines)
    for offset in range(3):
        text = text.replace(f":{7420 + offset}", f":{base + offset}")
    return "set -e\n" + text


def test_the_page_still_has_its_parts() -> None:
    assert [code for language, code in blocks() if language == "sh"][:2] == [SETUP, START]
    assert len(blocks()) >= 9


@pytest.mark.timeout(SECONDS_MAX + 120)
def test_the_tutorial_works(tmp_path: Path, etcd_program: Path) -> None:
    base = free_base()
    flags = (
        "--port",
        str(base),
        "--state",
        str(tmp_path / "state"),
        "--etcd",
        str(etcd_program),
    )
    with started("dev", *flags, folder=tmp_path) as service:
        service.says("Ready.", seconds_max=120)
        done = subprocess.run(
            ["bash", "-c", script(base, tmp_path)],
            cwd=tmp_path,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        printed = done.stdout
        # What the page says about each step.
        expected = ["fence 1", "exit code 75", "fence 3", "fence 5", "exit code 76"]
        expected += [
            "built now",
            "found: published before",
            "tiny.onnx",
            "verified",
            "valid for",
        ]
        at = 0
        for words in expected:
            assert words in printed[at:], f"{words!r} is missing after:\n{printed[:at]}"
            at += printed[at:].index(words)
        assert "the seat of quantiser is lost" in done.stderr
        service.send(signal.SIGINT)
        service.ends().check()
