"""The examples for pipelines in the documentation, run as their runners would, by the real command."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest
from tests.builder.models import conv_net
from tests.cli.commands import SCRIPT, environment
from tests.cli.test_build import BuildRunner, build_runner
from tests.tree import ROOT

from seatkeeper.cli.exits import Exit

__all__ = ["build_runner"]
PAGE = (ROOT / "docs" / "how-to" / "build-in-a-pipeline.md").read_text("utf-8")
PROFILE = " --profile x=1x3x8x8"
"""The examples' model has fixed sizes, and the tests' does not."""


def block(heading: str) -> str:
    """The code below a heading."""
    below = PAGE.partition(f"\n## {heading}\n")[2]
    return re.split(r"```\w*\n", below, maxsplit=1)[1].partition("```")[0]


def scripts() -> dict[str, str]:
    """What a shell runs, by runner."""
    github = block("GitHub Actions").partition("run: |\n")[2].partition("      - uses: ")[0]
    gitlab = re.findall(r"^    - (seatkeeper .*)$", block("GitLab CI"), re.MULTILINE)
    jenkins = block("Jenkins").partition("script: '''")[2].partition("'''")[0]
    return {
        "github": textwrap.dedent(github),
        "gitlab": "\n".join(gitlab),
        "jenkins": jenkins.replace("\\\n", " "),
    }


def run(
    build_runner: BuildRunner, folder: Path, *command: str, model: bytes | None = None
) -> subprocess.CompletedProcess[str]:
    (folder / "model.onnx").write_bytes(model or conv_net().SerializeToString())
    path = f"{Path(SCRIPT).parent}:{environment()['PATH']}"
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(SEATKEEPER_NODES=build_runner.cluster.address, PATH=path),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("runner", sorted(scripts()))
def test_a_job_builds_an_engine(build_runner: BuildRunner, tmp_path: Path, runner: str) -> None:
    script = scripts()[runner]
    assert script.count("seatkeeper build") == 1
    done = run(
        build_runner, tmp_path, "sh", "-e", "-c", script.replace(" --wait", f"{PROFILE} --wait")
    )
    assert done.returncode == 0, done
    said = json.loads((tmp_path / "engine.json").read_text())
    assert said["precision"]["precision"] == "fp16"
    assert (tmp_path / "model.engine").stat().st_size == said["size_bytes"]


@pytest.mark.parametrize("runner", sorted(scripts()))
def test_a_job_ends_as_the_build_does(
    build_runner: BuildRunner, tmp_path: Path, runner: str
) -> None:
    script = scripts()[runner]
    refused = run(build_runner, tmp_path, "sh", "-e", "-c", script, model=b"no model")
    assert refused.returncode == Exit.REFUSED
    assert not (tmp_path / "model.engine").exists()
    with build_runner.cluster.client.seat(build_runner.pool):
        waits = script.replace("--wait 1800", f"{PROFILE} --wait 0").replace("SM86", "SM89")
        assert run(build_runner, tmp_path, "sh", "-e", "-c", waits).returncode == Exit.NO_SEAT


def test_the_codes_that_are_tried_again_are_those_of_the_table() -> None:
    again = [str(int(code)) for code in (Exit.UNAVAILABLE, Exit.NO_SEAT, Exit.SEAT_LOST)]
    assert f"{'|'.join(again)})" in scripts()["github"]
    assert f"exit_codes: [{', '.join(again)}]" in block("GitLab CI")
    assert f"code in [{', '.join(again)}]" in block("Jenkins")


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_a_rule_of_make_builds_what_is_not_there(
    build_runner: BuildRunner, tmp_path: Path
) -> None:
    rule = block("Make").replace(" --wait", f"{PROFILE} --wait")
    (tmp_path / "Makefile").write_text(rule)
    made = run(build_runner, tmp_path, "make", "model.engine")
    assert made.returncode == 0, made
    again = subprocess.run(
        ["make", "model.engine"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "up to date" in again.stdout or not again.stdout
    bad = tmp_path / "bad"
    bad.mkdir()
    shutil.copy(tmp_path / "Makefile", bad)
    failed = run(build_runner, bad, "make", "model.engine", model=b"no model")
    assert failed.returncode == 2
    assert not (bad / "model.engine").exists()
