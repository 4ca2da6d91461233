"""One seed: a service, its users, its faults, and the checker."""

from __future__ import annotations

import gc
import logging
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from tests.policies.rules import Tried
from tests.policies.rules_kept import drawn_rules
from tests.policies.shares_kept import drawn_policy
from tests.policies.tried import BY_POOL, SIMULATED
from tests.simulation.administrators import Administrator
from tests.simulation.borrowers import (
    SETTLING_SECONDS as DAYS_SECONDS,
)
from tests.simulation.borrowers import (
    borrowers,
    borrows_of,
    drawn_borrow,
    set_clocks_right,
)
from tests.simulation.choosers import choosers
from tests.simulation.cluster import KEYS, SimCluster
from tests.simulation.counting import change_counting, counting_of, name_classes
from tests.simulation.faults import Faults
from tests.simulation.gangers import gangers
from tests.simulation.holds import drawn_hold, holds_of
from tests.simulation.lots import lots_of
from tests.simulation.movers import movers
from tests.simulation.referee import Referee
from tests.simulation.stays import returners, with_stays
from tests.simulation.twins import count_shared, twins, with_count_once
from tests.simulation.users import LastUser, SimSurroundings, process_of
from tests.simulation.windows import with_reservations
from tests.simulation.world import World

from seatkeeper.chaos.policy_users import Hoarder
from seatkeeper.chaos.users import Agent, LibraryUser, StubUser, User, UserRecord
from seatkeeper.oracle.alternatives import count_alternatives
from seatkeeper.oracle.bursts import count_lots
from seatkeeper.oracle.gangs import count_gangs
from seatkeeper.oracle.kept_free import count_kept_free
from seatkeeper.oracle.reclaims import count_reclaims
from seatkeeper.oracle.stays import count_stays
from seatkeeper.oracle.taken_over import count_taken_over
from seatkeeper.server.domain import NO_POLICY, NO_RULES, PoolPolicy
from seatkeeper.server.pool.context import LISTING_STEP

RULES_SECONDS = 5.0
"""Mean time between two changes of rules, where there are some."""
STARTING_SECONDS = 3.0
STOPPING_SECONDS = 60.0
"""How long everybody has to finish when all is recovered (I8); waits are 10 s at most."""
SETTLING_SECONDS = 14.0
"""How long leases of the dead, and of copies, may last after that."""
STAY_SECONDS = 6.0
"""How long what the last ones released is kept, and a decision."""
LOOK_SECONDS = 0.1
WORKS_SHARE = 0.25
"""Share of the seeds in which requests name work that one holder does at a time."""
ADMINISTRATORS_SHARE = 0.3
"""Share of the seeds in which an administrator ends what others wait for and hold."""
POLICIES_SHARE = 0.5
"""Share of the seeds in which pools are shared among projects."""
RULES_SHARE = 1 / 3
"""Share of the seeds in which pools say who may use them, and how much each may have; that changes."""


@dataclass
class Outcome:
    """What came of a seed."""

    seed: int
    digest: str
    operations: int
    grants: int
    called_back: tuple[int, int]
    """Grants that were called back, and those of them that were taken at the end of their notice."""
    gangs: int
    """Gangs that were granted."""
    alternatives: int
    """Grants of one of several."""
    kept_free: int
    """Times that seats were kept free for a gang."""
    stays: tuple[int, int]
    """How often seats were kept, and how often they were taken over by those they were kept for."""
    taken_over: int
    """Grants whose holders took their seats over in another session."""
    shared: int
    """Grants that took no seat, as they counted once with others."""
    lots: tuple[int, int]
    """Bursts that rules have started, and grants with seats of an overdraft."""
    faults: int
    violations: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """What is added up over seeds, by its name in the summary."""
        (kept, returned), (called_back, taken_back) = self.stays, self.called_back
        return {
            "operations": self.operations,
            "grants": self.grants,
            "gangs": self.gangs,
            "of_alternatives": self.alternatives,
            "kept_free": self.kept_free,
            "kept": kept,
            "returned": returned - self.taken_over,
            "taken_over": self.taken_over,
            "counted_once": self.shared,
            "called_back": called_back,
            "taken_back": taken_back,
            "bursts_by_rule": self.lots[0],
            "overdraft_grants": self.lots[1],
            "faults": self.faults,
            "violations": len(self.violations),
        }


def simulate(seed: int, *, policy: str = BY_POOL, log: bool = False) -> Outcome:
    """Run one seed under a policy. The same seed gives the same outcome, digest included.

    Logging and the shared random state are left as they were: other tests run in this process.
    """
    with undisturbed(seed):
        return _simulate(seed, SIMULATED[policy], log=log)


def prepare_process(folder: str | None = None) -> None:
    """Prepare a process that does nothing but run seeds, once everything is imported.

    What is loaded by then stays to the end: looking through it after each seed took a fifth of the
    time. Temporary files go to ``folder``, where given, which another process cleans up.
    """
    gc.freeze()
    if folder is not None:
        tempfile.tempdir = folder


@contextmanager
def undisturbed(seed: int) -> Iterator[None]:
    """Keep what a simulation shares with its surroundings from deciding anything in the block.

    Logging and the shared random state are as they were after it.
    """
    disabled, state = logging.root.manager.disable, random.getstate()
    logging.disable(logging.CRITICAL)
    random.seed(seed)
    gc.disable()
    try:
        yield
    finally:
        _clean_up()
        random.setstate(state)
        logging.disable(disabled)


def _clean_up() -> None:
    """Throw away what was under way in processes that are no more: it cannot end in good order."""
    said, sys.unraisablehook = sys.unraisablehook, lambda unraisable: None
    try:
        gc.enable()
        gc.collect()
    finally:
        sys.unraisablehook = said


def _simulate(seed: int, tried: Tried, *, log: bool) -> Outcome:
    world = World(seed)
    if log:
        world.log = []
    rng = world.rng
    user_record = UserRecord()
    count, policy = rng.choice([1, 2, 3, 3, 3]), tried.policy()
    # Not drawn from the world's: what else happens in a seed stays as it is.
    step = random.Random(seed).choice([1, 3, LISTING_STEP])
    policies = _policies(seed, tried)
    if tried.name == BY_POOL:
        policies = with_stays(seed, with_reservations(seed, policies))
        policies = with_count_once(seed, policies)
    with SimCluster(
        world,
        nodes_count=count,
        policy=policy,
        policies=policies,
        lots=lots_of(seed),
        listing_step=step,
    ) as cluster:
        pools = {f"pool-{n}": rng.choice([1, 1, 2, 4]) for n in range(rng.choice([1, 1, 2]))}
        for name, seats in pools.items():
            cluster.pool(name, seats)
        world.run(STARTING_SECONDS)
        users = _users(cluster, user_record, pools, seed)
        kinds = rng.choice([Faults.KINDS, Faults.KINDS, Faults.KINDS, Faults.DEATHS])
        faults = Faults(cluster, users, random.Random(rng.getrandbits(64)), kinds)
        assess = Referee(cluster, user_record, faults, tried)
        assess.watch(pools, LOOK_SECONDS)
        until = world.now + rng.choice([10.0, 20.0, 30.0])
        for user in users:
            user.begin(until)
        faults.begin(until, mean_pause=rng.choice([0.5, 1.0, 3.0, 1e9]))
        _change_rules(cluster, pools, seed, until)
        change_counting(cluster, pools, seed, until)
        world.run(until)
        faults.recover()
        assess.watch_for_missed_wakes()
        world.run(
            world.now + STOPPING_SECONDS,
            done=lambda: all(user.is_done or not process_of(user).is_alive for user in users),
        )
        unfinished = [
            f"I8 {user.name} is not done"
            for user in users
            if not user.is_done and process_of(user).is_alive
        ]
        world.run(world.now + SETTLING_SECONDS)
        if any(policy.borrow is not None for policy in cluster.shared.values()):
            set_clocks_right(cluster)
            world.run(world.now + DAYS_SECONDS)
        unserved = _unserved_at_last(cluster, user_record, pools)
        if any(policy.stay is not None for policy in cluster.shared.values()):
            world.run(world.now + STAY_SECONDS)
        violations = unfinished + unserved + assess.conclude()
        return Outcome(
            seed=seed,
            digest=world.digest,
            operations=user_record.operations,
            grants=len(user_record.acquired),
            called_back=count_reclaims(cluster.store.changes, KEYS.prefix),
            gangs=count_gangs(cluster.store.changes, KEYS.prefix),
            alternatives=count_alternatives(cluster.store.changes, KEYS.prefix),
            kept_free=count_kept_free(cluster.store.changes, KEYS.prefix),
            stays=count_stays(cluster.store.changes, KEYS.prefix),
            taken_over=count_taken_over(cluster.store.changes, KEYS.prefix),
            shared=count_shared(cluster.store.changes),
            lots=count_lots(cluster.store.changes, KEYS.prefix),
            faults=len(faults.injected),
            violations=violations,
            log=world.log or [],
        )


def _policies(seed: int, tried: Tried) -> Callable[[int], PoolPolicy]:
    """Return what draws the policies of a seed's pools: in half of the seeds there are some."""
    own = random.Random(f"policies of {seed}")
    if tried.name != BY_POOL:
        return lambda seats: NO_POLICY
    is_shared = own.random() < POLICIES_SHARE
    rules, holds, counting = _rules_of(seed), holds_of(seed), counting_of(seed)
    borrows = borrows_of(seed)

    def drawn(seats: int) -> PoolPolicy:
        policy = drawn_policy(own, seats) if is_shared else NO_POLICY
        policy = replace(policy, counting=counting)
        policy = replace(policy, rules=drawn_rules(rules, seats)) if rules else policy
        policy = replace(policy, hold=drawn_hold(holds)) if holds else policy
        return replace(policy, borrow=drawn_borrow(borrows, seats)) if borrows else policy

    return drawn


def _rules_of(seed: int) -> random.Random | None:
    """Return what draws the rules of a seed; None: it has none."""
    own = random.Random(f"rules of {seed}")
    return own if own.random() < RULES_SHARE else None


def _change_rules(cluster: SimCluster, pools: dict[str, int], seed: int, until: float) -> None:
    """Have rules changed now and then, where there are some: also for those that wait."""
    if all(policy.rules == NO_RULES for policy in cluster.shared.values()):
        return
    own = random.Random(f"changes of rules of {seed}")
    moment = cluster.world.now + own.expovariate(1 / RULES_SECONDS)
    while moment < until:
        name = own.choice(sorted(pools))
        rules = drawn_rules(own, pools[name]) if own.random() < 0.7 else NO_RULES
        cluster.world.call_at(moment, partial(cluster.rule, name, rules))
        moment += own.expovariate(1 / RULES_SECONDS)


def _unserved_at_last(
    cluster: SimCluster, user_record: UserRecord, pools: dict[str, int]
) -> list[str]:
    """Ask every node for a seat of every pool, now that none is held; say which got none."""
    world = cluster.world
    found: list[str] = []
    for node in cluster.nodes:
        own = random.Random(world.rng.getrandbits(64))
        here = SimSurroundings(cluster, f"last-at-{node.name}", own, [node])
        user = LastUser(here, user_record, list(pools.items()), own)
        user.begin(world.now)
        world.run(world.now + STOPPING_SECONDS, done=partial(_is_done, user))
        found += [
            f"I8 {user.name} got no seat of {pool}, and none was held"
            for pool in (user.unserved if user.is_done else pools)
        ]
    return found


def _is_done(user: User) -> bool:
    return user.is_done


def _users(
    cluster: SimCluster, user_record: UserRecord, pools: dict[str, int], seed: int
) -> list[User]:
    rng = cluster.world.rng
    found: list[User] = []
    for number in range(rng.randrange(3, 8)):
        kind = LibraryUser if rng.random() < 0.6 else StubUser
        own = random.Random(rng.getrandbits(64))
        here = SimSurroundings(cluster, f"user-{number}", own)
        found.append(kind(here, user_record, list(pools.items()), own))
    # Not drawn from the world's either.
    works = random.Random(f"works of {seed}")
    if works.random() < WORKS_SHARE:
        for user in found:
            if isinstance(user, LibraryUser):
                user.works = works
    name_classes(found, seed)
    agents: list[Agent] = []
    for number in range(rng.choice([0, 1, 2, 3])):
        own = random.Random(rng.getrandbits(64))
        here = SimSurroundings(cluster, f"agent-{number}", own)
        agents.append(Agent(here, user_record, (), own))
    for user in found:
        if isinstance(user, LibraryUser):
            user.agents = agents
    found += _hoarders(cluster, user_record, pools, seed)
    found += gangers(cluster, user_record, pools, seed)
    found += choosers(cluster, user_record, pools, seed)
    found += returners(cluster, user_record, pools, seed)
    found += movers(cluster, user_record, pools, seed)
    found += borrowers(cluster, user_record, pools, seed)
    found += twins(cluster, user_record, pools, seed)
    return [*found, *agents, *_administrators(cluster, user_record, pools, seed)]


def _hoarders(
    cluster: SimCluster, user_record: UserRecord, pools: dict[str, int], seed: int
) -> list[User]:
    """Return some where a pool calls seats back."""
    own = random.Random(f"hoarders of {seed}")
    recalling = [
        (name, seats)
        for name, seats in pools.items()
        if cluster.shared[name].reclaim is not None or cluster.shared[name].hold is not None
    ]
    return [
        Hoarder(SimSurroundings(cluster, f"hoarder-{n}", own), user_record, recalling, own)
        for n in range(own.randrange(2, 5))
        if recalling
    ]


def _administrators(
    cluster: SimCluster, user_record: UserRecord, pools: dict[str, int], seed: int
) -> list[Administrator]:
    own = random.Random(f"administrators of {seed}")
    if own.random() >= ADMINISTRATORS_SHARE:
        return []
    here = SimSurroundings(cluster, "administrator", own)
    return [Administrator(here, user_record, list(pools.items()), own)]
