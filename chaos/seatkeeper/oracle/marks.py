"""Whether grants are within the seats in force, and marked with lots that have them. Pure.

What is looked for, at every revision that grants: more seats out than are in force and contracts allow
beyond that; seats marked with a lot that is not in force, or more with one than it has; seats beyond
those in force, while others were free for all that the decision could know; and, where every node knows
marks, seats without one, beyond those without a contract.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from seatkeeper.oracle.stored import IN_FORCE, StoredGrant
from seatkeeper.v1 import pool_service_pb2

LAPSED_MAX = 10_000
"""Grants that ended with their leases and are remembered."""
MARKS_FORMAT = 4
"""A pool of this format is served by no node that knows no marks."""

_Lot = tuple[str, int]


class MarkLedger:
    """The lots of one pool at some revision, and the grants that ended without a decision."""

    def __init__(self) -> None:
        self._seats: dict[_Lot, int] = {}
        """By lot in force: its seats."""
        self._plain = 0
        self.overdraft = 0
        """Seats that contracts in force allow beyond those in force, where the pool takes any."""
        self._has_lots = False
        self._is_advisory = False
        self._all_marked = False
        self._lapsed: list[tuple[int, StoredGrant]] = []

    def note_spec(self, value: bytes) -> None:
        """Take a specification."""
        spec = pool_service_pb2.PoolSpec.FromString(value)
        there = [lot for lot in spec.lots.lots if lot.state == IN_FORCE]
        self._seats = {(lot.name, lot.began_at.ToMilliseconds()): lot.seats for lot in there}
        self._is_advisory = spec.policy.counting.advisory
        self.overdraft = 0 if self._is_advisory else sum(lot.overdraft for lot in there)
        self._has_lots = bool(spec.lots.lots)
        self._plain = spec.lots.seats
        is_known = self._has_lots and spec.format >= MARKS_FORMAT
        # What an advisory pool grants beyond its seats is from no lot.
        self._all_marked = is_known and not self._is_advisory

    def note_end(self, revision: int, grant: StoredGrant) -> None:
        """Take a grant that ended with its lease."""
        if self._has_lots:
            self._lapsed.append((revision, grant))
            del self._lapsed[:-LAPSED_MAX]

    def faults(
        self,
        made: Collection[StoredGrant],
        held: Collection[StoredGrant],
        out: int,
        capacity: int,
        known: int,
    ) -> Iterator[str]:
        """Yield what is wrong with the grants ``made``, which are among those ``held`` then.

        ``out``: their seats. ``known``: up to which revision the decision knew of every end.
        """
        if out > capacity + self.overdraft and not self._is_advisory:
            beyond = f" and an overdraft of {self.overdraft}" if self.overdraft else ""
            yield f"{out} seats out of a pool of {capacity}{beyond}"
        if not any(grant.lots or grant.overdraft for grant in made) and not self._all_marked:
            return
        by_lot: Counter[_Lot] = Counter()
        for grant in held:
            for name, began_at, seats in grant.lots:
                by_lot[name, began_at] += seats
        yield from self._of_lots(made, by_lot)
        unknown = [grant for revision, grant in self._lapsed if revision > known]
        yield from self._of_overdraft(made, held, unknown, capacity)
        unmarked = sum(map(_unmarked, held))
        if self._all_marked and any(map(_unmarked, made)) and unmarked > self._plain:
            yield f"{unmarked} seats without a mark, and {self._plain} without a contract"

    def _of_lots(self, made: Collection[StoredGrant], by_lot: Counter[_Lot]) -> Iterator[str]:
        for grant in made:
            if _unmarked(grant) < 0:
                yield f"{grant.grant_id} has more seats marked than it has"
            for name, began_at, _ in grant.lots:
                seats, there = by_lot[name, began_at], self._seats.get((name, began_at))
                if there is None:
                    yield f"{grant.grant_id} is marked with lot {name}, which is not in force"
                elif seats > there:
                    yield f"{seats} seats are marked with lot {name}, which has {there}"

    def _of_overdraft(
        self,
        made: Collection[StoredGrant],
        held: Collection[StoredGrant],
        unknown: Collection[StoredGrant],
        capacity: int,
    ) -> Iterator[str]:
        if not any(grant.overdraft for grant in made):
            return
        over = sum(grant.overdraft for grant in held)
        if over > self.overdraft:
            yield f"{over} seats of an overdraft of {self.overdraft}"
        taken = sum(map(self._in_force, (*held, *unknown)))
        if taken < capacity:
            yield f"the overdraft is used while {taken} of {capacity} seats in force are held"

    def _in_force(self, grant: StoredGrant) -> int:
        """Return how many seats of a grant are of those in force."""
        marked = (seats for *lot, seats in grant.lots if tuple(lot) in self._seats)
        return _unmarked(grant) + sum(marked)


def _unmarked(grant: StoredGrant) -> int:
    return grant.seats - grant.overdraft - sum(seats for *_, seats in grant.lots)
