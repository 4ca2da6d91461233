"""Whose turn it is among projects and their parts, ticket by ticket.

Each part of the tree knows its next ticket, its head, and how urgent that is. A ticket that is taken
changes what is held along one path, so only the parts on it are ordered anew: taking one costs the
depth of the tree times the logarithm of its width. What is held only grows while tickets are taken, so
a part whose head its limit leaves no room for is done for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from sys import maxsize
from typing import Protocol

from seatkeeper.server.domain import PoolPolicy, ProjectShare, Ticket

Turn = tuple[bool, float, int]
"""Lowest first: not under its guarantee; seats for what it is due; number of the head's ticket."""


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


class _Counted:
    """What is held, against what is due."""

    def __init__(self, share: ProjectShare, guaranteed: int, held: int) -> None:
        self.head: Ticket | None = None
        self.is_due = False
        self._weight = share.weight
        self._limit = maxsize if share.limit is None else share.limit
        self._guaranteed = guaranteed
        self._held = held

    def turn(self) -> Turn:
        """Keep the promise of ``Part.turn``.

        Half a seat is added to what is held (Webster's method), or small projects would be rounded up.
        """
        assert self.head is not None
        due = self._guaranteed if self.is_due else self._weight
        return not self.is_due, (self._held + 0.5) / (due or self._weight), self.head.number

    def _has_room(self, ticket: Ticket) -> bool:
        return self._held + ticket.seats <= self._limit

    def _is_within(self, ticket: Ticket) -> bool:
        return self._held + ticket.seats <= self._guaranteed


class Leaf(_Counted):
    """A project's own tickets, the next one first."""

    def __init__(
        self,
        share: ProjectShare,
        guaranteed: int,
        held: int,
        queue: Iterator[Ticket],
        at_once: AtOnce,
    ) -> None:
        super().__init__(share, guaranteed, held)
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


class Branch(_Counted):
    """Parts, of which the most urgent one is next."""

    def __init__(
        self,
        share: ProjectShare,
        guaranteed: int,
        held: int,
        parts: list[Part],
        at_once: AtOnce,
    ) -> None:
        super().__init__(share, guaranteed, held)
        self._at_once = at_once
        # The number orders parts whose turns are equal.
        self._parts = [(each.turn(), n, each) for n, each in enumerate(parts) if each.head]
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
    held: Mapping[str, int],
    queues: Mapping[str, Iterator[Ticket]],
    at_once: AtOnce,
) -> Branch:
    """Return all that wait, as one tree.

    ``own``: the seats that each project holds itself; ``held``: those of its parts with them;
    ``queues``: the tickets of each project. A project that is not listed has a share with its defaults.
    The own tickets of a project with parts are one more part of it, with a weight of 1.
    """

    def leaf(share: ProjectShare, guaranteed: int, seats: int, name: str) -> Leaf:
        return Leaf(share, guaranteed, seats, queues.get(name, iter(())), at_once)

    def part_of(name: str) -> Part:
        share, guaranteed = policy.share(name), policy.guaranteed[name]
        if name not in policy.parts:
            return leaf(share, guaranteed, own.get(name, 0), name)
        parts = [part_of(each) for each in policy.parts[name]]
        parts.append(leaf(ProjectShare(project=name), 0, own.get(name, 0), name))
        return Branch(share, guaranteed, held.get(name, 0), parts, at_once)

    waiting = {each for name in queues for each in policy.path(name)}
    listed = [part_of(name) for name in policy.parts.get("", ()) if name in waiting]
    others: list[Part] = [
        leaf(policy.share(name), 0, own.get(name, 0), name)
        for name in queues
        if name not in policy.shares
    ]
    return Branch(ProjectShare(project=""), 0, 0, [*listed, *others], at_once)
