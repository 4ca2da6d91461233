"""How many seats of its pool a request wants: those that it asks for, times what one costs. Pure.

Done once, as a request enters: from then on every rule, order and sum counts seats of the pool. What
is written stays as it is when the costs change, as what is held does not change when a price does.
"""

from __future__ import annotations

from dataclasses import replace

from seatkeeper.server.domain import Acquire, Grant, PoolSpec, Ticket
from seatkeeper.server.domain.commands import Refusal
from seatkeeper.server.policy.rules import Reason, Rule


def weighed(spec: PoolSpec | None, ticket: Ticket) -> Ticket:
    """Return the ticket of a request, with the seats that it wants of the pool."""
    if spec is None or not spec.policy.counting.costs:
        return ticket
    if (cost := cost_of(spec, ticket)) == 1:
        return ticket
    attribution = replace(ticket.attribution, cost=cost)
    return replace(ticket, seats=ticket.seats * cost, attribution=attribution)


def cost_of(spec: PoolSpec | None, asked: Acquire | Ticket) -> int:
    """Return what a seat costs that a new request asks for.

    Of a class that the pool does not list, one costs what one without a class does.
    """
    if spec is None or not spec.policy.counting.costs:
        return 1
    counting = spec.policy.counting
    return counting.cost_of(asked.attribution.cost_class) or counting.cost_of("") or 1


def asked_seats(one: Acquire | Grant | Ticket) -> int:
    """Return the seats that were asked for, before they were multiplied."""
    return one.seats // one.attribution.cost


def unknown_class(
    spec: PoolSpec, asked: Acquire | Grant | Ticket
) -> tuple[Refusal, Reason] | None:
    """Return why a new request is refused that names a class; None: it is not."""
    name, counting = asked.attribution.cost_class, spec.policy.counting
    if not name or counting.cost_of(name) is not None:
        return None
    there = ", ".join(counting.classes) or "none"
    text = f"pool {spec.name} has no cost class {name}; it has: {there}"
    return Refusal.UNKNOWN_COST_CLASS, Reason(Rule.COST_CLASS, text)
