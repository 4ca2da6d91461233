"""The plan of an advisory pool: all that waits is served, first what a binding pool would serve.

The binding plan is made of what a binding pool would have let in, and says what would have waited, and
by which rule; nothing is called back for it. Those who wait for another to do their work wait here,
too: that is no want of seats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from seatkeeper.server.domain import Acquire, PoolSpec, Ticket
from seatkeeper.server.policy.plan import Plan, holds_back_none, says_nothing
from seatkeeper.server.policy.rules import Reason, Rule
from seatkeeper.server.policy.snapshot import PoolSnapshot


def advisory(pool: PoolSnapshot, binding: Callable[[PoolSnapshot], Plan]) -> Plan:
    """Return the plan of a pool that only counts; ``binding`` makes the one of a pool that does not."""
    plan = binding(_let_in(pool))
    by_plan = {ticket.grant_id for ticket in plan.serve}

    def would_wait(ticket: Ticket) -> Reason | None:
        if ticket.grant_id in by_plan:
            return None
        if not plan.hold_back(ticket):
            return Reason(
                Rule.SEATS, "requests that came before it would have waited for seats"
            )
        return plan.why(ticket) or Reason(
            Rule.POLICY, "the pool's policy would not grant it now"
        )

    return replace(
        plan,
        order=pool.by_acceptance,
        serve=_all(pool, plan),
        hold_back=pool.waits_apart if pool.has_apart else holds_back_none,
        why=says_nothing,
        would_wait=would_wait,
        reclaim=(),
        next_wake=None,
    )


def never_served_by(spec: PoolSpec, asked: Acquire | Ticket) -> Rule | None:
    """Return the rule by which a binding pool can never serve a request; None: it can."""
    if 0 < spec.seats < asked.seats:
        return Rule.CAPACITY
    name = asked.attribution.cost_class
    if name and spec.policy.counting.cost_of(name) is None:
        return Rule.COST_CLASS
    share = spec.policy.tightest.get(asked.project) if spec.policy.projects else None
    if share is not None and asked.seats > (share.limit or 0):
        return Rule.LIMIT
    broken = spec.policy.rules.broken_by(
        asked.holder, asked.project, asked.seats, asked.attribution.host
    )
    return None if broken is None else Rule(broken)


def _let_in(pool: PoolSnapshot) -> PoolSnapshot:
    """Return a pool without the requests that a binding one would have refused: they hold up none."""
    spec = pool.state.spec
    assert spec is not None
    waiting = (*pool.state.tickets.values(), *pool.new)
    refused = {each.grant_id for each in waiting if never_served_by(spec, each) is not None}
    if not refused:
        return pool
    new = [each for each in pool.new if each.grant_id not in refused]
    return replace(pool, new=new, ended={*pool.ended, *refused})


def _all(pool: PoolSnapshot, plan: Plan) -> list[Ticket]:
    """Return all that can be granted, the first of each work, as far as ``grants_max`` goes."""
    served = list(plan.serve)
    there = {ticket.grant_id for ticket in served}
    works = {ticket.work_key for ticket in served} - {""}
    for ticket in pool.waiting_with_mates(()):
        if len(served) >= pool.grants_max:
            break
        if ticket.grant_id in there or ticket.work_key in works:
            continue
        served.append(ticket)
        works |= {ticket.work_key} - {""}
    return served
