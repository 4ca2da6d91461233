"""What holders hold, and who waits in vain by a pool's rules: an index that only such pools pay for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from seatkeeper.core.pool_rules import PoolRules

if TYPE_CHECKING:
    from seatkeeper.server.domain.state import Grant, Ticket


class RuleIndex:
    """By holder: the seats that are held; and the tickets that some rules will never serve."""

    def __init__(
        self, rules: PoolRules, grants: Iterable[Grant], tickets: Iterable[Ticket]
    ) -> None:
        self.rules = rules
        self.held: Counter[str] = Counter()
        self.hopeless: set[str] = set()
        """Ids of tickets that these rules do not let in, or that want more than each may have."""
        for grant in grants:
            self.add_grant(grant)
        for ticket in tickets:
            self.add_ticket(ticket)

    def add_grant(self, grant: Grant) -> None:
        """Count a grant."""
        self.held[grant.holder] += grant.seats

    def remove_grant(self, grant: Grant) -> None:
        """Count a grant no longer."""
        self.held[grant.holder] -= grant.seats
        if not self.held[grant.holder]:
            del self.held[grant.holder]

    def add_ticket(self, ticket: Ticket) -> None:
        """Look at a ticket."""
        if self.rules.broken_by(ticket.holder, ticket.project, ticket.seats) is not None:
            self.hopeless.add(ticket.grant_id)

    def remove_ticket(self, ticket: Ticket) -> None:
        """Forget a ticket."""
        self.hopeless.discard(ticket.grant_id)
