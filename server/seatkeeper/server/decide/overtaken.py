"""How far tickets were overtaken, which is written with the guard while they wait."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from seatkeeper.server.domain import PoolState, Ticket


class Overtaken:
    """Seats that were granted before each ticket that came first, by grant id."""

    def __init__(self, pool: PoolState) -> None:
        self._pool = pool
        self._seats = dict(pool.guard.overtaken)

    def note(self, seats: int, passed: Iterable[str]) -> None:
        """Count the seats that a grant takes for those that it overtakes."""
        for grant_id in passed:
            self._seats[grant_id] = self._seats.get(grant_id, 0) + seats

    def waiting(
        self, new: Iterable[Ticket], ended: Collection[str], served: Collection[str]
    ) -> Mapping[str, int]:
        """Return it for those that wait still: the ``new``, and the stored but for these."""
        if not self._seats:
            return self._seats
        stored = {ticket.grant_id for ticket in new}
        return {
            each: seats
            for each, seats in self._seats.items()
            if each in stored
            or (each in self._pool.tickets and each not in ended and each not in served)
        }
