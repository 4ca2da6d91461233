"""Whether holders took over their own live seats, and no others, and no more than those. Pure.

Stated a second time, as all here. A decision says which grants it ended because their holders have them
in another session; each must be continued by one grant that it made, which holds what that held, since
when that held it, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.stored import PREFIX, StoredGrant, located
from seatkeeper.server.store import Change


class TakenOver:
    """What one pool's decision at hand says was taken over."""

    def __init__(self) -> None:
        self._fences: list[int] = []

    def note_guard(self, value: bytes) -> None:
        """Take the guard that a decision wrote."""
        self._fences = _taken_over(value)

    def of(self, made: Collection[StoredGrant]) -> list[StoredGrant]:
        """Return the grants among those made that took others over."""
        return [each for each in made if each.continues in self._fences]

    def settle(
        self, made: Collection[StoredGrant], ended: Collection[StoredGrant]
    ) -> Iterator[str]:
        """Yield what is wrong with it. ``ended``: grants that the decision ended."""
        fences, self._fences = self._fences, []
        before = {each.fence: each for each in ended}
        for fence in fences:
            after = [each for each in made if each.continues == fence]
            if fence not in before or len(after) != 1:
                yield f"fence {fence} is said to be taken over: {len(after)} grants continue it"
                continue
            (grant,), old = after, before[fence]
            if _held(grant) != _held(old):
                yield f"{grant.grant_id} has {_held(grant)}, and took over {_held(old)}"
            if grant.session_id == old.session_id:
                yield f"{grant.grant_id} took over seats of its own session"
        if fences and len(made) > 1:
            yield f"{len(made)} grants were made by a decision in which seats were taken over"


def count_taken_over(changes: Iterable[Change], prefix: str = PREFIX) -> int:
    """Return how many grants were taken over by their holders."""
    return sum(
        len(_taken_over(change.entry.value))
        for _, kind, _, change in located(changes, prefix)
        if kind == "guard" and change.entry is not None
    )


def _taken_over(guard: bytes) -> list[int]:
    facts = state_pb2.DecisionFacts()
    facts.ParseFromString(state_pb2.GuardRecord.FromString(guard).facts)
    return list(facts.taken_over_fences)


def _held(grant: StoredGrant) -> tuple[str, str, int, int, int]:
    return grant.holder, grant.project, grant.priority, grant.seats, grant.held_since
