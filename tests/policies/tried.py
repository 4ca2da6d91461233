"""The policies that are tried, each with its rule: that of nodes, and those of tests alone."""

from __future__ import annotations

from collections.abc import Iterator

from tests.policies.quota import Quota, WithinQuota
from tests.policies.rules import Step, Tried, place_of
from tests.policies.scattered import NotBeforeItsTime, Scattered
from tests.policies.shares_kept import LAB, SharesKept
from tests.policies.small_first import OvertakenSeldom, SmallFirst

from seatkeeper.server.policy.by_pool import ByPool
from seatkeeper.server.policy.shares import Shares


class InLine:
    """No grant while a ticket of its priority or above, that was accepted earlier, waits on."""

    def broken_by(self, step: Step) -> Iterator[str]:
        newest = step.before.guard.ticket_number + 1
        for grant in step.made:
            ticket = step.before.tickets.get(grant.grant_id)
            turn = (-grant.priority, place_of(ticket) if ticket else newest)
            for grant_id in step.after.tickets:
                # Moves of this revision are made after its grants.
                other = step.before.tickets.get(grant_id)
                if other is not None and other.gang:
                    continue  # served with others alone
                if other is not None and (-other.priority, place_of(other)) < turn:
                    yield f"{grant.grant_id} was served before {other.grant_id}"


BY_POOL = "by_pool"
"""The policy of nodes. Its rule is that of pools without projects."""
POLICIES = (
    Tried(BY_POOL, ByPool, InLine),
    Tried("quota", lambda: Quota(2), lambda: WithinQuota(2)),
    Tried("small_first", lambda: SmallFirst(6), lambda: OvertakenSeldom(6)),
    Tried("shares", lambda: Shares(LAB), lambda: SharesKept(LAB)),
    Tried("scattered", lambda: Scattered(11), lambda: NotBeforeItsTime(Scattered(11))),
)

# In whole services every request must be served in the seconds that users wait.
URGENT = Scattered(11, delay_millis=800, kept_max=0)
SIMULATED = {
    tried.name: tried
    for tried in (
        *POLICIES[:-1],
        Tried("scattered", lambda: URGENT, lambda: NotBeforeItsTime(URGENT)),
    )
}
