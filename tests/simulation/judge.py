"""What must be true of a run, whatever went wrong in it."""

from __future__ import annotations

from collections import Counter

from bench.history import replay
from tests.simulation.cluster import KEYS, SimCluster
from tests.simulation.faults import Faults
from tests.simulation.users import Record

from seatkeeper.server import records
from seatkeeper.v1 import build_pb2, state_pb2

RECLAIM_SECONDS = 2.5
"""How long after the end of its lease a seat may be held: etcd's sweep and a decision."""


class Judge:
    """Looks at beliefs while the run goes on, and at everything else at its end."""

    def __init__(self, cluster: SimCluster, record: Record, faults: Faults) -> None:
        self.violations: list[str] = []
        self._cluster = cluster
        self._record = record
        self._faults = faults
        self._world = cluster.world
        self._capacity: dict[str, int] = {}
        self._overbelieved: set[str] = set()

    def watch(self, pools: dict[str, int], interval: float) -> None:
        """Compare what users believe with what there is, again and again."""
        self._capacity = pools

        def look() -> None:
            self._look_at_beliefs()
            self._world.call_in(interval, look)

        self._world.call_in(interval, look)

    def _look_at_beliefs(self) -> None:
        held: Counter[str] = Counter()
        live = [belief for belief in self._record.beliefs if belief.is_held]
        self._record.beliefs[:] = [b for b in self._record.beliefs if not b.is_over]
        for belief in live:
            held[belief.pool] += belief.seats
        for pool, seats in held.items():
            if seats > self._capacity[pool] and pool not in self._overbelieved:
                self._overbelieved.add(pool)
                users = ", ".join(b.user for b in live if b.pool == pool)
                self._say(
                    f"I5 at {self._world.now:.2f} s: {users} believe in {seats} seats of "
                    f"{self._capacity[pool]} of {pool}"
                )

    def conclude(self) -> list[str]:
        """Look at the whole run; return what was wrong."""
        self._look_at_history()
        self._look_at_answers()
        self._look_at_engines()
        if self._faults.kinds is Faults.DEATHS:
            for user, at in self._record.unserved:
                if user not in self._faults.struck:
                    self._say(
                        f"I8: {user} was not served at {at:.2f} s, and only others had died"
                    )
        self._look_at_the_dead()
        for error in self._world.errors:
            self._say(f"an error that nobody caught: {error}")
        return self.violations

    def _look_at_history(self) -> None:
        """I1, I2, I4, I6, by etcd's own history, revision by revision."""
        for pool, history in replay(self._cluster.store.changes, KEYS).items():
            for fault in history.faults:
                self._say(
                    f"{pool}: {fault.kind.value} at revision {fault.revision}: {fault.message}"
                )
            if history.out or history.waiting:
                self._say(
                    f"I8 {pool}: {history.out} seats out and {history.waiting} tickets at the end"
                )

    def _look_at_answers(self) -> None:
        """I3: what was told is in the history; what was given back is gone."""
        granted: dict[tuple[str, str], set[int]] = {}
        gone_at: dict[tuple[str, str], float] = {}
        for change in self._cluster.store.changes:
            for pool in self._capacity:
                prefix = KEYS.grant(pool, "")
                if change.key.startswith(prefix):
                    grant_id = change.key.removeprefix(prefix)
                    if change.entry is None:
                        gone_at[pool, grant_id] = self._cluster.store.changed_at[
                            change.revision
                        ]
                    else:
                        fence = records.decode_grant(grant_id, change.entry.value).fence
                        granted.setdefault((pool, grant_id), set()).add(fence)
                        gone_at.pop((pool, grant_id), None)
        for told in self._record.acquired:
            if told.fence not in granted.get((told.pool, told.grant_id), ()):
                self._say(f"I3: {told} is in no revision")
        for refused in self._record.denied:
            key = refused.pool, refused.grant_id
            if key in granted and gone_at.get(key, float("inf")) > refused.at:
                self._say(f"I3: {refused} and held a seat until {gone_at.get(key)}")
        for back in self._record.returned:
            when = gone_at.get((back.pool, back.grant_id))
            if (back.pool, back.grant_id) in granted and (when is None or when > back.at):
                self._say(f"I3: {back} and it was gone at {when}")

    def _look_at_engines(self) -> None:
        """I9: what is published is published under a grant that lives, and never by an older one."""
        live: dict[tuple[str, str], int] = {}
        newest: dict[tuple[str, str], int] = {}
        written: set[tuple[str, str, int]] = set()
        for change in self._cluster.store.changes:
            for pool in self._capacity:
                prefix = KEYS.grant(pool, "")
                if change.key.startswith(prefix):
                    name = pool, change.key.removeprefix(prefix)
                    live.pop(name, None)
                    if change.entry is not None:
                        live[name] = records.decode_grant(name[1], change.entry.value).fence
            if change.key.startswith(KEYS.engines()) and change.entry is not None:
                manifest = _manifest_of(change.entry.value)
                name = manifest.pool, manifest.grant_id
                written.add((*name, manifest.fence))
                if live.get(name) != manifest.fence:
                    self._say(
                        f"I9: revision {change.revision} publishes under no grant: {name}"
                    )
                if newest.get((manifest.pool, manifest.key), 0) > manifest.fence:
                    self._say(f"I9: revision {change.revision} publishes under an old fence")
                newest[manifest.pool, manifest.key] = manifest.fence
        for told in self._record.published:
            if (told.pool, told.grant_id, told.fence) not in written:
                self._say(f"I3: {told} is in no revision")

    def _look_at_the_dead(self) -> None:
        """I7: what a killed user held is free in time."""
        held_until: dict[str, float] = {}
        holders: dict[str, str] = {}
        for change in self._cluster.store.changes:
            for pool in self._capacity:
                prefix = KEYS.grant(pool, "")
                if not change.key.startswith(prefix):
                    continue
                if change.entry is not None:
                    grant = records.decode_grant(change.key, change.entry.value)
                    holders[change.key] = grant.holder
                elif change.key in holders:
                    holder = holders.pop(change.key)
                    at = self._cluster.store.changed_at[change.revision]
                    held_until[holder] = max(held_until.get(holder, 0.0), at)
        for name, killed_at in self._record.killed.items():
            deadline = self._deadline(killed_at)
            if held_until.get(name, 0.0) > deadline:
                self._say(
                    f"I7: {name} was killed at {killed_at:.2f} s and held a seat until "
                    f"{held_until[name]:.2f} s, past {deadline:.2f} s"
                )

    def _deadline(self, killed_at: float) -> float:
        """Return when the seats of a user must be free: its ttl, a restart of leases, a sweep.

        What keeps copies of its renewals on their way, or nodes from sending them, counts as if
        it had been alive until then.
        """
        ttl = 8.0
        last_sign = killed_at
        if killed_at < self._faults.disturbed_until:
            last_sign = self._faults.disturbed_until
        deadline = last_sign + ttl + RECLAIM_SECONDS
        for elected_at in self._cluster.etcd.elections:
            if killed_at <= elected_at <= deadline:
                deadline = max(deadline, elected_at + ttl + RECLAIM_SECONDS)
        return deadline

    def _say(self, violation: str) -> None:
        self.violations.append(violation)
        self._world.note(f"VIOLATION {violation}")


def _manifest_of(value: bytes) -> build_pb2.EngineManifest:
    record = state_pb2.EngineRecord.FromString(value)
    return build_pb2.EngineManifest.FromString(record.manifest.manifest)
