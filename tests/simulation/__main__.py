"""Run many seeds: ``python -m tests.simulation --seeds 1000``; the last line is one JSON object.

One seed again, with all that happened in it: ``python -m tests.simulation --replay SEED``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

from tests.policies.tried import BY_POOL, SIMULATED
from tests.simulation.simulation import Outcome, prepare_process, simulate

CHUNK = 10


def main() -> int:
    """Run the seeds; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, metavar="N", help="how many")
    parser.add_argument(
        "--first", type=int, default=0, metavar="SEED", help="the first of them"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes to run them in"
    )
    parser.add_argument(
        "--policy", choices=SIMULATED, default=BY_POOL, help="the order of service of the nodes"
    )
    parser.add_argument(
        "--until-violation", action="store_true", help="end with the first seed that has one"
    )
    parser.add_argument(
        "--replay", type=int, metavar="SEED", help="run one, and print all of it"
    )
    arguments = parser.parse_args()
    if arguments.replay is not None:
        return _replay(arguments.replay, arguments.policy)
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    simulated = partial(simulate, policy=arguments.policy)
    return _run(seeds, simulated, arguments.jobs, until_violation=arguments.until_violation)


def _replay(seed: int, policy: str) -> int:
    outcome = simulate(seed, policy=policy, log=True)
    print("\n".join(outcome.log))
    _notify(outcome)
    print(f"digest {outcome.digest}")
    return 1 if outcome.violations else 0


def _run(
    seeds: range, simulated: Callable[[int], Outcome], jobs: int, *, until_violation: bool
) -> int:
    began = time.monotonic()
    totals = Counter[str]()
    for outcome in _outcomes(seeds, simulated, jobs):
        totals.update(outcome.counts)
        if outcome.violations:
            _notify(outcome)
            if until_violation:
                break
    reported = {
        "seeds": len(seeds),
        **totals,
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(reported))
    return 1 if totals["violations"] else 0


def _outcomes(
    seeds: range, simulated: Callable[[int], Outcome], jobs: int
) -> Iterator[Outcome]:
    if jobs <= 1:
        prepare_process()
        yield from map(simulated, seeds)
        return
    # Not forked: gRPC is imported, and does not survive that. Such processes end without cleaning up.
    processes = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory(prefix="seatkeeper-simulation-") as folder,
        processes.Pool(jobs, prepare_process, (folder,)) as pool,
    ):
        yield from pool.imap_unordered(simulated, seeds, chunksize=CHUNK)


def _notify(outcome: Outcome) -> None:
    for violation in outcome.violations:
        print(f"seed {outcome.seed}: {violation}")
    if outcome.violations:
        print(f"  again: python -m tests.simulation --replay {outcome.seed}")


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of strings is part of what a seed decides.
        command = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | {"PYTHONHASHSEED": "0"})
    sys.exit(main())
