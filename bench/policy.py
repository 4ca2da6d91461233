"""Measure what a policy gives to projects, and what it costs: decisions of nodes, in virtual time.

No node and no store: the decisions that nodes make, one after the other, on a pool of 20 seats whose
holds have random lengths (exponential, mean 1). The worst of ``--seeds`` seeds is printed.

- ``share_error_pct``: how far a project's part of all seat time is from its weight's, in percent of
  that, where all projects always have requests waiting: weights 2:1, and 3:2:1, and a half-life of
  ten holds; ``share_error_held_pct``: the same where only what is held counts.
- ``guarantee_wait_holds``: how long a project waits until it holds what it is guaranteed, when all
  seats were lent before it came, in mean holds. Nothing is taken back.
- ``limit_exceeded``: decisions after which a project held more than its limit.
- ``overtakes_over_bound``: grants that went before a request further than the pool allows, where a
  tenth of the requests want 12 seats and the others one; ``idle_pct`` and ``idle_pct_none``: seat time
  that was not held while requests waited, with overtaking and without; ``large_wait_over_none``: the
  mean wait of large requests, over that without. All but the first are means of the seeds.
- ``reclaim_late``: decisions after which a grant was called back still whose notice was over;
  ``preemption_cycles``: grants that were called back before they had been held for the minimum, so that
  a seat goes to and fro; ``reclaim_under_guarantee``: projects that a reclaim left under their own
  guarantee, all where two projects that want seats in turns lend them to each other (``reclaims`` of
  them, ``reclaims_taken`` at the end of their notice). ``guarantee_wait_reclaim_s``: the wait for five
  guaranteed seats whose holders use their notice, of 1 s and a lease of 2 s, to its end.
- ``no_policy_over_before``, ``projects20_over_before``: grants and releases a second of one node over
  etcd (``bench.grants``), in a pool without a policy and in one that 20 projects share, over those of
  the last version without policies; the median of ``--pairs`` pairs, in turn (``bench.policy_cost``).
- ``decide_ms_1000``, ``decide_ms_10000``: a decision on a release, median, with that many tickets of
  100 projects waiting; ``decide_ms_fifo_10000``: the same in a pool that lists none.
"""

from __future__ import annotations

import heapq
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import fmean

from bench.policy_cost import cost_over_before
from bench.policy_pool import SEATS, Pool
from bench.policy_reclaim import Reclaimed, guarantee_wait_seconds, reclaimed
from bench.report import median, notify, parser, progress, run
from seatkeeper.server.domain import (
    NO_POLICY,
    Command,
    Overtaking,
    PoolPolicy,
    ProjectShare,
)

DECISIONS = 10_000
WARM_UP = 0.1
"""Share of the decisions that come before anything is measured."""
WAITING = 3
"""Requests that each hungry project has in the queue."""
TIMED = 200
WEIGHTS: Sequence[Mapping[str, int]] = ({"a": 2, "b": 1}, {"a": 3, "b": 2, "c": 1})
HALF_LIFE = timedelta(seconds=10)
LARGE = 12
"""Seats that a large request wants."""
OVERTAKING = Overtaking(seats=12, within=timedelta(seconds=20))


async def main() -> None:
    """Measure, and print the result."""
    options = parser(__doc__)
    options.add_argument(
        "--seeds", type=int, default=20, metavar="N", help="seeds; default: 20"
    )
    options.add_argument(
        "--decisions", type=int, default=DECISIONS, metavar="N", help="of each; default: 10000"
    )
    options.add_argument(
        "--pairs", type=int, default=5, metavar="N", help="runs of either version; default: 5"
    )
    arguments = options.parse_args()
    errors: list[float] = []
    by_held: list[float] = []
    waits, exceeded = [], 0
    mixed: list[Mixed] = []
    called_back: list[Reclaimed] = []
    in_line: list[Mixed] = []
    for seed in range(arguments.seeds):
        errors += [
            share_error_pct(each, seed, arguments.decisions, HALF_LIFE) for each in WEIGHTS
        ]
        by_held += [
            share_error_pct(each, seed, arguments.decisions // 10, None) for each in WEIGHTS
        ]
        waits.append(guarantee_wait_holds(seed))
        exceeded += limit_exceeded(seed, arguments.decisions // 10)
        mixed.append(mixed_sizes(OVERTAKING, seed, arguments.decisions))
        called_back.append(reclaimed(seed, arguments.decisions))
        in_line.append(mixed_sizes(None, seed, arguments.decisions))
        progress(f"seed {seed}: shares off by {errors[-2]:.2f} % and {errors[-1]:.2f} %")
    result: dict[str, object] = {
        "seeds": arguments.seeds,
        "decisions": arguments.decisions,
        "share_error_pct": max(errors),
        "share_error_pct_median": median(errors),
        "share_error_held_pct": max(by_held),
        "guarantee_wait_holds": max(waits),
        "guarantee_wait_holds_median": median(waits),
        "limit_exceeded": exceeded,
        "overtakes_over_bound": sum(each.over_bound for each in mixed),
        "idle_pct": fmean(each.idle_pct for each in mixed),
        "idle_pct_none": fmean(each.idle_pct for each in in_line),
        "large_wait_over_none": fmean(each.large_wait for each in mixed)
        / fmean(each.large_wait for each in in_line),
        "reclaims": sum(each.reclaims for each in called_back),
        "reclaims_taken": sum(each.taken for each in called_back),
        "reclaim_late": sum(each.late for each in called_back),
        "preemption_cycles": sum(each.cycles for each in called_back),
        "reclaim_under_guarantee": sum(each.under_guarantee for each in called_back),
        "guarantee_wait_reclaim_s": max(map(guarantee_wait_seconds, range(arguments.seeds))),
        "decide_ms_1000": decide_ms(1_000, projects=100),
        "decide_ms_10000": decide_ms(10_000, projects=100),
        "decide_ms_fifo_10000": decide_ms(10_000, projects=0),
    }
    notify(result | await cost_over_before(arguments.pairs), arguments.json)


def share_error_pct(
    weights: Mapping[str, int], seed: int, decisions: int, half_life: timedelta | None
) -> float:
    """Return how far a project's part of the seat time was from its due, in percent of that."""
    shares = tuple(ProjectShare(project=name, weight=each) for name, each in weights.items())
    pool = Pool.of(PoolPolicy(shares, half_life), seed)
    pool.decide([pool.asks(name) for name in weights for _ in range(SEATS + WAITING)])
    for number in range(decisions):
        if number == int(WARM_UP * decisions):
            pool.seat_time.clear()
        release = pool.next_release()
        project = pool.state.grants[release.grant_id].project
        missing = [name for name in weights if _waiting(pool, name) < WAITING]
        pool.decide([release, *(pool.asks(name) for name in missing or [project])])
    total = sum(pool.seat_time.values())
    due = {name: total * weight / sum(weights.values()) for name, weight in weights.items()}
    return max(100 * abs(pool.seat_time[name] - due[name]) / due[name] for name in weights)


def guarantee_wait_holds(seed: int) -> float:
    """Return how long a project waits for five guaranteed seats while all are lent, in holds."""
    shares = (ProjectShare(project="promised", guaranteed=5), ProjectShare(project="others"))
    pool = Pool.of(PoolPolicy(shares), seed)
    pool.decide([pool.asks("others") for _ in range(2 * SEATS)])
    for _ in range(SEATS):
        pool.decide([pool.next_release(), pool.asks("others")])
    came = pool.now
    pool.decide([pool.asks("promised") for _ in range(5)])
    while pool.state.projects.held.get("promised", 0) < 5:
        release = pool.next_release()
        if pool.state.grants[release.grant_id].project == "promised":
            pool._ends.append((pool.now + 1000, release.grant_id))  # it keeps what it has
            heapq.heapify(pool._ends)
            continue
        pool.decide([release, pool.asks("others")])
    return pool.now - came


def limit_exceeded(seed: int, decisions: int) -> int:
    """Return how often a project held more than its limit after a decision."""
    shares = (ProjectShare(project="limited", limit=7), ProjectShare(project="others"))
    pool = Pool.of(PoolPolicy(shares), seed)
    pool.decide([pool.asks("limited") for _ in range(SEATS)])
    found = 0
    for _ in range(decisions):
        pool.decide([pool.next_release(), pool.asks("limited")])
        found += pool.state.projects.held.get("limited", 0) > 7
    return found


@dataclass(frozen=True)
class Mixed:
    """What became of requests for few seats and for many."""

    over_bound: int
    idle_pct: float
    large_wait: float
    """Mean, in holds."""


def mixed_sizes(overtaking: Overtaking | None, seed: int, decisions: int) -> Mixed:
    """Play requests of two sizes, of which some wait at any time, and count who went before whom."""
    pool = Pool.of(PoolPolicy(overtaking=overtaking), seed)
    before: defaultdict[str, int] = defaultdict(int)
    idle = over = 0.0
    waits: list[float] = []
    pool.decide([pool.asks("any", SEATS)])
    for _ in range(decisions):
        now, free = pool.now, pool.state.free
        release = pool.next_release()
        idle += free * (pool.now - now)
        missing = max(1, 10 - len(pool.state.tickets))
        sizes = [LARGE if pool.rng.random() < 0.1 else 1 for _ in range(missing)]
        made = pool.decide([release, *(pool.asks("any", each) for each in sizes)])
        for grant in made.grants:
            waits += [(grant.granted_at - grant.asked_at) / 1000] * (grant.seats == LARGE)
            for ticket in pool.state.tickets.values():
                if ticket.grant_id < grant.grant_id:
                    before[ticket.grant_id] += grant.seats
                    over += not _may_overtake(
                        overtaking, before[ticket.grant_id], grant.granted_at - ticket.queued_at
                    )
    total = SEATS * (pool.now - 1_000)
    return Mixed(int(over), 100 * idle / total, fmean(waits))


def _may_overtake(overtaking: Overtaking | None, seats: int, waited_millis: int) -> bool:
    return (
        overtaking is not None
        and seats <= overtaking.seats
        and timedelta(milliseconds=waited_millis) < overtaking.within
    )


def decide_ms(tickets: int, *, projects: int) -> float:
    """Return what a decision on a release takes, with so many tickets waiting; the median."""
    names = [f"project-{number}" for number in range(projects or 100)]
    shares = tuple(ProjectShare(project=name, guaranteed=0, weight=1) for name in names)
    pool = Pool.of(PoolPolicy(shares) if projects else NO_POLICY, 0)
    for number in range(tickets + SEATS):
        pool.decide([pool.asks(names[number % len(names)])])
    taken = []
    for _ in range(TIMED):
        commands: list[Command] = [pool.next_release(), pool.asks(pool.rng.choice(names))]
        began = time.perf_counter()
        pool.decide(commands)
        taken.append(1000 * (time.perf_counter() - began))
    return median(taken)


def _waiting(pool: Pool, project: str) -> int:
    return len(pool.state.projects.queues.get(project, ()))


if __name__ == "__main__":
    run(main)
