"""A pool as a policy sees it.

A decision plans over more than what is stored: requests of its batch that are accepted and not stored
yet, and without the grants and tickets that it ends. The loop plans over what is stored. Both are one
value here, so a policy cannot distinguish them, and a node wakes for what it then decides.
"""

from __future__ import annotations

from collections.abc import (
    Callable,
    Collection,
    Container,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import replace
from heapq import merge
from itertools import chain
from sys import maxsize

from seatkeeper.server.domain import (
    NO_RULES,
    Cause,
    Grant,
    PoolRules,
    PoolState,
    Ticket,
    Window,
)
from seatkeeper.server.domain.counted_once import NO_GROUP, Group, SeatSum, group_of
from seatkeeper.server.domain.immutable import immutable
from seatkeeper.server.domain.state import QueueKey, queue_key
from seatkeeper.server.policy.order import ListedOrder, Order, StoredOrder


@immutable
class PoolSnapshot:
    """A pool at one moment of a decision. Read only; costs nothing to make."""

    state: PoolState
    """What is stored. Policies read the methods below instead: they know what else is decided."""
    free: int
    """Seats that can be granted; 0 while a lowered capacity drains, and where there is no pool."""
    ticket_number: int
    """The number of the latest ticket: how many requests were accepted so far."""
    grants_max: int = maxsize
    """More tickets than these are not granted, whatever is planned."""
    ended: Collection[str] = frozenset()
    """Ids of stored grants and tickets that the decision ends."""
    new: Sequence[Ticket] = ()
    """Requests that the decision has accepted, and that are not stored, by number."""
    impatient: Container[str] = frozenset()
    """Ids of those of them that are denied if they are not served now."""
    returned: Collection[str] = frozenset()
    """Ids of tickets that are served before all others, with seats that are kept for them."""
    joined: Collection[str] = frozenset()
    """Ids of tickets of gangs that may be served: all others of the gang are, too."""
    sum: SeatSum | None = None
    """What is in use as the decision has left it; None: what is stored, without what it ends."""

    @classmethod
    def of(cls, state: PoolState, *, grants_max: int = maxsize) -> PoolSnapshot:
        """Return a pool as it is stored."""
        return cls(state, state.free, state.guard.ticket_number, grants_max, sum=state.sum)

    @property
    def capacity(self) -> int:
        """The seats that the pool has; 0: it is closed, or there is none."""
        return self.state.spec.seats if self.state.spec else 0

    @property
    def is_open(self) -> bool:
        """Whether seats that become free are granted; false where it is closed or drained."""
        return self.state.spec is not None and self.state.spec.open_seats > 0

    @property
    def rules(self) -> PoolRules:
        """Who may use the pool, and how much each may have."""
        return self.state.spec.policy.rules if self.state.spec else NO_RULES

    @property
    def windows(self) -> Mapping[str, Window]:
        """The windows that are open, by the names of their reservations."""
        return self.state.spec.windows.open if self.state.spec else {}

    def grants(self) -> Iterator[Grant]:
        """Yield the grants that hold seats, in no order that means anything."""
        return (each for each in self.state.grants.values() if each.grant_id not in self.ended)

    @property
    def counts_once(self) -> bool:
        """Whether a request may be of a group."""
        return self.state.spec is not None and bool(self.state.spec.policy.count_once)

    def charged(self, ticket: Ticket) -> Ticket:
        """Return a ticket as a policy sees it: with the seats that it takes of the pool.

        Of two of one group that are granted at once, both with as many as the first: the next decision
        knows better.
        """
        group = group_in(self.state, ticket)
        if not group:
            return ticket
        takes = self.in_use.takes(ticket.seats, group)
        return ticket if takes == ticket.seats else replace(ticket, seats=takes)

    def whole(self, ticket: Ticket) -> Ticket:
        """Return a ticket as it was asked for, of one as a policy sees it."""
        if (stored := self.state.tickets.get(ticket.grant_id)) is not None:
            return stored
        return next((each for each in self.new if each.grant_id == ticket.grant_id), ticket)

    @property
    def in_use(self) -> SeatSum:
        """What is in use without what the decision ends."""
        if self.sum is not None or not self.ended:
            return self.sum or self.state.sum
        found = self.state.sum.branch()
        for each in filter(None, map(self.state.holding, self.ended)):
            found.remove(each.seats, each.group)
        return found

    def waiting(self) -> Iterator[Ticket]:
        """Yield the tickets that can be served, by priority, then in the order of acceptance.

        Works out the next one only when it is asked for. Tickets of sessions that are known to have
        ended are left out, and those that stand apart. Each has the seats that it takes (``charged``).
        """
        return map(self.charged, self._waiting()) if self.counts_once else self._waiting()

    def _waiting(self) -> Iterator[Ticket]:
        if self.has_apart:
            return (each for each, is_apart in self._by_turn() if not is_apart)
        if self.returned:
            return filter(self.lives, self.state.queue(self.new))
        dead, ended = self.state.dead_sessions, self.ended
        return (
            ticket
            for ticket in self.state.queue(self.new)
            if ticket.session_id not in dead and ticket.grant_id not in ended
        )

    def waiting_with_mates(self, closed: Collection[str]) -> Iterator[Ticket]:
        """Yield the same, with all of those for the same work, of which a policy serves the first.

        Stored ones of the holders in ``closed``, which may grow meanwhile, are left out: there may be
        thousands of these, so they are left out before anything else is asked.
        """
        stored = (each for each in self.state.queue() if each.attribution.holder not in closed)
        new = sorted(self.new, key=queue_key)
        found = merge(stored, new, key=queue_key) if new else stored
        able = (each for each in found if self.lives(each) and not self.stands_apart(each))
        return map(self.charged, able) if self.counts_once else able

    def waiting_by_project(self) -> dict[str, Iterator[Ticket]]:
        """Return the tickets that can be served by their projects, each in the order of ``waiting``.

        Of those that want the same work there may be one in each project: a policy serves the first
        whose turn it is. Costs a look at each project that waits.
        """
        stored = self.state.projects.queues
        new = _by_project(sorted(self.new, key=queue_key))
        return {
            name: self._of_project(stored.get(name, ()), new.get(name, ()))
            for name in stored.keys() | new.keys()
        }

    def _of_project(
        self, stored: Iterable[QueueKey], new: Iterable[Ticket]
    ) -> Iterator[Ticket]:
        tickets = (self.state.tickets[key[2]] for key in stored)
        found = merge(tickets, new, key=queue_key) if new else tickets
        able = (each for each in found if self.lives(each) and not self.stands_apart(each))
        return map(self.charged, able) if self.counts_once else able

    def held_by_project(self) -> Mapping[str, int]:
        """Return how many seats each project holds, of those that hold any. Not a copy: read only."""
        stored = self.state.projects.sum
        if not self.ended:
            return stored.held
        held, without = dict(stored.held), stored.branch()
        for grant_id in self.ended:
            if (grant := self.state.holding(grant_id)) is not None:
                without.remove(grant.seats, grant.group, grant.project)
        for name, fewer in without.held.items():
            held[name] = held.get(name, 0) + fewer
        return held

    def apart(self) -> Iterator[Ticket]:
        """Yield the tickets that no seat of this pool alone helps, in the same order.

        Those that wait for another holder to do the same work, and those of gangs, which are granted
        together with others. A policy does not serve them. They come last in its order.
        """
        if not self.has_apart:
            return iter(())
        return (each for each, is_apart in self._by_turn() if is_apart)

    @property
    def has_apart(self) -> bool:
        """Whether any request or grant has a work key, or is of a gang."""
        state = self.state
        if state.work_waiting or state.work_held or state.gangs:
            return True
        return any(each.attribution.work_key or each.attribution.gang for each in self.new)

    def stands_apart(self, ticket: Ticket) -> bool:
        """Return whether a ticket is of a gang, or a grant holds seats for its work."""
        if ticket.gang:
            return ticket.grant_id not in self.joined
        return bool(ticket.work_key) and self.is_work_held(ticket.work_key)

    def waits_apart(self, ticket: Ticket) -> bool:
        """Return whether no seat of this pool alone helps; also of a ticket not in the pool yet."""
        if ticket.gang:
            return ticket.grant_id not in self.joined
        key = ticket.work_key
        if not key:
            return False
        if self.is_work_held(key):
            return True
        stored = (self.state.tickets[each] for each in self.state.work_waiting.get(key, ()))
        others = filter(self.may_wait, (*filter(self.lives, stored), *self.new))
        turn = queue_key(ticket)
        return any(queue_key(each) < turn for each in others if each.work_key == key)

    def is_work_held(self, work_key: str) -> bool:
        """Return whether a grant holds seats for this work."""
        return any(each not in self.ended for each in self.state.work_held.get(work_key, ()))

    def _by_turn(self) -> Iterator[tuple[Ticket, bool]]:
        """Yield the tickets that live, and whether they stand apart, or behind one for the same work.

        One that may not wait is to do it only if it is served now, so it holds back none.
        """
        seen: set[str] = set()
        for ticket in filter(self.lives, self.state.queue(self.new)):
            key = ticket.work_key
            if not key:
                yield ticket, self.stands_apart(ticket)
                continue
            yield ticket, key in seen or self.is_work_held(key)
            if self.may_wait(ticket):
                seen.add(key)

    def lives(self, ticket: Ticket) -> bool:
        """Return whether a ticket waits, and is not served before all others."""
        return (
            ticket.session_id not in self.state.dead_sessions
            and ticket.grant_id not in self.ended
            and ticket.grant_id not in self.returned
        )

    def may_wait(self, ticket: Ticket) -> bool:
        """Return whether a ticket goes on waiting if it is not served now."""
        return ticket.grant_id not in self.impatient

    @property
    def by_acceptance(self) -> Order:
        """The order of ``waiting``, and then those that stand apart."""
        if self.has_apart:
            return ListedOrder(lambda: chain(self.waiting(), self.apart()))
        if self.new or self.ended or self.returned:
            return ListedOrder(self.waiting)
        return StoredOrder(self.state)


def group_in(state: PoolState, asked: Ticket) -> Group:
    """Return the group that a request of a pool is of if it is granted now.

    None of one whose seats are called back for another: a new member would hold them for longer.
    """
    named = state.spec.policy.count_once if state.spec is not None else ()
    group = group_of(named, asked.attribution) if named else NO_GROUP
    running = state.guard.reclaims.running
    if group and running:
        for each in state.groups.members(group):
            reclaim = running.get(each.grant_id)
            if reclaim is not None and reclaim.cause in FOR_ANOTHER:
                return NO_GROUP
    return group


FOR_ANOTHER = frozenset({Cause.GUARANTEE, Cause.RESERVATION})
"""Causes for which seats are called back so that another has them."""


def _by_project(tickets: Iterable[Ticket]) -> dict[str, list[Ticket]]:
    found: dict[str, list[Ticket]] = {}
    for ticket in tickets:
        found.setdefault(ticket.project, []).append(ticket)
    return found


def held_back_last(
    pool: PoolSnapshot, serve: Sequence[Ticket], hold_back: Callable[[Ticket], bool]
) -> Order:
    """Return the order of acceptance, with those that are served first, and those held back last."""

    def listed() -> Iterator[Ticket]:
        yield from serve
        served = {ticket.grant_id for ticket in serve}
        waiting = [ticket for ticket in pool.waiting() if ticket.grant_id not in served]
        yield from sorted(waiting, key=hold_back)
        yield from pool.apart()

    return ListedOrder(listed)
