"""Compare what grants cost with what they cost before pools had policies: both versions, in turn.

Runs ``bench.grants`` of this tree, of the last commit without policies, taken out of the history, and
of this tree with pools that 20 projects share, one after the other, again and again, each time in the
other direction. What is compared is the rate over that of the same run's echo server, which has no code
of ours: the machine's speed drifts by as much as what is looked for.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path

from tests.compat.previous import CACHE, HistoryMissing, Release, previous_release, this_tree
from tests.tree import ROOT

from bench.report import median, progress
from seatkeeper.devcluster.etcd_binary import find_etcd

BEFORE = "68c4da1c13491167a57919dceb95e5000d8f3609"
"""The last commit in which no pool has a policy."""
PROJECTS = 20
RATE, ECHO = "sessions64_ops_per_s", "echo64_messages_per_s"
ROUND_SECONDS = 4.0
RUN_SECONDS_MAX = 180.0


async def cost_over_before(pairs: int) -> dict[str, float | None]:
    """Return the rates of grants over those of before, medians of so many pairs.

    Of a pool without a policy, and of one that projects share. None where the history does not have
    the commit: a shallow clone, or no clone.
    """
    try:
        before = previous_release(commit=BEFORE)
    except HistoryMissing as error:
        progress(f"not compared with before: {error}")
        before = None
    plain: list[float] = []
    shared: list[float] = []
    for number in range(pairs if before is not None else 0):
        assert before is not None
        runs = [
            (before, _tree_of(before), []),
            (this_tree(), ROOT, []),
            (this_tree(), ROOT, ["--projects", str(PROJECTS)]),
        ]
        backwards = -1 if number % 2 else 1
        rates = [await _rate(*each) for each in runs[::backwards]][::backwards]
        plain.append(rates[1] / rates[0])
        shared.append(rates[2] / rates[0])
        progress(
            f"pair {number + 1} of {pairs}: {plain[-1]:.3f} of before, "
            f"{shared[-1]:.3f} with {PROJECTS} projects"
        )
    return {
        "no_policy_over_before": median(plain) if plain else None,
        "projects20_over_before": median(shared) if shared else None,
    }


def _tree_of(release: Release) -> Path:
    """Return the tree of an old release, whose environment has the command that its bench starts."""
    command = release.python.with_name("seatkeeper")
    if not command.exists():
        command.write_text(f'#!/bin/sh\nexec "{release.python}" -m seatkeeper.cli "$@"\n')
        command.chmod(0o755)
    (found,) = (each for each in CACHE.glob(f"{release.commit[:12]}-*") if each.is_dir())
    return found / "tree"


async def _rate(release: Release, tree: Path, more: Sequence[str]) -> float:
    """Return the rate of acquires and releases in one run of ``bench.grants``, over its echo's."""
    etcd = find_etcd().path  # the other tree has none of its own
    command = (str(release.python), "-m", "bench.grants", "--json", "-", "--rounds", "1")
    process = await asyncio.create_subprocess_exec(
        *command,
        *("--seconds", str(ROUND_SECONDS), "--latency-samples", "20"),
        *more,
        cwd=tree,
        env=os.environ | {"PATH": f"{etcd.parent}{os.pathsep}{os.environ.get('PATH', '')}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(RUN_SECONDS_MAX):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        raise RuntimeError(f"bench.grants of {tree}: {err.decode(errors='replace')[-2000:]}")
    found = json.loads(out.splitlines()[-1])
    return float(found[RATE]) / float(found[ECHO])
