"""What an administrator ends through one node, as the holder's client at another node learns of it."""

from __future__ import annotations

import pytest
from tests.unit.faults import UNKNOWN, Fault
from tests.unit.kit import KEYS, POOL, acquire, eventually, uuid7
from tests.unit.loops import Loops, granted, received, refusals
from tests.unit.pool.test_pool_loop_waits import ToOwner

from seatkeeper.server.domain import Denied, ForcedEnd, Refusal, Released
from seatkeeper.server.events.usage import UsageKind
from seatkeeper.server.pool.forwarder import Forwarded
from seatkeeper.server.pool.subscribers import SeatsGranted, SeatsLost

WHY = "moved"


def frees(number: int, fence: int = 1) -> ForcedEnd:
    return ForcedEnd(uuid7(number), "anna", fence, WHY)


async def test_a_holder_at_another_node_has_lost_its_seat_and_the_next_has_it(
    loops: Loops,
) -> None:
    await loops.pool(seats=1)
    here, there = await loops.node(), await loops.node()
    anna, bert = there.submit(acquire(1)), there.submit(acquire(2, "bert"))
    await received(anna)
    await eventually(lambda: uuid7(2) in here.loop.state.tickets)
    listener = Forwarded()
    here.loop.submit(frees(1), listener)
    assert (await listener.outcome)[0] == Released(uuid7(1))
    await received(anna, 2)
    await received(bert)
    lost = anna.answers[1]
    assert isinstance(lost, SeatsLost)
    assert (lost.grant_id, lost.is_forced) == (uuid7(1), True)
    assert WHY in lost.message
    assert granted(bert) == [uuid7(2)]
    assert there.loop.state.completed.contains("anna", uuid7(1))
    kinds = [event.kind for event in here.tally.usage_events if event.grant_id == uuid7(1)]
    assert kinds == [UsageKind.RECLAIMED]
    await loops.checked()


async def test_a_request_that_waits_at_another_node_is_denied_with_the_reason(
    loops: Loops,
) -> None:
    await loops.pool(seats=1)
    here, there = await loops.node(), await loops.node()
    await received(there.submit(acquire(1)))
    bert = there.submit(acquire(2, "bert"))
    await eventually(lambda: uuid7(2) in here.loop.state.tickets)
    listener = Forwarded()
    here.loop.submit(ForcedEnd(uuid7(2), "bert", 0, WHY), listener)
    assert (await listener.outcome)[0] == Released(uuid7(2))
    await received(bert)
    assert refusals(bert) == [Refusal.REMOVED]
    await received(again := there.submit(acquire(2, "bert")))
    assert refusals(again) == [Refusal.REMOVED]
    await loops.checked()


async def test_it_is_decided_where_it_comes_also_if_another_node_owns_the_pool(
    loops: Loops,
) -> None:
    """An owner of an earlier version would not know the command."""
    await loops.pool(seats=1)
    owner, other = await loops.node(), await loops.node()
    other.loop._ownership.forwarder = ToOwner(owner)
    anna = owner.submit(acquire(1))
    await received(anna)
    await eventually(lambda: uuid7(1) in other.loop.state.grants)
    listener = Forwarded()
    other.loop.submit(frees(1), listener)
    assert (await listener.outcome)[0] == Released(uuid7(1))
    await received(anna, 2)
    assert [type(update) for update in anna.answers] == [SeatsGranted, SeatsLost]
    await loops.checked()


@pytest.mark.parametrize("fault", UNKNOWN)
async def test_an_outcome_that_was_unknown_is_found_and_answered_as_done(
    loops: Loops, fault: Fault
) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    anna = node.submit(acquire(1))
    await received(anna)
    node.store.faults.append(fault)
    listener = Forwarded()
    node.loop.submit(frees(1), listener)
    assert (await listener.outcome)[0] == Released(uuid7(1))
    await received(anna, 2)
    assert isinstance(anna.answers[1], SeatsLost)
    assert not (await node.store.list(KEYS.grant(POOL, ""))).entries
    await loops.checked()


async def test_a_grant_that_is_another_by_now_stays(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    anna = node.submit(acquire(1))
    await received(anna)
    listener = Forwarded()
    node.loop.submit(frees(1, fence=7), listener)
    outcome, _ = await listener.outcome
    assert isinstance(outcome, Denied)
    assert outcome.reason is Refusal.OTHER_TERMS
    assert uuid7(1) in node.loop.state.grants
    refused = [event for event in node.tally.usage_events if event.kind is UsageKind.DENIED]
    assert not refused, "it is no request for seats"
