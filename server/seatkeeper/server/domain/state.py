"""A pool as one node sees it: what decisions are made on.

The state is a plain value with a few indexes, so that a decision costs the same whether ten or
ten thousand tickets wait. Only the mirror changes it; ``decide`` reads.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from fractions import Fraction
from heapq import merge
from itertools import chain

from seatkeeper.core.lot_use import LotMarks, MarkedSeats
from seatkeeper.core.lots import NO_LOTS, PoolLots
from seatkeeper.core.projects import NO_POLICY, PoolPolicy
from seatkeeper.core.reservations import NO_WINDOWS, PoolWindows
from seatkeeper.server.domain.advisory import AdvisoryCounts, AdvisoryMark
from seatkeeper.server.domain.attribution import Attribution, HasAttribution
from seatkeeper.server.domain.borrow import Borrow
from seatkeeper.server.domain.completed import CompletedIds
from seatkeeper.server.domain.counted_once import (
    NO_GROUP,
    Group,
    Groups,
    SeatSum,
    WaitingGroups,
)
from seatkeeper.server.domain.drain import Drain
from seatkeeper.server.domain.hold_back import HoldBack
from seatkeeper.server.domain.holds import NO_HOLDS, Holds
from seatkeeper.server.domain.immutable import immutable
from seatkeeper.server.domain.move import Move
from seatkeeper.server.domain.project_index import ProjectIndex
from seatkeeper.server.domain.reclaims import NO_RECLAIMS, Instant, Reclaims
from seatkeeper.server.domain.rule_index import RuleIndex
from seatkeeper.server.domain.wait_counts import NO_WAITS, WaitCounts
from seatkeeper.server.domain.window_index import WindowIndex

__all__ = ["Grant", "Guard", "Instant", "PoolSpec", "PoolState", "Stay", "Ticket", "Usage"]


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """What an administrator said about a pool."""

    name: str
    seats: int
    description: str = ""
    policy: PoolPolicy = NO_POLICY
    kept: bytes = field(default=b"", repr=False, compare=False)
    """The record it was read from, where that says more than this version knows. So below."""
    drain: Drain | None = None
    """Why nothing is granted although it has seats. A state of the pool, kept with what it is."""

    @property
    def open_seats(self) -> int:
        """The seats that may be held for something to be granted; 0 where it is closed or drained.

        Those in force, and what contracts in force allow beyond them.
        """
        if self.drain is not None:
            return 0
        return self.seats + self.overdraft if self.lots else self.seats

    @property
    def overdraft(self) -> int:
        """The seats that contracts in force allow beyond those in force; an advisory one takes none."""
        return 0 if self.policy.counting.is_advisory else self.lots.overdraft

    lots: PoolLots = NO_LOTS
    """What the capacity is a sum of; ``seats`` are those in force. None: ``seats`` alone."""
    windows: PoolWindows = NO_WINDOWS
    """The latest window of each of the policy's reservations, as it is written."""

    def with_lots(self, lots: PoolLots) -> PoolSpec:
        """Return it with these lots, and with the seats that are in force by them."""
        return replace(self, lots=lots, seats=lots.in_force if lots else self.seats)

    @property
    def seats_most(self) -> int:
        """The most seats that it will ever have at once but for bursts; guarantees must fit in."""
        return self.lots.guaranteed_most if self.lots else self.seats


@dataclass(frozen=True, slots=True)
class Usage:
    """Seat time that projects have used, of which half is forgotten in each half-life."""

    at: Instant
    """As of when."""
    seat_millis: Mapping[str, int]
    """By listed project, that of its parts not included."""


NO_USAGE = Usage(Instant(0), {})


@immutable
class Guard:
    """The two counters of a pool, which only grow, also across its deletion; and what policies need."""

    fence: int = 0
    ticket_number: int = 0
    kept: bytes = field(default=b"", repr=False, compare=False)
    usage: Usage = field(default=NO_USAGE, hash=False)
    overtaken: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Seats granted before tickets that wait still and came first, by grant id."""
    reclaims: Reclaims = field(default=NO_RECLAIMS, hash=False)
    """Grants that are called back."""
    waits: WaitCounts = field(default=NO_WAITS, hash=False)
    """How long requests waited lately, where the pool has a rule that starts bursts."""
    holds: Holds = field(default=NO_HOLDS, hash=False)
    """What administrators and holders have said of single grants."""
    advisory: AdvisoryCounts | None = None
    """What the pool has counted while it is, or was, advisory; None: it never was."""
    hold_back: HoldBack | None = None
    """The gang that seats are kept free for, or were last; None: they never were."""


@immutable
class Grant(HasAttribution):
    """Seats of a pool held by one session, or borrowed by one machine."""

    grant_id: str
    session_id: str
    lease_id: int
    attribution: Attribution
    seats: int
    fence: int
    asked_at: Instant
    granted_at: Instant
    agent_id: str = ""
    claim_id: str = ""
    kept: bytes = field(default=b"", repr=False, compare=False)
    heeds_within: timedelta | None = None
    """The seats may be called back, and the holder learns of it within so long at most; None: they may
    not."""
    marks: LotMarks | None = None
    """The lots that the seats came from when they were granted; None: from none."""
    mark: AdvisoryMark | None = None
    """Why an advisory pool would not have granted it then; None: it would have."""
    continues: int = 0
    """The fence of the grant whose seats it has taken over, kept ones or its holder's; 0: none."""
    borrow: Borrow | None = None
    """The machine that has the seats, and then no session holds them; None: a session does."""
    taken_from: Instant = Instant(0)
    """Since when its holder has held the seats, if under another grant before; 0: it has not."""
    group: Group = NO_GROUP
    """What it has in common with those with which it counts once, by the pool's rule as it was granted;
    empty: it counts by itself."""

    @property
    def held_since(self) -> Instant:
        """Since when its holder has held the seats, whatever the session."""
        return self.taken_from or self.granted_at


@immutable
class Stay:
    """Seats that outlive the session that holds them, and are kept when that holds them no more."""

    grant: Grant
    """As it was made."""
    since: Instant = Instant(0)
    """0: it is not written that they are kept; the grant goes on, or its session was just lost."""
    until: Instant = Instant(0)
    was_released: bool = False
    """Its holder gave the seats back. False: its session was lost."""
    may_return: bool = False
    """Its holder may take the same grant again, in a new session."""
    record: bytes = field(default=b"", repr=False, compare=False)
    """What it was read from, where that says more than this version knows."""


@immutable
class Ticket(HasAttribution):
    """A place in a pool's queue."""

    grant_id: str
    session_id: str
    lease_id: int
    attribution: Attribution
    seats: int
    number: int
    queued_at: Instant
    wait: timedelta | None = None
    """How long it waits before it gives up; None: without limit."""
    kept: bytes = field(default=b"", repr=False, compare=False)
    heeds_within: timedelta | None = None
    """Its client heeds reclaims, and learns of one within so long at most; None: it does not."""
    move: Move | None = None
    """The place that an administrator gave it; None: that of its number."""

    @property
    def place(self) -> int | Fraction:
        """The number that it is served by, within its priority."""
        return self.number if self.move is None else self.move.place


QueueKey = tuple[int, int | Fraction, str]


def queue_key(ticket: Ticket) -> QueueKey:
    """Return what `PoolState.queue` is sorted by: priority, then acceptance or a later move."""
    return (-ticket.priority, ticket.place, ticket.grant_id)


@dataclass(slots=True)
class PoolState:
    """Everything that is known of a pool, with the indexes that decisions need.

    ``spec`` is None when the pool does not exist. ``dead_sessions`` are those whose lease was found
    to have ended before the store's deletions were seen; their tickets are not served.
    """

    spec: PoolSpec | None = None
    guard: Guard = field(default_factory=Guard)
    grants: dict[str, Grant] = field(default_factory=dict)
    tickets: dict[str, Ticket] = field(default_factory=dict)
    completed: CompletedIds = field(default_factory=CompletedIds)
    kept_watermarks: dict[str, bytes] = field(default_factory=dict)
    """Watermarks that say more than this version knows, by session."""
    ended_by_force: dict[str, dict[str, str]] = field(default_factory=dict)
    """What each session's latest watermark says of ends that an administrator caused: the message for
    its holder, by grant id."""
    dead_sessions: set[str] = field(default_factory=set)
    marked: MarkedSeats = field(init=False, default_factory=MarkedSeats)
    """How many of the seats held come from each lot."""
    sum: SeatSum = field(init=False, default_factory=SeatSum, repr=False, compare=False)
    """How many seats are held, under no name."""
    groups: Groups = field(init=False, default_factory=Groups, repr=False, compare=False)
    """The grants, and kept seats, that count together."""
    borrowed: dict[str, Grant] = field(init=False, default_factory=dict)
    """The grants that machines have borrowed, by id."""
    tickets_of: Counter[str] = field(init=False, default_factory=Counter)
    """How many tickets each holder has."""
    tickets_wanting: Counter[int] = field(init=False, default_factory=Counter)
    """How many tickets want each number of seats."""
    work_held: dict[str, set[str]] = field(init=False, default_factory=dict)
    """The ids of the grants of each work key."""
    work_waiting: dict[str, set[str]] = field(init=False, default_factory=dict)
    """The ids of the tickets of each work key."""
    stays: dict[str, Stay] = field(init=False, default_factory=dict)
    """Seats that outlive the sessions that hold them, by grant id."""
    kept: dict[str, Grant] = field(init=False, default_factory=dict)
    """Those of them that no session holds any more. They count as held, in all that is counted."""
    gangs: set[str] = field(init=False, default_factory=set)
    """The ids of the tickets that are granted together with those of other pools."""
    _queue: list[QueueKey] = field(init=False, default_factory=list)
    _projects: ProjectIndex | None = field(init=False, default=None, repr=False, compare=False)
    """None: no policy has asked for it."""
    _by_rules: RuleIndex | None = field(init=False, default=None, repr=False, compare=False)
    """None: the pool has no rules."""
    _by_windows: WindowIndex | None = field(init=False, default=None, repr=False, compare=False)
    """None: no window is open."""
    _waiting_groups: WaitingGroups | None = field(
        init=False, default=None, repr=False, compare=False
    )
    """None: no policy has asked for it."""

    @property
    def held(self) -> int:
        """Seats that are in use. Those that several grants share count once."""
        return self.sum.of()

    @property
    def free(self) -> int:
        """Seats that can be granted now; 0 while a lowered capacity drains, or the pool is drained."""
        return max(0, self.spec.open_seats - self.held) if self.spec else 0

    @property
    def borrowed_seats(self) -> int:
        """Seats held that machines have borrowed."""
        return sum(grant.seats for grant in self.borrowed.values())

    @property
    def seats_wanted_max(self) -> int:
        """The most seats that a ticket wants; 0: there is no ticket."""
        return max(self.tickets_wanting, default=0)

    @property
    def projects(self) -> ProjectIndex:
        """What projects hold and wait for. Made when it is first asked for, and kept from then on."""
        if self._projects is None:
            tickets = ((key, self.tickets[key[2]]) for key in self._queue)
            self._projects = ProjectIndex(self._holding(), tickets)
        return self._projects

    @property
    def by_rules(self) -> RuleIndex:
        """What is held and waits, as the pool's rules look at it. Made anew when these have changed."""
        rules = (self.spec.policy if self.spec else NO_POLICY).rules
        if self._by_rules is None or self._by_rules.rules is not rules:
            self._by_rules = RuleIndex(rules, self._holding(), self.tickets.values())
        return self._by_rules

    @property
    def by_windows(self) -> WindowIndex | None:
        """What is held and waits, as open windows look at it; None: none is open."""
        if self.spec is None or not self.spec.windows.open:
            self._by_windows = None
        elif self._by_windows is None or not self._by_windows.is_of(self.spec):
            self._by_windows = WindowIndex(self.spec, self._holding(), self.tickets.values())
        return self._by_windows

    @property
    def waiting_groups(self) -> WaitingGroups:
        """The tickets of each group. Made anew when the pool's rule has changed."""
        named = self.spec.policy.count_once if self.spec else ()
        if self._waiting_groups is None or self._waiting_groups.named != named:
            self._waiting_groups = WaitingGroups(named, self.tickets.values())
        return self._waiting_groups

    @property
    def kept_seats(self) -> int:
        """How many seats fewer would be in use if none were kept."""
        if not self.groups:
            return sum(each.seats for each in self.kept.values())
        without = self.sum.branch()
        for each in self.kept.values():
            without.remove(each.seats, each.group)
        return -without.held.get("", 0)

    def _holding(self) -> Iterable[Grant]:
        return chain(self.grants.values(), self.kept.values())

    def queue(self, new: Sequence[Ticket] = ()) -> Iterator[Ticket]:
        """Yield tickets by priority, then in the order of acceptance; ``new`` ones among them.

        An index that policies may use; which ticket is served next is theirs to say.
        """
        stored = (self.tickets[key[2]] for key in self._queue)
        return merge(stored, sorted(new, key=queue_key), key=queue_key) if new else stored

    def rank(self, ticket: Ticket) -> int:
        """Return how many tickets are before this one in ``queue``."""
        return bisect_left(self._queue, queue_key(ticket))

    def holding(self, grant_id: str) -> Grant | None:
        """Return what holds seats under an id, be it that they are kept; None: nothing does."""
        return self.grants.get(grant_id) or self.kept.get(grant_id)

    def put_grant(self, grant: Grant) -> None:
        """Add a grant, or replace the one of this id."""
        if (before := self.grants.pop(grant.grant_id, None)) is not None:
            self._discount(before)
        self.grants[grant.grant_id] = grant
        if self.stays:  # first: both have the same id
            self._keep(grant.grant_id)
        self._count(grant)

    def remove_grant(self, grant_id: str) -> Grant | None:
        """Remove and return the grant of this id, if there is one."""
        grant = self.grants.pop(grant_id, None)
        if grant is not None:
            self._discount(grant)
            if self.stays:
                self._keep(grant_id)
        return grant

    def put_stay(self, stay: Stay) -> None:
        """Add seats that outlive a session, or replace what is said of them."""
        self.stays[stay.grant.grant_id] = stay
        self._keep(stay.grant.grant_id)

    def remove_stay(self, grant_id: str) -> None:
        """Let the seats of an id be held by its grant alone, if there is one."""
        self.stays.pop(grant_id, None)
        self._keep(grant_id)

    def _keep(self, grant_id: str) -> None:
        """Count what outlives a session, where its grant has ended."""
        if (before := self.kept.pop(grant_id, None)) is not None:
            self._discount(before)
        if (stay := self.stays.get(grant_id)) is not None and grant_id not in self.grants:
            # No one works with them.
            self.kept[grant_id] = kept = replace(
                stay.grant, attribution=replace(stay.grant.attribution, work_key="")
            )
            self._count(kept)

    def _count(self, grant: Grant) -> None:
        self.sum.add(grant.seats, grant.group)
        if grant.group:
            self._regroup(grant, self.groups.add)
        elif grant.marks is not None:
            self.marked.add(grant.marks)
        if self._projects is not None:
            self._projects.add_grant(grant)
        if self._by_rules is not None:
            self._by_rules.add_grant(grant)
        if self._by_windows is not None:
            self._by_windows.add_grant(grant)
        if grant.work_key:
            _add(self.work_held, grant)
        if grant.borrow is not None:
            self.borrowed[grant.grant_id] = grant

    def _discount(self, grant: Grant) -> None:
        self.sum.remove(grant.seats, grant.group)
        if grant.group:
            self._regroup(grant, self.groups.remove)
        elif grant.marks is not None:
            self.marked.add(grant.marks, -1)
        if self._projects is not None:
            self._projects.remove_grant(grant)
        if self._by_rules is not None:
            self._by_rules.remove_grant(grant)
        if self._by_windows is not None:
            self._by_windows.remove_grant(grant)
        if grant.work_key:
            _discard(self.work_held, grant)
        if grant.borrow is not None:
            del self.borrowed[grant.grant_id]

    def _regroup(self, grant: Grant, change: Callable[[Grant], None]) -> None:
        """Let a member come or go. The seats of a group come from where its largest member's do."""
        before = self.groups.largest(grant.group)
        change(grant)
        after = self.groups.largest(grant.group)
        if before is not None and before.marks is not None:
            self.marked.add(before.marks, -1)
        if after is not None and after.marks is not None:
            self.marked.add(after.marks)

    def put_ticket(self, ticket: Ticket) -> None:
        """Add a ticket, or replace the one of this id."""
        self.remove_ticket(ticket.grant_id)
        self.tickets[ticket.grant_id] = ticket
        self.tickets_of[ticket.holder] += 1
        self.tickets_wanting[ticket.seats] += 1
        if ticket.work_key:
            _add(self.work_waiting, ticket)
        if ticket.gang:
            self.gangs.add(ticket.grant_id)
        key = queue_key(ticket)
        insort(self._queue, key)
        if self._projects is not None:
            self._projects.add_ticket(key, ticket)
        if self._by_rules is not None:
            self._by_rules.add_ticket(ticket)
        if self._by_windows is not None:
            self._by_windows.add_ticket(ticket)
        if self._waiting_groups is not None:
            self._waiting_groups.add(ticket)

    def remove_ticket(self, grant_id: str) -> Ticket | None:
        """Remove and return the ticket of this id, if there is one."""
        ticket = self.tickets.pop(grant_id, None)
        if ticket is not None:
            self.tickets_of[ticket.holder] -= 1
            if not self.tickets_of[ticket.holder]:
                del self.tickets_of[ticket.holder]
            self.tickets_wanting[ticket.seats] -= 1
            if not self.tickets_wanting[ticket.seats]:
                del self.tickets_wanting[ticket.seats]
            if ticket.work_key:
                _discard(self.work_waiting, ticket)
            self.gangs.discard(grant_id)
            key = queue_key(ticket)
            del self._queue[bisect_left(self._queue, key)]
            if self._projects is not None:
                self._projects.remove_ticket(key, ticket)
            if self._by_rules is not None:
                self._by_rules.remove_ticket(ticket)
            if self._by_windows is not None:
                self._by_windows.remove_ticket(ticket)
            if self._waiting_groups is not None:
                self._waiting_groups.remove(ticket)
        return ticket


def _add(works: dict[str, set[str]], one: Grant | Ticket) -> None:
    works.setdefault(one.work_key, set()).add(one.grant_id)


def _discard(works: dict[str, set[str]], one: Grant | Ticket) -> None:
    same = works[one.work_key]
    same.discard(one.grant_id)
    if not same:
        del works[one.work_key]
