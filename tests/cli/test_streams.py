"""Standard streams that are closed, full or broken, for every command."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from tests.cli.commands import SCRIPT, environment
from tests.cli.conftest import Cluster

from seatkeeper.cli.exits import Exit


def shell(cluster: Cluster, script: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell, where seatkeeper is on the PATH."""
    done = subprocess.run(
        ["bash", "-c", script],
        env=environment(SEATKEEPER_NODES=cluster.address, **more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr + done.stdout
    assert "Exception ignored" not in done.stderr
    return done


BROKEN = ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-", "2>/dev/full", "1>/dev/full 2>/dev/full"]


@pytest.mark.parametrize("streams", BROKEN)
@pytest.mark.parametrize("options", ["", "--json"], ids=("text", "json"))
def test_the_command_runs_whatever_the_streams_are(
    cluster: Cluster, pool: str, tmp_path: Path, streams: str, options: str
) -> None:
    ran = tmp_path / "ran"
    run = f"seatkeeper run {options} --pool {pool} -- sh -c 'touch {ran}; exit 3' {streams}"
    assert shell(cluster, run).returncode == 3
    assert ran.exists()
    assert cluster.look(pool).held == 0


def test_the_command_finds_closed_what_was_closed(
    cluster: Cluster, pool: str, tmp_path: Path
) -> None:
    """And nothing of ours in its place; what else was open is open still, and no more."""
    seen = tmp_path / "seen"
    ask = f'ls -l /proc/$$/fd | sed -n "s/.* \\([0-9]* -> .*\\)/\\1/p" | sort > {seen}'
    streams = f"0<&- 2>&- 1>/dev/null 7<{SCRIPT}"
    script = tmp_path / "ask.sh"
    script.write_text(ask)
    found = []
    for wrapper in ("exec", f"exec seatkeeper run --pool {pool} --"):
        assert shell(cluster, f"{wrapper} sh {script} {streams}").returncode == 0
        found.append([line for line in seen.read_text().splitlines() if "pipe" not in line])
    assert found[0] == found[1]
    assert any(line.startswith("7 ->") for line in found[0])
    assert not any(line.startswith(("0 ->", "2 ->")) for line in found[0])


COMMANDS = [
    "status",
    "status --json",
    "status {pool} --watch",
    "status {pool} --watch --json",
    "pool list",
    "pool show {pool} --json",
    "node list",
    "engines list",
    "token jwks",
    "doctor",
    "--help",
    "run --help",
    "--version",
]
ALSO_CLOSED = ("status --json", "token jwks", "--help")


@pytest.mark.parametrize(
    ("words", "output"),
    [(words, ">/dev/full") for words in COMMANDS] + [(words, ">&-") for words in ALSO_CLOSED],
)
def test_a_result_that_cannot_be_written_is_an_error_in_one_line(
    cluster: Cluster, pool: str, words: str, output: str
) -> None:
    done = shell(cluster, f"seatkeeper {words.format(pool=pool)} {output}")
    assert done.returncode == Exit.FAILED
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert "standard output" in lines[0]
    if "--json" in words:
        assert json.loads(lines[0])["exit_code"] == Exit.FAILED


@pytest.mark.parametrize("streams", ["2>/dev/full", "0<&- 1>&- 2>&-"])
@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("run --pool absent -- true", Exit.NOT_FOUND),
        ("run --pool absent --json -- true", Exit.NOT_FOUND),
        ("run -- no-such-program", Exit.NO_COMMAND),
        ("run --wait never -- true", Exit.USAGE),
        ("pool show absent", Exit.NOT_FOUND),
        ("pool show absent --json", Exit.NOT_FOUND),
        ("build absent.onnx --target SM86", Exit.NOT_FOUND),
        ("status --nodes 127.0.0.1:1 --timeout 0.2", Exit.UNAVAILABLE),
    ],
)
def test_exit_codes_do_not_depend_on_whether_anybody_reads(
    cluster: Cluster, words: str, code: Exit, streams: str
) -> None:
    assert shell(cluster, f"seatkeeper {words} {streams}").returncode == code


def test_a_token_that_cannot_be_read_is_refused(cluster: Cluster) -> None:
    for words in ("token show -", "token verify - --jwks /dev/null"):
        closed = shell(cluster, f"seatkeeper {words} <&-")
        assert closed.returncode == Exit.REFUSED
        assert len(closed.stderr.splitlines()) == 1


def test_a_reader_that_has_read_enough_is_no_failure_to_speak_of(cluster: Cluster) -> None:
    done = shell(cluster, "seatkeeper --help | true; seatkeeper status --json | true")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_pipe_that_is_set_not_to_block_gets_all(cluster: Cluster, pool: str) -> None:
    """As node.js leaves it to its children."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    os.write(writer, b"x" * 65536)
    process = subprocess.Popen(
        [SCRIPT, "pool", "show", pool, "--json"],
        env=environment(SEATKEEPER_NODES=cluster.address),
        stdout=writer,
    )
    os.close(writer)
    with os.fdopen(reader, "rb") as opened:
        data = opened.read()
    assert process.wait() == 0
    assert json.loads(data[65536:])["name"] == pool
