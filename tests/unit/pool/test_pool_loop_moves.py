"""An administrator's move through one node, as those who wait at another node learn of it."""

from __future__ import annotations

import pytest
from tests.unit.faults import UNKNOWN, Fault
from tests.unit.kit import KEYS, POOL, acquire, eventually, release, uuid7
from tests.unit.loops import Loops, granted, received
from tests.unit.pool.test_pool_loop_waits import ToOwner

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import Denied, Moved, MoveTicket, Refusal, To
from seatkeeper.server.events.usage import UsageKind
from seatkeeper.server.pool.forwarder import Forwarded
from seatkeeper.server.pool.subscribers import Position
from seatkeeper.server.store.formats import (
    RULES_FORMAT,
    STAY_FORMAT,
    FormatUnsupported,
    check_format,
)


def moves(number: int, session: str, to: To | str = To.FIRST) -> MoveTicket:
    return MoveTicket(uuid7(number), session, to, "the release", uuid7(700))


def positions(updates: list[object]) -> list[int]:
    return [update.position for update in updates if isinstance(update, Position)]


async def test_those_who_wait_at_another_node_are_notified_and_served_by_it(
    loops: Loops,
) -> None:
    await loops.pool(seats=1)
    here, there = await loops.node(), await loops.node()
    await received(there.submit(acquire(1)))
    bert, cora = there.submit(acquire(2, "bert")), there.submit(acquire(3, "cora"))
    await eventually(lambda: positions([*bert.received]) == [1])
    await eventually(lambda: positions([*cora.received]) == [2])
    await eventually(lambda: uuid7(3) in here.loop.state.tickets)
    listener = Forwarded()
    here.loop.submit(moves(3, "cora"), listener)
    outcome, _ = await listener.outcome
    assert isinstance(outcome, Moved)
    await eventually(lambda: positions([*cora.received]) == [2, 1])
    await eventually(lambda: positions([*bert.received]) == [1, 2])
    there.submit(release(1))
    await eventually(lambda: granted(cora) == [uuid7(3)])
    assert granted(bert) == []
    queued = [e for e in here.tally.usage_events if e.kind is UsageKind.QUEUED]
    assert not queued, "it waits as before: no event of a request"
    await loops.checked()


async def test_it_is_decided_where_it_comes_also_if_another_node_owns_the_pool(
    loops: Loops,
) -> None:
    """An owner of an earlier version would not know the command."""
    await loops.pool(seats=1)
    owner, other = await loops.node(), await loops.node()
    other.loop._ownership.forwarder = ToOwner(owner)
    await received(owner.submit(acquire(1)))
    owner.submit(acquire(2, "bert"))
    owner.submit(acquire(3, "cora"))
    await eventually(lambda: uuid7(3) in other.loop.state.tickets)
    listener = Forwarded()
    other.loop.submit(moves(3, "cora"), listener)
    assert isinstance((await listener.outcome)[0], Moved)
    await eventually(
        lambda: [t.grant_id for t in owner.loop.state.queue()] == [uuid7(3), uuid7(2)]
    )
    await loops.checked()


@pytest.mark.parametrize("fault", UNKNOWN)
async def test_an_outcome_that_was_unknown_is_found_and_answered_as_done(
    loops: Loops, fault: Fault
) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    for number, session in ((2, "bert"), (3, "cora")):
        node.submit(acquire(number, session))
    await eventually(lambda: uuid7(3) in node.loop.state.tickets)
    node.store.faults.append(fault)
    listener = Forwarded()
    node.loop.submit(moves(2, "bert", To.LAST), listener)
    assert isinstance((await listener.outcome)[0], Moved)
    assert [t.grant_id for t in node.loop.state.queue()] == [uuid7(3), uuid7(2)]
    await loops.checked()


async def test_one_whose_session_has_just_ended_is_not_moved(loops: Loops) -> None:
    """The store refuses the write under a lease that has ended, and the loop decides again."""
    await loops.pool(seats=1)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    for number, session in ((2, "bert"), (3, "cora")):
        node.submit(acquire(number, session))
    await eventually(lambda: uuid7(3) in node.loop.state.tickets)
    node.store.gate.clear()
    commits = len(node.store.commits)
    listener = Forwarded()
    node.loop.submit(moves(3, "cora"), listener)
    await eventually(lambda: len(node.store.commits) > commits)
    await loops.end_session("cora")
    node.store.gate.set()
    outcome, _ = await listener.outcome
    assert isinstance(outcome, Denied)
    assert outcome.reason is Refusal.FINISHED
    assert node.tally.store_failures == [], (
        "set apart at once: it is known whose lease has ended"
    )
    await loops.checked()


async def test_a_node_that_does_not_know_moves_decides_nothing_while_one_waits(
    loops: Loops,
) -> None:
    """It would serve the ticket at its old place. Once it is served, the pool is as before."""
    await loops.pool(seats=1)
    node = await loops.node()
    anna = node.submit(acquire(1))
    await received(anna)
    bert, cora = node.submit(acquire(2, "bert")), node.submit(acquire(3, "cora"))
    await eventually(lambda: uuid7(3) in node.loop.state.tickets)
    listener = Forwarded()
    node.loop.submit(moves(3, "cora"), listener)
    await listener.outcome
    formats = {}
    for number in (2, 3):
        entry = await loops.store.get(KEYS.ticket(POOL, uuid7(number)))
        assert entry is not None
        formats[number] = state_pb2.TicketRecord.FromString(entry.value)
    assert (formats[2].format, formats[3].format) == (0, RULES_FORMAT)
    newer = formats[3]
    newer.format = STAY_FORMAT + 1
    with pytest.raises(FormatUnsupported):
        check_format("a ticket", newer)
    node.submit(release(1))
    await eventually(lambda: granted(cora) == [uuid7(3)])
    entry = await loops.store.get(KEYS.grant(POOL, uuid7(3)))
    assert entry is not None
    assert state_pb2.GrantRecord.FromString(entry.value).format == 0
    assert not granted(bert)
    await loops.checked()
