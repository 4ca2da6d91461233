"""Before the demo downloads anything it says what, how much of it, and that it is at work."""

from __future__ import annotations

import shutil
import subprocess
import sys

from tests.cases.place import Place
from tests.tree import ROOT

BARE = [sys.executable, "-I", "-S"]
"""As before anything is installed."""


def case(place: Place) -> None:
    fresh = place.folder / "fresh"
    (fresh / "bench").mkdir(parents=True)
    step = shutil.copy(ROOT / "bench" / "step.py", fresh / "bench")
    plan = subprocess.run([*BARE, step, "--plan"], capture_output=True, text=True, timeout=60)
    assert plan.returncode == 0, plan.stderr
    for word in ("TensorRT-RTX", "315 MB", "etcd", "licence"):
        assert word in plan.stdout, f"{word} is not in the plan: {plan.stdout}"
    recipe = (ROOT / "Makefile").read_text()
    assert "demo: demo-plan" in recipe, "make demo does not begin with the plan"
    busy = ["sh", "-c", "echo Downloading a big one; sleep 11"]
    work = subprocess.run(
        [*BARE, step, "fetch: a big one", "--", *busy],
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = work.stdout.splitlines()
    assert lines[:2] == ["fetch: a big one", "fetch: Downloading a big one"], lines
    assert len(lines) >= 4, f"silent for more than some seconds: {lines}"
