"""Break the code on purpose, and see that the tests notice: ``python -m tests.mutants``.

Each defect is put into a copy of the tree. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutants.defects import DEFECTS, SEEDS, Defect
from tests.tree import PORTIONS, ROOT

COPIED = (*PORTIONS, "tests", "bench", "pyproject.toml")
SECONDS_MAX = 600


def main() -> int:
    """Try every defect; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="those with this in the name"
    )
    parser.add_argument(
        "--jobs", metavar="N", type=int, default=os.cpu_count(), help="tried side by side"
    )
    arguments = parser.parse_args()
    chosen = [defect for defect in DEFECTS if arguments.only in defect.name]
    killed = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for defect, catcher in zip(chosen, pool.map(_try, chosen), strict=True):
            killed += catcher is not None
            print(f"{defect.name}: {catcher or 'SURVIVED'}", flush=True)
    print(json.dumps({"mutants": len(chosen), "killed": killed}))
    return 0 if killed == len(chosen) else 1


def _try(defect: Defect) -> str | None:
    """Return what caught a defect; None: nothing did."""
    with tempfile.TemporaryDirectory(prefix="seatkeeper-mutant-") as folder:
        copy = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source, copy / name, ignore=shutil.ignore_patterns("__pycache__")
                )
            else:
                shutil.copy(source, copy / name)
        file = copy / defect.file
        code = file.read_text()
        if code.count(defect.code) != 1:
            raise SystemExit(f"{defect.name}: its code is not in {defect.file} exactly once")
        file.write_text(code.replace(defect.code, defect.instead))
        return _tests(copy, defect) if defect.tests else _simulation(copy)


def _simulation(copy: Path) -> str | None:
    done = _run(copy, "-m", "tests.simulation", "--seeds", str(SEEDS), "--until-violation")
    found = re.search(r"^seed (\d+): (I\d+ .*)$", done.stdout, re.MULTILINE)
    if done.returncode == 0 or found is None:
        return None
    return f"simulation, seed {found[1]}: {found[2][:150]}"


def _tests(copy: Path, defect: Defect) -> str | None:
    done = _run(copy, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *defect.tests)
    found = re.search(r"^FAILED (\S+)", done.stdout, re.MULTILINE)
    if done.returncode != 1 or found is None:
        return None
    return f"test {found[1]}"


def _run(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [copy, *(copy / portion for portion in PORTIONS)]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(arguments)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done


if __name__ == "__main__":
    sys.exit(main())
