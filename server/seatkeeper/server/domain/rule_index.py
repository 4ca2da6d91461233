"""What holders hold, and who waits in vain by a pool's rules: an index that only such pools pay for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from seatkeeper.core.pool_rules import PoolRules
from seatkeeper.server.domain.counted_once import SeatSum

if TYPE_CHECKING:
    from seatkeeper.server.domain.state import Grant, Ticket


class RuleIndex:
    """By holder and host: the seats that are held; and the tickets that some rules will never serve."""

    def __init__(
        self, rules: PoolRules, grants: Iterable[Grant], tickets: Iterable[Ticket]
    ) -> None:
        self.rules = rules
        self.of_holders = SeatSum()
        self.of_hosts = SeatSum()
        """By host, in small letters; of hosts that are known."""
        self.waiting_on: Counter[str] = Counter()
        """How many tickets are of each host."""
        self.hopeless: set[str] = set()
        """Ids of tickets that these rules do not let in, or that want more than each may have."""
        for grant in grants:
            self.add_grant(grant)
        for ticket in tickets:
            self.add_ticket(ticket)

    def add_grant(self, grant: Grant) -> None:
        """Count a grant."""
        self.of_holders.add(grant.seats, grant.group, grant.holder)
        if grant.host:
            self.of_hosts.add(grant.seats, grant.group, grant.host.lower())

    def remove_grant(self, grant: Grant) -> None:
        """Count a grant no longer."""
        self.of_holders.remove(grant.seats, grant.group, grant.holder)
        if grant.host:
            self.of_hosts.remove(grant.seats, grant.group, grant.host.lower())

    def add_ticket(self, ticket: Ticket) -> None:
        """Look at a ticket."""
        asked = ticket.holder, ticket.project, ticket.seats, ticket.host
        if self.rules.broken_by(*asked) is not None:
            self.hopeless.add(ticket.grant_id)
        if ticket.host:
            self.waiting_on[ticket.host.lower()] += 1

    def remove_ticket(self, ticket: Ticket) -> None:
        """Forget a ticket."""
        self.hopeless.discard(ticket.grant_id)
        if ticket.host:
            self.waiting_on[ticket.host.lower()] -= 1
            if not self.waiting_on[ticket.host.lower()]:
                del self.waiting_on[ticket.host.lower()]
