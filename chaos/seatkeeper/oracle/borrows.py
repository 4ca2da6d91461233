"""What one pool's history says of seats that machines borrowed. Pure.

What is looked for: a grant that was lent beyond what the pool allows at that revision (how many, how
long, what stays), with another day of release than the pool's skew says, or by no decision; one that
was made for a machine and never for a session; one that ended without a decision, or before its day and
skew by the clock of the node that decided it, where neither its machine had given it back nor an
administrator had freed it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.stored import StoredGrant, StoredTicket, seats_in_spec
from seatkeeper.oracle.stored_rules import NO_RULES, read_borrowers
from seatkeeper.v1 import pool_service_pb2


def is_lent(earlier: StoredGrant, grant: StoredGrant) -> bool:
    """Return whether a session has given a grant to a machine, and nothing else of it is another."""
    kept = replace(earlier, session_id="", heeds_within_millis=0, borrow=grant.borrow)
    lent = replace(kept, counts_once=())  # from then on it counts by itself
    return earlier.borrow is None and grant.borrow is not None and lent == grant


def borrowed_seats(held: Iterable[StoredGrant]) -> int:
    """Return how many seats machines have borrowed."""
    return sum(grant.seats for grant in held if grant.borrow is not None)


class BorrowLedger:
    """The rule of a pool, and what the decision at hand says of itself."""

    def __init__(self) -> None:
        self._rule: pool_service_pb2.BorrowRule | None = None
        self._capacity = 0
        self._borrowers = NO_RULES
        self._facts = state_pb2.DecisionFacts()

    def note_spec(self, value: bytes) -> None:
        """Take the pool's specification."""
        policy = pool_service_pb2.PoolSpec.FromString(value).policy
        self._rule = policy.borrow if policy.HasField("borrow") else None
        self._capacity = seats_in_spec(value)
        self._borrowers = read_borrowers(value)

    def note_guard(self, value: bytes) -> None:
        """Take what the decision of the revision at hand says of itself."""
        record = state_pb2.GuardRecord.FromString(value)
        self._facts = state_pb2.DecisionFacts.FromString(record.facts)

    def settle(
        self,
        written: Iterable[tuple[StoredGrant | None, StoredGrant]],
        gone: Iterable[StoredGrant | StoredTicket],
        held: Collection[StoredGrant],
        *,
        is_decision: bool,
    ) -> Iterator[str]:
        """Yield what is wrong at a revision.

        ``written``: grants that were written at it, and what they were before; ``gone``: what was
        deleted; ``held``: what there is after it.
        """
        for earlier, grant in written:
            if grant.borrow is None or (earlier is not None and earlier.borrow == grant.borrow):
                continue
            if earlier is None or not is_decision:
                yield f"{grant.grant_id} was given to a machine by no decision on a session's grant"
                continue
            yield from self._lent(grant, held)
            shared = earlier.counts_once
            if shared and any(each.counts_once == shared for each in held):
                yield f"{grant.grant_id} was lent, and others have the same seats"
        for one in gone:
            if isinstance(one, StoredGrant) and one.borrow is not None:
                yield from self._ended(one, is_decision=is_decision)

    def _lent(self, grant: StoredGrant, held: Collection[StoredGrant]) -> Iterator[str]:
        borrow, rule = grant.borrow, self._rule
        assert borrow is not None
        if rule is None:
            yield f"{grant.grant_id} was lent by a pool that lends none"
            return
        lent = borrowed_seats(held)
        most = rule.seats if rule.HasField("seats") else self._capacity
        if lent > most or self._capacity - lent < rule.low_water:
            yield f"{lent} seats are borrowed by {grant.grant_id}, of at most {most}"
        theirs = borrowed_seats(each for each in held if each.project == grant.project)
        if rule.HasField("per_project") and theirs > rule.per_project:
            yield f"project {grant.project} has borrowed {theirs}, of at most {rule.per_project}"
        if not self._borrowers.lets_in(grant):
            yield f"{grant.grant_id} was lent to {grant.holder}, who may borrow none"
        if borrow.until_millis - borrow.borrowed_at_millis > rule.longest.ToMilliseconds():
            yield f"{grant.grant_id} was lent for longer than the pool allows"
        if borrow.free_at_millis - borrow.until_millis != rule.skew.ToMilliseconds():
            yield f"{grant.grant_id} is freed at {borrow.free_at_millis}: not its day and the skew"

    def _ended(self, grant: StoredGrant, *, is_decision: bool) -> Iterator[str]:
        assert grant.borrow is not None
        if not is_decision:
            yield f"{grant.grant_id} is borrowed, and was freed by no decision"
            return
        facts = self._facts
        if grant.fence in (*facts.returned_fences, *facts.reclaimed_fences):
            return
        if (early := grant.borrow.free_at_millis - facts.decided_at_millis) > 0:
            yield f"{grant.grant_id} is borrowed, and was freed {early} ms before its time"
