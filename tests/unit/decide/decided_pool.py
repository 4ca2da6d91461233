"""A pool that is decided on, decision by decision, each of them written as a node would write it."""

from __future__ import annotations

import copy

from tests.unit.kit import KEYS, NOW, POOL, uuid7

from seatkeeper.server.decide import Decision, decide
from seatkeeper.server.decide.staying import NOTHING_ENDS, KeptEnds
from seatkeeper.server.domain import Command, Limits, PoolSpec
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.pool.writes import writes_of
from seatkeeper.server.store import Delete


class DecidedPool:
    """What is there after each decision; the clock stands still but where a test moves it."""

    def __init__(self, spec: PoolSpec) -> None:
        self.mirror = PoolMirror(KEYS, POOL)
        self.revision = 1
        self.now = NOW
        self.specify(spec)

    def specify(self, spec: PoolSpec) -> None:
        self.mirror.state.spec = spec

    def decide(self, *commands: Command, kept: KeptEnds = NOTHING_ENDS) -> Decision:
        state = self.mirror.state
        before = copy.deepcopy(state)
        decision = decide(state, commands, self.now, Limits(), kept=kept)
        assert state == before, "a decision changes nothing"
        self.revision += 1
        has_guard = bool(self.mirror.guard_revision)
        writes = writes_of(KEYS, POOL, decision, self.revision, has_guard=has_guard)
        assert len({write.key for write in writes}) == len(writes), "each key once"
        self.mirror.committed(writes, self.revision, is_whole=True)
        spec = self.mirror.state.spec
        is_advisory = spec is not None and spec.policy.counting.is_advisory
        if decision.grants and spec is not None and not is_advisory:
            assert state.held <= spec.open_seats
        return decision

    def lose(self, number: int) -> None:
        """End the lease that a grant is under."""
        self.revision += 1
        self.mirror.committed([Delete(KEYS.grant(POOL, uuid7(number)))], self.revision)
