"""A client of another language, written from docs/how-to/write-a-client.md: the page is enough."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conformance.client_runner import Driver, run_clients
from tests.conformance.javascript import NotHere, ready
from tests.conformance.nodes import running
from tests.conformance.script import scripts
from tests.conformance.server_runner import Target, answer
from tests.conformance.wire import Method

AT_ONCE = 6


pytestmark = pytest.mark.timeout(900)
"""The first test waits for all scripts."""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of its driver."""
    try:
        return ready(tmp_path_factory.mktemp("javascript"))
    except NotHere as reason:
        pytest.skip(str(reason))


async def test_it_passes_every_script(command: list[str]) -> None:
    results = await run_clients(command, list(scripts("client")), at_once=AT_ONCE)
    assert [result.line() for result in results if not result.ok] == []


async def test_it_takes_and_returns_seats_of_a_real_node(
    command: list[str], tmp_path: Path
) -> None:
    async with running(tmp_path, ["--store", "memory"]) as target:
        await _create(target, {"name": "p", "seats": 1})
        first, second = [await Driver.launch(command) for _ in range(2)]
        for driver in (first, second):
            await driver.notify({"do": "start", "nodes": list(target.addresses), "ttl": 5})
            await driver.notify({"do": "acquire", "id": "1", "pool": "p"})
            await _receive(driver, {"event": "ready"})
            if driver is first:
                await _receive(driver, {"event": "granted", "seats": 1, "fence": 1})
        await _receive(second, {"event": "queued", "position": 1})
        await first.notify({"do": "release", "id": "1"})
        await _receive(first, {"event": "released"})
        await _receive(second, {"event": "granted", "fence": {"$gt": 1}})
        for driver in (first, second):
            await driver.end()


async def _receive(driver: Driver, event: dict[str, object]) -> None:
    await driver.inbox.expect([event], {}, ignore=(), unordered=False, within=30)


async def _create(target: Target, spec: dict[str, object]) -> None:
    method = Method.named("PoolService.CreatePool")
    async with target.connect(0) as channel:
        await answer(channel, method, method.request({"spec": spec}), 20)
