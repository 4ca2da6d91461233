"""What calling seats back gives to projects, and that it does what it promises, in virtual time.

Two projects, each guaranteed half of the pool, want seats in stretches, and nothing between them: so
what one does not use is lent to the other for long, and called back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from bench.policy_pool import SEATS, Pool
from seatkeeper.server.domain import (
    Command,
    PoolPolicy,
    ProjectShare,
    Reclaim,
    ReclaimRule,
    Release,
)

NAMES = ("a", "b")
MEAN_HOLD = 20.0
"""Seconds that seats are held, if they are not called back: many times the notice."""
NOTICE, HEEDS, MINIMUM = timedelta(seconds=1), timedelta(seconds=2), timedelta(seconds=5)
STRETCH = 15.0
"""Mean seconds for which a project wants seats, or none."""
WAITING = 3


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What one seed came to."""

    reclaims: int
    """Grants that were called back."""
    taken: int
    """Those that were taken at the end of their notice."""
    late: int
    """Decisions after which a grant was called back still whose time was over."""
    cycles: int
    """Grants that were called back before they had been held for the minimum: seats to and fro."""
    under_guarantee: int
    """Decisions by which a reclaim took a project under its own guarantee."""


def reclaimed(seed: int, decisions: int) -> Reclaimed:
    """Play so many decisions."""
    shares = tuple(ProjectShare(project=name, guaranteed=SEATS // 2) for name in NAMES)
    policy = PoolPolicy(shares, reclaim=ReclaimRule(NOTICE, MINIMUM, hourly=1_000_000))
    pool = Pool.of(policy, seed)
    pool.mean_hold, pool.heeds_within = MEAN_HOLD, HEEDS
    wants = dict.fromkeys(NAMES, True)
    turns = {name: pool.now + pool.rng.expovariate(1 / STRETCH) for name in NAMES}
    known: dict[int, tuple[str, float]] = {}
    taken = late = cycles = under = 0
    for _ in range(decisions):
        running = pool.state.guard.reclaims.running
        at = min(pool.next_end, *turns.values(), *(_end(each) for each in running.values()))
        commands: list[Command] = []
        over = {each.number for each in running.values() if _end(each) <= at}
        if pool.next_end <= at:
            commands.append(pool.next_release())
        pool.now = at
        for name in NAMES:
            if turns[name] <= at:
                wants[name] = not wants[name]
                turns[name] = at + pool.rng.expovariate(1 / STRETCH)
            commands += _asks(pool, name, wants=wants[name])
        held_before = dict(pool.state.grants)
        decision = pool.decide(commands, over)
        taken += len(decision.reclaimed_fences)
        fences = {grant.fence: grant.project for grant in held_before.values()}
        for project in {fences[fence] for fence in decision.reclaimed_fences}:
            under += pool.state.projects.held.get(project, 0) < SEATS // 2
        for grant_id, reclaim in pool.state.guard.reclaims.running.items():
            late += _end(reclaim) < at
            if reclaim.number not in known:
                grant = pool.state.grants[grant_id]
                known[reclaim.number] = grant_id, at
                cycles += at - grant.granted_at / 1000 < MINIMUM.total_seconds() - 0.001
    return Reclaimed(len(known), taken, late, cycles, under)


def _end(reclaim: Reclaim) -> float:
    return reclaim.decided_at / 1000 + reclaim.within.total_seconds()


def _asks(pool: Pool, name: str, *, wants: bool) -> list[Command]:
    """Return what keeps some requests of a project waiting, or none."""
    waiting = [each for each in pool.state.tickets.values() if each.project == name]
    if wants:
        return [pool.asks(name) for _ in range(WAITING - len(waiting))]
    return [Release(each.grant_id, each.session_id, each.lease_id) for each in waiting]


def guarantee_wait_seconds(seed: int) -> float:
    """Return how long a project waits for five guaranteed seats while all are lent, in seconds.

    Their holders use their notice to its end: ``NOTICE`` and ``HEEDS`` together are the least.
    """
    shares = (ProjectShare(project="promised", guaranteed=5), ProjectShare(project="others"))
    policy = PoolPolicy(shares, reclaim=ReclaimRule(NOTICE, timedelta(0), hourly=1_000))
    pool = Pool.of(policy, seed)
    pool.mean_hold, pool.heeds_within = 1_000_000.0, HEEDS
    pool.decide([pool.asks("others") for _ in range(2 * SEATS)])
    came = pool.now = pool.now + 10
    pool.decide([pool.asks("promised") for _ in range(5)])
    pool.decide([])  # what was new is stored by now
    while (running := pool.state.guard.reclaims.running) and len(running) < 5:
        pool.decide([])
    while pool.state.projects.held.get("promised", 0) < 5 and running:
        pool.now = min(map(_end, running.values()))
        over = {each.number for each in running.values() if _end(each) <= pool.now}
        pool.decide([], over)
        running = pool.state.guard.reclaims.running
    return pool.now - came
