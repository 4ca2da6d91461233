"""Play a company's working day against the real thing, and compare with the same day simulated.

Twelve nodes, three members of etcd, 40 pools in eight projects, and 50,000 transactions in ten hours,
of which 800 and more hold a seat at once at the peaks. At the start of the day a hundred pods ask for
the 20 seats of one pool (``bench.company_day``). A transaction is one whole cycle: ask, wait, hold,
release. In the middle of each quarter of the day a node is killed (SIGKILL), and started again under
its id ten minutes later, in the day's time. Everything, clients included, shares one machine.

The day is compressed by ``--speedup``: the moments of asking, the holds, the time for which builds are
willing to wait, the clients' ttl and backoff, and how long they leave a node that failed alone. Not
compressed are:

- a ttl below 2 s, which nodes do not accept: five minutes of the day are that at a speedup of 150;
- the nodes' own lease of 10 s, and how long a client stays before it follows the ring, 2 to 12 s;
- all that says whether a node is alive: what an answer takes is the machine's time, not the day's.

What is printed:

- ``held_max``: most seats that clients believed in at once.
- ``over_grants``: how often a seat was believed in beyond those of its pool, from the answer until the
  release was sent; plus the seats that etcd had given out beyond a pool's whenever it was read (every
  2 s); plus the revisions in etcd's history at which it had.
- ``failed_calls``: calls of the library that raised, releases that no node confirmed, and seats lost.
  ``failures`` says which.
- ``wait_p50``, ``_p95``, ``_p99``: ms from ``acquire`` called until it returned. ``simulated_wait_*``:
  the same arrivals, holds and deaths in the simulation of `tests/simulation`, which runs nodes and
  clients, unchanged, in virtual time, with the same compressed settings. ``ideal_wait_*``: by a service
  that takes no time and does not fail.
- ``speedup``: ten hours (``--hours``) over what the run took.
- ``late_max_ms``: longest that the clients' own loop was held up; ``busy_elsewhere``: processors that
  other programs of the machine used meanwhile. Where they are not small, waits and failures are the
  machine's.
- ``cpu_us_per_transaction_<n>``: processor time of all nodes for a transaction, with so many nodes,
  over the same half hour at the first peak; 1 and 3 are runs of their own, of that part of the day.
  ``etcd_cpu_us_per_transaction_<n>``: the same of etcd's three members.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import Any

from bench.company_day import HOUR, Day, deaths, ideal, working_day
from bench.company_real import RealDay, real_day
from bench.company_simulated import SimulatedDay, simulated_day
from bench.report import notify, parser, percentile, progress, run

WINDOW = 0.26, 0.31
"""What is measured for the cost of a transaction: this part of the day, in which no node is killed."""
WARM_UP = 0.03
"""The part of the day that the shorter runs play before that."""
AWAY_SECONDS = 600.0
"""How long a killed node stays away, in the day's time."""
PERCENTS = (50, 95, 99)


async def main() -> None:
    """Measure, and print the result."""
    given = parse_arguments()
    day = working_day(given.seed, transactions=given.transactions, hours=given.hours)
    fast = day.compressed(given.speedup)
    window = WINDOW[0] * fast.seconds, WINDOW[1] * fast.seconds
    dying = deaths(given.seed, given.nodes, fast.seconds, AWAY_SECONDS / given.speedup)
    costs = {}
    for nodes in given.compare:
        begin = window[0] - WARM_UP * fast.seconds
        part = fast.part(begin, window[1])
        there = window[0] - begin, window[1] - begin
        costs[nodes] = await real_day(part, given.speedup, nodes, (), there)
    real = costs[given.nodes] = await real_day(fast, given.speedup, given.nodes, dying, window)
    simulated = None
    if not given.no_simulation:
        progress("the same day, simulated")
        simulated = await asyncio.to_thread(
            simulated_day, fast, given.speedup, given.nodes, dying, given.seed
        )
    notify(result_of(given, day, real, simulated) | costs_of(costs), given.json)


def parse_arguments() -> argparse.Namespace:
    """Return what the command line says."""
    options = parser(__doc__)
    options.formatter_class = argparse.RawDescriptionHelpFormatter
    options.add_argument("--nodes", type=int, default=12)
    options.add_argument("--transactions", type=int, default=50_000)
    options.add_argument("--hours", type=float, default=10.0, help="of the day")
    options.add_argument("--speedup", type=float, default=51.0)
    options.add_argument("--seed", type=int, default=1, help="of the day")
    options.add_argument(
        "--compare",
        type=int,
        nargs="*",
        default=[1, 3],
        help="numbers of nodes, for their cost",
    )
    options.add_argument(
        "--no-simulation", action="store_true", help="leave the simulated waits out"
    )
    return options.parse_args()


def result_of(
    given: argparse.Namespace, day: Day, real: RealDay, simulated: SimulatedDay | None
) -> dict[str, Any]:
    """Return what came of the day."""
    record = real.record
    believed, seen, recorded = record.beliefs.over, real.over_at_looks, real.over_in_history
    result: dict[str, Any] = {
        "nodes": given.nodes,
        "pools": len(day.pools),
        "seats": sum(pool.seats for pool in day.pools),
        "transactions": record.done,
        "held_max": record.beliefs.held_max,
        "over_grants": believed + seen + recorded,
        "over_grants_believed": believed,
        "over_grants_in_etcd": seen,
        "over_grants_in_history": recorded,
        "looks": real.looks,
        "other_faults": dict(real.other_faults),
        "nodes_killed": real.killed,
        "failed_calls": record.failures.total(),
        "failures": dict(record.failures),
        "jeopardies": record.jeopardies,
        "speedup": given.hours * HOUR / record.took,
        "took_s": record.took,
        "late_max_ms": 1000 * real.late_max,
        "busy_elsewhere": real.elsewhere,
    }
    result |= waits_of("", record.waits)
    if simulated is not None:
        result |= waits_of("simulated_", simulated.record.waits)
        result["simulated_transactions"] = simulated.record.done
        result["simulated_failed_calls"] = simulated.record.failures.total()
        result["simulated_failures"] = dict(simulated.record.failures)
        result["simulated_over_grants"] = simulated.record.beliefs.over
        result["simulated_errors"] = len(simulated.errors)
        result["simulated_held_max"] = simulated.record.beliefs.held_max
        result["wait_p95_over_simulated"] = percentile(record.waits, 95) / percentile(
            simulated.record.waits, 95
        )
    exactly = ideal(day.compressed(given.speedup))
    return result | waits_of("ideal_", exactly.waits) | {"ideal_held_max": exactly.held_max}


def waits_of(name: str, waits: Sequence[float]) -> dict[str, float]:
    """Return the percentiles of waits, in milliseconds."""
    return {f"{name}wait_p{each}": 1000 * percentile(waits, each) for each in PERCENTS}


def costs_of(runs: dict[int, RealDay]) -> dict[str, float]:
    """Return the processor time of a transaction by the number of nodes, in microseconds."""
    found = {}
    for nodes, each in sorted(runs.items()):
        _, begin, end, _ = each.cpu
        count = max(1, end.transactions - begin.transactions)
        found[f"cpu_us_per_transaction_{nodes}"] = 1e6 * (end.nodes - begin.nodes) / count
        found[f"etcd_cpu_us_per_transaction_{nodes}"] = 1e6 * (end.etcd - begin.etcd) / count
    return found


if __name__ == "__main__":
    run(main)
