"""What must be true of a run, whatever went wrong in it."""

from __future__ import annotations

from dataclasses import replace

from tests.policies.history import broken_rules, stored_pool
from tests.policies.rules import Rule, Tried
from tests.policies.shares_kept import SharesKept
from tests.policies.tried import BY_POOL
from tests.simulation.administrators import (
    Administrator,
    as_far_as_promised,
    check_acts,
    taken_by_force,
)
from tests.simulation.borrowers import check_borrowed
from tests.simulation.cluster import KEYS, SimCluster
from tests.simulation.faults import Faults
from tests.simulation.holds import check_holds
from tests.simulation.losses import Losses
from tests.simulation.lots import GRACE_MILLIS, SKEW_MILLIS
from tests.simulation.moves import check_moves
from tests.simulation.usage import check_usage
from tests.simulation.world import EPOCH

from seatkeeper.chaos.users import UserRecord
from seatkeeper.oracle.bursts import check_bursts
from seatkeeper.oracle.checker import (
    check_answers,
    check_beliefs,
    check_history,
    check_published,
    check_punctuality,
    check_reclaim,
    check_waits,
    lives,
)
from seatkeeper.oracle.history import FaultKind
from seatkeeper.oracle.lots import check_lots, unwritten
from seatkeeper.oracle.notices import check_notices
from seatkeeper.oracle.record import Believed
from seatkeeper.oracle.stays import check_stays
from seatkeeper.oracle.windows import check_windows, unwritten_windows
from seatkeeper.server.domain import NO_POLICY, Instant
from seatkeeper.server.policy.snapshot import PoolSnapshot

WAKE_SECONDS = 5.0
"""How long a ticket may wait that the policy would serve, when all is recovered and nothing changes."""
LOOK_SECONDS = 0.5
RECLAIM_SECONDS = 2.5
"""How long after the end of its lease a seat may be held: etcd's sweep and a decision."""


class Referee:
    """Looks at beliefs while the run goes on, and at everything else at its end."""

    def __init__(
        self, cluster: SimCluster, user_record: UserRecord, faults: Faults, tried: Tried
    ) -> None:
        """``tried`` is the policy of the nodes, and what it promises."""
        self._tried = tried
        self._missed_wakes: dict[str, str] = {}
        self._cluster = cluster
        self._user_record = user_record
        self._faults = faults
        self._world = cluster.world
        self._capacity: dict[str, int] = {}
        self._believed: list[Believed] = []
        self._losses = Losses(cluster.world)
        cluster.board.on_answer = self._losses.answered
        cluster.board.on_end = self._losses.ended

    def watch(self, pools: dict[str, int], interval: float) -> None:
        """Write down what users believe in, again and again."""
        self._capacity = pools

        def look() -> None:
            self._believed += [belief.believed for belief in self._user_record.look()]
            self._world.call_in(interval, look)

        self._world.call_in(interval, look)

    def watch_for_missed_wakes(self) -> None:
        """Look from now on for tickets that the policy would serve, and that are not served.

        Only in pools that a node follows. Where the clients of all tickets are dead, or have not come
        back yet, no node may: those tickets go with their sessions.
        """
        policy, store = self._tried.policy(), self._cluster.store
        unserved: dict[str, tuple[int, float]] = {}

        def look() -> None:
            now = self._world.now
            for pool in self._capacity:
                state, revision = stored_pool(store, KEYS, pool)
                unix_millis = Instant(int((EPOCH + now) * 1000))
                serve = policy.plan(PoolSnapshot.of(state), unix_millis).serve
                is_followed = any(node.follows(pool) for node in self._cluster.nodes)
                is_due = bool(serve) and is_followed
                if not is_due or unserved.get(pool, (0, now))[0] != revision:
                    unserved[pool] = revision, now
                elif now - unserved[pool][1] > WAKE_SECONDS:
                    self._missed_wakes[serve[0].grant_id] = (
                        f"I8 {serve[0].grant_id} of {pool} was not served for {WAKE_SECONDS} s"
                    )
            self._world.call_in(LOOK_SECONDS, look)

        self._world.call_in(LOOK_SECONDS, look)

    def conclude(self) -> list[str]:
        """Look at the whole run; return what was wrong."""
        store, user_record = self._cluster.store, self._user_record
        self._believed += [belief.believed for belief in self._user_record.beliefs]
        are_clocks_right = not any("jump_clock" in each for each in self._faults.injected)
        if are_clocks_right:  # else a machine's day may be another than a node's
            self._believed += self._user_record.borrowed
        found = lives(store.changes, store.changed_at, KEYS.prefix)
        taken = taken_by_force(store.changes, store.changed_at)
        believed = as_far_as_promised(self._believed, taken)
        violations = [
            *check_history(store.changes, KEYS.prefix, besides=self._own_rule),
            *check_answers(found, user_record),
            *check_beliefs(believed, self._cluster.most, found),
            *check_reclaim(found, user_record, self._deadline),
            *check_published(store.changes, user_record, KEYS.prefix),
            *check_waits(user_record.denied),
        ]
        if self._faults.kinds is Faults.DEATHS:
            affected = self._faults.affected
            others = (denied for denied in user_record.denied if denied.user not in affected)
            violations += check_punctuality(others)
        reported = [str(violation) for violation in violations]
        if self._faults.kinds is Faults.DEATHS:
            reported += [
                f"I8 {user} was not served at {at:.2f} s, and only others had died"
                for user, at in user_record.unserved
                if user not in self._faults.affected
            ]
        reported += self._missed_wakes.values()
        for pool, rule in self._rules.items():
            broken = broken_rules(store.changes, rule, KEYS, pool)
            reported += [
                f"I6 {pool}, revision {revision}: {fault}" for revision, fault in broken
            ]
        reported += [f"an uncaught error: {error}" for error in self._world.errors]
        reported += check_usage(store.changes, self._cluster.published)
        reported += self._lots()
        reported += self._stays()
        reported += self._losses.check(store.changes, store.changed_at)
        administrators = [
            user for user in self._faults.users if isinstance(user, Administrator)
        ]
        acts = [act for user in administrators for act in user.acts]
        reported += check_acts(store.changes, store.changed_at, acts)
        reported += check_notices(store.changes, store.changed_at, prefix=KEYS.prefix)
        reported += check_borrowed(
            store.changes, store.changed_at, are_clocks_right=are_clocks_right
        )
        said = [act for user in administrators for act in user.holds]
        reported += check_holds(store.changes, store.changed_at, said)
        moves = [move for user in administrators for move in user.moves]
        reported += check_moves(store.changes, store.changed_at, moves)
        for violation in reported:
            self._world.note(f"VIOLATION {violation}")
        return reported

    def _lots(self) -> list[str]:
        """Return what is wrong with what nodes have written of lots, and of windows."""
        changes = self._cluster.store.changes
        at = {
            revision: (EPOCH + seconds) * 1000
            for revision, seconds in self._cluster.store.changed_at.items()
        }
        found = check_lots(changes, at, skew_millis=SKEW_MILLIS, prefix=KEYS.prefix)
        # By the clock of the node that is ahead of the others: where they do not write, it does.
        processes = [node.process for node in self._cluster.nodes if node.is_alive]
        ahead = max((each.clock_ahead for each in processes if each is not None), default=-1e9)
        now = (EPOCH + self._world.now + ahead) * 1000 - GRACE_MILLIS
        late = unwritten(changes, now, KEYS.prefix)
        bursts = check_bursts(changes, KEYS.prefix)
        windows = check_windows(changes, at, skew_millis=SKEW_MILLIS, prefix=KEYS.prefix)
        not_moved = unwritten_windows(changes, now, KEYS.prefix)
        return [f"I1 {fault}" for fault in (*found, *late, *bursts, *windows, *not_moved)]

    def _stays(self) -> list[str]:
        """Return what is wrong with how long seats were kept."""

        def late(since: float, window: float) -> float:
            # A node that sees them anew measures no longer than the window; faults hold it up.
            begun = since
            if since < self._faults.disturbed_until + WAKE_SECONDS:
                begun = self._faults.disturbed_until + WAKE_SECONDS
            return begun + window + WAKE_SECONDS

        # Clocks decide only what a node measures that sees later that seats are kept.
        has_jumped = any(each.startswith("jump_clock") for each in self._faults.injected)
        found = check_stays(
            *(self._cluster.store.changes, self._cluster.store.changed_at),
            ahead=SKEW_MILLIS / 1000 if has_jumped else 0.01,
            late=late,
            now=self._world.now,
            prefix=KEYS.prefix,
        )
        return [f"I7 {fault}" for fault in found]

    @property
    def _own_rule(self) -> set[FaultKind]:
        """What the checker does not know of this policy, and its own rule says instead."""
        return set() if self._tried.name == BY_POOL else {FaultKind.ORDER}

    @property
    def _rules(self) -> dict[str, Rule]:
        """What is promised of pools that are served otherwise than by priority and acceptance."""
        if self._own_rule:
            return {pool: self._tried.rule() for pool in self._capacity}
        shared = [
            (pool, replace(policy, hold=None, stay=None, borrow=None))
            for pool, policy in self._cluster.shared.items()
        ]
        ruled = self._cluster.ruled
        return {
            pool: SharesKept(policy)
            for pool, policy in shared
            if policy != NO_POLICY or pool in ruled
        }

    def _deadline(self, user: str, killed_at: float) -> float:
        """Return when a killed user's seats must be free: its ttl, a restart of leases, a sweep.

        What keeps copies of its renewals on their way, or nodes from sending them, counts as if
        it had been alive until then.
        """
        last_sign = killed_at
        if killed_at < self._faults.disturbed_until:
            last_sign = self._faults.disturbed_until
        time_limit = self._user_record.ttls[user] + RECLAIM_SECONDS
        deadline = last_sign + time_limit
        for elected_at in self._cluster.etcd.elections:
            if killed_at <= elected_at <= deadline:
                deadline = max(deadline, elected_at + time_limit)
        return deadline
