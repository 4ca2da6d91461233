"""What else is to be known of one that waits for seats: what may bring it some, or why that will not.

Beside the rule that decides (``waiting``): an overdraft that is held, seats that are called back for
its project, a contract that begins, and whether the pool's rule may start a burst. Said of one ticket
at a time, for people; no decision asks.
"""

from __future__ import annotations

from collections.abc import Iterator

from seatkeeper.server.domain import Cause, Instant, PoolSpec, Ticket
from seatkeeper.server.domain.counted_once import SeatSum, said_of
from seatkeeper.server.domain.holds import span
from seatkeeper.server.domain.rule_start import begins_next, why_no_burst
from seatkeeper.server.policy.snapshot import PoolSnapshot, group_in
from seatkeeper.server.policy.units import members_in


def prospects(pool: PoolSnapshot, ticket: Ticket, now: Instant) -> Iterator[str]:
    """Yield what may bring seats to a ticket that waits for some, and what cannot."""
    spec = pool.state.spec
    if spec is None:
        return
    if ticket.attribution.cost != 1:
        cost, named = ticket.attribution.cost, ticket.attribution.cost_class or "default"
        yield f"one that it asks for counts as {cost}, by the costs of class {named}"
    takes = pool.charged(ticket).seats
    if takes < ticket.seats:
        yield f"it {counts_once(pool, ticket)}, and takes {takes} of {_seats(ticket.seats)}"
    yield from _called_back(pool, spec, ticket)
    if spec.overdraft and (held := pool.state.marked.overdraft):
        yield f"of an overdraft of {spec.overdraft}, {held} {_are(held)} held"
    if (begins := begins_next(spec)) is not None:
        at, name, seats = begins
        yield f"in {_in(at, now)}, {_seats(seats)} more {_are(seats)} in force (lot {name})"
    if rule := spec.lots.rule:
        if why := why_no_burst(spec, now):
            yield f"the pool's rule starts no burst now: {why}"
        else:
            wait, within = span(rule.p95_wait / 1000), span(rule.within / 1000)
            yield (
                f"a burst of {_seats(rule.seats)} begins when 95 in 100 requests do not wait for less "
                f"than {wait}, for {within}"
            )


def counts_once(pool: PoolSnapshot, ticket: Ticket) -> str:
    """Return with what a ticket counts once, as what it does."""
    group = group_in(pool.state, ticket)
    number = len(members_in(pool, group))
    others = "a grant" if number == 1 else f"{number} grants"
    return f"counts once with {others} of {said_of(group)}"


def _called_back(pool: PoolSnapshot, spec: PoolSpec, ticket: Ticket) -> Iterator[str]:
    grants, path = pool.state.grants, spec.policy.path(ticket.project)
    for project in path:
        called = SeatSum()
        for grant_id, each in pool.state.guard.reclaims.running.items():
            if each.cause is Cause.GUARANTEE and each.project == project and grant_id in grants:
                called.add(grants[grant_id].seats, grants[grant_id].group)
        if seats := called.of():
            yield f"{_seats(seats)} {_are(seats)} called back for project {project}"


def _in(at: int, now: Instant) -> str:
    return span(max(0, at - now) / 1000)


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _seats(number: int) -> str:
    return "1 seat" if number == 1 else f"{number} seats"
