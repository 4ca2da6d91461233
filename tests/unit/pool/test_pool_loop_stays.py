"""Kept seats on nodes: written once, by one of them, and free when their time is over."""

from __future__ import annotations

from datetime import timedelta

from tests.unit.kit import (
    KEYS,
    NOW,
    POOL,
    FakeClock,
    a_grant,
    acquire,
    changed,
    eventually,
    open_lease,
    release,
    uuid7,
)
from tests.unit.loops import Loops, NodeLoop, granted, received

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import Instant, PoolPolicy, PoolSpec, PoolState, Stay, StayRule
from seatkeeper.server.pool.stay_timers import StayTimers
from seatkeeper.server.store import Put, records, stays

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)


async def specify(loops: Loops, rule: StayRule, seats: int = 1) -> None:
    await loops.pool(seats)
    spec = PoolSpec(POOL, seats, policy=PoolPolicy(stay=rule))
    await loops.store.commit([Put(KEYS.pool(POOL), records.encode_spec(spec))])


def kept_until(node: NodeLoop) -> list[int]:
    state = node.loop.state
    return [state.stays[each].until for each in state.kept]


async def test_the_seat_of_a_lost_holder_is_free_after_the_delay(loops: Loops) -> None:
    await specify(loops, StayRule(lock_delay=MINUTE))
    node, other = await loops.node(), await loops.node()
    await received(node.submit(acquire(1)))
    waits = other.submit(acquire(2, "bert"))
    await loops.end_session("anna")
    await eventually(lambda: kept_until(node) == kept_until(other) == [NOW + 60_000])

    loops.clock.advance(MINUTE - SECOND)
    for each in (node, other):
        each.loop._wake.set()
    await received(other.submit(acquire(3, "cora", may_wait=False)))
    assert not granted(waits)
    loops.clock.advance(2 * SECOND)
    node.loop._wake.set()
    await received(waits)
    assert granted(waits) == [uuid7(2)]
    checked = await loops.checked()
    assert (checked.max_out, checked.grants) == (1, 2)


async def test_a_released_seat_lingers_and_its_holder_is_served_by_another_node(
    loops: Loops,
) -> None:
    await specify(loops, StayRule(linger=MINUTE))
    node, other = await loops.node(), await loops.node()
    await received(node.submit(acquire(1)))
    waits = node.submit(acquire(2, "bert"))
    await received(node.submit(release(1)))
    await eventually(lambda: bool(other.loop.state.kept))
    back = other.submit(acquire(3))
    await received(back)
    assert granted(back) == [uuid7(3)]
    assert not granted(waits)
    assert (await loops.checked()).max_out == 1


async def test_a_lost_grant_returns_in_a_new_session(loops: Loops) -> None:
    await specify(loops, StayRule(resurrection=MINUTE))
    node = await loops.node()
    await received(node.submit(acquire(1)))
    await loops.end_session("anna")
    await open_lease(loops.store, "again")
    back = node.submit(changed(acquire(1, "again"), holder="anna@host"))
    await received(back)
    assert granted(back) == [uuid7(1)]
    grant = node.loop.state.grants[uuid7(1)]
    assert (grant.fence, grant.continues) == (2, 1)
    await loops.checked()


async def test_a_session_that_its_client_closes_leaves_a_free_seat(loops: Loops) -> None:
    await specify(loops, StayRule(lock_delay=MINUTE))
    node = await loops.node()
    await received(node.submit(acquire(1)))
    waits = node.submit(acquire(2, "bert"))
    closed = state_pb2.SessionRecord(secret_sha256=b"x")
    await loops.store.commit([Put(KEYS.opened("anna"), closed.SerializeToString())])
    await loops.end_session("anna")
    await received(waits)
    assert granted(waits) == [uuid7(2)]


async def test_a_node_that_starts_later_keeps_them_no_longer(loops: Loops) -> None:
    await specify(loops, StayRule(lock_delay=MINUTE))
    node = await loops.node()
    await received(node.submit(acquire(1)))
    await loops.end_session("anna")
    await eventually(lambda: kept_until(node) == [NOW + 60_000])
    await node.loop.stop()
    loops.clock.advance(MINUTE)
    late = await loops.node()
    got = late.submit(acquire(2, "bert"))
    await received(got)
    assert granted(got) == [uuid7(2)]


def test_what_is_left_is_measured_by_the_monotonic_clock_from_when_it_is_seen() -> None:
    clock = FakeClock()
    timers, state = StayTimers(clock), PoolState()
    state.put_stay(Stay(a_grant(1), NOW, Instant(NOW + 60_000)))
    timers.review(state)
    clock.unix_millis += 3_600_000  # the wall clock jumps
    timers.review(state)
    assert not timers.over()
    clock.seconds += 59
    assert not timers.over()
    clock.seconds += 1
    assert timers.over() == {uuid7(1)}

    # A node whose clock is behind by an hour keeps them for no more than the window.
    behind = FakeClock(unix_millis=NOW - 3_600_000)
    timers = StayTimers(behind)
    timers.review(state)
    assert timers.next_end() == behind.seconds + 60


def test_a_record_reads_as_it_was_written() -> None:
    stay = Stay(a_grant(1), NOW, Instant(NOW + 1), was_released=True, may_return=True)
    assert stays.decode_stay(uuid7(1), stays.encode_stay(stay)) == stay
