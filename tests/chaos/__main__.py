"""Run scenarios on real processes: ``python -m tests.chaos``; the last line is one JSON object.

Each process is in a network namespace of its own where this machine allows it; elsewhere all are on
loopback, and the scenarios that need packets to be lost are left out, which is said.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.environment import running_trial
from tests.chaos.places import enter_hub, open_places
from tests.chaos.service import AGENT

from seatkeeper.chaos.library import FOLDER, find, read_folder
from seatkeeper.chaos.report import markdown, picture, summary
from seatkeeper.chaos.result import Outcome
from seatkeeper.chaos.scenario import Scenario, ScenarioError
from seatkeeper.chaos.trial import check_faults
from seatkeeper.oracle.record import Attack, Record

OURS = Path(__file__).with_name("scenarios")
SUBSET = Path(__file__).with_name("subset")
SOAK = Path(__file__).with_name("soak.txt")


def main() -> int:
    """Run; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument(
        "--scenario", action="append", metavar="NAME|FILE", help="default: all, in turn"
    )
    parser.add_argument(
        "--subset", action="store_true", help="two minutes of them, for every change"
    )
    parser.add_argument("--report", type=Path, metavar="FOLDER", help="write a report there")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--loopback", action="store_true", help="make no namespaces")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep data and logs there")
    arguments = parser.parse_args()
    # Places are machines of their own here, which etcd's tools would look for behind a web proxy.
    for name in [each for each in os.environ if each.lower().endswith("_proxy")]:
        del os.environ[name]
    why = "not wanted" if arguments.loopback else enter_hub(sys.argv[1:])
    if why:
        print(f"on loopback: {why}", flush=True)
    try:
        return asyncio.run(run(arguments))
    except KeyboardInterrupt:
        print("stopped; what was checked so far is not reported", file=sys.stderr)
        return 130


async def run(arguments: argparse.Namespace) -> int:
    """Run the scenarios; return the exit code."""
    known = read_folder(SUBSET) if arguments.subset else scenarios()
    print(f"seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="seatkeeper-chaos-") as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        async with running_trial(open_places(), folder, arguments.seed) as trial:
            trial.notify = lambda text: print(text, flush=True)
            chosen = []
            for name in arguments.scenario or known:
                scenario = find(name, known)
                try:
                    check_faults(scenario, trial.stage.faults)
                except ScenarioError as error:
                    print(f"left out: {str(error).partition(';')[0]}", flush=True)
                else:
                    chosen.append(scenario)
            await trial.run(chosen)
            await trial.conclude()
            outcome = trial.outcome
            all_of_it = not arguments.scenario and not arguments.subset
            too_little = not_tried(outcome, trial.worker_pool.record, all_of_it=all_of_it)
    if arguments.report:
        write_report(arguments.report, outcome)
    reported = summary(outcome)
    del reported["chapters"]
    if too_little:
        print(f"the run proves too little: {too_little}", flush=True)
    print(json.dumps(reported), flush=True)
    return 1 if outcome.violations or outcome.inconclusive or too_little else 0


def not_tried(outcome: Outcome, record: Record, *, all_of_it: bool) -> str:
    """Return what must be tried in a run, and was not; empty: it was.

    In one that is not ``all_of_it``, users may have had no occasion for attacks.
    """
    if AGENT not in {reported.agent for reported in record.published}:
        return "the build agent has published no engine"
    for attack in Attack if all_of_it else ():
        if not outcome.prevented.get(attack.value):
            return f"no attack of this kind: {attack.value}"
    return ""


def scenarios() -> dict[str, Scenario]:
    """Return all scenarios: those that users have, and those that take processes of our own."""
    return {**read_folder(OURS), **read_folder(FOLDER)}


def write_report(folder: Path, outcome: Outcome) -> None:
    """Write the report and its picture."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chaos-report.svg").write_text(picture(outcome))
    text = markdown(outcome, picture_file="chaos-report.svg", command="make chaos")
    (folder / "chaos-report.md").write_text(text)


if __name__ == "__main__":
    sys.exit(main())
