"""That the probe of the order of service notices the faults that it is for."""

from __future__ import annotations

import random
import threading
from dataclasses import replace

import pytest
from tests.policies.quota import Quota
from tests.policies.rules import Tried
from tests.policies.scattered import Scattered
from tests.policies.trial import Outcome, Trial
from tests.policies.tried import POLICIES

from seatkeeper.server.domain import Instant
from seatkeeper.server.policy.fifo import FIFO
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.snapshot import PoolSnapshot

FAULTY = 1_500
"""Decisions among which a fault shows."""
BY_NAME = {tried.name: tried for tried in POLICIES}


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_policy_is_served_without_a_hot_loop_and_without_a_missed_wake(
    name: str, nodes: int
) -> None:
    outcome = Trial(BY_NAME[name], 5, nodes=nodes).run(300)
    assert outcome.is_correct, outcome
    assert outcome.decisions >= 300
    assert outcome.looks > 5
    assert outcome.plans < 20 * outcome.decisions


def test_the_same_seed_gives_the_same_outcome() -> None:
    first, second = (Trial(BY_NAME["scattered"], 3).run(100) for _ in range(2))
    assert first == second


def test_what_other_threads_draw_changes_no_outcome() -> None:
    """Such as one of a test before, which still runs."""
    alone = Trial(BY_NAME["scattered"], 3, nodes=2).run(300)
    over = threading.Event()

    def draw() -> None:
        while not over.is_set():
            random.random()

    drawing = threading.Thread(target=draw)
    drawing.start()
    try:
        beside = Trial(BY_NAME["scattered"], 3, nodes=2).run(300)
    finally:
        over.set()
        drawing.join()
    assert alone == beside


def test_a_quota_that_the_decision_alone_knows_is_a_hot_loop() -> None:
    """The first of the old faults: the head fits, and is never served."""
    outcome = Trial(BY_NAME["quota"], 1, loops_by=FIFO).run(FAULTY)
    assert outcome.idle_commits > 0


def test_a_loop_that_wakes_for_the_head_of_the_queue_alone_leaves_small_requests_unserved() -> (
    None
):
    """The second of them. It takes a small request beside a large one, at the end of a burst.

    Seed 7 has that now; others are looked through once what a seed draws has changed.
    """
    seeds = (7, *range(16))
    tried = (Trial(BY_NAME["small_first"], seed, loops_by=FIFO) for seed in seeds)
    assert any(trial.run(FAULTY).missed_wakes for trial in tried)


class Forgetful(Scattered):
    """Does not say when its plans change."""

    def plan(self, pool: PoolSnapshot, now: Instant) -> Plan:
        return replace(super().plan(pool, now), next_wake=None)


def test_a_time_that_the_loop_does_not_wake_at_is_a_missed_wake() -> None:
    outcome = Trial(BY_NAME["scattered"], 1, loops_by=Forgetful(11)).run(FAULTY)
    assert outcome.missed_wakes > 0


@pytest.mark.parametrize("name", ["quota", "scattered", "shares", "small_first"])
def test_a_rule_that_is_not_kept_is_seen_in_the_history(name: str) -> None:
    served_by_fifo = Tried(name, lambda: FIFO, BY_NAME[name].rule)
    outcome: Outcome = Trial(served_by_fifo, 1).run(FAULTY)
    assert outcome.broken


def test_a_quota_of_another_number_breaks_the_rule() -> None:
    tried = Tried("quota", lambda: Quota(3), BY_NAME["quota"].rule)
    assert Trial(tried, 1).run(FAULTY).broken
