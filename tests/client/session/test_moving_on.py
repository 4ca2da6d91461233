"""A node that answers UNAVAILABLE: the client repeats the same id elsewhere, and does not thrash."""

from __future__ import annotations

import asyncio

import pytest
from tests.client.fakes import FakeClock
from tests.client.scripted import (
    DENIED_RETRY_SECONDS,
    Reason,
    ScriptedNode,
    ScriptedService,
    eventually,
    pulse,
)
from tests.client.session.test_faults import pass_time

from seatkeeper.client.aio import AsyncSeatClient
from seatkeeper.client.config.values import BreakerConfig
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.client.transport.nodes import DENIED_SECONDS, NodePicker
from seatkeeper.v1 import seat_pb2

UNAVAILABLE = Reason.DENIAL_REASON_UNAVAILABLE
OVERLOADED = Reason.DENIAL_REASON_OVERLOADED
MINUTES = 600.0


def opened(nodes: list[ScriptedNode]) -> int:
    return sum(node.streams_opened for node in nodes)


async def first_of(roamer: AsyncSeatClient, nodes: list[ScriptedNode]) -> ScriptedNode:
    """Connect the client; return the node that it is at."""
    await (await roamer.acquire("wide")).release()
    return next(node for node in nodes if node.streams_opened)


async def test_an_unavailable_node_is_left_for_another_with_the_same_id(
    roamer: AsyncSeatClient,
    nodes: list[ScriptedNode],
    service: ScriptedService,
    clock: FakeClock,
) -> None:
    first = await first_of(roamer, nodes)
    first.denies = UNAVAILABLE
    asking = asyncio.create_task(roamer.acquire("tensorrt"))
    moved = await pass_time(clock, asking.done)

    assert moved >= DENIED_RETRY_SECONDS - 0.1, "not before the node said"
    # Again, perhaps, where connecting to the other takes long.
    assert set(first.denied) == {(await asking).grant_id}
    assert opened(nodes) == 2
    assert len(service.sessions) == 1


async def test_what_is_held_stays_safe_when_the_client_moves_on(
    roamer: AsyncSeatClient, nodes: list[ScriptedNode], clock: FakeClock
) -> None:
    first = await first_of(roamer, nodes)
    states: list[HoldingState] = []
    held = await roamer.acquire("tensorrt", on_state=states.append)
    first.denies = UNAVAILABLE
    asking = asyncio.create_task(roamer.acquire("tensorrt"))
    await pass_time(clock, asking.done)

    assert held.state is HoldingState.SAFE
    assert states == []


async def test_a_client_that_finds_no_other_node_returns_and_nothing_is_in_doubt(
    roamer: AsyncSeatClient, nodes: list[ScriptedNode], clock: FakeClock
) -> None:
    first = await first_of(roamer, nodes)
    await next(node for node in nodes if node is not first).kill()
    states: list[HoldingState] = []
    held = await roamer.acquire("tensorrt", on_state=states.append)
    first.denies = UNAVAILABLE
    asking = asyncio.create_task(roamer.acquire("tensorrt"))
    await pass_time(clock, lambda: len(first.denied) == 4)

    assert first.streams_opened == 2, "the other one is not tried each time"
    assert held.state is HoldingState.SAFE
    assert states == []
    first.denies = None
    await pass_time(clock, asking.done)


async def test_many_requests_that_are_denied_at_once_move_once(
    roamer: AsyncSeatClient, nodes: list[ScriptedNode], clock: FakeClock
) -> None:
    first = await first_of(roamer, nodes)
    first.denies = UNAVAILABLE
    asking = asyncio.gather(*(roamer.acquire("wide") for _ in range(20)))
    await pass_time(clock, asking.done)

    assert len(first.denied) == 20
    assert opened(nodes) == 2


async def test_where_every_node_denies_the_client_does_not_go_in_circles(
    roamer: AsyncSeatClient, nodes: list[ScriptedNode], clock: FakeClock
) -> None:
    """Such as when the store is full: each node is asked in turn, then the last one again."""
    await first_of(roamer, nodes)
    for node in nodes:
        node.denies = UNAVAILABLE
    asking = asyncio.create_task(roamer.acquire("tensorrt"))
    took = await pass_time(
        clock, lambda: sum(len(node.denied) for node in nodes) == 10, most=MINUTES
    )

    assert took >= 9 * DENIED_RETRY_SECONDS - 0.5
    assert took < DENIED_SECONDS / 2, "or the count below says nothing"
    assert opened(nodes) == 2
    for node in nodes:
        node.denies = None
    await pass_time(clock, asking.done)


async def test_in_a_long_trouble_each_node_is_tried_again_now_and_then(
    roamer: AsyncSeatClient, nodes: list[ScriptedNode], clock: FakeClock
) -> None:
    await first_of(roamer, nodes)
    for node in nodes:
        node.denies = UNAVAILABLE
    asking = asyncio.create_task(roamer.acquire("tensorrt"))
    await pass_time(clock, lambda: opened(nodes) == 2, most=MINUTES)
    took = await pass_time(clock, lambda: opened(nodes) == 3, step=0.5, most=MINUTES)

    assert took >= DENIED_SECONDS / 2 - 10
    asking.cancel()


async def test_a_client_of_one_address_asks_there_again_then_connects_anew_and_then_stays(
    client: AsyncSeatClient, node: ScriptedNode, clock: FakeClock
) -> None:
    """Behind the one address there may be a balancer, and many nodes."""
    await (await client.acquire("wide")).release()
    node.denies = UNAVAILABLE
    asking = asyncio.create_task(client.acquire("tensorrt"))
    streams = []
    for count in range(1, 11):
        await pass_time(clock, lambda count=count: len(node.denied) == count)  # type: ignore[misc]  # mypy infers no type for a default of a lambda
        streams.append(node.streams_opened)

    assert streams == [1, 1, *[2] * 8]
    node.denies = None
    await pass_time(clock, asking.done)


async def test_a_full_queue_is_no_reason_to_move(
    roamer: AsyncSeatClient, nodes: list[ScriptedNode], clock: FakeClock
) -> None:
    first = await first_of(roamer, nodes)
    first.denies = OVERLOADED
    asking = asyncio.create_task(roamer.acquire("tensorrt"))
    await pass_time(clock, lambda: len(first.denied) == 4)

    assert opened(nodes) == 1
    first.denies = None
    await pass_time(clock, asking.done)


async def test_a_retry_time_holds_on_the_next_stream_too(
    client: AsyncSeatClient, node: ScriptedNode, service: ScriptedService, clock: FakeClock
) -> None:
    """Or a node that dies would have all of a full queue come back at once."""
    await (await client.acquire("wide")).release()
    service.refuse_next(OVERLOADED, retry_after=8.0)
    asking = asyncio.create_task(client.acquire("tensorrt"))
    await eventually(lambda: service.count("acquire") == 2)
    async with pulse() as settle:
        await settle()
    node.break_streams()
    await pass_time(clock, lambda: node.streams_opened == 2)
    took = await pass_time(clock, asking.done)
    assert took > 4.0


@pytest.mark.parametrize("reason", [UNAVAILABLE, OVERLOADED, 99])
async def test_a_release_that_is_put_off_is_repeated_until_it_is_done(
    client: AsyncSeatClient,
    node: ScriptedNode,
    service: ScriptedService,
    clock: FakeClock,
    reason: seat_pb2.DenialReason.ValueType,
) -> None:
    grant = await client.acquire("tensorrt")
    node.denies = reason
    releasing = asyncio.create_task(grant.release())
    await pass_time(clock, lambda: len(node.denied) == 2)
    assert not releasing.done(), "the seat is held still"
    assert service.held("tensorrt") == 1
    node.denies = None
    await pass_time(clock, releasing.done)
    assert service.held("tensorrt") == 0


async def test_a_release_goes_to_another_node_as_well(
    roamer: AsyncSeatClient,
    nodes: list[ScriptedNode],
    service: ScriptedService,
    clock: FakeClock,
) -> None:
    first = await first_of(roamer, nodes)
    grant = await roamer.acquire("tensorrt")
    first.denies = UNAVAILABLE
    releasing = asyncio.create_task(grant.release())
    await pass_time(clock, releasing.done)

    assert set(first.denied) == {grant.grant_id}
    assert service.held("tensorrt") == 0


@pytest.mark.parametrize(
    "reason",
    [
        Reason.DENIAL_REASON_NOT_YOURS,
        Reason.DENIAL_REASON_POOL_NOT_FOUND,
        Reason.DENIAL_REASON_FINISHED,
        Reason.DENIAL_REASON_INVALID_ARGUMENT,
    ],
)
async def test_a_release_of_what_there_is_not_is_done(
    client: AsyncSeatClient, node: ScriptedNode, reason: seat_pb2.DenialReason.ValueType
) -> None:
    grant = await client.acquire("tensorrt")
    node.denies = reason
    await grant.release()
    assert node.denied == [grant.grant_id]


# Which nodes may be better, without a stream ---------------------------------------------------


def picker(*addresses: str) -> NodePicker:
    return NodePicker(addresses, BreakerConfig())


def test_a_node_that_denied_is_no_place_to_go_to_for_a_while() -> None:
    nodes = picker("a", "b", "c")
    assert nodes.denied("a", 0.0, random=0.5)
    assert nodes.pick(0.0) == "b"
    assert not nodes.is_welcoming("a", 1.0)
    assert nodes.is_welcoming("a", DENIED_SECONDS + 1.0)


def test_there_is_nowhere_to_go_when_all_have_denied() -> None:
    nodes = picker("a", "b")
    assert nodes.denied("a", 0.0, random=0.5)
    assert not nodes.denied("b", 1.0, random=0.5)
    assert nodes.denied("b", DENIED_SECONDS + 0.5, random=0.5), "a is worth another try"


def test_a_node_that_does_not_answer_or_is_leaving_is_no_better_place() -> None:
    nodes = picker("a", "b")
    for _ in range(20):
        nodes.failed("b", 0.0)
    assert not nodes.denied("a", 1.0, random=0.5)

    nodes = picker("a", "b")
    nodes.leaving("b", 30.0)
    assert not nodes.denied("a", 1.0, random=0.5)


def test_a_node_that_joins_is_a_place_to_go_to() -> None:
    nodes = picker("a", "b")
    nodes.denied("a", 0.0, random=0.5)
    nodes.denied("b", 1.0, random=0.5)
    nodes.learn(["a", "b", "c"])
    assert nodes.denied("b", 3.0, random=0.5)
    assert nodes.pick(3.0) == "c"
