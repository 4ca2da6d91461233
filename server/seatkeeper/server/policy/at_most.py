"""The most that each holder, host and project may hold of a pool: who has room, as tickets are taken.

One that does not fit is held back, and others go before it. Its own do not: later requests of the same
holder wait behind one that the holder's limit holds back, those of the same host behind one that the
host's limit does, and those of the same project behind one
that the project's does, or small ones would keep a large one waiting without end. Where seats are
shared among projects, which have queues of their own, that is so for a holder's requests of one
project.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from seatkeeper.server.domain import Grant, Ticket
from seatkeeper.server.domain.counted_once import NO_GROUP, SeatSum
from seatkeeper.server.policy.rules import Reason, Rule
from seatkeeper.server.policy.snapshot import PoolSnapshot


class Room:
    """What each may still hold, in one plan. Only shrinks."""

    def __init__(self, pool: PoolSnapshot) -> None:
        state, rules = pool.state, pool.rules
        self._pool = pool
        self._is_shared = state.spec is not None and bool(state.spec.policy.projects)
        self._of_holders = _Each(Rule.PER_HOLDER, "holder", rules.per_holder.seats)
        self._of_hosts = _Each(Rule.PER_HOST, "host", rules.per_host.seats)
        self._of_projects = _Each(Rule.PER_PROJECT, "project", rules.per_project.seats)
        if self._of_holders.most is not None:
            self._of_holders.count(state.by_rules.of_holders)
        if self._of_hosts.most is not None:
            self._of_hosts.count(state.by_rules.of_hosts)
        if self._of_projects.most is not None:
            self._of_projects.count(state.projects.sum)
        for grant_id in pool.ended:
            if (grant := state.holding(grant_id)) is not None:
                self._of_holders.end(grant.holder, grant)
                self._of_hosts.end(grant.host.lower(), grant)
                self._of_projects.end(grant.project, grant)

    def admits(self, ticket: Ticket) -> bool:
        """Return whether a ticket fits, and none that it must not pass is held back.

        Asked of those of one holder and project in their order: one that may wait, and is not
        admitted, holds back those behind it.
        """
        may_wait = self._pool.may_wait(ticket)
        seats, host = ticket.seats, ticket.host.lower()
        return (
            self._of_holders.admits(
                ticket.holder, seats, self._queue(ticket), may_wait=may_wait
            )
            and self._of_hosts.admits(
                host, seats, self._queue_on(ticket, host), may_wait=may_wait
            )
            and self._of_projects.admits(
                ticket.project, seats, ticket.project, may_wait=may_wait
            )
        )

    def take(self, ticket: Ticket) -> None:
        """Count a ticket's seats as held."""
        self._of_holders.add(ticket.holder, ticket.seats)
        self._of_hosts.add(ticket.host.lower(), ticket.seats)
        self._of_projects.add(ticket.project, ticket.seats)

    def admitted(self) -> Iterator[Ticket]:
        """Yield those of the waiting tickets that are admitted, each when it is asked for.

        In the order of a pool that lists no projects. Looks at none where all that wait are of
        holders, or projects, that have the most already.
        """
        if not self._is_any_open():
            return
        self._of_holders.closed.update(self._of_holders.full())
        waiting = self._pool.waiting_with_mates(self._of_holders.closed)
        yield from filter(self.admits, waiting)

    def admitted_of_project(self, tickets: Iterable[Ticket]) -> Iterator[Ticket]:
        """Yield the same of the tickets of one project."""
        for ticket in tickets:
            if self.admits(ticket):
                yield ticket
            elif ticket.project in self._of_projects.closed:
                return

    def reached(self, ticket: Ticket) -> Reason | None:
        """Return which limit leaves no room for a ticket, or None."""
        return (
            self._of_holders.reached(ticket.holder, ticket.seats)
            or self._of_hosts.reached(ticket.host.lower(), ticket.seats)
            or self._of_projects.reached(ticket.project, ticket.seats)
        )

    def left_by_others(self, ticket: Ticket) -> Reason | None:
        """Return what holds a ticket back once those before it are taken, or None."""
        if (found := self.reached(ticket)) is not None:
            who = found.rule.removeprefix("per_")
            text = f"the requests before it take its {who} to the most that each may hold"
            return Reason(found.rule, text)
        host = ticket.host.lower()
        return (
            self._of_holders.behind(ticket.holder, self._queue(ticket))
            or self._of_hosts.behind(host, self._queue_on(ticket, host))
            or self._of_projects.behind(ticket.project, ticket.project)
        )

    def _queue(self, ticket: Ticket) -> str:
        """Return a name for those of a holder's tickets that keep their order."""
        return f"{ticket.project} {ticket.holder}" if self._is_shared else ticket.holder

    def _queue_on(self, ticket: Ticket, host: str) -> str:
        """Return a name for those of a host's tickets that keep their order, likewise."""
        return f"{ticket.project} {host}" if self._is_shared else host

    def _is_any_open(self) -> bool:
        """Return whether a ticket may wait of one that has room; true when in doubt."""
        state, new = self._pool.state, len(self._pool.new)
        if self._of_holders.most is not None:
            full = sum(state.tickets_of[each] for each in self._of_holders.full())
            return len(state.tickets) + new > full
        queues = state.projects.queues
        full = sum(len(queues.get(each, ())) for each in self._of_projects.full())
        return len(state.tickets) + new > full


@dataclass(slots=True)
class _Each:
    """What each of one kind holds, against the most that it may."""

    rule: Rule
    what: str
    most: int | None
    """None: all, and nothing is counted."""
    held: Mapping[str, int] = field(default_factory=dict)
    """As stored; not changed here."""
    now: SeatSum = field(default_factory=SeatSum)
    """With what the plan takes, and without what ends."""
    closed: set[str] = field(default_factory=set)
    """Queues of theirs in which a ticket is held back."""

    def is_counted(self, name: str) -> bool:
        """Return whether there is a most for it: of a host that is not known, nothing is counted."""
        return self.most is not None and bool(name)

    def count(self, stored: SeatSum) -> None:
        self.held, self.now = stored.held, stored.branch()

    def has(self, name: str) -> int:
        return self.now.of(name)

    def add(self, name: str, seats: int) -> None:
        if self.is_counted(name):
            self.now.add(seats, NO_GROUP, name)

    def end(self, name: str, grant: Grant) -> None:
        if self.is_counted(name):
            self.now.remove(grant.seats, grant.group, name)

    def admits(self, name: str, seats: int, queue: str, *, may_wait: bool) -> bool:
        if self.most is None or not name:
            return True
        if queue in self.closed:
            return False
        fits = self.has(name) + seats <= self.most
        if not fits and may_wait:
            self.closed.add(queue)
        return fits

    def full(self) -> Iterator[str]:
        most = self.most
        return (name for name in self.held if most is not None and self.has(name) >= most)

    def reached(self, name: str, seats: int) -> Reason | None:
        if self.most is None or not name or self.has(name) + seats <= self.most:
            return None
        has = f"{self.has(name)} of the {self.most} seats that each may hold"
        return Reason(self.rule, f"{self.what} {name} has {has}")

    def behind(self, name: str, queue: str) -> Reason | None:
        if queue not in self.closed or not name:
            return None
        text = f"it is behind a request of {self.what} {name} that wants more seats than are left of"
        return Reason(self.rule, f"{text} the {self.most} that each may hold")


def room_in(pool: PoolSnapshot) -> Room | None:
    """Return the room in a pool; None: its rules limit no seats."""
    return Room(pool) if pool.rules.limits_seats else None


def held_back(room: Room | None, served: Collection[str], ticket: Ticket) -> Reason | None:
    """Return which limit leaves no room for a ticket when those with these ids are served."""
    if room is None or ticket.grant_id in served:
        return None
    return room.reached(ticket)
