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
    operations = faults = grants = gangs = called_back = taken = violations = 0
    bursts = overdrawn = chosen = kept_free = kept = returned = 0
    for outcome in _outcomes(seeds, simulated, jobs):
        operations += outcome.operations
        grants += outcome.grants
        gangs += outcome.gangs
        chosen += outcome.alternatives
        kept_free += outcome.kept_free
        kept += outcome.stays[0]
        returned += outcome.stays[1]
        called_back += outcome.called_back[0]
        taken += outcome.called_back[1]
        bursts += outcome.lots[0]
        overdrawn += outcome.lots[1]
        faults += outcome.faults
        violations += len(outcome.violations)
        if outcome.violations:
            _notify(outcome)
            if until_violation:
                break
    reported = {
        "seeds": len(seeds),
        "operations": operations,
        "grants": grants,
        "gangs": gangs,
        "of_alternatives": chosen,
        "kept_free": kept_free,
        "kept": kept,
        "returned": returned,
        "called_back": called_back,
        "taken_back": taken,
        "bursts_by_rule": bursts,
        "overdraft_grants": overdrawn,
        "faults": faults,
        "violations": violations,
        "seconds": round(time.monotonic() - began, 1),
    }
    print(json.dumps(reported))
    return 1 if violations else 0


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
