"""What granting a gang, or one of several alternatives, means for one of the pools."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from seatkeeper.server.decide import Decision, decide
from seatkeeper.server.domain import Ticket
from seatkeeper.server.domain.commands import KeepFree, Withdraw
from seatkeeper.server.policy.joined import Joined
from seatkeeper.server.policy.plan import Policy
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.pool.context import PoolContext
from seatkeeper.server.pool.decided import Ended
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.pool.unknown import UnknownOutcomes
from seatkeeper.server.pool.writes import writes_of
from seatkeeper.server.store import Unchanged, Write


@dataclass(frozen=True, slots=True)
class GangPart:
    """A decision on the pool's member, and what it compares."""

    decision: Decision
    decision_id: int
    """That of the decisions for the other pools, too."""
    ended: Ended
    writes: Sequence[Write]
    only_if: tuple[Unchanged, Unchanged]
    """The pool's guard, and its specification."""


class GangParts:
    """Makes the parts of one pool. What they write is committed with those of the other pools."""

    def __init__(
        self,
        context: PoolContext,
        mirror: PoolMirror,
        unknown: UnknownOutcomes,
        compared: Callable[[], tuple[Unchanged, Unchanged]],
        get_ready: Callable[[], Awaitable[None]],
        set_apart: Callable[[Decision], Awaitable[None]],
    ) -> None:
        """Decide nothing yet. ``compared``: what each commit of the pool compares.

        ``get_ready`` writes what is due before anything is decided, and raises ``RecordUnreadable``;
        ``set_apart`` finds dead sessions.
        """
        self.get_ready = get_ready
        self._pool = context.pool
        self._keys = context.keys
        self._clock = context.clock
        self._config = context.config
        self._mirror = mirror
        self._unknown = unknown
        self._compared = compared
        self._set_apart = set_apart

    @property
    def complete_revision(self) -> int:
        """The revision up to which the view has everything."""
        return self._mirror.complete_revision

    def decide(self, grant_id: str, decision_id: int, writes_max: int) -> GangPart | None:
        """Decide that a ticket of a gang is granted; None: the policy serves it not now.

        ``writes_max`` is the part's share of the transaction.
        """
        policy = Joined(self._config.policy, grant_id)
        part = self._part((), policy, decision_id, writes_max)
        is_granted = any(grant.grant_id == grant_id for grant in part.decision.grants)
        return part if is_granted else None

    def withdraw(self, command: Withdraw, decision_id: int, writes_max: int) -> GangPart | None:
        """Decide that a ticket leaves the queue, as another of its alternatives is granted.

        None: it is not there, or what comes before that takes all of the part's writes.
        """
        part = self._part((command,), self._config.policy, decision_id, writes_max)
        return part if command.grant_id in part.decision.tickets_ended else None

    def keep_free(
        self, command: KeepFree, decision_id: int, writes_max: int
    ) -> GangPart | None:
        """Decide that seats are kept free for a ticket. None: as for ``withdraw``."""
        part = self._part((command,), self._config.policy, decision_id, writes_max)
        kept = part.decision.guard.hold_back
        is_kept = kept is not None and (kept.grant_id, kept.until) == (
            *(command.grant_id, command.until),
        )
        return part if is_kept else None

    def is_helped(self, ticket: Ticket) -> bool:
        """Return whether seats that become free help a ticket: nothing else holds it back."""
        state, now = self._mirror.state, self._clock.now()
        if state.spec is None or state.spec.open_seats < ticket.seats:
            return False
        plan = Joined(self._config.policy, ticket.grant_id).plan(PoolSnapshot.of(state), now)
        return not plan.hold_back(ticket)

    def _part(
        self,
        commands: Sequence[Withdraw | KeepFree],
        policy: Policy,
        decision_id: int,
        writes_max: int,
    ) -> GangPart:
        state, now = self._mirror.state, self._clock.now()
        limits = replace(self._config.limits, writes_max=writes_max)
        decision = decide(state, commands, now, limits, policy=policy)
        writes = writes_of(
            *(self._keys, self._pool, decision, decision_id),
            has_guard=True,
            view_revision=self._mirror.complete_revision,
        )
        ended = Ended.of(state, decision)
        return GangPart(decision, decision_id, ended, writes, self._compared())

    def sent(self, part: GangPart) -> None:
        """Note that a part may take effect from now on: the watch says when it has."""
        self._unknown.remember(part.decision_id, part.decision, part.ended)

    async def failed(self, part: GangPart, *, for_lease: bool) -> None:
        """Note that a part takes no effect; ``for_lease``: because a session of the gang's is over."""
        self._unknown.forget(part.decision_id)
        if for_lease:
            await self._set_apart(part.decision)
