"""The session driver when nodes, connections and the service misbehave.

The clock is moved by hand and the sockets are real, so "in time" means: before the clock moved on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import pytest
from tests.client.fakes import FakeClock
from tests.client.scripted import (
    Reason,
    ScriptedNode,
    ScriptedService,
    eventually,
    pulse,
    running,
)

from seatkeeper.client.aio import AsyncSeatClient
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.core.errors import (
    InvalidArgument,
    NotYours,
    Overloaded,
    SeatLost,
    ServiceUnavailable,
)
from seatkeeper.v1 import seat_pb2


async def pass_time(
    clock: FakeClock, condition: Callable[[], bool], *, step: float = 0.1, most: float = 120.0
) -> float:
    """Move the clock in small steps until ``condition`` holds; return how far it had to move."""
    moved = 0.0
    async with pulse() as settle:
        while not condition():
            assert moved < most, "it did not happen in time"
            clock.advance(step)
            moved += step
            await settle()
    return moved


async def test_a_held_seat_survives_the_death_of_its_node(
    roamer: AsyncSeatClient, nodes: list[ScriptedNode], service: ScriptedService
) -> None:
    grant = await roamer.acquire("tensorrt")
    first = next(node for node in nodes if node.streams_opened)
    other = next(node for node in nodes if node is not first)
    await first.kill()
    await eventually(lambda: other.streams_opened == 1)
    await grant.release()
    assert len(service.sessions) == 1
    assert service.held("tensorrt") == 0


async def test_a_place_in_the_queue_survives_the_death_of_its_node(
    roamer: AsyncSeatClient, nodes: list[ScriptedNode], service: ScriptedService
) -> None:
    holding = await roamer.acquire("tensorrt", seats=2)
    waiting = asyncio.create_task(roamer.acquire("tensorrt"))
    await eventually(lambda: len(service.tickets) == 1)
    (ticket,) = service.tickets
    await next(node for node in nodes if node.streams_opened).kill()
    await eventually(lambda: all(node.streams_opened for node in nodes))
    await holding.release()
    assert (await waiting).grant_id == ticket


async def test_a_broken_stream_loses_no_operation(
    client: AsyncSeatClient, node: ScriptedNode, service: ScriptedService, clock: FakeClock
) -> None:
    """Commands and answers that were on their way are sent again, and take effect once."""

    async def work() -> None:
        for _ in range(30):
            async with client.seat("wide"):
                pass

    working = asyncio.gather(*(work() for _ in range(20)))
    # A client that has not read that its session is open tries the next stream with another one.
    await eventually(lambda: service.count("acquire"))
    for opened in range(1, 6):
        await eventually(lambda opened=opened: node.streams_opened == opened)
        node.break_streams()
        # A stream that broke at once is not tried again at once: let the backoff pass.
        await pass_time(clock, lambda opened=opened: node.streams_opened > opened)  # type: ignore[misc]  # mypy infers no type for a default of a lambda
    await working
    assert len(service.sessions) == 1
    assert not service.grants
    assert not service.tickets
    assert service.fence_of_last_grant == 600


async def test_an_event_that_cannot_be_taken_ends_the_stream_and_not_the_client(
    roamer: AsyncSeatClient, service: ScriptedService
) -> None:
    holding = await roamer.acquire("tensorrt", seats=2)
    waiting = asyncio.create_task(roamer.acquire("tensorrt", on_queued=lambda place: None))
    await eventually(lambda: len(service.tickets) == 1)
    (ticket,) = service.tickets
    (session,) = service.sessions.values()
    queued = seat_pb2.Queued(grant_id=ticket, position=1)
    queued.estimate.seconds = 2**62  # more than any duration of Python
    session.notify(queued=queued)
    await eventually(lambda: service.count("resume") == 1)
    await holding.release()
    assert (await waiting).grant_id == ticket


async def test_a_paused_node_is_left_within_seconds(
    roamer: AsyncSeatClient, nodes: list[ScriptedNode], clock: FakeClock
) -> None:
    await roamer.acquire("tensorrt")
    paused = next(node for node in nodes if node.streams_opened)
    other = next(node for node in nodes if node is not paused)
    paused.pause()
    # Somebody asks, so that an answer is owed: a second of silence, then a probe of two.
    asking = asyncio.create_task(roamer.acquire("tensorrt"))
    assert await pass_time(clock, lambda: other.streams_opened == 1) < 4.0
    await asking


async def test_an_idle_client_notices_a_paused_node_at_its_next_renewal(
    roamer: AsyncSeatClient, nodes: list[ScriptedNode], clock: FakeClock
) -> None:
    states: list[HoldingState] = []
    grant = await roamer.acquire("tensorrt", on_state=states.append, token=True)
    paused = next(node for node in nodes if node.streams_opened)
    other = next(node for node in nodes if node is not paused)
    token = grant.token
    paused.pause()
    assert await pass_time(clock, lambda: other.streams_opened == 1) < 13.0
    await eventually(lambda: grant.token != token)
    assert states == []
    grant.raise_if_lost()


async def test_renewals_keep_the_token_fresh(
    client: AsyncSeatClient, service: ScriptedService, clock: FakeClock
) -> None:
    async with client.seat("tensorrt", token=True) as grant:
        tokens = {grant.token}
        for renewals in range(1, 6):
            await pass_time(clock, lambda: grant.token not in tokens, step=0.5)
            tokens.add(grant.token)
            (session,) = service.sessions.values()
            assert session.renewals == renewals
        grant.raise_if_lost()


async def test_a_holder_without_answers_stops_before_the_service_would_free_its_seat(
    client: AsyncSeatClient, node: ScriptedNode, clock: FakeClock
) -> None:
    reported: list[tuple[HoldingState, float]] = []
    began = clock.now()
    grant = await client.acquire(
        "tensorrt", on_state=lambda state: reported.append((state, clock.now() - began))
    )
    node.pause()
    await pass_time(clock, lambda: len(reported) == 2)
    assert [state for state, _ in reported] == [HoldingState.JEOPARDY, HoldingState.LOST]
    # The lease is 30 s; 29 s are believed, and doubted after half of them at the latest.
    assert reported[0][1] <= 14.5
    assert 28.9 <= reported[1][1] <= 29.2
    with pytest.raises(SeatLost, match="could not be renewed before its lease ran out"):
        grant.raise_if_lost()
    await grant.release()


async def test_jeopardy_ends_when_a_node_answers_again(
    client: AsyncSeatClient, node: ScriptedNode, clock: FakeClock
) -> None:
    states: list[HoldingState] = []
    grant = await client.acquire("tensorrt", on_state=states.append)
    node.pause()
    await pass_time(clock, lambda: states == [HoldingState.JEOPARDY])
    node.resume()
    await pass_time(clock, lambda: len(states) == 2)
    assert states == [HoldingState.JEOPARDY, HoldingState.SAFE]
    grant.raise_if_lost()


async def test_a_node_that_says_it_goes_is_left_before_it_does(
    roamer: AsyncSeatClient, nodes: list[ScriptedNode], clock: FakeClock
) -> None:
    states: list[HoldingState] = []
    await roamer.acquire("tensorrt", on_state=states.append)
    leaving = next(node for node in nodes if node.streams_opened)
    other = next(node for node in nodes if node is not leaving)
    leaving.go_away(within=4.0)
    assert await pass_time(clock, lambda: other.streams_opened == 1) <= 2.1
    assert states == []


async def test_a_lost_session_loses_its_seats_and_asks_anew_for_what_waits(
    client: AsyncSeatClient, service: ScriptedService
) -> None:
    states: list[HoldingState] = []
    grant = await client.acquire("tensorrt", seats=2, on_state=states.append)
    waiting = asyncio.create_task(client.acquire("tensorrt"))
    await eventually(lambda: len(service.tickets) == 1)
    (session_id,), (ticket,) = service.sessions, service.tickets
    service.end_session(session_id)
    served = await waiting
    assert served.grant_id > ticket
    assert session_id not in service.sessions
    assert states == [HoldingState.LOST]
    with pytest.raises(SeatLost, match="the lease ended"):
        await grant.fetch_token()
    served.raise_if_lost()


async def test_a_session_that_ended_between_two_streams_is_begun_anew(
    client: AsyncSeatClient, node: ScriptedNode, service: ScriptedService, clock: FakeClock
) -> None:
    grant = await client.acquire("tensorrt")
    (session_id,) = service.sessions
    service.end_session(session_id, notify=False)
    node.break_streams()
    await pass_time(clock, lambda: grant.state is HoldingState.LOST, step=0.5)
    async with client.seat("tensorrt", seats=2):
        assert len(service.sessions) == 1


async def test_a_seat_that_was_taken_back_is_lost_alone(
    client: AsyncSeatClient, service: ScriptedService
) -> None:
    taken = await client.acquire("wide")
    kept = await client.acquire("wide")
    service.force_release(taken.grant_id)
    await eventually(lambda: taken.state is HoldingState.LOST)
    with pytest.raises(SeatLost, match="taken back") as caught:
        taken.raise_if_lost()
    assert caught.value.grant_id == taken.grant_id
    kept.raise_if_lost()


async def test_a_seat_taken_back_between_two_streams_is_lost_and_not_taken_again(
    client: AsyncSeatClient, node: ScriptedNode, service: ScriptedService, clock: FakeClock
) -> None:
    grant = await client.acquire("tensorrt")
    clock.advance(2.0)
    service.force_release(grant.grant_id)
    # Its updates die with the stream.
    next(iter(service.sessions.values())).events.clear()
    node.break_streams()
    await pass_time(clock, lambda: grant.state is HoldingState.LOST, step=0.5)
    assert not service.grants


async def test_a_grant_that_comes_back_with_another_fence_is_another_grant(
    client: AsyncSeatClient, node: ScriptedNode, service: ScriptedService, clock: FakeClock
) -> None:
    """A service that forgot what is finished must not make us believe in seats that were free."""
    grant = await client.acquire("tensorrt")
    del service.grants[grant.grant_id]
    clock.advance(2.0)
    node.break_streams()
    await pass_time(clock, lambda: grant.state is HoldingState.LOST, step=0.5)
    await eventually(lambda: not service.grants)


async def test_a_finished_id_is_replaced_unseen(
    client: AsyncSeatClient, service: ScriptedService
) -> None:
    service.refuse_next(Reason.DENIAL_REASON_FINISHED)
    async with client.seat("tensorrt"):
        assert service.count("acquire") == 2


async def test_a_service_that_finds_every_id_finished_is_not_asked_forever(
    client: AsyncSeatClient, service: ScriptedService
) -> None:
    for _ in range(20):
        service.refuse_next(Reason.DENIAL_REASON_FINISHED)
    with pytest.raises(SeatLost):
        await client.acquire("tensorrt")
    assert service.count("acquire") == 9


async def test_an_unknown_outcome_is_asked_about_with_the_same_id(
    client: AsyncSeatClient, service: ScriptedService, clock: FakeClock
) -> None:
    service.refuse_next(Reason.DENIAL_REASON_UNAVAILABLE, retry_after=3.0)
    asking = asyncio.create_task(client.acquire("tensorrt", wait=0))
    assert 2.9 < await pass_time(clock, asking.done) < 3.6
    first, second = (c.acquire for c in service.commands if c.HasField("acquire"))
    assert first.grant_id == second.grant_id


async def test_a_full_queue_is_tried_again_while_there_is_time(
    client: AsyncSeatClient, service: ScriptedService, clock: FakeClock
) -> None:
    service.refuse_next(Reason.DENIAL_REASON_OVERLOADED, retry_after=2.0)
    asking = asyncio.create_task(client.acquire("tensorrt", wait=5))
    assert 1.9 < await pass_time(clock, asking.done) < 2.6
    await asking


async def test_a_full_queue_is_the_answer_when_there_is_no_time(
    client: AsyncSeatClient, service: ScriptedService
) -> None:
    service.refuse_next(Reason.DENIAL_REASON_OVERLOADED, retry_after=2.0)
    with pytest.raises(Overloaded) as caught:
        await client.acquire("tensorrt", wait=0)
    assert caught.value.retryable
    assert caught.value.retry_after is not None
    assert caught.value.retry_after.total_seconds() == 2.0


async def test_a_refusal_of_somebody_elses_grant_is_final(
    client: AsyncSeatClient, service: ScriptedService
) -> None:
    service.refuse_next(Reason.DENIAL_REASON_NOT_YOURS)
    with pytest.raises(NotYours):
        await client.acquire("tensorrt")


async def test_an_unanswered_release_returns_and_continues(
    client: AsyncSeatClient, node: ScriptedNode, service: ScriptedService, clock: FakeClock
) -> None:
    grant = await client.acquire("tensorrt")
    node.pause()
    releasing = asyncio.create_task(grant.release())
    assert 9.9 < await pass_time(clock, releasing.done) < 10.5
    node.resume()
    await pass_time(clock, lambda: not service.grants)


async def test_the_first_request_says_when_no_node_answers(clock: FakeClock) -> None:
    async with running(ScriptedService(tensorrt=1), 1) as (node,):
        address = node.address
    async with AsyncSeatClient(address, clock=clock) as client:
        asking = asyncio.create_task(client.acquire("tensorrt"))
        assert 9.9 < await pass_time(clock, asking.done) < 10.5
        with pytest.raises(ServiceUnavailable, match=address) as caught:
            await asking
        assert caught.value.retryable


async def test_once_a_node_has_answered_a_wait_without_limit_goes_on(
    client: AsyncSeatClient, node: ScriptedNode, service: ScriptedService, clock: FakeClock
) -> None:
    async with client.seat("tensorrt"):
        pass
    await node.kill()
    waiting = asyncio.create_task(client.acquire("tensorrt"))
    bounded = asyncio.create_task(client.acquire("tensorrt", wait=5))
    assert 14.9 < await pass_time(clock, bounded.done) < 15.5
    with pytest.raises(ServiceUnavailable):
        await bounded
    await pass_time(clock, lambda: client.state is HoldingState.LOST, step=0.5)
    assert not waiting.done()
    await node.start()
    await pass_time(clock, waiting.done)


async def test_a_service_that_refuses_the_session_is_not_asked_again(
    client: AsyncSeatClient, node: ScriptedNode
) -> None:
    node.refuse_with = (grpc.StatusCode.INVALID_ARGUMENT, "project: not a name")
    with pytest.raises(InvalidArgument, match="not a name"):
        await client.acquire("tensorrt")
    node.refuse_with = None
    await client.acquire("tensorrt")


async def test_an_outage_is_probed_rarely(
    client: AsyncSeatClient, node: ScriptedNode, clock: FakeClock
) -> None:
    node.refuse_with = (grpc.StatusCode.UNAVAILABLE, "starting")
    asking = asyncio.create_task(client.acquire("tensorrt"))
    await pass_time(clock, asking.done, step=0.5)
    assert node.streams_refused < 40
    with pytest.raises(ServiceUnavailable, match="starting"):
        await asking


async def test_closing_a_client_whose_node_is_silent_takes_no_longer_than_it_may(
    roamer: AsyncSeatClient,
    nodes: list[ScriptedNode],
    service: ScriptedService,
    clock: FakeClock,
) -> None:
    await roamer.acquire("tensorrt")
    next(node for node in nodes if node.streams_opened).pause()
    closing = asyncio.create_task(roamer.close())
    assert await pass_time(clock, lambda: closing.done() or clock.now() > 1002.5) < 3.0
    await closing
    # Another node was notified instead.
    assert not service.sessions


async def test_a_place_that_was_given_up_elsewhere_is_asked_for_anew(
    client: AsyncSeatClient, service: ScriptedService
) -> None:
    """A node that has missed why a ticket is gone says `released`."""
    holding = await client.acquire("tensorrt", seats=2)
    waiting = asyncio.create_task(client.acquire("tensorrt"))
    await eventually(lambda: len(service.tickets) == 1)
    (gone,) = service.tickets
    del service.tickets[gone]
    (session,) = service.sessions.values()
    session.notify(released=seat_pb2.Released(grant_id=gone))
    await eventually(lambda: len(service.tickets) == 1)
    await holding.release()
    assert (await waiting).grant_id != gone
