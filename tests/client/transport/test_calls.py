"""Unary calls and listening streams over several nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import grpc
import pytest
from grpc import aio
from tests.client.scripted import ScriptedNode, ScriptedService, eventually, running

from seatkeeper.client import (
    AsyncSeatClient,
    BackoffConfig,
    Changed,
    ClientConfig,
    PoolNotFound,
    ServiceTooOld,
    ServiceUnavailable,
)
from seatkeeper.client.transport.calls import Calls
from seatkeeper.client.transport.nodes import NodePicker
from seatkeeper.core.clock import default_clock
from seatkeeper.v1 import pool_service_pb2 as pb

SERVICE = "seatkeeper.v1.PoolService"
QUICK = ClientConfig(
    call_timeout=timedelta(seconds=2),
    attempt_timeout=timedelta(seconds=0.4),
    backoff=BackoffConfig(
        initial=timedelta(milliseconds=10), longest=timedelta(milliseconds=50)
    ),
)
Context = aio.ServicerContext[Any, Any]


class ScriptedPools:
    """One pool, on one node, that may answer badly."""

    def __init__(self) -> None:
        self.pool = pb.Pool(spec=pb.PoolSpec(name="p", seats=1, description="d"), revision=1)
        self.fail_with: list[grpc.StatusCode] = []
        self.updates: list[pb.UpdatePoolRequest] = []
        self.watchers = 0

    def add_to(self, server: aio.Server) -> None:
        methods: dict[str, Any] = {
            "GetPool": grpc.unary_unary_rpc_method_handler(
                self.get,
                pb.GetPoolRequest.FromString,
                pb.GetPoolResponse.SerializeToString,
            ),
            "CreatePool": grpc.unary_unary_rpc_method_handler(
                self.create,
                pb.CreatePoolRequest.FromString,
                pb.CreatePoolResponse.SerializeToString,
            ),
            "UpdatePool": grpc.unary_unary_rpc_method_handler(
                self.update,
                pb.UpdatePoolRequest.FromString,
                pb.UpdatePoolResponse.SerializeToString,
            ),
            "WatchPool": grpc.unary_stream_rpc_method_handler(
                self.watch,
                pb.WatchPoolRequest.FromString,
                pb.WatchPoolResponse.SerializeToString,
            ),
        }
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, methods),)
        )

    async def _maybe_fail(self, context: Context) -> None:
        if self.fail_with:
            await context.abort(self.fail_with.pop(0), "as asked")

    async def get(self, request: pb.GetPoolRequest, context: Context) -> pb.GetPoolResponse:
        await self._maybe_fail(context)
        return pb.GetPoolResponse(pool=self.pool)

    async def create(
        self, request: pb.CreatePoolRequest, context: Context
    ) -> pb.CreatePoolResponse:
        await self._maybe_fail(context)
        return pb.CreatePoolResponse(pool=pb.Pool(spec=request.spec))

    async def update(
        self, request: pb.UpdatePoolRequest, context: Context
    ) -> pb.UpdatePoolResponse:
        self.updates.append(request)
        await self._maybe_fail(context)
        self.pool.spec.CopyFrom(request.spec)
        self.pool.revision += 1
        return pb.UpdatePoolResponse(pool=self.pool)

    async def watch(
        self, request: pb.WatchPoolRequest, context: Context
    ) -> AsyncIterator[pb.WatchPoolResponse]:
        self.watchers += 1
        yield pb.WatchPoolResponse(pool=self.pool)
        if self.fail_with:
            await self._maybe_fail(context)
        await asyncio.Event().wait()


@pytest.fixture
def pools() -> list[ScriptedPools]:
    return [ScriptedPools(), ScriptedPools()]


@pytest.fixture
async def nodes(
    service: ScriptedService, pools: list[ScriptedPools]
) -> AsyncIterator[list[ScriptedNode]]:
    nodes = [ScriptedNode(service, "node-1"), ScriptedNode(service, "node-2")]
    for node, served in zip(nodes, pools, strict=True):
        node.more.append(served.add_to)
        await node.start()
    yield nodes
    for node in nodes:
        await node.kill()


@pytest.fixture(params=["process", "helper"])
async def admin(
    nodes: list[ScriptedNode], request: pytest.FixtureRequest
) -> AsyncIterator[AsyncSeatClient]:
    config = replace(QUICK, keeper=request.param)
    async with AsyncSeatClient([node.address for node in nodes], config=config) as client:
        yield client


async def test_a_call_goes_on_to_the_next_node_when_one_is_gone(
    admin: AsyncSeatClient, nodes: list[ScriptedNode]
) -> None:
    for node in nodes:
        assert (await admin.pools.get("p")).spec.name == "p"
        await node.kill()
        if node is nodes[0]:
            assert (await admin.pools.get("p")).spec.name == "p"
    with pytest.raises(ServiceUnavailable, match="no node answered"):
        await admin.pools.get("p")


async def test_a_call_that_may_be_repeated_is(
    admin: AsyncSeatClient, pools: list[ScriptedPools]
) -> None:
    for served in pools:
        served.fail_with = [grpc.StatusCode.UNAVAILABLE]
    assert (await admin.pools.get("p")).spec.name == "p"


async def test_a_call_that_may_not_be_repeated_says_that_its_outcome_is_unknown(
    admin: AsyncSeatClient, pools: list[ScriptedPools]
) -> None:
    for served in pools:
        served.fail_with = [grpc.StatusCode.UNAVAILABLE]
    with pytest.raises(ServiceUnavailable, match="outcome is unknown"):
        await admin.pools.create("q", seats=1)
    assert sum(len(served.fail_with) for served in pools) == 1


async def test_a_node_that_knows_no_call_to_apply_pools_is_too_old(
    admin: AsyncSeatClient,
) -> None:
    """As nodes of before that call answer: they have none of that name."""
    with pytest.raises(ServiceTooOld, match="upgrade all nodes"):
        await admin.pools.apply([pb.PoolChange(name="p", seen_revision=1)])


async def test_a_call_that_was_never_sent_may_always_be_repeated(
    admin: AsyncSeatClient, nodes: list[ScriptedNode]
) -> None:
    await nodes[0].kill()
    for _ in range(3):
        assert (await admin.pools.create("q", seats=1)).spec.name == "q"


async def test_an_update_changes_only_what_was_given(
    admin: AsyncSeatClient, pools: list[ScriptedPools]
) -> None:
    pool = await admin.pools.update("p", seats=5)
    assert (pool.spec.seats, pool.spec.description) == (5, "d")
    (update,) = [update for served in pools for update in served.updates]
    assert update.expected_revision == 1


async def test_an_update_that_was_overtaken_is_made_anew_but_not_forever(
    admin: AsyncSeatClient, pools: list[ScriptedPools]
) -> None:
    for served in pools:
        served.fail_with = []
    first = await admin.pools.update("p", description="new")
    assert first.spec.description == "new"

    async def overtaken(spec: pb.PoolSpec, *, expected_revision: int = 0) -> pb.Pool:
        attempts.append(expected_revision)
        raise Changed

    attempts: list[int] = []
    admin.pools.replace = overtaken  # type: ignore[method-assign]  # a planted defect
    with pytest.raises(Changed):
        await admin.pools.update("p", seats=2)
    assert len(attempts) == 5


async def test_watching_goes_on_through_the_loss_of_a_node(
    admin: AsyncSeatClient, nodes: list[ScriptedNode], pools: list[ScriptedPools]
) -> None:
    seen: list[int] = []

    async def watch() -> None:
        async for pool in admin.pools.watch("p"):
            seen.append(pool.spec.seats)  # noqa: PERF401 # it never ends

    watching = asyncio.create_task(watch())
    await eventually(lambda: len(seen) == 1)
    watched = 0 if pools[0].watchers else 1
    pools[1 - watched].pool.spec.seats = 9
    await nodes[watched].kill()
    await eventually(lambda: seen == [1, 9])
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


async def test_watching_a_pool_that_is_gone_says_so(
    admin: AsyncSeatClient, pools: list[ScriptedPools]
) -> None:
    for served in pools:
        served.fail_with = [grpc.StatusCode.NOT_FOUND]
    watching = admin.pools.watch("p")
    assert (await anext(watching)).spec.name == "p"
    with pytest.raises(PoolNotFound):
        await anext(watching)


async def test_watching_ends_when_no_node_answers(service: ScriptedService) -> None:
    async with running(service) as (node,):
        address = node.address
    async with AsyncSeatClient(address, config=QUICK) as client:
        with pytest.raises(ServiceUnavailable, match="no node answered"):
            await anext(client.pools.watch("p"))


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.RESOURCE_EXHAUSTED,  # a ping that was not answered in time
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
    ],
)
async def test_a_status_without_our_reason_is_a_broken_connection(
    admin: AsyncSeatClient, pools: list[ScriptedPools], code: grpc.StatusCode
) -> None:
    for served in pools:
        served.fail_with = [code]
    assert (await admin.pools.get("p")).spec.name == "p"
    for served in pools:
        served.fail_with = [code]
    with pytest.raises(ServiceUnavailable, match="outcome is unknown"):
        await admin.pools.create("q", seats=1)


class Connection:
    """Connected as often as it is said; then connecting never ends."""

    def __init__(self, times: int) -> None:
        self.times = times

    async def is_ready(self) -> bool:
        self.times -= 1
        if self.times < 0:
            await asyncio.Event().wait()
        return True

    async def close(self, grace: float | None = None) -> None:
        pass


@pytest.mark.parametrize("times", [1, 2])
async def test_what_a_node_said_is_reported_also_when_time_ends_while_it_is_asked_again(
    times: int,
) -> None:
    connection: Any = Connection(times)
    config = replace(QUICK, call_timeout=timedelta(seconds=0.3))
    nodes = NodePicker(["n:1"], config.breaker)
    calls = Calls(nodes, lambda _: connection, config, default_clock(), lambda: None)

    async def refuse(channel: aio.Channel, timeout: float) -> None:
        raise aio.AioRpcError(
            grpc.StatusCode.UNAVAILABLE, aio.Metadata(), aio.Metadata(), "adopt it first"
        )

    with pytest.raises(ServiceUnavailable, match="adopt it first"):
        await calls.unary(refuse)
    assert connection.times < 0
    await calls.close()


async def test_a_call_that_takes_longer_than_an_attempt_is_answered_in_a_later_round() -> None:
    connection: Any = Connection(1000)
    nodes = NodePicker(["n:1", "n:2"], QUICK.breaker)
    given: list[float] = []

    async def answer_slowly(channel: aio.Channel, timeout: float) -> str:
        given.append(timeout)
        if timeout < 1:
            raise aio.AioRpcError(
                grpc.StatusCode.DEADLINE_EXCEEDED, aio.Metadata(), aio.Metadata(), "slow"
            )
        return "answer"

    config = replace(QUICK, call_timeout=timedelta(hours=1))
    calls = Calls(nodes, lambda _: connection, config, default_clock(), lambda: None)
    assert await calls.unary(answer_slowly) == "answer"
    assert given == [0.4, 0.4, 0.8, 0.8, 1.6]
    await calls.close()
