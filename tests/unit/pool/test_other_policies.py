"""A pool's loop under policies that hold back, that wait for a time, and that are wrong."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from tests.policies.quota import Quota
from tests.policies.small_first import SmallFirst
from tests.unit.kit import (
    NOW,
    POOL,
    Ear,
    FakeClock,
    a_grant,
    a_ticket,
    acquire,
    eventually,
    release,
    uuid7,
)
from tests.unit.loops import Loops, NodeLoop, granted, received, refusals

from seatkeeper.server.decide import HoldStats, decide
from seatkeeper.server.domain import (
    Acquire,
    Denied,
    Granted,
    Instant,
    Limits,
    PoolSpec,
    PoolState,
    Refusal,
    Ticket,
)
from seatkeeper.server.policy.fifo import FIFO
from seatkeeper.server.policy.order import ListedOrder
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.pool.background import WAKE_MAX, WAKE_MIN, BackgroundWork
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.pool.reclaim_timers import ReclaimTimers
from seatkeeper.server.pool.stay_timers import StayTimers
from seatkeeper.server.pool.subscribers import Position
from seatkeeper.server.pool.wait_timers import WaitTimers
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.system_clock import SystemClock


def of_project(number: int, project: str, session: str = "anna", *, seats: int = 1) -> Acquire:
    command = acquire(number, session, seats=seats)
    return replace(command, attribution=replace(command.attribution, project=project))


def position(ear: Ear) -> Position:
    """The last position that a waiter received."""
    [*_, last] = [update for update in ear.received if isinstance(update, Position)]
    return last


async def queued(node: NodeLoop, count: int) -> None:
    await eventually(lambda: len(node.loop.state.tickets) == count)


# A quota ------------------------------------------------------------------------------------------


async def test_a_project_at_its_quota_waits_although_a_seat_is_free(loops: Loops) -> None:
    await loops.pool(seats=3)
    node = await loops.node(policy=Quota(1))
    await received(node.submit(of_project(1, "cv")))
    waits = node.submit(of_project(2, "cv", "bert"))
    await queued(node, 1)
    other = node.submit(of_project(3, "nlp", "cora"))
    await received(other)
    commits = len(node.store.commits)
    for _ in range(200):
        await asyncio.sleep(0)

    assert granted(other) == [uuid7(3)]
    assert not granted(waits)
    assert len(node.store.commits) == commits, "a head that fits and is not served is no work"

    node.submit(release(1))
    await received(waits)
    assert granted(waits) == [uuid7(2)]


async def test_a_ticket_held_back_is_last_and_gets_no_estimate(loops: Loops) -> None:
    await loops.pool(seats=2)
    node = await loops.node(policy=Quota(1))
    node.loop.holds = HoldStats((timedelta(seconds=8),))
    await received(node.submit(of_project(1, "cv")))
    held_back = node.submit(of_project(2, "cv", "bert"))
    await queued(node, 1)
    await received(node.submit(of_project(3, "nlp", "cora")))
    in_line = node.submit(of_project(4, "asr", "dave"))
    await queued(node, 2)
    await eventually(lambda: held_back.received and in_line.received)
    await eventually(lambda: position(held_back).position == 2)

    estimate = position(in_line).estimate
    assert estimate is not None
    assert (position(in_line).position, estimate.likely) == (1, timedelta(seconds=8))
    assert position(held_back).estimate is None
    shown = [(t.grant_id, place.position) for t, place in node.loop.forecast().line()]
    assert shown == [(uuid7(4), 1), (uuid7(2), 2)]


async def test_a_full_queue_refuses_at_once_who_is_held_back_and_not_who_may_be_served(
    loops: Loops,
) -> None:
    """The gate lets no transaction through, and who would be held back is answered."""
    await loops.pool(seats=3)
    node = await loops.node(policy=Quota(1), limits=Limits(queue_max=1))
    await received(node.submit(of_project(1, "cv")))
    node.submit(of_project(2, "cv", "bert"))
    await queued(node, 1)
    node.store.gate.clear()
    held_back = node.submit(of_project(3, "cv", "cora"))
    assert refusals(held_back) == [Refusal.OVERLOADED]
    may_be_served = node.submit(of_project(4, "nlp", "dave"))
    assert not may_be_served.received
    node.store.gate.set()
    await received(may_be_served)
    assert granted(may_be_served) == [uuid7(4)]


async def test_a_request_that_may_be_served_is_not_delayed_for_the_sake_of_those_who_wait(
    loops: Loops,
) -> None:
    await loops.pool(seats=3)
    node = await loops.node(policy=Quota(1), pause=timedelta(hours=1))
    await received(node.submit(of_project(1, "cv")))
    node.submit(of_project(2, "cv", "bert"))
    await queued(node, 1)
    await received(node.submit(of_project(3, "nlp", "cora")))


async def test_who_would_not_wait_is_reported_that_the_policy_holds_it_back(
    loops: Loops,
) -> None:
    await loops.pool(seats=3)
    node = await loops.node(policy=Quota(1))
    await received(node.submit(of_project(1, "cv")))
    ear = node.submit(replace(of_project(2, "cv", "bert"), may_wait=False))
    await received(ear)
    [denied] = ear.answers
    assert isinstance(denied, Denied)
    assert denied.reason is Refusal.NO_SEAT_FREE
    assert "policy" in denied.message


# Small requests first -----------------------------------------------------------------------------


async def test_a_small_request_is_served_by_a_seat_that_no_command_has_freed(
    loops: Loops,
) -> None:
    await loops.pool(seats=2)
    node = await loops.node(policy=SmallFirst(5))
    await received(node.submit(acquire(1)))
    await received(node.submit(acquire(2, "bert")))
    large = node.submit(acquire(3, "cora", seats=2))
    await queued(node, 1)
    small = node.submit(acquire(4, "dave"))
    await queued(node, 2)
    await loops.end_session("bert")
    await received(small)

    assert granted(small) == [uuid7(4)]
    assert not granted(large)


# A time -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NotBefore:
    """Serves as ``Fifo``, from a moment on."""

    opens_at: int

    def plan(self, pool: PoolSnapshot, now: Instant) -> Plan:
        plan = FIFO.plan(pool, now)
        if now >= self.opens_at:
            return plan
        return replace(
            plan, serve=(), hold_back=lambda ticket: True, next_wake=Instant(self.opens_at)
        )


async def test_a_ticket_is_served_when_its_time_has_come_and_nothing_else_happens(
    loops: Loops,
) -> None:
    await loops.pool(seats=1)
    clock = SystemClock()
    policy = NotBefore(clock.now() + 150)
    node = await loops.node(clock=clock, policy=policy)
    ear = node.submit(acquire(1))
    await queued(node, 1)
    assert not node.loop.idle
    commits = len(node.store.commits)
    await received(ear)

    assert granted(ear) == [uuid7(1)]
    assert len(node.store.commits) == commits + 1
    assert clock.now() >= policy.opens_at


async def test_a_pool_whose_tickets_wait_for_a_time_is_not_put_away(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node(policy=NotBefore(NOW + 3_600_000))
    ear = node.submit(acquire(1))
    await queued(node, 1)
    node.loop.subscribers.detach(uuid7(1), ear)
    assert len(node.loop.subscribers) == 0
    assert not node.loop.idle


@pytest.mark.parametrize(
    ("after_millis", "seconds"),
    [(3_000, 3.0), (0, WAKE_MIN), (-5_000, WAKE_MIN), (3_600_000, WAKE_MAX)],
    ids=("its time", "not at once", "nor for the past", "a clock that is put forward"),
)
def test_when_a_policy_is_asked_again(after_millis: int, seconds: float) -> None:
    clock, mirror = FakeClock(), PoolMirror(Keys(), POOL)

    class Wakes:
        def plan(self, pool: PoolSnapshot, now: Instant) -> Plan:
            return replace(FIFO.plan(pool, now), next_wake=Instant(now + after_millis))

    timers = WaitTimers(clock), ReclaimTimers(clock), StayTimers(clock)
    work = BackgroundWork(mirror, *timers, Wakes(), clock)
    assert work.look() is None
    assert work.next_look() == pytest.approx(seconds)


# Wrong ones ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wrong:
    """Serves what it is given, whatever the pool is."""

    serve: tuple[Ticket, ...]

    def plan(self, pool: PoolSnapshot, now: Instant) -> Plan:
        return Plan(serve=self.serve, order=ListedOrder(pool.waiting))


@pytest.mark.parametrize(
    "serve",
    [
        (a_ticket(1, seats=2), a_ticket(2)),
        (a_ticket(1), a_ticket(1)),
        (a_ticket(77),),
        (a_ticket(3, session="bert"),),
    ],
    ids=("too many seats", "one twice", "a stranger", "a dead session"),
)
def test_a_policy_that_is_wrong_costs_no_seat(serve: tuple[Ticket, ...]) -> None:
    state = PoolState(spec=PoolSpec(POOL, 3))
    state.put_grant(a_grant(900))
    for ticket in (a_ticket(1, seats=2), a_ticket(2), a_ticket(3, session="bert")):
        state.put_ticket(ticket)
    state.dead_sessions.add("bert")
    decision = decide(state, [], Instant(NOW), Limits(), policy=Wrong(serve))

    assert sum(grant.seats for grant in decision.grants) <= 2
    made = [grant.grant_id for grant in decision.grants]
    assert len(set(made)) == len(made)
    assert set(made) <= {uuid7(1), uuid7(2)}


def test_a_decision_serves_new_requests_by_its_policy() -> None:
    state = PoolState(spec=PoolSpec(POOL, 2))
    commands = [acquire(1, seats=2), acquire(2, "bert")]
    decision = decide(state, commands, Instant(NOW), Limits(), policy=SmallFirst(9))
    served = [o.grant.grant_id for _, o in decision.outcomes if isinstance(o, Granted)]
    assert served == [uuid7(2)]


async def test_a_plan_that_the_decision_does_not_carry_out_is_no_hot_loop(
    loops: Loops, caplog: pytest.LogCaptureFixture
) -> None:
    await loops.pool(seats=1)
    node = await loops.node(policy=Wrong((a_ticket(77),)))
    node.submit(acquire(1))
    await queued(node, 1)
    await eventually(lambda: "plan_without_effect" in caplog.text)
    for _ in range(2_000):
        await asyncio.sleep(0)
    assert caplog.text.count("plan_without_effect") < 100
    await received(node.submit(acquire(1, "bert", may_wait=False)))
