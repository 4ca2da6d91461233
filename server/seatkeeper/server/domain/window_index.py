"""What is held and waits of those whom open windows are for: an index that only such pools pay for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from seatkeeper.core.pool_rules import finder
from seatkeeper.server.domain.counted_once import SeatSum

if TYPE_CHECKING:
    from seatkeeper.server.domain.state import Grant, PoolSpec, Ticket

KNOWN_MAX = 10_000
"""Combinations of holder, project and host of which it is remembered what is kept for them."""


class WindowIndex:
    """By reservation whose window is open: what those hold whom it is for, and their tickets."""

    def __init__(
        self, spec: PoolSpec, grants: Iterable[Grant], tickets: Iterable[Ticket]
    ) -> None:
        self._windows, self._policy = spec.windows, spec.policy
        self.reservations = {
            each.name: each
            for each in spec.policy.reservations
            if each.name in spec.windows.open
        }
        self._finders = {
            name: finder(each.who, spec.policy.rules.groups)
            for name, each in self.reservations.items()
        }
        self._known: dict[tuple[str, str, str], tuple[str, ...]] = {}
        self.sum = SeatSum()
        self.waiting: Counter[str] = Counter()
        for grant in grants:
            self.add_grant(grant)
        for ticket in tickets:
            self.add_ticket(ticket)

    @property
    def held(self) -> Mapping[str, int]:
        """The seats that those hold whom each reservation is for."""
        return self.sum.held

    def is_of(self, spec: PoolSpec) -> bool:
        """Return whether it is of this very specification."""
        return self._windows is spec.windows and self._policy is spec.policy

    def kept_for(self, one: Grant | Ticket) -> tuple[str, ...]:
        """Return the names of the reservations that a grant's, or a ticket's, holder is among."""
        key = one.holder, one.project, one.host
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            names = (name for name, finds in self._finders.items() if finds(*key) is not None)
            found = self._known[key] = tuple(names)
        return found

    def add_grant(self, grant: Grant) -> None:
        """Count a grant."""
        for name in self.kept_for(grant):
            self.sum.add(grant.seats, grant.group, name)

    def remove_grant(self, grant: Grant) -> None:
        """Count a grant no longer."""
        for name in self.kept_for(grant):
            self.sum.remove(grant.seats, grant.group, name)

    def add_ticket(self, ticket: Ticket) -> None:
        """Count a ticket."""
        for name in self.kept_for(ticket):
            self.waiting[name] += 1

    def remove_ticket(self, ticket: Ticket) -> None:
        """Count a ticket no longer."""
        for name in self.kept_for(ticket):
            self.waiting[name] -= 1
