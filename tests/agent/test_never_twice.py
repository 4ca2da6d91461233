"""Identical builds at once, over several agents: one builds, under one seat, and all have it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.agent.site import OPTIONS, POOL, Site, eventually, workers
from tests.builder.models import light_model, relu, relu_chain

from seatkeeper.agent.main import Agent
from seatkeeper.client import (
    AsyncGrant,
    AsyncSeatClient,
    ClientConfig,
    ModelRejected,
    QueuePosition,
)
from seatkeeper.client.builds.builds import BuiltEngine
from seatkeeper.client.session.grants import SeatRequest

LONG = relu_chain(10_000)
"""Compiles for more than a minute, so whatever ends sooner was ended."""
NAMES = [f"pod-{number}" for number in range(20)]


@pytest.fixture
async def agents(site: Site) -> list[Agent]:
    return [await site.start_agent(f"agent-{number}") for number in (1, 2, 3)]


class Counter:
    """Counts what is compiled."""

    def __init__(self, agents: list[Agent], monkeypatch: pytest.MonkeyPatch) -> None:
        self.builds = 0
        for agent in agents:
            compile_once = agent.build_runner.compile

            async def counted(*given: Any, compile_once: Any = compile_once) -> object:
                self.builds += 1
                return await compile_once(*given)

            monkeypatch.setattr(agent.build_runner, "compile", counted)


@pytest.fixture
def counter(agents: list[Agent], monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(agents, monkeypatch)


def begin(
    site: Site, name: str, model: bytes | Path, **terms: Any
) -> asyncio.Task[BuiltEngine]:
    return asyncio.create_task(site.client(name).build(model, OPTIONS, **terms))


def is_compiling(agents: list[Agent]) -> bool:
    return any(workers(agent) for agent in agents)


async def test_of_twenty_one_builds_under_one_seat(site: Site, counter: Counter) -> None:
    model = light_model("resnet50")
    built = await asyncio.gather(*(begin(site, name, model) for name in NAMES))
    assert counter.builds == 1
    assert site.fence == 1, "one seat was taken"
    assert len({each.manifest.SerializeToString() for each in built}) == 1
    assert [each.cached for each in built].count(False) == 1
    charged = next(each for each in built if not each.cached).manifest
    assert charged.holder in NAMES
    assert site.service.held(POOL) == 0


async def test_a_failure_that_would_come_again_answers_all(
    site: Site, counter: Counter
) -> None:
    ends = await asyncio.gather(
        *(begin(site, name, b"no model", model_name=f"{name}.onnx") for name in NAMES[:5]),
        return_exceptions=True,
    )
    assert [type(end) for end in ends] == [ModelRejected] * 5
    for name, end in zip(NAMES, ends, strict=False):
        assert str(end).startswith(f"{name}.onnx: "), end
    said = [str(end) for end in ends]
    assert sum("another holder's build of the same model" in text for text in said) == 4
    assert len({text.partition(": ")[2].partition(" (another")[0] for text in said}) == 1
    assert site.fence == 1


async def test_cancelling_one_cancels_only_that_one(
    site: Site, agents: list[Agent], counter: Counter
) -> None:
    """The one that builds is cancelled: the next in the queue builds, and the last waits on."""
    first = begin(site, "alice", LONG)
    await eventually(lambda: is_compiling(agents))
    second, third = begin(site, "bob", LONG), begin(site, "cora", LONG)
    await eventually(lambda: site.service.waiting(POOL) == 2)
    third.cancel()
    await eventually(lambda: site.service.waiting(POOL) == 1)
    first.cancel()
    await eventually(lambda: counter.builds == 2)
    assert not second.done()
    assert site.service.held(POOL) == 1
    second.cancel()
    await asyncio.gather(first, second, third, return_exceptions=True)
    await eventually(lambda: not is_compiling(agents) and site.service.held(POOL) == 0)


async def test_when_the_session_of_the_one_that_builds_ends_one_other_takes_over(
    site: Site, agents: list[Agent], counter: Counter
) -> None:
    first = begin(site, "alice", LONG)
    await eventually(lambda: is_compiling(agents))
    others = [begin(site, name, LONG) for name in ("bob", "cora")]
    await eventually(lambda: site.service.waiting(POOL) == 2)
    await site.lose_session_of(site.client("alice"))
    await eventually(lambda: counter.builds == 2)
    assert (site.service.held(POOL), site.service.waiting(POOL)) == (1, 1)
    for task in (first, *others):
        task.cancel()
    await asyncio.gather(first, *others, return_exceptions=True)


async def test_another_build_goes_on_beside_it(site: Site, agents: list[Agent]) -> None:
    """Those who wait for a build of others hold up none."""
    places: list[QueuePosition] = []
    first = begin(site, "alice", LONG)
    await eventually(lambda: is_compiling(agents))
    second = begin(site, "bob", LONG, on_queued=places.append)
    await eventually(lambda: places)
    assert places[-1].waits_for_work, "and says so, as three seats are free"
    built = await site.client("cora").build(relu(), OPTIONS)
    assert not built.cached
    for task in (first, second):
        task.cancel()
    await asyncio.gather(first, second, return_exceptions=True)


async def test_one_that_will_not_wait_is_not_made_to(site: Site, agents: list[Agent]) -> None:
    first = begin(site, "alice", LONG)
    await eventually(lambda: site.service.held(POOL) == 1)
    with pytest.raises(Exception, match="the same work") as caught:
        await site.client("bob").build(LONG, OPTIONS, wait=0)
    assert type(caught.value).__name__ == "NoSeatFree"
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_clients_that_keep_their_session_themselves_share_a_build_too(
    site: Site, counter: Counter
) -> None:
    """The others here have a helper keep it."""
    config = ClientConfig(keeper="process")
    async with (
        AsyncSeatClient(site.service.address, holder="alice", config=config) as alice,
        AsyncSeatClient(site.service.address, holder="bob", config=config) as bob,
    ):
        ends = await asyncio.gather(
            *(each.build(b"no model", OPTIONS) for each in (alice, bob)),
            return_exceptions=True,
        )
        assert [type(end) for end in ends] == [ModelRejected, ModelRejected]
        assert site.fence == 1
        model = light_model("resnet50")
        built = await asyncio.gather(*(each.build(model, OPTIONS) for each in (alice, bob)))
    assert {each.cached for each in built} == {True, False}
    assert (counter.builds, site.fence) == (2, 2)


async def test_a_model_that_changes_while_it_is_sent_is_refused_to_its_own_client_alone(
    site: Site, counter: Counter, tmp_path: Path
) -> None:
    """What the agent says of it is about no key that others wait for."""
    path = tmp_path / "model.onnx"
    path.write_bytes(relu())
    refused = begin(site, "alice", path)
    client = site.client("alice")
    take = client.take

    async def changed_meanwhile(request: SeatRequest) -> AsyncGrant:
        grant = await take(request)
        path.write_bytes(relu()[:-1] + b"?")
        waiting.append(begin(site, "bob", relu()))
        await eventually(lambda: site.service.waiting(POOL) == 1)
        return grant

    waiting: list[asyncio.Task[BuiltEngine]] = []
    client.take = changed_meanwhile  # type: ignore[method-assign]  # the moment between the two
    with pytest.raises(ModelRejected):
        await refused
    assert not (await waiting[0]).cached
    assert counter.builds == 1
