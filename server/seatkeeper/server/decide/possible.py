"""Whether a request can ever be served, as its pool is specified now.

Asked of new requests and of tickets that wait already, by one rule: so whatever changes the rule or the
specification answers both. What is said here must not depend on what is held, or by whom: that passes.
"""

from __future__ import annotations

from collections.abc import Iterator

from seatkeeper.server.decide.by_rules import refused_by_rules
from seatkeeper.server.domain import NO_RULES
from seatkeeper.server.domain.commands import Acquire, Refusal
from seatkeeper.server.domain.state import PoolSpec, PoolState, Ticket
from seatkeeper.server.policy.rules import Rule

POOL_DELETED = "the pool was deleted; `seatkeeper pool list` shows those there are"


def impossible(spec: PoolSpec | None, asked: Acquire | Ticket) -> tuple[Refusal, str] | None:
    """Return why a request can never be served; None: it can.

    A pool of no seats is closed, for a while: a waiting request keeps its place, however many seats it
    wants, until the pool is opened again. An advisory pool serves all.
    """
    if spec is None:
        return Refusal.POOL_NOT_FOUND, POOL_DELETED
    return None if spec.policy.counting.is_advisory else never_served(spec, asked)


def never_served(spec: PoolSpec, asked: Acquire | Ticket) -> tuple[Refusal, str] | None:
    """Return why a pool can never serve a request if it is not advisory; None: it can."""
    if 0 < spec.seats < asked.seats:
        message = f"{asked.seats} seats asked of a pool of {spec.seats}; ask for fewer"
        return Refusal.TOO_MANY_SEATS, message
    if spec.policy.projects and (why := _over_limit(spec, asked)) is not None:
        return why
    if spec.policy.rules is not NO_RULES:
        return refused_by_rules(spec, asked)
    return None


def _over_limit(spec: PoolSpec, asked: Acquire | Ticket) -> tuple[Refusal, str] | None:
    share = spec.policy.tightest.get(asked.project)
    if share is None or share.limit is None or asked.seats <= share.limit:
        return None
    where = f"of pool {spec.name} (rule `{Rule.LIMIT}`)"
    message = (
        f"project {share.project} may hold at most {share.limit}, not {asked.seats}, seats {where}; "
        "ask for fewer"
        if share.limit
        else f"project {share.project} may hold no seat {where}; ask its administrator"
    )
    return Refusal.TOO_MANY_SEATS, message


def _is_any_impossible(spec: PoolSpec, pool: PoolState) -> bool:
    if spec.policy.counting.is_advisory:
        return False
    if 0 < spec.seats < pool.seats_wanted_max:
        return True
    if spec.policy.rules is not NO_RULES and pool.tickets and pool.by_rules.hopeless:
        return True
    return bool(pool.tickets) and any(
        pool.projects.seats_wanted_max(project) > (share.limit or 0)
        for project, share in spec.policy.tightest.items()
    )


def impossible_tickets(pool: PoolState) -> Iterator[tuple[Ticket, Refusal, str]]:
    """Yield the tickets that can never be served, in the order of acceptance, and why.

    Costs next to nothing where there are none. Those of sessions that are known to have ended are
    left to the end of their leases.
    """
    if pool.spec is not None and not _is_any_impossible(pool.spec, pool):
        return
    for ticket in pool.queue():
        why = impossible(pool.spec, ticket)
        if why is not None and ticket.session_id not in pool.dead_sessions:
            yield (ticket, *why)
