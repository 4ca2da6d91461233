"""Guarantees, limits and fair shares of projects: the order of service of a pool that lists some."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from seatkeeper.server.domain import Instant, PoolPolicy, ProjectShare, Ticket
from seatkeeper.server.policy.at_most import Room, held_back, room_in
from seatkeeper.server.policy.kept import Kept, kept_from, kept_in
from seatkeeper.server.policy.order import ListedOrder
from seatkeeper.server.policy.overtaking import Backfill
from seatkeeper.server.policy.plan import Plan, by_acceptance
from seatkeeper.server.policy.project_tree import AtOnce, Branch, tree_of, way_to, with_parts
from seatkeeper.server.policy.reclaiming import DUE_MAX, NOTHING_WANTED, Reclaiming, Wanted
from seatkeeper.server.policy.rules import Reason, Rule
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.policy.usage import mean_seats


@dataclass(frozen=True, slots=True)
class Shares:
    """Serves projects under their guarantees first, then by weight; within a project as ``Fifo``.

    The next ticket is the first of one project. Projects with a ticket that fits into their guarantee,
    or that of a project which they are a part of, come before the others; among equals, the one whose
    seats are fewest for what it is guaranteed, or for its weight, and then the one that waits longest.
    A project at its limit is passed over. A ticket that is next and wants more seats than are free is
    overtaken as far as the policy says, otherwise not, or a large request would never be served.

    Depends on no time, but that it allows less overtaking as time passes. Costs a look at each project
    that waits, at each that holds seats, and at each ticket that is served or looked past.
    """

    policy: PoolPolicy

    def plan(self, pool: PoolSnapshot, now: Instant) -> Plan:
        """Return the plan: the first tickets, as far as the free seats go."""
        quotas = Quotas(self.policy, pool)
        backfill = Backfill(self.policy.overtaking, pool, now)
        room, kept = room_in(pool), kept_in(pool, now)
        asked = pool.free and (pool.new or pool.state.tickets)
        serve = list(_served(pool, quotas, backfill, room, kept)) if asked else []
        served = {ticket.grant_id for ticket in serve}

        def left_by_rules(ticket: Ticket) -> Reason | None:
            return held_back(room, served, ticket) or kept_from(kept, served, ticket)

        def hold_back(ticket: Ticket) -> bool:
            if pool.stands_apart(ticket) or quotas.reached(ticket) is not None:
                return True
            return left_by_rules(ticket) is not None

        order = ListedOrder(lambda: _in_order(pool, quotas))
        if kept is not None:
            order = ListedOrder(lambda: sorted(_in_order(pool, quotas), key=hold_back))
        wanted = _wanted_back(pool, quotas, serve, now, kept)
        return Plan(
            reclaim=wanted.grants,
            next_wake=wanted.next_look,
            serve=serve,
            why=lambda ticket: _why(pool, quotas, ticket) or left_by_rules(ticket),
            order=order,
            hold_back=hold_back,
            passed=backfill.passed,
            ahead=lambda _, ticket: _ahead(pool, quotas, ticket),
        )


class Quotas:
    """What projects hold, with that of their parts, against what they may hold."""

    def __init__(self, policy: PoolPolicy, pool: PoolSnapshot) -> None:
        self.policy = policy
        self._pool = pool

    @cached_property
    def own(self) -> Mapping[str, int]:
        """The seats that each project holds itself."""
        return self._pool.held_by_project()

    @cached_property
    def held(self) -> Mapping[str, int]:
        """The seats that each project and its parts hold."""
        return with_parts(self.policy, self.own)

    @cached_property
    def used(self) -> Mapping[str, float]:
        """The seats that each project has held lately; none where that does not count.

        Of projects that are not listed nothing is written down: they count as if they had always held
        what they hold, or they would come before all that are listed.
        """
        if self.policy.usage_half_life is None:
            return {}
        listed = self.policy.shares
        others = {name: seats for name, seats in self.own.items() if name not in listed}
        return {
            **others,
            **mean_seats(self._pool.state.guard.usage, self.policy.usage_half_life),
        }

    def reached(self, ticket: Ticket) -> ProjectShare | None:
        """Return the share whose limit leaves no room for a ticket, or None."""
        if ticket.project not in self.policy.shares:
            return None
        for each in self.policy.path(ticket.project):
            share = self.policy.share(each)
            if share.limit is not None and self.held.get(each, 0) + ticket.seats > share.limit:
                return share
        return None


def _served(
    pool: PoolSnapshot,
    quotas: Quotas,
    backfill: Backfill,
    room: Room | None,
    kept: Kept | None = None,
) -> Iterator[Ticket]:
    """Yield the tickets that are served, as far as seats and ``grants_max`` go."""
    free, count = pool.free, 0
    works: set[str] = set()
    tree = _tree(pool, quotas, room)
    while free and count < pool.grants_max and (ticket := tree.head) is not None:
        if ticket.work_key in works or not (room is None or room.admits(ticket)):
            tree.skip()
        elif kept is not None and not kept.admits(ticket, backfill):
            kept.hold_up(ticket, backfill)
            if kept.is_done:
                return
            tree.skip()
        elif kept is not None or (ticket.seats <= free and backfill.may_go(ticket)):
            if room is not None:
                room.take(ticket)
            tree.take()
            if kept is not None:
                kept.serve(ticket, backfill)
            else:
                backfill.go(ticket)
            free, count = free - ticket.seats, count + 1
            if ticket.work_key:
                works.add(ticket.work_key)
            yield ticket
        elif pool.may_wait(ticket) and not (ticket.seats > free and backfill.look_past(ticket)):
            return
        else:
            tree.skip()


def _wanted_back(
    pool: PoolSnapshot,
    quotas: Quotas,
    serve: Sequence[Ticket],
    now: Instant,
    kept: Kept | None,
) -> Wanted:
    """Return which lent seats are called back for those that are due, and are not served now."""
    rule, policy = quotas.policy.reclaim, quotas.policy
    if rule is None or not pool.state.tickets or not pool.is_open:
        return NOTHING_WANTED  # in a drained pool none would be granted what is freed
    own = dict(quotas.own)
    for ticket in serve:
        own[ticket.project] = own.get(ticket.project, 0) + ticket.seats
    held, free = with_parts(policy, own), pool.capacity - sum(own.values())
    due = _due(pool, quotas, serve, held)
    return Reclaiming(rule, policy, pool, now, kept).wanted(due, held, free)


def _due(
    pool: PoolSnapshot, quotas: Quotas, serve: Sequence[Ticket], held: Mapping[str, int]
) -> Iterator[tuple[Ticket, str]]:
    """Yield the tickets that are next and within a guarantee, and whose guarantee that is."""
    served, count = {ticket.grant_id for ticket in serve}, dict(held)
    works = {ticket.work_key for ticket in serve if ticket.work_key}
    room, found = room_in(pool), 0
    tree = _tree(pool, quotas, room)
    while (ticket := tree.head) is not None and found < DUE_MAX:
        is_served = ticket.grant_id in served
        if not (is_served or tree.is_due):
            return
        is_stored = ticket.grant_id in pool.state.tickets
        if not is_served and ticket.work_key in works:
            tree.skip()
            continue
        if not (is_served or is_stored) or not (room is None or room.admits(ticket)):
            tree.skip()  # a new one may be kept out of the queue; if not, it is looked at then
            continue
        if room is not None:
            room.take(ticket)
        if is_served:
            tree.take()
            continue
        path = quotas.policy.path(ticket.project)
        within = [
            each
            for each in path
            if count.get(each, 0) + ticket.seats <= quotas.policy.guaranteed.get(each, 0)
        ]
        if not within:
            return
        yield ticket, within[0]
        for each in path:
            count[each] = count.get(each, 0) + ticket.seats
        if ticket.work_key:
            works.add(ticket.work_key)
        found += 1
        tree.take()


def _in_order(pool: PoolSnapshot, quotas: Quotas) -> Iterator[Ticket]:
    """Yield all that wait, as seats would go to them one by one; what limits hold back, last."""
    listed: set[str] = set()
    for ticket, _ in _turns(pool, quotas):
        listed.add(ticket.grant_id)
        yield ticket
    others = chain(pool.waiting(), pool.apart())
    yield from (ticket for ticket in others if ticket.grant_id not in listed)


def _turns(
    pool: PoolSnapshot, quotas: Quotas, room: Room | None = None
) -> Iterator[tuple[Ticket, Branch]]:
    """Yield whom seats would go to, one by one, as far as limits go; and the tree at that moment."""
    works: set[str] = set()
    room = room or room_in(pool)
    tree = _tree(pool, quotas, room)
    while (ticket := tree.head) is not None:
        if ticket.work_key in works or not (room is None or room.admits(ticket)):
            tree.skip()
            continue
        if ticket.work_key:
            works.add(ticket.work_key)
        yield ticket, tree
        if room is not None:
            room.take(ticket)
        tree.take()


def _ahead(pool: PoolSnapshot, quotas: Quotas, ticket: Ticket) -> Iterator[tuple[Ticket, Rule]]:
    """Keep the promise of ``Plan.ahead``."""
    way = way_to(quotas.policy, ticket.project)
    for each, tree in _turns(pool, quotas):
        if each.grant_id == ticket.grant_id:
            return
        yield each, tree.rule_over(way) or by_acceptance(each, ticket)


def _why(pool: PoolSnapshot, quotas: Quotas, ticket: Ticket) -> Reason | None:
    """Keep the promise of ``Plan.why``."""
    if (share := quotas.reached(ticket)) is not None:
        has = f"{quotas.held.get(share.project, 0)} of the {share.limit} seats that it may hold"
        return Reason(Rule.LIMIT, f"project {share.project} has {has}")
    room = room_in(pool)
    if room is not None and (reason := room.reached(ticket)) is not None:
        return reason
    stored, turns = ticket.grant_id in pool.state.tickets, _turns(pool, quotas, room)
    if not stored or any(each.grant_id == ticket.grant_id for each, _ in turns):
        return None
    if room is not None and (reason := room.left_by_others(ticket)) is not None:
        return reason
    before = _first_of_project(pool, ticket)
    if before is not None and (share := quotas.reached(before)) is not None:
        has = f"{quotas.held.get(share.project, 0)} of the {share.limit} seats that it may hold"
        wanted = (
            f"a request of its project that wants {before.seats}, and project {share.project}"
        )
        return Reason(Rule.LIMIT, f"it is behind {wanted} has {has}")
    limits = f"project {ticket.project}, or one that it is a part of, to a limit"
    return Reason(Rule.LIMIT, f"the requests before it take {limits}")


def _first_of_project(pool: PoolSnapshot, ticket: Ticket) -> Ticket | None:
    """Return the next ticket of a ticket's project, if that is another one."""
    own = next((each for each in pool.waiting() if each.project == ticket.project), None)
    return None if own is None or own.grant_id == ticket.grant_id else own


def _tree(pool: PoolSnapshot, quotas: Quotas, room: Room | None) -> Branch:
    queues: Mapping[str, Iterator[Ticket]] | Mapping[str, Sequence[Ticket]]
    queues = pool.waiting_by_project()
    if room is not None:
        queues = {name: room.admitted_of_project(each) for name, each in queues.items()}
    return tree_of(
        quotas.policy, quotas.own, quotas.used, queues, AtOnce(pool.may_wait, pool.free)
    )
