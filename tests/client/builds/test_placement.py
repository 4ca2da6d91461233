"""Which agent is asked first, and which after it failed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from seatkeeper.client import AgentFull, AgentUnavailable, ModelRejected, SeatLost
from seatkeeper.client.builds import placement
from seatkeeper.client.builds.placement import (
    CLAIM_TRIES_MAX,
    LOAD_FACTOR,
    Attempts,
    in_ring_order,
    placed,
)
from seatkeeper.core.errors import InUse, SeatError, ServiceUnavailable
from seatkeeper.v1.build_service_pb2 import AgentInfo, AgentLoad

QUICK = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
"""A ring takes milliseconds to make."""
KEYS = [f"{number:064x}" for number in range(200)]


def agent(
    name: str, running: int = 0, builds_max: int = 100, *, draining: bool = False
) -> AgentInfo:
    load = AgentLoad(running=running)
    return AgentInfo(agent_id=name, builds_max=builds_max, load=load, draining=draining)


agents = st.lists(
    st.builds(
        agent,
        st.integers(0, 10**6).map(str),
        st.integers(0, 20),
        st.integers(1, 20),
        draining=st.booleans(),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda each: each.agent_id,
)
keys = st.sampled_from(KEYS)


@QUICK
@given(agents, keys)
def test_every_agent_is_asked_once_and_the_order_is_always_the_same(
    known: list[AgentInfo], key: str
) -> None:
    order = placed(known, key)
    assert sorted(each.agent_id for each in order) == sorted(each.agent_id for each in known)
    assert placed(known[::-1], key) == order


@QUICK
@given(agents, keys)
def test_idle_agents_are_asked_in_ring_order(known: list[AgentInfo], key: str) -> None:
    for each in known:
        each.load.running, each.draining = 0, False
    assert placed(known, key) == in_ring_order(known, key)


@QUICK
@given(agents, keys)
def test_who_takes_no_builds_is_asked_last(known: list[AgentInfo], key: str) -> None:
    order = placed(known, key)
    ranks = [
        2 if each.draining else int(each.load.running >= each.builds_max) for each in order
    ]
    assert ranks == sorted(ranks)


@QUICK
@given(agents, keys)
def test_the_first_is_under_its_bound_where_any_place_is_free(
    known: list[AgentInfo], key: str
) -> None:
    """With bounded loads there is always an agent under its bound."""
    for each in known:
        each.draining, each.builds_max = False, 100
    first, running = placed(known, key)[0], sum(each.load.running for each in known)
    assert first.load.running < math.ceil(LOAD_FACTOR * (running + 1) / len(known))


@QUICK
@given(st.integers(1, 8), st.integers(1, 60))
def test_no_agent_gets_more_than_its_bound(count: int, builds: int) -> None:
    known = [agent(str(number)) for number in range(count)]
    for key in KEYS[:builds]:
        placed(known, key)[0].load.running += 1
    bound = math.ceil(LOAD_FACTOR * min(builds, len(KEYS)) / count)
    assert max(each.load.running for each in known) <= bound


def test_places_weigh() -> None:
    known = [agent("large", builds_max=30), agent("small", builds_max=10)]
    for key in KEYS[:20]:
        placed(known, key)[0].load.running += 1
    assert known[1].load.running <= math.ceil(LOAD_FACTOR * 20 / 4)


def test_an_agent_that_leaves_moves_only_its_own_keys() -> None:
    known = [agent(str(number)) for number in range(5)]
    for key in KEYS:
        before = placed(known, key)[0]
        if before.agent_id != "0":
            assert placed(known[1:], key)[0] == before


def test_an_agent_that_does_not_say_what_it_does_counts_as_idle() -> None:
    silent = AgentInfo(agent_id="silent", builds_max=1)
    assert placed([agent("busy", 5, 5), silent], KEYS[0])[0] == silent


async def no_others() -> Sequence[AgentInfo]:
    return ()


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "LOOK_SECONDS", 0)


async def test_after_a_refusal_the_next_agent_is_asked() -> None:
    attempts = Attempts([agent("1"), agent("2")], no_others)
    assert (await attempts.next()).agent_id == "1"
    await attempts.failed(AgentFull("full"))
    assert (await attempts.next()).agent_id == "2"
    await attempts.failed(AgentUnavailable("gone"))
    with pytest.raises(AgentUnavailable, match="gone"):
        await attempts.next()


@pytest.mark.parametrize("error", [ModelRejected("bad"), SeatLost("lost"), InUse("claimed")])
async def test_what_another_agent_would_not_do_better_is_raised(error: SeatError) -> None:
    attempts = Attempts([agent("1"), agent("2")], no_others)
    await attempts.failed(AgentFull("full"))
    with pytest.raises(type(error)):
        await attempts.failed(error)


async def test_the_claim_of_an_agent_that_died_is_waited_for_so_long_and_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placement, "CLAIM_POLL_SECONDS", 0)
    attempts = Attempts([agent("1"), agent("2")], no_others)
    await attempts.failed(AgentUnavailable("died"))
    for _ in range(CLAIM_TRIES_MAX):
        await attempts.failed(InUse("agent 1 works under this grant"))
        assert (await attempts.next()).agent_id == "2"
    with pytest.raises(InUse):
        await attempts.failed(InUse("agent 1 works under this grant"))


async def test_an_agent_that_came_when_the_others_had_died_is_found() -> None:
    found: list[Sequence[AgentInfo]] = [[agent("1")], [], [agent("1"), agent("3")]]

    async def others() -> Sequence[AgentInfo]:
        return found.pop(0)

    attempts = Attempts([agent("1")], others)
    await attempts.next()
    await attempts.failed(AgentUnavailable("died"))
    assert (await attempts.next()).agent_id == "3"


async def test_the_one_agent_is_asked_once_more_and_then_it_is_over() -> None:
    async def others() -> Sequence[AgentInfo]:
        return [agent("1")]

    attempts = Attempts([agent("1")], others)
    for _ in range(2):
        assert (await attempts.next()).agent_id == "1"
        await attempts.failed(AgentUnavailable("died"))
    with pytest.raises(AgentUnavailable, match="died"):
        await attempts.next()


async def test_agents_that_are_full_are_not_looked_for_again() -> None:
    async def others() -> Sequence[AgentInfo]:
        raise AssertionError

    attempts = Attempts([agent("1")], others)
    await attempts.failed(AgentFull("full"))
    with pytest.raises(AgentFull):
        await attempts.next()


async def test_a_service_that_does_not_say_who_is_there_is_asked_again() -> None:
    answers: list[Sequence[AgentInfo]] = [[agent("3")]]

    async def others() -> Sequence[AgentInfo]:
        if answers and answers[0] and attempts._looks_left > placement.LOOKS_MAX - 2:
            raise ServiceUnavailable("no node answers")
        return answers[0]

    attempts = Attempts([agent("1")], others)
    await attempts.next()
    await attempts.failed(AgentUnavailable("died"))
    assert (await attempts.next()).agent_id == "3"
