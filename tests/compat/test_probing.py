"""The harness knows who wrote what, what failed, and that a node is what was started."""

from __future__ import annotations

import random
from pathlib import Path
from typing import cast

import pytest
from tests.chaos.places import Place
from tests.compat.fields import Planter, Step
from tests.compat.previous import Release
from tests.compat.probing import OPEN, PLANTED, NoPools, Probing
from tests.compat.service import MixedNode, MixedService, NotThatVersion, check_version

from seatkeeper.client import AsyncSeatClient
from seatkeeper.oracle.record import Record
from seatkeeper.server.store import Put
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.store.memory import MemoryStore
from seatkeeper.testing import InMemoryService

OLD = Release("old", Path("/none"), "1")
NEW = Release("new", Path("/none"), "2")
WRITERS = {"node-1": "old", "node-2": "new"}


class Nodes:
    """What a probe sees of a service: its store and its nodes."""

    def __init__(self, *releases: Release) -> None:
        self.store = MemoryStore()
        self.mixed = [
            MixedNode(
                f"node-{number}",
                Place(f"node-{number}", "127.0.0.1"),
                "127.0.0.1:1",
                (),
                Path(),
                [],
                release=release,
                tls=None,
            )
            for number, release in enumerate(releases, start=1)
        ]


def probing(nodes: Nodes, admin: AsyncSeatClient | None = None) -> Probing:
    return Probing(
        cast("MixedService", nodes),
        cast("AsyncSeatClient", admin),
        Record(),
        Path(),
        random.Random(0),
        Planter(nodes.store, Keys()),
    )


async def test_a_step_is_laid_to_the_version_of_its_node_up_to_the_present_revision() -> None:
    nodes = Nodes(OLD, NEW, OLD)
    await nodes.store.commit([Put("a", b"")])
    probe = probing(nodes)

    await probe._take({"did": "claim", "node": "node-2"}, "probe", "here", WRITERS)

    revision = (await nodes.store.list("a")).revision
    assert probe.steps == [Step("claim", "new", revision)]
    assert probe.done == 1


async def test_what_the_harness_plants_is_no_step_of_a_node() -> None:
    nodes = Nodes(OLD, NEW, OLD)
    key = Keys().pool("p")
    await nodes.store.commit([Put(key, b"")])
    before = (await nodes.store.list(key)).revision
    probe = probing(nodes)

    await probe._take({"plant": ["pool", "p"]}, "probe", "here", WRITERS)

    assert probe.steps == [
        Step("between steps", "", before),
        Step("plant", "harness", before + 1),
    ]
    assert probe.record.failed == []


async def test_what_cannot_be_planted_and_what_a_probe_reports_have_failed() -> None:
    probe = probing(Nodes(OLD, NEW, OLD))

    await probe._take({"plant": ["pool", "none"]}, "probe", "here", WRITERS)
    await probe._take({"failed": "claim", "reason": "gone"}, "probe", "here", WRITERS)

    assert [failed.call for failed in probe.record.failed] == [
        "plant pool at here",
        "claim at here",
    ]
    assert probe.done == 0


def test_a_probe_is_at_a_node_of_each_version_with_one_of_the_other() -> None:
    probe = probing(Nodes(OLD, NEW, OLD))

    chosen = probe._one_of_each()

    assert {node.release.name for node in chosen} == {"old", "new"}
    for node in chosen:
        assert probe._other(node).release is not node.release


def test_among_nodes_of_one_version_the_other_is_another_node() -> None:
    probe = probing(Nodes(NEW, NEW, NEW))

    (node,) = probe._one_of_each()

    assert probe._other(node) is not node


async def test_nodes_that_decide_for_too_few_pools_cannot_be_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tests.compat.probing.OWNERS_SECONDS_MAX", 0.0)
    async with InMemoryService() as service, service.async_client() as admin:
        for name in (*PLANTED[:2], *OPEN[:2]):
            await admin.pools.create(name, seats=1)

        with pytest.raises(NoPools, match="needed for every node"):
            await probing(Nodes(OLD, NEW, OLD), admin)._owned()


async def test_a_node_of_another_version_than_was_started_ends_the_run() -> None:
    async with InMemoryService() as service:
        async with service.async_client() as client:
            said = (await client.cluster.version()).version

        await check_version(service.address, Release("new", Path(), said), None)
        with pytest.raises(NotThatVersion, match=r"9\.9 was started"):
            await check_version(service.address, Release("new", Path(), "9.9"), None)
