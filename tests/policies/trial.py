"""The real loop under a policy, in virtual time, with clients that do as they like.

One process has a store in memory and one or two nodes' loops of one pool. Between the acts of the
clients the service is left alone, and then checked: a ticket that the policy would serve in the pool as
the store has it must have been served. All of it follows from a seed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from unittest import mock

from tests.policies.history import broken_rules, stored_pool
from tests.policies.rules import Tried
from tests.simulation.world import EPOCH, StuckError, World
from tests.unit.kit import KEYS, POOL, Ear, create_pool, open_lease, uuid7

from seatkeeper.server.decide import Decision, decide, impossible_tickets
from seatkeeper.server.decide.staying import KeptEnds
from seatkeeper.server.domain import (
    Acquire,
    Command,
    Instant,
    Limits,
    PoolState,
    Release,
    Ticket,
)
from seatkeeper.server.domain.attribution import Attribution
from seatkeeper.server.events.observer import Observer
from seatkeeper.server.policy.fifo import FIFO
from seatkeeper.server.policy.plan import Plan, Policy
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.pool import committer
from seatkeeper.server.pool import loop as loop_module
from seatkeeper.server.pool.catalogue import PoolCatalogue
from seatkeeper.server.pool.context import LoopConfig, PoolContext
from seatkeeper.server.pool.loop import PoolLoop
from seatkeeper.server.sessions.sessions import lease_id_of
from seatkeeper.server.store import Change, MemoryStore, follow
from seatkeeper.server.wire import denials

PROJECTS = ("cv", "nlp", "asr")
SESSIONS = 5
QUEUE_USUAL = 25
"""Tickets from which on the clients ask for little more."""
CALL_SECONDS = 0.001
GRACE_SECONDS = 0.3
"""How long a ticket may wait that the policy would serve: a takeover by another node, and a commit."""
DRAWING = (loop_module, denials, follow)
"""The modules in which a random number is drawn that a pool's loop or a client acts on."""


@dataclass
class Outcome:
    """What came of a trial."""

    decisions: int = 0
    """Decisions of the loops, on commands and in the background."""
    idle_commits: int = 0
    """Decisions on no command that changed nothing."""
    missed_wakes: int = 0
    """Times that a ticket which the policy would serve was not served."""
    plans: int = 0
    """How often the loops asked the policy."""
    looks: int = 0
    """Times that the service was left alone and looked at."""
    broken: list[str] = field(default_factory=list)
    """Where the rule of the policy was broken, or the service was stuck."""

    @property
    def is_correct(self) -> bool:
        return not (self.idle_commits or self.missed_wakes or self.broken)


@dataclass(frozen=True)
class VirtualClock:
    """The clocks of a node in a simulated world."""

    world: World

    def now(self) -> Instant:
        return Instant(int((EPOCH + self.world.now) * 1000))

    def monotonic(self) -> float:
        return self.world.now


class TrialStore(MemoryStore):
    """Takes a moment for each call, and remembers all changes."""

    def __init__(self, world: World) -> None:
        super().__init__(now=lambda: world.now, cluster_id=1)
        self.changes: list[Change] = []

    async def before_call(self, name: str) -> None:
        await asyncio.sleep(CALL_SECONDS)

    def _record(self, changes: tuple[Change, ...]) -> None:
        super()._record(changes)
        self.changes += changes


@dataclass
class Counted:
    """A policy that counts how often it is asked."""

    policy: Policy
    plans: int = 0

    def plan(self, pool: PoolSnapshot, now: Instant) -> Plan:
        self.plans += 1
        return self.policy.plan(pool, now)


class Watcher(Observer):
    """Counts decisions; it stands between the loops and ``decide``."""

    def __init__(self, outcome: Outcome, decides_by: Policy | None) -> None:
        super().__init__()
        self._outcome = outcome
        self._decides_by = decides_by
        self._is_again = False

    def dead_session(self, pool: str) -> None:
        self._is_again = True  # what led to the decision is gone with the session

    def decide(
        self,
        pool: PoolState,
        commands: Sequence[Command],
        now: Instant,
        limits: Limits,
        due: Iterable[Ticket],
        *,
        policy: Policy = FIFO,
        over: Collection[int] = (),
        kept: KeptEnds | None = None,
    ) -> Decision:
        policy = self._decides_by or policy
        decision = decide(
            *(pool, commands, now, limits, due), policy=policy, over=over, kept=kept
        )
        self._outcome.decisions += 1
        if not (commands or decision.changes or self._is_again):
            self._outcome.idle_commits += 1
        self._is_again = False
        return decision


class Trial:
    """One policy, one seed. ``loops_by``: a policy that the loops believe in instead: a fault."""

    def __init__(
        self, tried: Tried, seed: int, *, nodes: int = 1, loops_by: Policy | None = None
    ) -> None:
        self.outcome = Outcome()
        self._tried = tried
        self._nodes = nodes
        self._world = World(seed)
        self._rng = random.Random(seed)
        self._clock = VirtualClock(self._world)
        self._store = TrialStore(self._world)
        self._policy = Counted(loops_by or tried.policy())
        self._watcher = Watcher(self.outcome, tried.policy() if loops_by else None)
        self._loops: list[PoolLoop] = []
        self._catalogues: list[PoolCatalogue] = []
        self._sessions: list[str] = []
        self._number = 0

    def run(self, decisions: int) -> Outcome:
        """Go on until so many decisions were made; return what came of them."""
        process = self._world.process("service")
        with ExitStack() as stack:
            stack.enter_context(mock.patch.object(committer, "decide", self._watcher.decide))
            # Not the `random` of all: another thread of this process may draw from it meanwhile.
            drawn = random.Random(self._world.seed)
            for module in DRAWING:
                stack.enter_context(mock.patch.object(module, "random", drawn))
            task = process.start(self._live(decisions))
            try:
                self._world.run(float("inf"), done=task.done)
                task.result()
            except StuckError as error:
                self.outcome.broken.append(f"the loop turns without end {error}")
        self.outcome.plans = self._policy.plans
        self.outcome.broken += self._world.errors
        for revision, fault in broken_rules(
            self._store.changes, self._tried.rule(), KEYS, POOL
        ):
            self.outcome.broken.append(f"revision {revision}: {fault}")
        return self.outcome

    async def _live(self, decisions: int) -> None:
        await create_pool(self._store, 4)
        for _ in range(SESSIONS):
            await self._open_session()
        try:
            await self._start()
            await self._go_on(decisions)
        finally:
            for loop in self._loops:
                await loop.stop()
            for catalogue in self._catalogues:
                await catalogue.stop()

    async def _go_on(self, decisions: int) -> None:
        before = -1
        while before < self.outcome.decisions < decisions:
            before = self.outcome.decisions
            for _ in range(self._rng.randrange(5, 40)):
                await self._act()
                await asyncio.sleep(self._rng.choice([0.0, 0.0, 0.001, 0.01, 0.1]))
            if self._rng.random() < 0.5:
                await self._change_without_a_command()
            await self._look()

    async def _start(self) -> None:
        config = LoopConfig(policy=self._policy)
        for _ in range(self._nodes):
            catalogue = PoolCatalogue(self._store, KEYS, self._watcher)
            around = (self._store, KEYS, catalogue, self._clock, config, self._watcher)
            loop = PoolLoop(PoolContext(POOL, *around))
            catalogue.on_change = lambda pool, loop=loop: loop.spec_changed()
            catalogue.start()
            await catalogue.ready()
            loop.start()
            await loop.listed()
            self._loops.append(loop)
            self._catalogues.append(catalogue)

    async def _open_session(self) -> None:
        self._number += 1
        self._sessions.append(session := f"session-{self._number}")
        await open_lease(self._store, session, timedelta(days=365))

    # What clients do ------------------------------------------------------------------------

    async def _act(self) -> None:
        chance = self._rng.random()
        if chance < 0.55:
            self._ask()
        elif chance < 0.97:
            self._give_back()
        else:
            await self._change_without_a_command()

    async def _change_without_a_command(self) -> None:
        """End a session, or change the capacity: seats become free, and no command says so."""
        if self._rng.random() < 0.5:
            await create_pool(self._store, self._rng.choice([0, 2, 3, 4, 6]))
        else:
            await self._store.revoke_lease(lease_id_of(self._sessions.pop(0)))
            await self._open_session()

    def _ask(self) -> None:
        state = self._loops[0].state
        if len(state.tickets) > QUEUE_USUAL and self._rng.random() < 0.9:
            self._give_back()
            return
        self._number += 1
        rng, session = self._rng, self._rng.choice(self._sessions)
        wait = rng.choice([None, None, timedelta(seconds=rng.uniform(0.5, 8.0))])
        self._submit(
            Acquire(
                grant_id=uuid7(self._number),
                session_id=session,
                lease_id=lease_id_of(session),
                attribution=Attribution(
                    session, rng.choice(PROJECTS), rng.choice([0, 0, 0, 1])
                ),
                seats=rng.choice([1, 1, 1, 2, 2, 3]),
                wait=wait,
                may_wait=rng.random() < 0.9,
            )
        )

    def _give_back(self) -> None:
        """End a grant, or seldom give up a ticket."""
        state = self._loops[0].state
        owners = {grant.grant_id: grant.session_id for grant in state.grants.values()}
        if not owners or self._rng.random() < 0.05:
            owners = {ticket.grant_id: ticket.session_id for ticket in state.tickets.values()}
        if owners:
            grant_id = self._rng.choice(sorted(owners))
            session = owners[grant_id]
            self._submit(Release(grant_id, session, lease_id_of(session)))

    def _submit(self, command: Command) -> None:
        self._rng.choice(self._loops).submit(command, Ear())

    # Looking --------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Leave the service alone for a while, and see that all is done that can be."""
        self.outcome.looks += 1
        await asyncio.sleep(GRACE_SECONDS + self._rng.uniform(0.0, 3.0))
        revision = self._store._revision
        if self._is_work_left():
            await asyncio.sleep(GRACE_SECONDS)
            if self._store._revision == revision and self._is_work_left():
                self.outcome.missed_wakes += 1

    def _is_work_left(self) -> bool:
        """Ask the policy anew, about the pool as the store has it."""
        state, _ = stored_pool(self._store, KEYS, POOL)
        plan = self._tried.policy().plan(PoolSnapshot.of(state), self._clock.now())
        return bool(plan.serve) or any(impossible_tickets(state))
