"""What must be true of a run, whatever went wrong in it."""

from __future__ import annotations

from tests.policies.history import broken_rules, stored_pool
from tests.policies.rules import Tried
from tests.simulation.cluster import KEYS, SimCluster
from tests.simulation.faults import Faults
from tests.simulation.usage import check_usage
from tests.simulation.world import EPOCH

from seatkeeper.chaos.users import UserRecord
from seatkeeper.oracle.checker import (
    check_answers,
    check_beliefs,
    check_history,
    check_patience,
    check_published,
    check_punctuality,
    check_reclaim,
    lives,
)
from seatkeeper.oracle.history import FaultKind
from seatkeeper.oracle.record import Believed
from seatkeeper.server.domain import Instant
from seatkeeper.server.policy.snapshot import PoolSnapshot

WAKE_SECONDS = 5.0
"""How long a ticket may wait that the policy would serve, when all is healed and nothing changes."""
LOOK_SECONDS = 0.5
RECLAIM_SECONDS = 2.5
"""How long after the end of its lease a seat may be held: etcd's sweep and a decision."""


class Referee:
    """Looks at beliefs while the run goes on, and at everything else at its end."""

    def __init__(
        self, cluster: SimCluster, story: UserRecord, faults: Faults, tried: Tried
    ) -> None:
        """``tried`` is the policy of the nodes, and what it promises."""
        self._tried = tried
        self._missed_wakes: dict[str, str] = {}
        self._cluster = cluster
        self._story = story
        self._faults = faults
        self._world = cluster.world
        self._capacity: dict[str, int] = {}
        self._believed: list[Believed] = []

    def watch(self, pools: dict[str, int], interval: float) -> None:
        """Write down what users believe in, again and again."""
        self._capacity = pools

        def look() -> None:
            self._believed += [belief.believed for belief in self._story.look()]
            self._world.call_in(interval, look)

        self._world.call_in(interval, look)

    def watch_for_missed_wakes(self) -> None:
        """Look from now on for tickets that the policy would serve, and that are not served."""
        policy, store = self._tried.policy(), self._cluster.store
        unserved: dict[str, tuple[int, float]] = {}

        def look() -> None:
            now = self._world.now
            for pool in self._capacity:
                state, revision = stored_pool(store, KEYS, pool)
                unix_millis = Instant(int((EPOCH + now) * 1000))
                serve = policy.plan(PoolSnapshot.of(state), unix_millis).serve
                if not serve or unserved.get(pool, (0, now))[0] != revision:
                    unserved[pool] = revision, now
                elif now - unserved[pool][1] > WAKE_SECONDS:
                    self._missed_wakes[serve[0].grant_id] = (
                        f"I8 {serve[0].grant_id} of {pool} was not served for {WAKE_SECONDS} s"
                    )
            self._world.call_in(LOOK_SECONDS, look)

        self._world.call_in(LOOK_SECONDS, look)

    def conclude(self) -> list[str]:
        """Look at the whole run; return what was wrong."""
        store, story = self._cluster.store, self._story
        self._believed += [belief.believed for belief in self._story.beliefs]
        found = lives(store.changes, store.changed_at, KEYS.prefix)
        violations = [
            *check_history(store.changes, KEYS.prefix, besides=self._own_rule),
            *check_answers(found, story),
            *check_beliefs(self._believed, self._capacity),
            *check_reclaim(found, story, self._deadline),
            *check_published(store.changes, story, KEYS.prefix),
            *check_patience(story.denied),
        ]
        if self._faults.kinds is Faults.DEATHS:
            struck = self._faults.struck
            others = (denied for denied in story.denied if denied.user not in struck)
            violations += check_punctuality(others)
        told = [str(violation) for violation in violations]
        if self._faults.kinds is Faults.DEATHS:
            told += [
                f"I8 {user} was not served at {at:.2f} s, and only others had died"
                for user, at in story.unserved
                if user not in self._faults.struck
            ]
        told += check_usage(store.changes, self._cluster.published)
        told += self._missed_wakes.values()
        for pool in self._capacity if self._own_rule else ():
            broken = broken_rules(store.changes, self._tried.rule(), KEYS, pool)
            told += [f"I6 {pool}, revision {revision}: {fault}" for revision, fault in broken]
        told += [f"an error that nobody caught: {error}" for error in self._world.errors]
        for violation in told:
            self._world.note(f"VIOLATION {violation}")
        return told

    @property
    def _own_rule(self) -> set[FaultKind]:
        """What the checker does not know of this policy, and its own rule says instead."""
        return set() if self._tried.name == "fifo" else {FaultKind.ORDER}

    def _deadline(self, user: str, killed_at: float) -> float:
        """Return when a killed user's seats must be free: its ttl, a restart of leases, a sweep.

        What keeps copies of its renewals on their way, or nodes from sending them, counts as if
        it had been alive until then.
        """
        last_sign = killed_at
        if killed_at < self._faults.disturbed_until:
            last_sign = self._faults.disturbed_until
        patience = self._story.ttls[user] + RECLAIM_SECONDS
        deadline = last_sign + patience
        for elected_at in self._cluster.etcd.elections:
            if killed_at <= elected_at <= deadline:
                deadline = max(deadline, elected_at + patience)
        return deadline
