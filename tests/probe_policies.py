"""Is the order of service in one place? ``python -m tests.probe_policies``; the last line is JSON.

Policies that nodes do not have, of one file each in ``tests/policies``, serve the real loop over a
store in memory, in virtual time: a quota, small requests first, and one drawn from a seed that depends
on time. An idle commit is a decision on no command that changes nothing; a missed wake is a ticket
that the policy would serve, asked anew when the service was left alone, and that is not served.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import sys

from tests.policies.rules import Tried
from tests.policies.trial import Outcome, Trial
from tests.policies.tried import POLICIES

DECISIONS = 10_000
"""Least decisions of each policy."""
PLANS_PER_DECISION_MAX = 20
"""More, and a loop asks without end without deciding."""
SEEDS = 4


def main() -> int:
    """Try every policy; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.probe_policies", description=__doc__)
    parser.add_argument(
        "--decisions", type=int, default=DECISIONS, metavar="N", help="least, of each policy"
    )
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    outcomes = {tried.name: _try(tried, arguments.decisions) for tried in POLICIES}
    for name, outcome in outcomes.items():
        reported = (
            f"{outcome.decisions} decisions, {outcome.plans} plans, {outcome.looks} looks"
        )
        print(f"{name}: {reported}")
        for fault in outcome.broken[:10]:
            print(f"  {fault}")
    reported_all = {
        "policies": len(outcomes),
        "decisions": sum(outcome.decisions for outcome in outcomes.values()),
        "idle_commits": sum(outcome.idle_commits for outcome in outcomes.values()),
        "missed_wakes": sum(outcome.missed_wakes for outcome in outcomes.values()),
    }
    print(json.dumps(reported_all))
    enough = all(outcome.decisions >= arguments.decisions for outcome in outcomes.values())
    return 0 if enough and all(map(_is_right, outcomes.values())) else 1


def _try(tried: Tried, decisions: int) -> Outcome:
    """Try one policy from several seeds, on one node and on two; return what came of all."""
    whole = Outcome()
    for seed in range(SEEDS):
        outcome = Trial(tried, seed, nodes=1 + seed % 2).run(-(-decisions // SEEDS))
        whole.decisions += outcome.decisions
        whole.idle_commits += outcome.idle_commits
        whole.missed_wakes += outcome.missed_wakes
        whole.plans += outcome.plans
        whole.looks += outcome.looks
        whole.broken += outcome.broken
        gc.collect()
    return whole


def _is_right(outcome: Outcome) -> bool:
    asked = outcome.plans <= PLANS_PER_DECISION_MAX * outcome.decisions
    return outcome.is_correct and asked


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of strings is part of what a seed decides.
        command = [sys.executable, "-m", "tests.probe_policies", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | {"PYTHONHASHSEED": "0"})
    sys.exit(main())
