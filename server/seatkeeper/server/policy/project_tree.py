"""Whose turn it is among projects and their parts, ticket by ticket.

Each part of the tree knows its next ticket, its head, and how urgent that is. A ticket that is taken
changes what is held along one path, so only the parts on it are ordered anew: taking one costs the
depth of the tree times the logarithm of its width. What is held only grows while tickets are taken, so
a part whose head its limit leaves no room for is done for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from heapq import heapify, heappop, heapreplace
from sys import maxsize
from typing import Protocol, TypeVar

from seatkeeper.server.domain import PoolPolicy, ProjectShare, Ticket
from seatkeeper.server.policy.rules import Rule

Turn = tuple[bool, float, int | Fraction]
"""Lowest first: not under its guarantee; seats for what it is due; place of the head's ticket."""


USED_COUNTS = 4
"""How much seats that were held lately count, against those that are held now.

Seats are whole, so what is held is seldom what is due: with 20 seats and weights of 3:2:1 it may differ
by a tenth for good. What is used adds that up. The more it counts, the smaller the error, and the
longer a project that had much waits afterwards; by four the error is a hundredth.
"""


@dataclass(frozen=True, slots=True)
class Has:
    """What a part has, and may have."""

    share: ProjectShare
    guaranteed: int = 0
    held: int = 0
    used: float = 0
    """Seats that it has held lately; 0: what was used does not count."""


@dataclass(frozen=True, slots=True)
class AtOnce:
    """Which tickets are taken now or not at all."""

    may_wait: Callable[[Ticket], bool]
    free: int
    """One that may not wait, and wants more seats than these, is left out from the beginning."""


class Part(Protocol):
    """Tickets of a project, or of one and its parts."""

    head: Ticket | None
    """The next ticket; None: no more can be taken."""
    is_due: bool
    """Whether the head is within the guarantee of this part, or of one below it."""

    def turn(self) -> Turn:
        """Return how urgent the head is. There must be one."""
        ...

    def take(self) -> None:
        """Take the head: its seats count as held from now on."""
        ...

    def skip(self) -> None:
        """Leave the head out."""
        ...

    def rule_over(self, path: Sequence[str]) -> Rule | None:
        """Return why the head comes before those of another part, named by the way to it.

        None: they are tickets of one project, or that part has no head.
        """
        ...


class _Counted:
    """What is held, against what is due."""

    def __init__(self, has: Has) -> None:
        self.head: Ticket | None = None
        self.is_due = False
        self._weight = has.share.weight
        self._limit = maxsize if has.share.limit is None else has.share.limit
        self._guaranteed = has.guaranteed
        self._held = has.held
        self._used = USED_COUNTS * has.used

    def turn(self) -> Turn:
        """Keep the promise of ``Part.turn``.

        Half a seat is added to what is held (Webster's method), or small projects would be rounded up.
        """
        assert self.head is not None
        if self.is_due and self._guaranteed:
            return False, (self._held + 0.5) / self._guaranteed, self.head.place
        seats = (self._held + 0.5 + self._used) / self._weight
        return not self.is_due, seats, self.head.place

    def _has_room(self, ticket: Ticket) -> bool:
        return self._held + ticket.seats <= self._limit

    def _is_within(self, ticket: Ticket) -> bool:
        return self._held + ticket.seats <= self._guaranteed


class Leaf(_Counted):
    """A project's own tickets, the next one first."""

    def __init__(
        self,
        has: Has,
        queue: Iterator[Ticket],
        at_once: AtOnce,
    ) -> None:
        super().__init__(has)
        self._queue = queue
        self._at_once = at_once
        self.skip()

    def take(self) -> None:
        """Keep the promise of ``Part.take``."""
        assert self.head is not None
        self._held += self.head.seats
        self.skip()

    def skip(self) -> None:
        """Keep the promise of ``Part.skip``. One that may not wait holds up none behind it."""
        self.head = None
        for ticket in self._queue:
            may_wait = self._at_once.may_wait(ticket)
            if self._has_room(ticket) and (may_wait or ticket.seats <= self._at_once.free):
                self.head = ticket
                self.is_due = self._is_within(ticket)
                return
            if may_wait:
                return

    def rule_over(self, path: Sequence[str]) -> Rule | None:
        """Keep the promise of ``Part.rule_over``."""
        return None


class Branch(_Counted):
    """Parts, of which the most urgent one is next."""

    def __init__(
        self,
        has: Has,
        parts: Mapping[str, Part],
        at_once: AtOnce,
    ) -> None:
        super().__init__(has)
        self._at_once = at_once
        self._by_name = parts
        # The number orders parts whose turns are equal.
        self._parts = [
            (each.turn(), n, each) for n, each in enumerate(parts.values()) if each.head
        ]
        heapify(self._parts)
        self._find()

    def take(self) -> None:
        """Keep the promise of ``Part.take``."""
        assert self.head is not None
        self._held += self.head.seats
        self._parts[0][2].take()
        self._again()
        self._find()

    def skip(self) -> None:
        """Keep the promise of ``Part.skip``."""
        self._parts[0][2].skip()
        self._again()
        self._find()

    def rule_over(self, path: Sequence[str]) -> Rule | None:
        """Keep the promise of ``Part.rule_over``."""
        first, other = self._parts[0][2], self._by_name[path[0]]
        if first is other:
            return first.rule_over(path[1:])
        if other.head is None:
            return None
        mine, theirs = first.turn(), other.turn()
        if mine[:2] == theirs[:2]:
            assert first.head is not None
            return Rule.MOVED if first.head.number > other.head.number else Rule.ARRIVAL
        return Rule.GUARANTEE if first.is_due else Rule.WEIGHT

    def _again(self) -> None:
        """Put the first part where it belongs now."""
        _, number, part = self._parts[0]
        if part.head is None:
            heappop(self._parts)
        else:
            heapreplace(self._parts, (part.turn(), number, part))

    def _find(self) -> None:
        """Find the head: of the most urgent part that has one which there is room for."""
        self.head, self.is_due = None, False
        while self._parts:
            part = self._parts[0][2]
            ticket = part.head
            assert ticket is not None
            if self._has_room(ticket):
                self.head = ticket
                self.is_due = part.is_due or self._is_within(ticket)
                return
            if self._at_once.may_wait(ticket):
                heappop(self._parts)
            else:
                part.skip()
                self._again()


def tree_of(
    policy: PoolPolicy,
    own: Mapping[str, int],
    used: Mapping[str, float],
    queues: Mapping[str, Iterator[Ticket]],
    at_once: AtOnce,
) -> Branch:
    """Return all that wait, as one tree.

    ``own``: the seats that each project holds itself; ``used``: how many it has held lately;
    ``queues``: the tickets of each project. A project that is not listed has a share with its defaults.
    The own tickets of a project with parts are one more part of it, with a weight of 1.
    """
    held = with_parts(policy, own)
    all_used = with_parts(policy, used)

    def leaf(share: ProjectShare, guaranteed: int) -> Leaf:
        name = share.project
        has = Has(share, guaranteed, own.get(name, 0), used.get(name, 0))
        return Leaf(has, queues.get(name, iter(())), at_once)

    def part_of(name: str) -> Part:
        share, guaranteed = policy.share(name), policy.guaranteed[name]
        if name not in policy.parts:
            return leaf(share, guaranteed)
        parts = {each: part_of(each) for each in policy.parts[name]}
        parts[name] = leaf(ProjectShare(project=name), 0)
        has = Has(share, guaranteed, held.get(name, 0), all_used.get(name, 0))
        return Branch(has, parts, at_once)

    waiting = {each for name in queues for each in policy.path(name)}
    listed = {name: part_of(name) for name in policy.parts.get("", ()) if name in waiting}
    others: dict[str, Part] = {
        name: leaf(policy.share(name), 0) for name in queues if name not in policy.shares
    }
    return Branch(_ROOT, {**listed, **others}, at_once)


_ROOT = Has(ProjectShare(project=""))


def way_to(policy: PoolPolicy, project: str) -> list[str]:
    """Return the names on the way to a project's own tickets, from the root of the tree."""
    if project not in policy.shares:
        return [project]
    own = [project] if project in policy.parts else []
    return [*reversed(list(policy.path(project))), *own]


Number = TypeVar("Number", int, float)


def with_parts(policy: PoolPolicy, own: Mapping[str, Number]) -> dict[str, Number]:
    """Return what each project has with its parts."""
    if not any(policy.parts):
        return dict(own)
    found: dict[str, Number] = {}
    for project, count in own.items():
        for each in policy.path(project):
            found[each] = found.get(each, 0) + count
    return found
