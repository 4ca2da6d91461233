"""Replay what a store remembers, and say whether seats were handed out as promised.

The checker of every test and benchmark that has real nodes in it. It asks no node: it reads the
store's own change history, revision by revision, so nothing that was true for a moment only is
missed, and no clock is involved.

What it looks for, at every revision:

- more seats out than the capacity that held at that revision and the overdraft that contracts allowed,
  where any were handed out; and seats marked otherwise than lots have them: see ``marks``;
- a grant of a pool that was drained at that revision;
- a fence that is not above every earlier one of the pool, also across the pool's deletion;
- a grant made while a ticket that comes earlier in the order of service kept waiting, unless a grant
  for the same work was live, or may have been for all that the decision could know; in a pool that
  is shared among projects, a ticket of the same project; where the pool allows overtaking, more seats,
  or later, than it allows, or by one that wants no fewer seats;
- a grant of a project that then holds more than its limit, or that of one which it is a part of;
- a grant that takes seats which a window that is open at that revision keeps for others; one that takes
  seats which are kept for it may pass those who wait for others;
- a grant, or a new ticket, of one whom the pool's rules at that revision do not let in; a grant by
  which a holder or a project holds more than each may, and a ticket by which more of it wait;
- two live grants for the same work, where the later one was made by a decision that knew the other;
- a session's request (its grant id) that was granted a second time after it had ended;
- a grant that was rewritten with other seats, for another session, or under another fence, and a
  ticket that was given another place, but by a move: what is handed out stays as it is;
- seats that were called back otherwise than the pool says: see ``reclaims``;
- seats that are kept otherwise than the pool says, or taken over by others than those whom they are
  kept for: see ``stays``; what is kept counts as out;
- a grant that counts once with others than the pool says: see ``counted_once``; what is out is what
  all of them take together, and one that takes nothing passes those who wait;
- seats that machines borrowed, or that were freed of them, otherwise than it says: see ``borrows``;
- of a pool that is advisory at that revision, in place of capacity, limits and who is let in: a grant
  that is not marked as it should: see ``advisory``;
- a move to a place that another ticket has, or that changed more than the place;
- a place in the queue, or a seat, that a decision took away from a session that had not completed
  it, by a release or because its time was over: both are written down in its watermark.

``read_history`` gets the changes, ``replay`` checks them. ``replay`` is pure.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from enum import Enum
from fractions import Fraction
from itertools import groupby

from seatkeeper.oracle.advisory import AdvisoryLedger, path_of
from seatkeeper.oracle.borrows import BorrowLedger, borrowed_seats, is_lent
from seatkeeper.oracle.counted_once import CountLedger, seats_in_use, standing
from seatkeeper.oracle.marks import MarkLedger
from seatkeeper.oracle.reclaims import ReclaimLedger
from seatkeeper.oracle.stays import StayLedger, StoredStayRule, read_stay_rule
from seatkeeper.oracle.stored import (
    PREFIX,
    StoredGrant,
    StoredOvertaking,
    StoredShare,
    StoredTicket,
    is_drained,
    located,
    read_completed,
    read_grant,
    read_overtaking,
    read_shares,
    read_ticket,
    read_view_revision,
    seats_in_spec,
)
from seatkeeper.oracle.stored_rules import (
    NO_RULES,
    HeldBack,
    StoredRules,
    name_of,
    not_let_in,
    over_each,
    read_rules,
)
from seatkeeper.oracle.windows import KeptSeats, read_reserved
from seatkeeper.server.store import Change, Entry, Store

FAULTS_MAX = 100
"""Faults kept of one pool; more are only counted."""
LAPSED_MAX = 10_000
"""Works whose end with a session is remembered."""


class FaultKind(Enum):
    """How a history can be wrong."""

    OVER_GRANT = "over-grant"
    DRAINED = "drained"
    FENCE = "fence"
    ORDER = "order"
    OVER_LIMIT = "over limit"
    NOT_ALLOWED = "not allowed"
    KEPT = "kept for others"
    SAME_WORK = "same work"
    GRANTED_TWICE = "granted twice"
    TAKEN_AWAY = "taken away"
    REWRITTEN = "rewritten"
    CALLED_BACK = "called back"
    MARK = "mark"
    STAY = "stay"
    BORROWED = "borrowed"
    COUNTED = "counted once"


@dataclass(frozen=True, slots=True)
class Fault:
    """One revision at which seats were handed out wrongly."""

    kind: FaultKind
    revision: int
    message: str


@dataclass(slots=True)
class PoolHistory:
    """What became of one pool between the first and the last revision."""

    pool: str
    capacity: int = 0
    """Seats at the last revision; 0: the pool does not exist."""
    max_out: int = 0
    """Most seats held at any revision."""
    out: int = 0
    """Seats held at the last revision."""
    over_capacity_max: int = 0
    """Most seats beyond those in force and the overdraft at a revision that granted any."""
    surplus_max: int = 0
    """The same at any revision: what was held when seats were lowered, or a burst ended."""
    borrowed: int = 0
    """Those of them that machines have borrowed."""
    waiting: int = 0
    """Tickets at the last revision."""
    grants: int = 0
    """Grants made."""
    tickets: int = 0
    """Tickets made."""
    decisions: int = 0
    """Revisions at which grants were made: ``grants / decisions`` is the mean batch."""
    fence: int = 0
    """The highest fence given out."""
    fault_counts: dict[FaultKind, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    """The first ``FAULTS_MAX`` of them."""

    def note_out(self, overdraft: int, *, is_granted: bool) -> None:
        """Note how many more seats are held than may be granted at a revision."""
        surplus = self.out - self.capacity - overdraft
        self.surplus_max = max(self.surplus_max, surplus)
        if is_granted:
            self.over_capacity_max = max(self.over_capacity_max, surplus)

    @property
    def is_correct(self) -> bool:
        """Whether nothing was wrong at any revision."""
        return not self.fault_counts

    def count(self, kind: FaultKind) -> int:
        """Return how many faults of one kind there were."""
        return self.fault_counts.get(kind, 0)


async def read_history(
    store: Store, prefix: str = PREFIX, *, from_revision: int = 1
) -> list[Change]:
    """Return every change below the prefix, from the first revision up to the present one.

    ``from_revision`` may be any from before the first key below the prefix was written. Raises
    ``WatchEnded`` when the store has compacted a part of it: run etcd without auto-compaction where
    the history is to be checked. Watches until the store says how far it is; a ``MemoryStore`` does
    so when it expires leases.
    """
    below = f"{prefix}/"
    present = (await store.list(below)).revision
    changes: list[Change] = []
    async with aclosing(store.watch(below, from_revision=from_revision)) as watch:
        async for batch in watch:
            changes += [change for change in batch.changes if change.revision <= present]
            if batch.revision >= present:
                break
    return changes


def replay(changes: Iterable[Change], prefix: str = PREFIX) -> dict[str, PoolHistory]:
    """Check a history; return what became of each pool, by name.

    ``changes`` must be all changes below ``prefix``, from the first revision on, in order of
    revisions. Changes of one revision took effect together, in whatever order they are
    given. Keys of other kinds are passed over.
    """
    ledgers: dict[str, _PoolLedger] = {}
    for revision, together in groupby(changes, key=lambda change: change.revision):
        touched: set[str] = set()
        for pool, kind, name, change in located(together, prefix):
            ledgers.setdefault(pool, _PoolLedger(pool)).note(kind, name, change)
            touched.add(pool)
        for pool in touched:
            ledgers[pool].settle(revision)
    return {pool: ledgers[pool].summary() for pool in sorted(ledgers)}


_Turn = tuple[int, int | Fraction, str]


def _turn(ticket: StoredTicket) -> _Turn:
    """Return the sort key of the order of service. Repeated on purpose: a checker shares no code."""
    place = ticket.number if ticket.moved_to is None else ticket.moved_to
    return (-ticket.priority, place, ticket.grant_id)


def _handed_out(grant: StoredGrant) -> tuple[object, ...]:
    """Return the immutable part of a grant: whose, how many seats, its fence, its lots."""
    whose = (grant.session_id, grant.borrow, grant.counts_once)
    return (*whose, grant.seats, grant.fence, grant.lots, grant.overdraft)


def _is_another(earlier: StoredGrant, grant: StoredGrant) -> bool:
    """Return whether a grant was rewritten as another one; one that is lent to a machine is not."""
    return _handed_out(earlier) != _handed_out(grant) and not is_lent(earlier, grant)


def _over_limits(
    made: Iterable[StoredGrant],
    held: Collection[StoredGrant],
    shares: Mapping[str, StoredShare],
) -> Iterator[str]:
    """Yield each project that got a seat, or is above one that did, and holds more than it may."""
    limited = {name for name, share in shares.items() if share.limit is not None}
    for name in sorted(limited & {each for grant in made for each in path_of(grant, shares)}):
        seats = seats_in_use(each for each in held if name in path_of(each, shares))
        limit = shares[name].limit or 0
        if seats > limit:
            yield f"project {name} holds {seats} seats, and may {limit}"


def _is_limited(grant: StoredGrant, passed: StoredTicket, limits: Iterable[str]) -> bool:
    """Return whether a limit holds a ticket back that does not hold back the grant's queue, too."""
    return any(name_of(grant, what) != name_of(passed, what) for what in limits)


def _stale_fences(made: Iterable[StoredGrant], history: PoolHistory) -> Iterator[str]:
    """Yield each grant whose fence is not above all earlier ones, and note the new ones."""
    for grant in sorted(made, key=lambda grant: grant.fence):
        if grant.fence <= history.fence:
            yield f"{grant.grant_id} got fence {grant.fence} after {history.fence}"
        history.fence = max(history.fence, grant.fence)


def _note_lapse(lapsed: dict[str, int], work_key: str, revision: int) -> None:
    """Note when a grant for a work ended with its session, of so many works as are remembered."""
    lapsed[work_key] = revision
    while len(lapsed) > LAPSED_MAX:
        del lapsed[next(iter(lapsed))]


def _in_place(grant: StoredGrant, ticket: StoredTicket | None, turn: _Turn) -> bool:
    """Return whether a grant, with the ticket that it had, is behind this turn."""
    if ticket is not None:
        return turn[:2] < _turn(ticket)[:2]
    # It never waited, so it was accepted after every ticket there is.
    return turn[0] <= -grant.priority


def _broken_rules(
    rules: StoredRules,
    made: Sequence[StoredGrant] | Sequence[StoredTicket],
    there: Iterable[StoredGrant | StoredTicket],
) -> Iterator[tuple[FaultKind, str]]:
    """Yield what was made against who may use a pool, and how much each may have of ``there``."""
    for message in not_let_in(rules, made):
        yield FaultKind.NOT_ALLOWED, message
    is_of_grants = made and isinstance(made[0], StoredGrant)
    for message in over_each(rules.seats if is_of_grants else rules.tickets, there, made):
        yield FaultKind.OVER_LIMIT, message


class _Overtaken:
    """How far tickets were overtaken, against how far a pool lets them be."""

    def __init__(self) -> None:
        self.rule = StoredOvertaking()
        self.seats: dict[str, int] = {}
        """Seats granted before each ticket that waits and came first."""

    def may(self, grant: StoredGrant, passed: StoredTicket, kept: KeptSeats) -> bool:
        """Note that a grant overtakes a ticket; return whether the pool allows that."""
        overtaken = self.seats.get(passed.grant_id, 0) + grant.seats
        self.seats[passed.grant_id] = overtaken
        waited = grant.granted_at_millis - passed.queued_at_millis
        in_bounds = overtaken <= self.rule.seats and waited < self.rule.within_millis
        # One that does not fit is passed by fewer seats, but for those that are kept for these.
        return in_bounds and grant.seats - kept.spared(grant, passed) < passed.seats


class _Works:
    """Which work live grants are for, and when the grants for others ended with their sessions."""

    def __init__(self) -> None:
        self._live: Counter[str] = Counter()
        self._lapsed: dict[str, int] = {}

    def begins(self, work_key: str) -> bool:
        """Count a grant for a work; return whether there is another one."""
        self._live[work_key] += 1
        return self._live[work_key] > 1

    def ends(self, work_key: str, revision: int, *, is_decision: bool) -> None:
        """Count it no longer."""
        self._live[work_key] -= 1
        if not is_decision:
            _note_lapse(self._lapsed, work_key, revision)

    def may_be_held(self, work_key: str, known: int) -> bool:
        """Return whether a grant is for it, for all that a decision knew up to a revision."""
        return self._live[work_key] > 0 or self._lapsed.get(work_key, 0) > known


class _PoolLedger:
    """One pool at some revision, and the changes of the next one, not applied yet."""

    def __init__(self, pool: str) -> None:
        self._history = PoolHistory(pool)
        self._held: dict[str, StoredGrant] = {}
        self._waiting: dict[str, StoredTicket] = {}
        self._order: list[_Turn] = []
        self._is_drained = False
        self._shares: dict[str, StoredShare] = {}
        """By project; empty: the pool is served by priority and acceptance alone."""
        self._rules = NO_RULES
        self._kept = KeptSeats()
        self._limits = HeldBack()
        self._held_back: dict[str, set[str]] = {}
        """What limits of each hold back at the revision at hand."""
        self._overtaken = _Overtaken()
        self._ever_granted: set[tuple[str, str]] = set()
        self._granted: dict[str, StoredGrant] = {}
        self._queued: dict[str, StoredTicket] = {}
        self._grants_ended: list[str] = []
        self._tickets_ended: list[str] = []
        self._ended_now: list[StoredGrant] = []
        self._finished: dict[str, str] = {}
        """By session: the last request that it has completed, and all before it."""
        self._is_decision = False
        self._works = _Works()
        self._view_revision = 0
        """Up to which revision the decision at hand knew of everything, as it says."""
        self._last_decision = 0
        """The revision of the one before it."""
        self._reclaims = ReclaimLedger()
        self._marks = MarkLedger()
        self._advisory = AdvisoryLedger()
        self._stays = StayLedger()
        self._borrows = BorrowLedger()
        self._counts = CountLedger()

    def note(self, kind: str, name: str, change: Change) -> None:
        """Take a change of the revision at hand."""
        match kind, change.entry:
            case "spec", None:
                self._history.capacity = 0
                self._stays.rule = StoredStayRule()
            case "spec", Entry(value=value):
                self._history.capacity = seats_in_spec(value)
                self._is_drained = is_drained(value)
                self._shares = read_shares(value)
                self._overtaken.rule = read_overtaking(value)
                self._reclaims.note_spec(value)
                self._rules = read_rules(value)
                self._marks.note_spec(value)
                self._kept = KeptSeats(read_reserved(value))
                self._advisory.note_spec(value)
                self._stays.rule = read_stay_rule(value)
                self._borrows.note_spec(value)
                self._counts.note_spec(value)
            case "stays", _:
                self._stays.note(name, change)
            case "grants", None:
                self._grants_ended.append(name)
            case "grants", Entry(value=value):
                self._granted[name] = read_grant(name, value)
            case "queue", None:
                self._tickets_ended.append(name)
            case "queue", Entry(value=value):
                self._queued[name] = read_ticket(name, value)
            case "marks", Entry(value=value):
                self._finished[name] = read_completed(value)
                self._reclaims.note_mark(value)
            case "guard", Entry(value=value):
                self._is_decision = True
                self._view_revision = read_view_revision(value)
                self._reclaims.note_guard(value)
                self._borrows.note_guard(value)
                self._stays.note_guard(value)

    def settle(self, revision: int) -> None:
        """Apply the changes taken since the last revision, all at once, and check them."""
        ended = {name: self._waiting.pop(name, None) for name in self._tickets_ended}
        for ticket in ended.values():
            if ticket is not None:
                del self._order[bisect_left(self._order, _turn(ticket))]
                self._overtaken.seats.pop(ticket.grant_id, None)
                if ticket.grant_id not in self._granted:
                    self._check_end(revision, ticket, "place in the queue")
                if not self._is_decision:
                    self._limits.note_end(revision, ticket)
        gone: list[StoredGrant | StoredTicket] = [*filter(None, ended.values())]
        for name in self._grants_ended:
            if (grant := self._held.pop(name, None)) is not None:
                gone.append(grant)
                self._ended_now.append(grant)
                self._history.out -= grant.seats
                self._check_end(revision, grant, "seat")
                if not self._is_decision:
                    self._limits.note_end(revision, grant)
                    self._marks.note_end(revision, grant)
                if grant.work_key:
                    self._works.ends(grant.work_key, revision, is_decision=self._is_decision)
        made = [grant for name, grant in self._granted.items() if name not in self._held]
        written = [(self._held.get(name), grant) for name, grant in self._granted.items()]
        for grant in self._granted.values():  # also those rewritten, as a claim does
            earlier = self._held.get(grant.grant_id)
            if earlier is not None and _is_another(earlier, grant):
                message = (
                    f"{grant.grant_id} was {_handed_out(earlier)}, is {_handed_out(grant)}"
                )
                self._fault(FaultKind.REWRITTEN, revision, message)
            self._history.out += grant.seats - (earlier.seats if earlier else 0)
            self._counts.any_shared = self._counts.any_shared or bool(grant.counts_once)
            self._held[grant.grant_id] = grant
            if earlier is None and grant.work_key and self._works.begins(grant.work_key):
                message = f"{grant.grant_id} is for work that another grant is for"
                self._fault(FaultKind.SAME_WORK, revision, message)
        kept_before = self._stays.kept
        for message in self._stays.settle(
            *(self._held, made, gone), is_decision=self._is_decision
        ):
            self._fault(FaultKind.STAY, revision, message)
        self._history.out += self._stays.more
        if self._counts.any_shared:
            there = (*self._held.values(), *self._stays.kept.values())
            self._history.out = seats_in_use(there)
        if not self._advisory.is_on:
            self._history.note_out(self._marks.overdraft, is_granted=bool(made))
        self._history.max_out = max(self._history.max_out, self._history.out)
        if made:
            self._check_history(revision, made, ended, kept_before)
        # Only now: a grant without a ticket was asked for before the tickets of its revision.
        new = [each for each in self._queued.values() if each.grant_id not in self._waiting]
        for ticket in self._queued.values():
            before = self._waiting.get(ticket.grant_id)
            if before is None:
                self._history.tickets += 1
                self._waiting[ticket.grant_id] = ticket
                insort(self._order, _turn(ticket))
            elif before != ticket:
                self._rewrite(revision, before, ticket)
        known = self._view_revision or self._last_decision
        for message in self._reclaims.settle(
            *(revision, known, self._held, self._waiting.values(), gone, self._shares),
            kept={**kept_before, **self._stays.kept},
        ):
            self._fault(FaultKind.CALLED_BACK, revision, message)
        for message in self._borrows.settle(
            written, gone, self._held.values(), is_decision=self._is_decision
        ):
            self._fault(FaultKind.BORROWED, revision, message)
        if new and not self._advisory.is_on:
            for kind, message in _broken_rules(self._rules, new, self._waiting.values()):
                self._fault(kind, revision, message)
        if self._is_decision:
            self._last_decision = revision
        self._granted, self._queued, self._is_decision = {}, {}, False
        self._grants_ended, self._tickets_ended, self._ended_now = [], [], []

    def _rewrite(self, revision: int, before: StoredTicket, ticket: StoredTicket) -> None:
        """Bring in a ticket that was written again: an administrator may have moved it, and no more."""
        moved = replace(before, moved_to=ticket.moved_to, move_id=ticket.move_id)
        taken = any(turn[:2] == _turn(ticket)[:2] for turn in self._order)
        if ticket != moved or not ticket.move_id or ticket.move_id == before.move_id or taken:
            message = f"{ticket.grant_id} had place {_turn(before)}, has {_turn(ticket)}"
            self._fault(FaultKind.REWRITTEN, revision, message)
            return
        del self._order[bisect_left(self._order, _turn(before))]
        self._waiting[ticket.grant_id] = ticket
        insort(self._order, _turn(ticket))

    def summary(self) -> PoolHistory:
        """Return the history as of the last revision settled."""
        self._history.waiting = len(self._waiting)
        self._history.borrowed = borrowed_seats(self._held.values())
        return self._history

    def _check_history(
        self,
        revision: int,
        made: list[StoredGrant],
        ended: dict[str, StoredTicket | None],
        kept_before: Mapping[str, StoredGrant],
    ) -> None:
        history = self._history
        history.decisions, history.grants = history.decisions + 1, history.grants + len(made)
        known, is_binding = self._view_revision or self._last_decision, not self._advisory.is_on
        held = [*self._held.values(), *self._stays.kept.values()]
        # Of those that take over what was kept for them, or take no seat, no more is held than before.
        late = self._limits.grants_after(known) if self._counts.is_on else []
        split = self._counts.split(made, held, late)
        if self._counts.is_on:
            called, perhaps = self._reclaims.called_for_another, [*late, *self._ended_now]
            for message in self._counts.faults(
                *(made, kept_before, split.before, perhaps, called)
            ):
                self._fault(FaultKind.COUNTED, revision, message)
        for message in self._advisory.check(
            *(made, held, history.capacity),
            late=(one for ended_at, one in self._limits.ended if ended_at > known),
            rules=self._rules,
            shares=self._shares,
        ):
            self._fault(FaultKind.MARK, revision, message)
        for message in self._marks.faults(
            *(split.fresh, standing(held), history.out, history.capacity, known)
        ):
            self._fault(FaultKind.OVER_GRANT, revision, message)
        if self._is_drained:
            self._fault(FaultKind.DRAINED, revision, f"{len(made)} granted of a drained pool")
        for message in _stale_fences(made, history):
            self._fault(FaultKind.FENCE, revision, message)
        if is_binding:
            for message in _over_limits(split.new, held, self._shares):
                self._fault(FaultKind.OVER_LIMIT, revision, message)
            for kind, message in _broken_rules(self._rules, split.new, held):
                self._fault(kind, revision, message)
            for message in not_let_in(self._rules, split.joining):
                self._fault(FaultKind.NOT_ALLOWED, revision, message)
        granted_most = history.capacity + self._marks.overdraft
        for message in self._kept.check(split.new, split.before, granted_most):
            if is_binding:
                self._fault(FaultKind.KEPT, revision, message)
        self._held_back = self._limits.found(
            self._rules,
            held,
            [*self._waiting.values(), *self._queued.values()],
            known=known,
            is_shared=bool(self._shares),
        )
        for grant in made:
            request = (grant.session_id, grant.grant_id)
            if request in self._ever_granted:
                message = f"{grant.grant_id} had been granted before, and had ended"
                self._fault(FaultKind.GRANTED_TWICE, revision, message)
            self._ever_granted.add(request)
        there = [*held, *late]
        for grant in split.new:
            self._check_order(revision, grant, ended.get(grant.grant_id), there)

    def _check_end(self, revision: int, gone: StoredTicket | StoredGrant, what: str) -> None:
        """Determine why a record was deleted. Without a decision, it went with its session's lease.

        What was borrowed is of no session: see ``borrows``.
        """
        if isinstance(gone, StoredGrant) and gone.borrow is not None:
            return
        if self._is_decision and self._finished.get(gone.session_id, "") < gone.grant_id:
            message = f"{gone.grant_id} of {gone.holder} lost its {what}, and was not finished"
            self._fault(FaultKind.TAKEN_AWAY, revision, message)

    def _check_order(
        self,
        revision: int,
        grant: StoredGrant,
        ticket: StoredTicket | None,
        there: Sequence[StoredGrant],
    ) -> None:
        # Among projects, what is next depends on what the decision knew of; within one it does not.
        waiting = (
            turn
            for turn in self._order
            if not self._shares or self._waiting[turn[2]].project == grant.project
        )
        for priority, number, passed in waiting:
            if not _in_place(grant, ticket, (priority, number, passed)):
                return
            if self._is_held_back((priority, number, passed)):
                continue
            if _is_limited(grant, self._waiting[passed], self._held_back.get(passed, ())):
                continue
            if self._kept.spared(grant, self._waiting[passed]) == grant.seats:
                continue
            if self._counts.takes_nothing(self._waiting[passed], there):
                continue  # it waits for no seat, so nothing is taken from it
            if not self._overtaken.may(grant, self._waiting[passed], self._kept):
                message = (
                    f"{grant.grant_id} was served, and {passed} (number {number}) waits on"
                )
                self._fault(FaultKind.ORDER, revision, message)
                return

    def _is_held_back(self, turn: _Turn) -> bool:
        """Return whether a ticket goes with others, or waits for another's work that could be known.

        A node learns of a lease's end from its watch, and may decide on its own commits before that.
        """
        if self._waiting[turn[2]].is_joint:
            return True
        work_key = self._waiting[turn[2]].work_key
        known = self._view_revision or self._last_decision
        return bool(work_key) and self._works.may_be_held(work_key, known)

    def _fault(self, kind: FaultKind, revision: int, message: str) -> None:
        self._history.fault_counts[kind] = self._history.count(kind) + 1
        if len(self._history.faults) < FAULTS_MAX:
            self._history.faults.append(Fault(kind, revision, message))
