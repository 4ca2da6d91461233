"""What a pool's specification says of who may use it, and whether grants and tickets keep to it.

Stated a second time, as all here: without the service's code. Pure.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from seatkeeper.oracle.counted_once import seats_in_use
from seatkeeper.oracle.stored import StoredGrant, StoredTicket
from seatkeeper.v1 import pool_service_pb2

HOLDER, HOST, PROJECT = "holder", "host", "project"
ENDED_MAX = 10_000
"""Grants and tickets whose end with a session is remembered."""


@dataclass(frozen=True)
class StoredRules:
    """Who may use a pool, and how much each may have."""

    include: tuple[tuple[str, re.Pattern[str]], ...] = ()
    """Each says what it looks at; none: all are let in."""
    exclude: tuple[tuple[str, re.Pattern[str]], ...] = ()
    seats: tuple[tuple[str, int], ...] = ()
    """Most seats that each holder, or each project, may hold."""
    tickets: tuple[tuple[str, int], ...] = ()
    """Most tickets that each may have when one more is made."""

    def lets_in(self, one: StoredGrant | StoredTicket) -> bool:
        """Return whether a grant or a ticket is of one who may use the pool."""
        if any(_fits(one, *each) for each in self.exclude):
            return False
        return not self.include or any(_fits(one, *each) for each in self.include)


NO_RULES = StoredRules()


def _fits(one: StoredGrant | StoredTicket, what: str, pattern: re.Pattern[str]) -> bool:
    """Return whether a pattern fits; none fits a host that is not known."""
    name = name_of(one, what)
    return bool(name or what != HOST) and pattern.fullmatch(name) is not None


def name_of(one: StoredGrant | StoredTicket, what: str) -> str:
    """Return the holder of a grant or a ticket, or its host, or its project."""
    return {HOLDER: one.holder, HOST: one.host, PROJECT: one.project}[what]


def read_rules(value: bytes) -> StoredRules:
    """Return what a pool's specification says."""
    said = pool_service_pb2.PoolSpec.FromString(value).policy.rules
    limits = ((HOLDER, said.per_holder), (HOST, said.per_host), (PROJECT, said.per_project))
    return StoredRules(
        _read(said.include, said),
        _read(said.exclude, said),
        tuple((what, most.seats) for what, most in limits if most.HasField("seats")),
        tuple((what, most.tickets) for what, most in limits if most.HasField("tickets")),
    )


def read_borrowers(value: bytes) -> StoredRules:
    """Return who may borrow, by a pool's specification."""
    policy = pool_service_pb2.PoolSpec.FromString(value).policy
    rules, rule = policy.rules, policy.borrow
    return StoredRules(_read(rule.include, rules), _read(rule.exclude, rules))


def _read(
    who: pool_service_pb2.Who, rules: pool_service_pb2.PoolRules
) -> tuple[tuple[str, re.Pattern[str]], ...]:
    groups = {group.name: group.holders for group in rules.groups}
    holders = [*who.holders, *(each for name in who.groups for each in groups[name])]
    return (
        *((PROJECT, _pattern(each)) for each in who.projects),
        *((HOLDER, _pattern(each)) for each in holders),
        *((HOST, _pattern(each.lower())) for each in who.hosts),
    )


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in text.split("*")), re.DOTALL)


def not_let_in(
    rules: StoredRules, made: Iterable[StoredGrant] | Iterable[StoredTicket]
) -> Iterator[str]:
    """Yield what was made that is of one who may not use the pool."""
    for one in made:
        if not rules.lets_in(one):
            yield f"{one.grant_id} is of {one.holder}, project {one.project}: not let in"


def over_each(
    most: Iterable[tuple[str, int]],
    there: Iterable[StoredGrant | StoredTicket],
    made: Sequence[StoredGrant | StoredTicket],
) -> Iterator[str]:
    """Yield who has more than each may, of those that something was made for.

    Of grants the seats are counted, of tickets their number.
    """
    all_there = list(there) if most else []
    for what, limit in most:
        for name in sorted({name_of(one, what) for one in made} - {""}):
            theirs = [one for one in all_there if name_of(one, what) == name]
            has = seats_in_use(one for one in theirs if isinstance(one, StoredGrant))
            has += sum(not isinstance(one, StoredGrant) for one in theirs)
            if has > limit:
                yield f"{what} {name} has {has}, and each may have {limit}"


@dataclass
class HeldBack:
    """Which tickets limits hold back at a revision, and by what: others may be served before them.

    A decision may not know yet which grants and tickets have gone with their sessions, so these are
    remembered. What is held back with them or without them counts as held back.
    """

    ended: deque[tuple[int, StoredGrant | StoredTicket]] = field(
        default_factory=lambda: deque(maxlen=ENDED_MAX)
    )

    def note_end(self, revision: int, one: StoredGrant | StoredTicket) -> None:
        """Remember what ended with its session."""
        self.ended.append((revision, one))

    def grants_after(self, known: int) -> list[StoredGrant]:
        """Return the grants whose end a decision may not know that knew all up to a revision."""
        late = takewhile(lambda each: each[0] > known, reversed(self.ended))
        return [one for _, one in late if isinstance(one, StoredGrant)]

    def found(
        self,
        rules: StoredRules,
        held: Iterable[StoredGrant],
        waiting: Iterable[StoredTicket],
        *,
        known: int,
        is_shared: bool,
    ) -> dict[str, set[str]]:
        """Return, by ticket, whether its holder or its project holds it back.

        ``known``: up to which revision the decision knew of everything. ``is_shared``: projects have
        queues of their own.
        """
        if not rules.seats:
            return {}
        late = [one for revision, one in self.ended if revision > known]
        all_held, all_waiting = list(held), list(waiting)
        found: dict[str, set[str]] = {}
        for more in ([], late):
            grants = all_held + [one for one in more if isinstance(one, StoredGrant)]
            tickets = all_waiting + [one for one in more if isinstance(one, StoredTicket)]
            for grant_id, what in _held_back(rules, grants, tickets, is_shared=is_shared):
                found.setdefault(grant_id, set()).add(what)
        return found


def _held_back(
    rules: StoredRules,
    held: Sequence[StoredGrant],
    waiting: Sequence[StoredTicket],
    *,
    is_shared: bool,
) -> Iterator[tuple[str, str]]:
    for what, most in rules.seats:
        theirs: dict[str, list[StoredGrant]] = {}
        for grant in held:
            theirs.setdefault(name_of(grant, what), []).append(grant)
        seats = Counter({name: seats_in_use(each) for name, each in theirs.items()})
        behind: set[tuple[str, str]] = set()
        for ticket in sorted(waiting, key=lambda each: (-each.priority, each.number)):
            if not name_of(ticket, what):
                continue  # of a host that is not known nothing is counted
            queue = (name_of(ticket, what), ticket.project if is_shared else "")
            if queue in behind or seats[queue[0]] + ticket.seats > most:
                behind.add(queue)
                yield ticket.grant_id, what
