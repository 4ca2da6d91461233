"""What is always true of decisions, whatever is asked and in whatever order.

A machine of hypothesis drives the pure core as a loop does: it hands in batches of commands, applies
what was decided through the mirror, moves the clock, changes the capacity and lets sessions die.
After every decision it checks what the service promises, against records of its own.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.unit.kit import (
    KEYS,
    NOW,
    POOL,
    FakeClock,
    acquire,
    changed,
    release,
    uuid7,
    writes_of,
)

from seatkeeper.server.decide import Decision, decide
from seatkeeper.server.domain import (
    Acquire,
    Attribution,
    Command,
    Denied,
    Granted,
    Guard,
    Instant,
    Limits,
    Outcome,
    PoolSpec,
    PoolState,
    Queued,
    Refusal,
    Release,
    Released,
    Ticket,
    WorkEnd,
)
from seatkeeper.server.domain.state import queue_key
from seatkeeper.server.policy.fifo import FIFO
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.pool import writes
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.pool.wait_timers import WaitTimers
from seatkeeper.server.store import Change, Put, WatchBatch, records

SESSIONS = ("anna", "bert", "cora")
AHEAD = 1_000_000
"""What is added to an id's number to make it one of the future: more than a day."""
WORK_ENDS = st.sampled_from([None, WorkEnd(), WorkEnd("Failed", "again")])
WAITS = st.integers(1, 5_000).map(lambda millis: timedelta(milliseconds=millis))


@st.composite
def commands(draw: st.DrawFn, newest: int) -> Command:
    """A command on an id that is new, or was seen before."""
    session = draw(st.sampled_from(SESSIONS))
    number = draw(st.integers(max(1, newest - 12), newest + 2))
    if draw(st.integers(0, 9)) == 0:
        number += AHEAD
    if draw(st.integers(0, 9)) < 4:
        return replace(release(number, session), work_end=draw(WORK_ENDS))
    asked = acquire(
        number,
        session,
        seats=draw(st.sampled_from([1, 1, 1, 2, 3, 5])),
        priority=draw(st.sampled_from([0, 0, 0, 1, -1])),
        wait=draw(st.none() | WAITS),
        may_wait=draw(st.sampled_from([True, True, True, False])),
    )
    return changed(asked, work_key=draw(st.sampled_from(["", "", "", "w", "v"])))


def read_again(write: Put) -> object:
    """Return what a record says to a node that has not made it."""
    kind, _, name = write.key.removeprefix(KEYS.seats(POOL)).partition("/")
    match kind:
        case "grants":
            return records.decode_grant(name, write.value)
        case "queue":
            return records.decode_ticket(name, write.value)
        case "marks":
            return records.decode_watermark(write.value)
    return records.decode_guard(write.value)


class Deciding(RuleBasedStateMachine):
    """One pool, decided on by one node."""

    def __init__(self) -> None:
        super().__init__()
        self.mirror = PoolMirror(KEYS, POOL)
        self.clock = FakeClock()
        self.waits = WaitTimers(self.clock)
        self.ends: dict[str, float] = {}
        """When each ticket is to give up, by a record of our own."""
        self.revision = 10
        self.newest = 1
        self.limits = Limits()
        self.dead: set[str] = set()
        self.dead_ids: set[str] = set()
        self.granted: set[tuple[str, str]] = set()
        self.finished: set[tuple[str, str]] = set()
        self.fence = 0
        self.numbers: set[int] = set()

    @property
    def state(self) -> PoolState:
        return self.mirror.state

    @initialize(
        seats=st.integers(1, 5),
        writes_max=st.sampled_from([6, 9, 20, 127]),
        queue_max=st.sampled_from([1, 3, 10_000]),
    )
    def begin(self, seats: int, writes_max: int, queue_max: int) -> None:
        self.state.spec = PoolSpec(POOL, seats)
        self.limits = Limits(writes_max=writes_max, queue_max=queue_max)

    @rule(data=st.data(), size=st.integers(0, 8))
    def a_batch_is_decided(self, data: st.DataObject, size: int) -> None:
        batch: list[Command] = []
        for _ in range(size):
            batch.append(data.draw(commands(self.newest)))
            self.newest = max(self.newest, _number(batch[-1].grant_id) % AHEAD)
        for _ in range(10 + 10 * len(batch)):
            decision = self.decided(batch)
            batch = decision.deferred
            if not batch and not decision.unserved and not self.has_work():
                break
        else:
            raise AssertionError("decisions go on forever")
        self.nothing_is_left_undone()

    def has_work(self) -> bool:
        """What a loop looks at after each decision, to decide again at once."""
        plan = FIFO.plan(PoolSnapshot.of(self.state, grants_max=1), self.clock.now())
        return bool(plan.serve) or bool(self.never_served())

    def never_served(self) -> set[str]:
        """The tickets that want more than the pool has, by a count of our own."""
        spec = self.state.spec
        return {
            ticket.grant_id
            for ticket in self.state.tickets.values()
            if ticket.session_id not in self.state.dead_sessions
            and (spec is None or 0 < spec.seats < ticket.seats)
        }

    @rule(millis=st.integers(1, 3_000))
    def time_goes_by(self, millis: int) -> None:
        self.clock.advance(timedelta(milliseconds=millis))

    @rule(seats=st.none() | st.integers(0, 6))
    def the_capacity_is_changed(self, seats: int | None) -> None:
        """0: the pool is closed; None: it is deleted."""
        self.state.spec = None if seats is None else PoolSpec(POOL, seats)

    @rule(session=st.sampled_from(SESSIONS), seen=st.booleans())
    def a_session_dies(self, session: str, seen: bool) -> None:
        """Its keys are gone from the store; ``seen``: the watch has delivered it already."""
        self.dead.add(session)
        if seen:
            self.its_end_is_seen(session)

    @rule(session=st.sampled_from(SESSIONS))
    def its_end_is_seen(self, session: str) -> None:
        if session not in self.dead:
            return
        keys = [
            *(
                KEYS.grant(POOL, g.grant_id)
                for g in self.state.grants.values()
                if g.session_id == session
            ),
            KEYS.mark(POOL, session),
            *(
                KEYS.ticket(POOL, t.grant_id)
                for t in self.state.tickets.values()
                if t.session_id == session
            ),
        ]
        self.revision += 1
        changes = tuple(Change(key, None, self.revision) for key in keys)
        self.waits.review(self.mirror.apply(WatchBatch(changes, self.revision)), self.state)
        assert session not in {g.session_id for g in self.state.grants.values()}
        assert session not in {t.session_id for t in self.state.tickets.values()}

    def decided(self, batch: list[Command]) -> Decision:
        """Decide as a loop does: again without those who turn out to be dead."""
        while True:
            decision = self.checked(batch)
            named = {g.session_id for g in decision.grants}
            named |= {t.session_id for t in decision.tickets} | set(decision.marks)
            if not (found := named & self.dead):
                break
            self.state.dead_sessions |= found
        self.effects_are_allowed(batch, decision)
        self.revision += 1
        for ticket in decision.tickets:
            if ticket.wait is not None:
                self.ends[ticket.grant_id] = self.clock.seconds + ticket.wait.total_seconds()
        self.waits.review(self.mirror.committed(writes_of(decision), self.revision), self.state)
        return decision

    def checked(self, batch: list[Command]) -> Decision:
        """Decide, twice, and check what has to do with the decision only."""
        before = copy.deepcopy(self.state)
        now, due = self.clock.now(), self.waits.due(self.state)
        decision = decide(self.state, batch, now, self.limits, due)
        assert self.state == before, "deciding changed its input"
        again = decide(before, batch, now, self.limits, due)
        assert again == decision, "the same input gave another decision"
        assert decision.writes <= self.limits.writes_max
        keys = [write.key for write in writes_of(decision)]
        assert len(keys) == len(set(keys)), "a transaction writes no key twice"
        # A node takes its own decisions as it made them; others read what was written.
        made = writes.made_by(KEYS, POOL, decision, 7)
        for write in writes.writes_of(KEYS, POOL, decision, 7, has_guard=True):
            if isinstance(write, Put):
                assert made.pop(write.key) == read_again(write)
        assert not made
        handled = [id(command) for command, _ in decision.outcomes]
        handled += [id(command) for command in decision.deferred]
        assert sorted(handled) == sorted(map(id, batch)), (
            "a command was dropped, or twice there"
        )
        assert len(decision.deferred) < max(1, len(batch)) or decision.writes, "no progress"
        return decision

    def effects_are_allowed(self, batch: list[Command], decision: Decision) -> None:
        spec = self.state.spec
        ended = sum(self.state.grants[grant_id].seats for grant_id in decision.grants_ended)
        made = sum(grant.seats for grant in decision.grants)
        if made:
            assert spec is not None
            assert self.state.held - ended + made <= spec.seats, "over-grant"
        for grant in decision.grants:
            assert grant.fence == self.fence + 1
            self.fence = grant.fence
            name = (grant.session_id, grant.grant_id)
            assert name not in self.granted, "an id was granted twice"
            assert name not in self.finished, "granted after it was completed"
            assert grant.session_id not in self.state.dead_sessions
            self.granted.add(name)
        assert decision.guard.fence == self.fence
        for ticket in decision.tickets:
            assert ticket.number > max(self.numbers, default=0) - len(decision.tickets)
            assert ticket.number not in self.numbers
            assert (ticket.session_id, ticket.grant_id) not in self.finished
            assert ticket.session_id not in self.state.dead_sessions
        assert all(a.number < b.number for a, b in pairwise(decision.tickets))
        self.numbers |= {ticket.number for ticket in decision.tickets}
        assert decision.guard.ticket_number >= max(self.numbers, default=0)
        self.order_is_kept(decision)
        self.strangers_change_nothing(batch, decision)
        for command, outcome in decision.outcomes:
            self.outcome_is_true(command, outcome, decision)
        reasons = {
            d.grant_id: d.reason for mark in decision.marks.values() for d in mark.denied
        }
        assert set(reasons) <= set(decision.tickets_ended)
        for grant_id in decision.tickets_ended:
            if grant_id not in {grant.grant_id for grant in decision.grants}:
                if self.state.tickets[grant_id].session_id in self.state.dead_sessions:
                    pass  # gone with its session in any case, to which no reason can be written
                elif reasons.get(grant_id) is Refusal.WORK_ENDED:
                    self.its_work_has_ended(self.state.tickets[grant_id].work_key, batch)
                elif not (grant_id in reasons and grant_id in self.never_served()):
                    self.gave_up_in_time(grant_id, batch)
                session = self.state.tickets[grant_id].session_id
                self.finished.add((session, grant_id))

    def its_work_has_ended(self, work_key: str, batch: list[Command]) -> None:
        """No request is denied because of work that its holder has not ended."""
        assert work_key
        assert any(
            isinstance(command, Release)
            and command.work_end is not None
            and (grant := self.state.grants.get(command.grant_id)) is not None
            and (grant.session_id, grant.work_key) == (command.session_id, work_key)
            for command in batch
        )

    def gave_up_in_time(self, grant_id: str, batch: list[Command]) -> None:
        """No request is denied before its time, unless it asked for that."""
        if not any(isinstance(c, Release) and c.grant_id == grant_id for c in batch):
            assert self.ends[grant_id] <= self.clock.seconds

    def order_is_kept(self, decision: Decision) -> None:
        """No ticket is served while an earlier one goes on waiting, however much it wants."""
        ended = set(decision.tickets_ended)
        lives = [
            *(g for g in self.state.grants.values() if g.grant_id not in decision.grants_ended),
            *decision.grants,
        ]
        works = Counter(grant.work_key for grant in lives if grant.work_key)
        assert max(works.values(), default=0) <= 1, "one work has two holders"
        waiting = [
            queue_key(ticket)
            for ticket in (*self.state.tickets.values(), *decision.tickets)
            if ticket.grant_id not in ended
            and ticket.session_id not in self.state.dead_sessions
            and ticket.work_key not in works
        ]
        for grant in decision.grants:
            stored = self.state.tickets.get(grant.grant_id)
            for priority, number, _ in waiting:
                if stored is not None:
                    assert (-stored.priority, stored.number) < (priority, number)
                elif number in self.numbers - {t.number for t in decision.tickets}:
                    # It was asked for just now, so only its priority can put it first.
                    assert -grant.priority < priority

    def strangers_change_nothing(self, batch: list[Command], decision: Decision) -> None:
        for command, outcome in decision.outcomes:
            owner = self.owner(command.grant_id)
            if owner is None or owner == command.session_id:
                continue
            own = [c for c in batch if c.grant_id == command.grant_id and c.session_id == owner]
            if not own and command.grant_id not in decision.tickets_ended:
                assert isinstance(outcome, Denied)
                assert outcome.reason is Refusal.NOT_YOURS
                assert command.grant_id not in decision.grants_ended

    def owner(self, grant_id: str) -> str | None:
        found = self.state.grants.get(grant_id) or self.state.tickets.get(grant_id)
        return found.session_id if found else None

    def outcome_is_true(self, command: Command, outcome: Outcome, decision: Decision) -> None:
        name = (command.session_id, command.grant_id)
        match outcome:
            case Granted(grant):
                assert (
                    grant == self.state.grants.get(grant.grant_id) or grant in decision.grants
                )
                assert (grant.session_id, grant.grant_id) == name
                assert name not in self.finished or command.grant_id in self.state.grants
            case Queued(ticket):
                stored = self.state.tickets.get(ticket.grant_id)
                assert ticket == stored or ticket in decision.tickets
                assert (ticket.session_id, ticket.grant_id) == name
                assert name not in self.finished
            case Released():
                assert isinstance(command, Release)
                self.finished.add(name)
            case Denied(reason=Refusal.TOO_MANY_SEATS):
                assert isinstance(command, Acquire)
                assert self.state.spec is not None
                assert command.seats > self.state.spec.seats > 0
                self.finished.add(name)
            case Denied(reason=Refusal.NO_SEAT_FREE):
                assert isinstance(command, Acquire)
                self.finished.add(name)
            case Denied(reason=Refusal.WORK_ENDED):
                assert isinstance(command, Acquire)
                self.finished.add(name)
            case Denied(reason=Refusal.SESSION_LOST):
                assert command.session_id in self.dead

    def nothing_is_left_undone(self) -> None:
        """After the last batch no ticket waits that could be served, or has waited too long."""
        for ticket in self.state.tickets.values():
            assert ticket.wait is None or self.ends[ticket.grant_id] > self.clock.seconds
        assert not self.has_work()
        assert len(self.state.tickets) <= self.limits.queue_max

    @invariant()
    def the_indexes_are_what_a_recount_gives(self) -> None:
        check_indexes(self.state)

    @invariant()
    def requests_without_wait_never_queue(self) -> None:
        for session, grant_id in self.finished:
            ticket = self.state.tickets.get(grant_id)
            assert ticket is None or ticket.session_id != session


Deciding.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=25,
    deadline=None,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow],
)
TestDeciding = Deciding.TestCase


def check_indexes(state: PoolState) -> None:
    """Compare the indexes of a state with a naive recount."""
    assert state.held == sum(grant.seats for grant in state.grants.values())
    in_order = sorted(state.tickets.values(), key=queue_key)
    assert list(state.queue()) == in_order
    for place, ticket in enumerate(in_order, start=1):
        assert state.rank(ticket) == place - 1
    assert state.seats_wanted_max == max((ticket.seats for ticket in in_order), default=0)
    alive = [t for t in in_order if t.session_id not in state.dead_sessions]
    works = {grant.work_key for grant in state.grants.values()} - {""}
    free: list[Ticket] = []
    held_back: list[Ticket] = []
    for ticket in alive:
        (held_back if ticket.work_key in works else free).append(ticket)
        works |= {ticket.work_key} - {""}
    alive = free + held_back
    plan = FIFO.plan(PoolSnapshot.of(state), NOW)
    order = plan.order
    assert list(order) == alive
    assert [ticket for ticket in alive if plan.hold_back(ticket)] == held_back
    assert [order.position(ticket) for ticket in alive] == list(range(1, len(alive) + 1))


def _number(grant_id: str) -> int:
    return int(grant_id[-12:], 16)


TICKETS = st.builds(
    lambda number, order, priority: Ticket(
        grant_id=uuid7(number),
        session_id="anna",
        lease_id=1,
        attribution=Attribution("h", "p", priority),
        seats=1 + order % 3,
        number=order,
        queued_at=Instant(NOW),
    ),
    st.integers(1, 8),
    st.integers(1, 20),
    st.integers(-2, 2),
)


@given(st.lists(TICKETS | st.integers(1, 8), max_size=30))
def test_the_indexes_of_the_queue_survive_any_order_of_changes(
    changes: list[Ticket | int],
) -> None:
    state = PoolState()
    for change in changes:
        if isinstance(change, int):
            state.remove_ticket(uuid7(change))
        else:
            state.put_ticket(change)
        check_indexes(state)


@settings(max_examples=150, deadline=None)
@given(
    seats=st.integers(1, 6),
    wants=st.lists(st.integers(1, 4), max_size=25),
    held=st.integers(0, 6),
    writes_max=st.integers(6, 30),
    data=st.data(),
)
def test_commands_that_did_not_fit_are_decided_later_as_if_they_had_come_one_by_one(
    seats: int, wants: list[int], held: int, writes_max: int, data: st.DataObject
) -> None:
    held = min(held, seats)
    batch: list[Command] = [release(number) for number in range(1, held + 1)]
    batch += [acquire(100 + i, seats=min(n, seats)) for i, n in enumerate(wants)]
    batch = data.draw(st.permutations(batch))

    together = _decide_all(_with_held(seats, held), [batch], Limits(writes_max=writes_max))
    one_by_one = _decide_all(_with_held(seats, held), [[c] for c in batch], Limits())

    assert together.grants == one_by_one.grants
    assert together.tickets == one_by_one.tickets
    assert together.guard == one_by_one.guard


def _with_held(seats: int, held: int) -> PoolMirror:
    mirror = PoolMirror(KEYS, POOL)
    mirror.state.spec = PoolSpec(POOL, seats)
    mirror.state.guard = Guard()
    asked = [acquire(number) for number in range(1, held + 1)]
    decision = decide(mirror.state, asked, Instant(NOW), Limits())
    mirror.committed(writes_of(decision), 1)
    return mirror


def _decide_all(
    mirror: PoolMirror, batches: Iterable[list[Command]], limits: Limits
) -> PoolState:
    for revision, given_batch in enumerate(batches, start=1):
        batch = given_batch
        for round_ in range(1000):
            decision = decide(mirror.state, batch, Instant(NOW), limits)
            mirror.committed(writes_of(decision), 1000 * revision + round_)
            batch = decision.deferred
            if not batch and not decision.unserved:
                break
    return mirror.state
