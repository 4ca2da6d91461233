"""Holders with several processes, in pools where these count once: drawn for some seeds.

Draws of its own, so that what happens in seeds without any stays as it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace

from tests.simulation.cluster import KEYS, SimCluster
from tests.simulation.users import SimSurroundings

from seatkeeper.chaos.users import LibraryUser, User, UserRecord
from seatkeeper.client import AsyncSeatClient, ClientConfig
from seatkeeper.oracle.stored import StoredGrant, located, read_grant
from seatkeeper.server.domain import NO_RULES, PoolPolicy
from seatkeeper.server.store import Change

COUNT_ONCE_SHARE = 0.3
"""Share of the seeds in which grants count once."""
NAMED = (("holder",), ("holder", "host"), ("holder", "host"), ("host",))
NAMED_WITH_LIMITS = ("holder", "host")
"""Where each holder, or each host, may hold so many seats, those who share one are of one of these."""


def with_count_once(
    seed: int, policies: Callable[[int], PoolPolicy]
) -> Callable[[int], PoolPolicy]:
    """Return what draws the policies of a seed's pools, in which grants count once in some seeds."""
    own = random.Random(f"counted once in {seed}")
    if own.random() >= COUNT_ONCE_SHARE:
        return policies

    def drawn(seats: int) -> PoolPolicy:
        policy, named = policies(seats), own.choice(NAMED)
        return replace(
            policy, count_once=named if policy.rules == NO_RULES else NAMED_WITH_LIMITS
        )

    return drawn


def twins(
    cluster: SimCluster, user_record: UserRecord, pools: dict[str, int], seed: int
) -> list[User]:
    """Return some processes of one holder, where a pool counts them once."""
    own = random.Random(f"twins of {seed}")
    counting = [
        (name, seats) for name, seats in pools.items() if cluster.shared[name].count_once
    ]
    return [
        LibraryUser(Twin(cluster, f"twin-{n}", own), user_record, counting, own)
        for n in range(own.randrange(2, 5))
        if counting
    ]


class Twin(SimSurroundings):
    """One of several processes of a holder; some are on the same host."""

    def __init__(self, cluster: SimCluster, name: str, rng: random.Random) -> None:
        super().__init__(cluster, name, rng)
        self.project = cluster.project_of("twins")

    def client(self, config: ClientConfig) -> AsyncSeatClient:
        return self._cluster.client(
            self.process, config, holder="user-twins", project=self.project
        )


def count_shared(changes: Iterable[Change]) -> int:
    """Return how many grants were made that took no seat, as far as the history shows."""
    live: dict[tuple[str, str], StoredGrant] = {}
    found = 0
    for pool, kind, name, change in located(changes, KEYS.prefix):
        if kind != "grants":
            continue
        before = live.pop((pool, name), None)
        if change.entry is None:
            continue
        grant = live[pool, name] = read_grant(name, change.entry.value)
        found += bool(grant.counts_once and before is None) and any(
            key != (pool, name)
            and (key[0], each.counts_once) == (pool, grant.counts_once)
            and each.seats >= grant.seats
            for key, each in live.items()
        )
    return found
