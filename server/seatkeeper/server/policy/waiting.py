"""Why a ticket waits: which rule decides now. Pure, and asked for one ticket at a time.

What only the pool knows comes first (it is closed, too much is held), then what the policy holds back,
then what the order says: the rule by which the request that gets the next seat comes before this one.
Costs a look at each ticket before it, so nothing of it is computed unless somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from seatkeeper.server.domain import Instant, Ticket
from seatkeeper.server.domain.gang import GangMember, is_choice
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.prospects import counts_once, prospects
from seatkeeper.server.policy.returning import kept_from
from seatkeeper.server.policy.rules import ORDERS, Reason, Rule
from seatkeeper.server.policy.snapshot import PoolSnapshot

_OF_SEATS = frozenset({Rule.SEATS, Rule.LARGE, Rule.DRAINING, Rule.CLOSED, *ORDERS})
"""Rules by which more seats would help."""


@dataclass(frozen=True, slots=True)
class Before:
    """Requests before one, of those that a rule puts there."""

    requests: int = 0
    seats: int = 0
    """That they want."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a ticket waits."""

    reason: Reason
    ahead: Mapping[Rule, Before] = field(default_factory=dict)
    """Those before it, by what puts them there, in the order of ``ORDERS``. Empty where a seat that
    becomes free would not help it."""


def why_waiting(
    pool: PoolSnapshot, plan: Plan, ticket: Ticket, now: Instant | None = None
) -> Waiting:
    """Return why a stored ticket waits. ``plan`` is the policy's for this very pool.

    ``now``: also what may bring it seats, and what cannot, where it waits for some.
    """
    found = _why_waiting(pool, plan, ticket)
    if now is not None and found.reason.rule in _OF_SEATS:
        said = "; ".join((found.reason.text, *prospects(pool, ticket, now)))
        found = Waiting(replace(found.reason, text=said), found.ahead)
    if ticket.move is None:
        return found
    text = f"{found.reason.text}; an administrator moved it: {ticket.move.reason}"
    return Waiting(Reason(found.reason.rule, text, found.reason.of), found.ahead)


def _why_waiting(pool: PoolSnapshot, plan: Plan, ticket: Ticket) -> Waiting:
    if (reason := _of_the_pool(pool, plan, ticket)) is not None:
        return Waiting(reason)
    if (reason := _held_back(pool, plan, ticket)) is not None:
        return Waiting(reason)
    ahead = list(plan.ahead(plan.order, ticket))
    spec = pool.state.spec
    if spec is not None and pool.state.held > spec.open_seats:
        held = f"{pool.state.held} seats are held of a pool of {spec.open_seats}"
        why = (
            "it was made smaller" if not spec.lots else "a contract or a burst of it has ended"
        )
        text = f"{held}: {why}, and it grants none until the surplus is given back"
        return Waiting(Reason(Rule.DRAINING, text), _counted(ahead))
    return Waiting(_of_the_order(pool, plan, pool.charged(ticket), ahead), _counted(ahead))


def _of_the_pool(pool: PoolSnapshot, plan: Plan, ticket: Ticket) -> Reason | None:
    if any(each.grant_id == ticket.grant_id for each in plan.serve):
        if not plan.takes.get(ticket.grant_id, 1):
            text = f"it {counts_once(pool, ticket)}, and takes no seat: the next decision grants it"
            return Reason(Rule.NEXT, text)
        return Reason(Rule.NEXT, "seats for it are free: the next decision grants it")
    if not pool.capacity:
        text = "the pool is closed (0 seats): nothing is granted until it is opened"
        if pool.state.spec is not None and pool.state.spec.lots:
            text = "no contract of the pool is in force (0 seats)"
        return Reason(Rule.CLOSED, text)
    if (spec := pool.state.spec) is not None and spec.drain is not None:
        return Reason(Rule.DRAINED, f"{spec.drain}; nothing is granted until it is opened")
    if plan.order.position(ticket) is None:
        return Reason(Rule.SESSION, "its session has ended, and it goes with it")
    return None


def _held_back(pool: PoolSnapshot, plan: Plan, ticket: Ticket) -> Reason | None:
    if is_choice(ticket.gang):
        others = ", ".join(_alternative(each) for each in ticket.gang)
        text = f"the first of several alternatives that is free is granted: {others}"
        return Reason(Rule.ALTERNATIVES, text)
    if ticket.gang:
        seats = " and ".join(f"{_seats(each.seats)} of {each.pool}" for each in ticket.gang)
        text = f"it is one of a gang: {seats} are granted when all are free at once, or none"
        kept = pool.state.guard.hold_back
        if kept is not None and kept.grant_id == ticket.grant_id:
            text += "; it has waited for long, and seats are kept free for it for a while"
        return Reason(Rule.GANG, text)
    key = ticket.work_key
    if key and (
        pool.is_work_held(key) or any(each.work_key == key for each in _until(plan, ticket))
    ):
        return Reason(Rule.WORK, "another holder does, or is to do, the same work")
    if (reason := plan.why(ticket)) is not None:
        return reason
    if plan.hold_back(ticket):
        return Reason(Rule.POLICY, "the pool's policy grants this request no seat now")
    return None


def _alternative(member: GangMember) -> str:
    seconds = (member.after_millis or 0) / 1000
    later = f" after {seconds:g} s" if seconds else ""
    return f"{_seats(member.seats)} of {member.pool}{later}"


def _of_the_order(
    pool: PoolSnapshot, plan: Plan, ticket: Ticket, ahead: list[tuple[Ticket, Rule]]
) -> Reason:
    served = {each.grant_id for each in plan.serve}
    left = pool.free - sum(plan.takes.get(each.grant_id, each.seats) for each in plan.serve)
    first = next((each for each, _ in ahead if each.grant_id not in served), None)
    wants = f"it wants {_seats(ticket.seats)}"
    if not ahead and (reason := kept_from(pool.state, ticket.seats - left)) is not None:
        return reason
    if not ahead:
        return Reason(Rule.SEATS, f"it is next: {wants}, and {_free(pool, left)} free")
    if first is None and left:
        text = f"{wants}, and {_free(pool, left)} left by those before it"
        return Reason(Rule.SEATS, text)
    spec = pool.state.spec
    overtaking = spec is not None and spec.policy.overtaking is not None
    if first is not None and left and overtaking and ticket.seats > left:
        text = f"{wants}, and {_free(pool, left)} free; {len(ahead)} before it"
        return Reason(Rule.SEATS, text)
    if first is not None and left:
        asked = f"a request for {_seats(first.seats)} is next, and {left} are free"
        passed = "no more may go before it" if overtaking else "none behind it passes it"
        return Reason(Rule.LARGE, f"{asked}: {passed}")
    rule = ahead[0][1]
    counted = _counted(ahead)
    said = ", ".join(f"{each.requests} {ORDERS[of]}" for of, each in counted.items())
    text = f"the next seat is for one {ORDERS[rule]}; before it: {said}"
    if overtaking and ahead[0][0].seats > ticket.seats:
        text += f"; as it wants {_seats(ticket.seats)} only, it may go before larger ones"
    return Reason(rule, text)


def _until(plan: Plan, ticket: Ticket) -> Iterator[Ticket]:
    for each in plan.order:
        if each.grant_id == ticket.grant_id:
            return
        yield each


def _counted(ahead: list[tuple[Ticket, Rule]]) -> dict[Rule, Before]:
    found: dict[Rule, Before] = {}
    for ticket, rule in ahead:
        so_far = found.get(rule, Before())
        found[rule] = Before(so_far.requests + 1, so_far.seats + ticket.seats)
    return {rule: found[rule] for rule in ORDERS if rule in found}


def _free(pool: PoolSnapshot, left: int) -> str:
    """Return how many seats are left of how many: the overdraft is of neither, and is said apart."""
    over = pool.state.spec.overdraft if pool.state.spec is not None else 0
    if not over:
        return f"{left} of {pool.capacity} are"
    return f"{left} of {pool.capacity} and an overdraft of {over} are"


def _seats(number: int) -> str:
    return "1 seat" if number == 1 else f"{number} seats"
