"""``python -m tests.cases [NAME...] [--json -]``: run cases, print a line of each.

A case is a file ``case_<part>_<name>.py``: a docstring that says in its first line what is
expected, and ``def case(place: Place) -> None``, which raises AssertionError with what it saw when
that is not what happened. Each was a fault once, met by somebody who used the whole product.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tests.cases.cases import SECONDS_MAX, Outcome, find_cases, run_case

AT_ONCE_MAX = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases; exit code 1 when one failed, 2 when none of a name exists."""
    parser = argparse.ArgumentParser(prog="python -m tests.cases", description="Run cases.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="a case, or how its name begins"
    )
    parser.add_argument("--json", metavar="FILE", help="write every outcome there; -: no lines")
    parser.add_argument("--list", action="store_true", help="name the cases, and run none")
    parser.add_argument("--limit", type=float, default=SECONDS_MAX, help="seconds for each")
    options = parser.parse_args(arguments)
    try:
        cases = find_cases(options.names)
    except KeyError as missing:
        print(f"no case is named {missing}; see --list", file=sys.stderr)
        return 2
    if options.list:
        for case in cases:
            print(f"{case.name:32} {case.expected}")
        return 0
    people = sys.stderr if options.json == "-" else sys.stdout
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(min(AT_ONCE_MAX, os.cpu_count() or 1)) as pool:
        for done in as_completed(
            [pool.submit(run_case, case, options.limit) for case in cases]
        ):
            outcomes.append(done.result())
            print(outcomes[-1].line, file=people, flush=True)
    summary = summary_of(outcomes)
    if options.json not in (None, "-"):
        Path(options.json).write_text(json.dumps(summary | {"outcomes": described(outcomes)}))
    print(json.dumps(summary), flush=True)
    return 1 if summary["failed"] else 0


def summary_of(outcomes: list[Outcome]) -> dict[str, int]:
    """Return how many cases ran and failed; one that cannot run here is no case that passed."""
    states = [outcome.state for outcome in outcomes]
    skipped = states.count("skip")
    return {"cases": len(states) - skipped, "failed": states.count("FAIL"), "skipped": skipped}


def described(outcomes: list[Outcome]) -> list[dict[str, object]]:
    """Return every outcome, for programs."""
    return [
        {
            "name": outcome.case.name,
            "state": outcome.state,
            "seconds": round(outcome.seconds, 2),
            "expected": outcome.case.expected,
            "reason": outcome.reason,
        }
        for outcome in sorted(outcomes, key=lambda outcome: outcome.case.name)
    ]


if __name__ == "__main__":
    sys.exit(main())
