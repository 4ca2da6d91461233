"""What a pool's projects hold and wait for: an index that only pools with a policy pay for."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from seatkeeper.server.domain.counted_once import SeatSum

if TYPE_CHECKING:
    from seatkeeper.server.domain.state import Grant, QueueKey, Ticket


class ProjectIndex:
    """By project: the seats that are held, the tickets in the order of a queue, and what they want."""

    def __init__(
        self, grants: Iterable[Grant], tickets: Iterable[tuple[QueueKey, Ticket]]
    ) -> None:
        self.sum = SeatSum()
        self.queues: dict[str, list[QueueKey]] = {}
        """Of those projects alone that have tickets."""
        self._wanted: dict[str, Counter[int]] = {}
        for grant in grants:
            self.add_grant(grant)
        for key, ticket in tickets:
            self.add_ticket(key, ticket)

    @property
    def held(self) -> Mapping[str, int]:
        """The seats of each project that holds any."""
        return self.sum.held

    def seats_wanted_max(self, project: str) -> int:
        """Return the most seats that a ticket of a project wants; 0: it has none."""
        return max(self._wanted.get(project, ()), default=0)

    def add_grant(self, grant: Grant) -> None:
        """Count a grant."""
        self.sum.add(grant.seats, grant.group, grant.project)

    def remove_grant(self, grant: Grant) -> None:
        """Count a grant no longer."""
        self.sum.remove(grant.seats, grant.group, grant.project)

    def add_ticket(self, key: QueueKey, ticket: Ticket) -> None:
        """Add a ticket at its place."""
        insort(self.queues.setdefault(ticket.project, []), key)
        self._wanted.setdefault(ticket.project, Counter())[ticket.seats] += 1

    def remove_ticket(self, key: QueueKey, ticket: Ticket) -> None:
        """Remove a ticket."""
        queue, wanted = self.queues[ticket.project], self._wanted[ticket.project]
        del queue[bisect_left(queue, key)]
        wanted[ticket.seats] -= 1
        if not wanted[ticket.seats]:
            del wanted[ticket.seats]
        if not queue:
            del self.queues[ticket.project], self._wanted[ticket.project]
