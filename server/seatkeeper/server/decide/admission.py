"""Who is let into the queue of a pool.

A queue without a bound fails everybody at once, late; one with a bound refuses the last to come, at
once and with a time to come back. The same rule is asked twice: by the node that receives a request, on
its own view, so that a refusal costs the store nothing; and by the decision, which knows for sure.
"""

from __future__ import annotations

from seatkeeper.server.decide.counting import counts_only
from seatkeeper.server.decide.weighing import cost_of, weighed
from seatkeeper.server.domain.commands import Acquire, Release
from seatkeeper.server.domain.limits import Limits
from seatkeeper.server.domain.state import Instant, PoolState
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.snapshot import group_in


def queue_refusal(
    pool: PoolState, command: Acquire, limits: Limits, *, ahead: int, ahead_of_holder: int
) -> str | None:
    """Return why a request may not wait in the queue; None: it may.

    ``ahead`` and ``ahead_of_holder`` are requests, of all and of the same holder, that will be in the
    queue before it and are not in ``pool`` yet.
    """
    if len(pool.tickets) + ahead >= limits.queue_max:
        return f"the queue is full ({limits.queue_max} tickets); try again later"
    if pool.tickets_of[command.holder] + ahead_of_holder >= limits.holder_queue_max:
        most = f"{limits.holder_queue_max} tickets in the queue, and may not more"
        return f"{command.holder} has {most}; try again later"
    return None


def will_wait(pool: PoolState, command: Acquire, plan: Plan, now: Instant) -> bool:
    """Return whether a request can only join the queue, by what is known of ``pool`` and its plan.

    False when in doubt: where enough seats are free and the policy does not hold it back, the
    decision may serve it before those who wait already. Costs no plan, so a flood of requests is
    refused at the price of a look at each.
    """
    if not command.may_wait:
        return False
    is_sharing = pool.spec is not None and bool(pool.spec.policy.count_once)
    cost = cost_of(pool.spec, command)
    if not is_sharing and command.seats * cost > pool.free and not counts_only(pool.spec):
        return True
    ticket = weighed(pool.spec, command.ticket(pool.guard.ticket_number + 1, now))
    if is_sharing:
        takes = pool.sum.takes(ticket.seats, group_in(pool, ticket))
        if takes > pool.free and not counts_only(pool.spec):
            return True
        if not takes:
            return False
    return plan.hold_back(ticket)


def is_known(pool: PoolState, command: Acquire) -> bool:
    """Return whether a request has a ticket or a grant already."""
    return command.grant_id in pool.tickets or command.grant_id in pool.grants


def is_theirs(pool: PoolState, command: Release) -> bool:
    """Return whether a release gives up a ticket or a grant of its own session."""
    grant_id = command.grant_id
    found = pool.grants.get(grant_id) or pool.tickets.get(grant_id)
    return found is not None and found.session_id == command.session_id
