"""What a node knows of what another node has decided for it, before the watch delivers it."""

from __future__ import annotations

from tests.unit.kit import acquire, release, uuid7
from tests.unit.loops import Loops, received
from tests.unit.pool.test_pool_loop_waits import ToOwner

from seatkeeper.server.domain import Released


async def test_a_seat_given_back_through_the_owner_is_gone_from_the_view_at_once(
    loops: Loops,
) -> None:
    """A renewal that follows is answered from the view: no token of a seat given back."""
    await loops.pool(seats=1)
    owner, other = await loops.node(), await loops.node()
    other.loop._ownership.forwarder = ToOwner(owner)
    await received(other.submit(acquire(1)))
    assert uuid7(1) in other.loop.state.grants
    other.store.watch_lag = 1_000_000
    ear = other.submit(release(1))
    await received(ear)

    assert [type(update) for update in ear.received] == [Released]
    assert uuid7(1) not in other.loop.state.grants
