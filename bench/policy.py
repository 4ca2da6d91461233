"""Measure what a policy gives to projects, and what it costs: decisions of nodes, in virtual time.

No node and no store: the decisions that nodes make, one after the other, on a pool of 20 seats whose
holds have random lengths (exponential, mean 1). The worst of ``--seeds`` seeds is printed.

- ``share_error_pct``: how far a project's part of all seat time is from its weight's, in percent of
  that, where all projects always have requests waiting: weights 2:1, and 3:2:1, and a half-life of
  ten holds; ``share_error_held_pct``: the same where only what is held counts.
- ``guarantee_wait_holds``: how long a project waits until it holds what it is guaranteed, when all
  seats were lent before it came, in mean holds. Nothing is taken back.
- ``limit_exceeded``: decisions after which a project held more than its limit.
- ``decide_ms_1000``, ``decide_ms_10000``: a decision on a release, median, with that many tickets of
  100 projects waiting; ``decide_ms_fifo_10000``: the same in a pool that lists none.
"""

from __future__ import annotations

import heapq
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from bench.report import median, notify, parser, progress, run
from seatkeeper.server.decide import Decision, decide
from seatkeeper.server.domain import (
    NO_POLICY,
    Acquire,
    Attribution,
    Command,
    Instant,
    Limits,
    PoolPolicy,
    PoolSpec,
    PoolState,
    ProjectShare,
    Release,
)

SEATS = 20
DECISIONS = 10_000
WARM_UP = 0.1
"""Share of the decisions that come before anything is measured."""
WAITING = 3
"""Requests that each hungry project has in the queue."""
TIMED = 200
WEIGHTS: Sequence[Mapping[str, int]] = ({"a": 2, "b": 1}, {"a": 3, "b": 2, "c": 1})
HALF_LIFE = timedelta(seconds=10)


async def main() -> None:
    """Measure, and print the result."""
    options = parser(__doc__)
    options.add_argument(
        "--seeds", type=int, default=20, metavar="N", help="seeds; default: 20"
    )
    options.add_argument(
        "--decisions", type=int, default=DECISIONS, metavar="N", help="of each; default: 10000"
    )
    arguments = options.parse_args()
    errors: list[float] = []
    by_held: list[float] = []
    waits, exceeded = [], 0
    for seed in range(arguments.seeds):
        errors += [
            share_error_pct(each, seed, arguments.decisions, HALF_LIFE) for each in WEIGHTS
        ]
        by_held += [
            share_error_pct(each, seed, arguments.decisions // 10, None) for each in WEIGHTS
        ]
        waits.append(guarantee_wait_holds(seed))
        exceeded += limit_exceeded(seed, arguments.decisions // 10)
        progress(f"seed {seed}: shares off by {errors[-2]:.2f} % and {errors[-1]:.2f} %")
    notify(
        {
            "seeds": arguments.seeds,
            "decisions": arguments.decisions,
            "share_error_pct": max(errors),
            "share_error_pct_median": median(errors),
            "share_error_held_pct": max(by_held),
            "guarantee_wait_holds": max(waits),
            "guarantee_wait_holds_median": median(waits),
            "limit_exceeded": exceeded,
            "decide_ms_1000": decide_ms(1_000, projects=100),
            "decide_ms_10000": decide_ms(10_000, projects=100),
            "decide_ms_fifo_10000": decide_ms(10_000, projects=0),
        },
        arguments.json,
    )


@dataclass
class Pool:
    """A pool that is decided on, in virtual time, and nothing else."""

    state: PoolState
    rng: random.Random
    now: float = 1_000.0
    number: int = 0
    seat_time: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _ends: list[tuple[float, str]] = field(default_factory=list)
    """When each grant is released."""

    @classmethod
    def of(cls, policy: PoolPolicy, seed: int) -> Pool:
        """Return an empty pool."""
        spec = PoolSpec("pool", SEATS, policy=policy)
        return cls(PoolState(spec=spec), random.Random(seed))

    def asks(self, project: str) -> Acquire:
        """Return a request."""
        self.number += 1
        holder = Attribution("holder", project, 0)
        return Acquire(f"{self.number:012}", f"session-{self.number}", 1, holder, 1)

    def decide(self, commands: Sequence[Command]) -> Decision:
        """Decide, and apply what was decided, as a node does once it is committed."""
        state = self.state
        decision = decide(state, commands, Instant(int(self.now * 1000)), Limits())
        for grant_id in decision.grants_ended:
            state.remove_grant(grant_id)
        for grant_id in decision.tickets_ended:
            state.remove_ticket(grant_id)
        for ticket in decision.tickets:
            state.put_ticket(ticket)
        for grant in decision.grants:
            state.put_grant(grant)
            end = self.now + self.rng.expovariate(1.0)
            heapq.heappush(self._ends, (end, grant.grant_id))
        state.guard = decision.guard
        return decision

    def next_release(self) -> Release:
        """Go on to the next end of a hold; return its release."""
        at, grant_id = heapq.heappop(self._ends)
        for grant in self.state.grants.values():
            self.seat_time[grant.project] += (at - self.now) * grant.seats
        self.now = at
        grant = self.state.grants[grant_id]
        return Release(grant_id, grant.session_id, grant.lease_id)


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
    while pool.state.projects.held["promised"] < 5:
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
        found += pool.state.projects.held["limited"] > 7
    return found


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
