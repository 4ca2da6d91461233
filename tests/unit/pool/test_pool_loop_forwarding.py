"""What a node knows of what another node has decided for it, before the watch delivers it."""

from __future__ import annotations

from tests.unit.kit import KEYS, POOL, Ear, acquire, eventually, release, uuid7
from tests.unit.loops import Loops, NodeLoop, received, refusals
from tests.unit.pool.test_pool_loop_waits import ToOwner

from seatkeeper.server.domain import Refusal, Released
from seatkeeper.server.pool.subscribers import SeatsLost
from seatkeeper.server.sessions.sessions import lease_id_of
from seatkeeper.server.store import Put, records


async def test_a_seat_given_back_through_the_owner_is_gone_from_the_view_at_once(
    loops: Loops,
) -> None:
    """A renewal that follows is answered from the view: no token of a seat given back."""
    await loops.pool(seats=1)
    owner, other = await loops.node(), await loops.node()
    other.loop._ownership.forwarder = ToOwner(owner)
    await received(other.submit(acquire(1)))
    assert uuid7(1) in other.loop.state.grants
    other.store.watching.clear()
    ear = other.submit(release(1))
    await received(ear)

    assert [type(update) for update in ear.received] == [Released]
    assert uuid7(1) not in other.loop.state.grants


async def two_nodes(loops: Loops, seats: int = 2) -> tuple[NodeLoop, NodeLoop]:
    """The pool's owner, and a node that has it decide."""
    await loops.pool(seats=seats)
    owner, other = await loops.node(), await loops.node()
    other.loop._ownership.forwarder = ToOwner(owner)
    return owner, other


async def test_a_stream_whose_seat_another_call_gave_back_has_lost_nothing(
    loops: Loops,
) -> None:
    _, other = await two_nodes(loops)
    stream = other.submit(acquire(1))
    await received(stream)
    other.store.watching.clear()
    call = other.submit(release(1))
    await received(call)

    assert stream.answers[1:] == [Released(uuid7(1))]


async def test_a_call_that_waits_is_answered_by_a_release_of_its_ticket(loops: Loops) -> None:
    _, other = await two_nodes(loops, seats=1)
    await received(other.submit(acquire(1)))
    waiting = other.submit(acquire(2, "bert"))
    await eventually(lambda: uuid7(2) in other.loop.state.tickets)
    other.store.watching.clear()
    await received(other.submit(release(2, "bert")))

    assert waiting.answers == [Released(uuid7(2))]


async def test_what_was_given_back_through_the_owner_is_not_granted_again(loops: Loops) -> None:
    """By the node that had it decided, either, should the owner be gone."""
    owner, other = await two_nodes(loops)
    await received(other.submit(acquire(1)))
    await received(other.submit(acquire(2)))
    other.store.watching.clear()
    ears = [other.submit(release(1)), other.submit(release(2))]
    for ear in ears:
        await received(ear)
    other.store.watching.set()
    decided = owner.loop._mirror.guard_revision
    await eventually(lambda: other.loop._mirror.guard_revision == decided)
    other.loop._ownership.forwarder = None
    late = Ear()
    other.submit(acquire(1), late)
    other.submit(acquire(2), late)
    await received(late, 2)

    assert refusals(late) == [Refusal.FINISHED, Refusal.FINISHED]
    assert other.loop.state.grants == {}


async def test_a_session_that_ends_meanwhile_has_lost_the_rest(loops: Loops) -> None:
    _, other = await two_nodes(loops)
    stream = other.submit(acquire(1))
    await received(stream)
    other.submit(acquire(2), stream)
    await eventually(lambda: len(stream.answers) == 2)
    other.store.watching.clear()
    await received(other.submit(release(1)))
    other.store.watching.set()
    await loops.store.revoke_lease(lease_id_of("anna"))
    await eventually(lambda: len(stream.answers) == 4)

    assert [type(update) for update in stream.answers[2:]] == [Released, SeatsLost]
    await eventually(lambda: not other.loop._mirror._ahead)
    assert other.loop._mirror.ends == {}


async def test_a_claim_is_seen_by_the_node_that_had_the_seat_decided_again(
    loops: Loops,
) -> None:
    """The owner answers from a view that has not seen the claim, at a revision after it."""
    owner, other = await two_nodes(loops)
    await received(other.submit(acquire(1)))
    owner.store.watching.clear()
    other.store.watching.clear()
    grant = await loops.store.get(KEYS.grant(POOL, uuid7(1)))
    assert grant is not None
    claimed = records.with_claim(grant.value, "agent", "claim")
    await loops.store.commit([Put(grant.key, claimed, grant.lease_id)])
    await received(other.submit(acquire(1)))
    other.store.watching.set()

    await eventually(lambda: other.loop.state.grants[uuid7(1)].claim_id == "claim")
