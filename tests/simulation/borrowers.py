"""Machines that borrow seats in simulation: switched off, given back or not; and what they are held to.

Draws of their own, so that what happens in seeds without any stays as it is.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta

from tests.simulation.cluster import KEYS, SimCluster
from tests.simulation.users import SimSurroundings
from tests.simulation.world import EPOCH

from seatkeeper.chaos.policy_users import Borrower
from seatkeeper.chaos.users import UserRecord
from seatkeeper.core.borrowing import BorrowRule
from seatkeeper.core.pool_rules import Who
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.stored import StoredGrant, located, read_grant
from seatkeeper.server.store import Change

BORROWS_SHARE = 0.3
"""Share of the seeds in which pools lend seats to machines."""
LONGEST = timedelta(seconds=6)
DRIFT_MILLIS = 100
"""How much clocks differ by their rates, at most, in the time of a borrowed seat."""
SETTLING_SECONDS = LONGEST.total_seconds() + 2.0 + 12.0
"""When every seat is free after all has recovered: its day, the skew, and a node's longest pause."""


def borrows_of(seed: int) -> random.Random | None:
    """Return what draws the rules of a seed's pools; None: they lend nothing."""
    own = random.Random(f"borrows of {seed}")
    return own if own.random() < BORROWS_SHARE else None


def drawn_borrow(own: random.Random, seats: int) -> BorrowRule:
    """Draw a rule, also such that lets nothing be borrowed, or by some alone."""
    drawn = BorrowRule(
        longest=LONGEST,
        seats=own.choice([None, 1, 1, max(0, seats - 1)]),
        skew=timedelta(seconds=own.choice([0.0, 0.5, 2.0])),
        low_water=own.choice([0, 0, 1]),
    )
    # Not drawn from the same: what else happens in a seed stays as it is.
    who = random.Random(f"{drawn} of {seats}")
    if who.random() < 0.3:
        drawn = replace(drawn, exclude=Who(holders=("borrower-0",), projects=("asr",)))
    if who.random() < 0.2:
        drawn = replace(drawn, include=Who(holders=("borrower-*",), hosts=("host-0",)))
    if who.random() < 0.3:
        drawn = replace(drawn, per_project=who.choice([0, 1]))
    return drawn


def borrowers(
    cluster: SimCluster, user_record: UserRecord, pools: dict[str, int], seed: int
) -> list[Borrower]:
    """Return those of a seed."""
    own = random.Random(f"borrowers of {seed}")
    lending = [
        (name, n) for name, n in pools.items() if cluster.shared[name].borrow is not None
    ]
    return [
        Borrower(SimSurroundings(cluster, f"borrower-{n}", own), user_record, lending, own)
        for n in range(own.randrange(1, 4))
        if lending
    ]


def set_clocks_right(cluster: SimCluster) -> None:
    """Set the clocks of nodes right, as an operator does: days are over by these."""
    for node in cluster.nodes:
        if node.process is not None:
            node.process.clock_ahead = 0.0


def check_borrowed(
    changes: Iterable[Change], changed_at: Mapping[int, float], *, are_clocks_right: bool
) -> Iterator[str]:
    """Yield what is borrowed still at the end, and what was freed before its day by true time (I7).

    ``are_clocks_right``: none jumped; otherwise the day is what the clocks of nodes said.
    """
    changes = list(changes)
    there: dict[tuple[str, str], StoredGrant] = {}
    returned: set[tuple[str, int]] = set()
    for pool, kind, _, change in located(changes, KEYS.prefix):
        if kind == "guard" and change.entry is not None:
            returned |= {(pool, fence) for fence in _ended_early(change.entry.value)}
    for pool, kind, name, change in located(changes, KEYS.prefix):
        if kind != "grants":
            continue
        if change.entry is not None:
            there[pool, name] = read_grant(name, change.entry.value)
            continue
        gone = there.pop((pool, name), None)
        if gone is None or gone.borrow is None or (pool, gone.fence) in returned:
            continue
        at_millis = (EPOCH + changed_at[change.revision]) * 1000
        if are_clocks_right and at_millis + DRIFT_MILLIS < gone.borrow.free_at_millis:
            yield f"I7 {name} of {pool} was freed before its day, at {at_millis:.0f}"
    for (pool, name), grant in there.items():
        if grant.borrow is not None:
            yield f"I7 {name} of {pool} is borrowed still, and its day is over"


def _ended_early(guard: bytes) -> set[int]:
    record = state_pb2.GuardRecord.FromString(guard)
    facts = state_pb2.DecisionFacts.FromString(record.facts)
    return {*facts.returned_fences, *facts.reclaimed_fences}
