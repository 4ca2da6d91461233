"""Two versions side by side: ``python -m tests.compat``; the last line is one JSON object.

Three nodes over a real etcd are upgraded from the previous release to this tree, one at a time, and
taken back, under load and faults. Users, agents and administrators of both versions work all the time.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import sys
import tempfile
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.chaos.service import NODES
from tests.compat.fields import survey
from tests.compat.previous import HistoryMissing, Release, previous_release, this_tree
from tests.compat.upgrade import FAULTS, Mixture, Size, running_mixture

from seatkeeper.chaos import report

ROUNDS = 3
SECONDS = 6.0
SHORT = Size(
    rounds=1,
    seconds=1.5,
    members=1,
    workers=2,
    faults=1,
    builds=False,
    tls=False,
    probed=(0, NODES - 1),
    # Without what must be brought to its place within seconds, on a machine that runs other tests.
    kinds=[fault for fault in FAULTS if fault.fault != "KillNode.after_commit_before_reply"],
    rate_min=1.0,
)
"""About a minute, for every change: everything is tried with one new node, and with new nodes alone."""


def main() -> int:
    """Run; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.compat", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="upgrades and ways back")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="of work in each mixture of versions"
    )
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--short", action="store_true", help="one round, in about a minute")
    parser.add_argument("--plain", action="store_true", help="without TLS, as the short run")
    parser.add_argument("--new", metavar="COMMIT", help="in the place of this tree")
    parser.add_argument("--json", metavar="FILE", default="-", help="-: standard output")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep data and logs there")
    arguments = parser.parse_args()
    size = SHORT if arguments.short else Size(arguments.rounds, arguments.seconds)
    size = replace(
        size, builds=size.builds and has_compiler(), tls=size.tls and not arguments.plain
    )
    print(f"seed {arguments.seed}", flush=True)
    try:
        old = previous_release()
        new = this_tree()
        if arguments.new:
            new = replace(previous_release(commit=arguments.new), name="new")
        result = asyncio.run(run(old, new, size, arguments.seed, arguments.keep))
    except HistoryMissing as error:
        result = {"error": str(error)}
    except KeyboardInterrupt:
        result = {"error": "stopped"}
    except (
        Exception
    ) as error:  # a run that cannot go on has not passed, and says so in one line too
        traceback.print_exc()
        result = {"error": f"{type(error).__name__}: {error}"}
    text = json.dumps(result)
    if arguments.json != "-":
        Path(arguments.json).write_text(f"{text}\n")
    print(text, flush=True)
    return 1 if "error" in result or wrong(result) else 0


def has_compiler() -> bool:
    """Return whether engines can be compiled here."""
    return importlib.util.find_spec("tensorrt_rtx_bindings") is not None


async def run(
    old: Release, new: Release, size: Size, seed: int, keep: Path | None = None
) -> dict[str, Any]:
    """Run it all; return what came of it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="seatkeeper-compat-") as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        async with running_mixture(old, new, folder, size, seed) as mixture:
            await mixture.run()
            result = summary(mixture, old)
    return {**result, "seconds": round(time.monotonic() - began, 1), "seed": seed}


def summary(mixture: Mixture, old: Release) -> dict[str, Any]:
    """Return the result, and print what went wrong."""
    record, outcome = mixture.trial.worker_pool.record, mixture.trial.outcome
    found = survey(mixture.changes, mixture.probing.steps)
    lost_by_old = found.lost_by("old")
    lost = [loss for loss in found.losses if loss not in lost_by_old]
    for failed in record.failed:
        words = f"{failed.user}, {failed.call}, {mixture.around(failed.at)}: {failed.reason}"
        print(f"  FAILED {words}", flush=True)
    for loss in lost:
        print(f"  LOST {loss}", flush=True)
    names = sorted({f"{loss.key.split('/')[1]} at {loss.step!r}" for loss in lost_by_old})
    for name in names:
        print(f"  lost by the old version: {name}", flush=True)
    compilers = {agent.name for agent in mixture.environment.mixed.agents}
    publishers = {each.agent for each in record.published} & compilers
    return {
        "old": old.commit,
        "rounds": mixture.rounds,
        "violations": outcome.violations,
        "lost_fields": len(lost),
        "failed_calls": len(record.failed),
        "lost_by_old": len(lost_by_old),
        "fields_kept_by_new": found.rewrites.get("new", 0) - len(found.lost_by("new")),
        "probe_steps": mixture.probing.done,
        "answers_checked": outcome.acknowledged,
        "faults": outcome.faults,
        "inconclusive": report.summary(outcome)["void"],
        "bad_exits": sum(map(bool, mixture.upgrade.exits)),
        "compilers": len(publishers),
        "compilers_expected": len(compilers),
    }


def wrong(result: dict[str, Any]) -> str:
    """Return why a run does not pass; empty: it does. One that proves too little does not."""
    for name in ("violations", "lost_fields", "failed_calls", "inconclusive", "bad_exits"):
        if result[name]:
            return f"{name}: {result[name]}"
    for name in ("rounds", "fields_kept_by_new", "probe_steps", "answers_checked", "faults"):
        if not result[name]:
            return f"{name}: none"
    if result["compilers"] != result["compilers_expected"]:
        return f"engines of {result['compilers']} agents out of {result['compilers_expected']}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
