"""Adopting an etcd: what must wait until the last forgotten holder is gone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.kit import a_grant, eventually

from seatkeeper.server.config import NodeConfig
from seatkeeper.server.deployment.adopt import FENCE_STEP, AdoptError, Adoption
from seatkeeper.server.domain import Borrow, Guard, Instant
from seatkeeper.server.node import Node, StartError
from seatkeeper.server.store import MemoryStore, Put, records
from seatkeeper.server.store.keys import Keys

KEYS = Keys()


class Lasting(MemoryStore):
    """A store that outlives its nodes."""

    async def close(self) -> None:
        pass


async def fence(store: MemoryStore) -> int:
    entry = await store.get(KEYS.guard("p"))
    assert entry is not None
    return records.decode_guard(entry.value)[0].fence


async def test_until_the_waiting_is_over_no_node_starts_and_no_fence_is_raised() -> None:
    store = Lasting()
    said: list[str] = []
    await store.commit([Put(KEYS.guard("p"), records.encode_guard(Guard(7, 0)))])
    adoption = Adoption(store, KEYS, said.append)
    adopting = asyncio.create_task(adoption.run(timedelta(hours=1)))
    await eventually(lambda: any("last holder" in sentence for sentence in said))
    config = NodeConfig(node_id="node-1", listen="127.0.0.1:0", store="memory")
    with pytest.raises(StartError, match="being adopted"):
        await Node.start(config, store=store)
    assert await fence(store) == 7

    # Interrupted, it is as before: run it again.
    adopting.cancel()
    await asyncio.gather(adopting, return_exceptions=True)
    with pytest.raises(StartError, match="being adopted"):
        await Node.start(config, store=store)
    deployment = await adoption.run(timedelta(seconds=1))
    assert await fence(store) > 7 + FENCE_STEP - 1
    node = await Node.start(config.model_copy(update={"deployment": deployment}), store=store)
    await node.stop()


async def test_what_was_borrowed_before_the_snapshot_is_borrowed_still() -> None:
    store = Lasting()
    borrow = Borrow(b"k" * 32, "thumb", Instant(9_000), Instant(9_600), Instant(1_000))
    grant = replace(a_grant(1, fence=7), session_id="", lease_id=0, borrow=borrow)
    key, value = KEYS.grant("p", grant.grant_id), records.encode_grant(grant)
    guard = Put(KEYS.guard("p"), records.encode_guard(Guard(7, 0)))
    await store.commit([guard, Put(key, value)])
    await Adoption(store, KEYS, lambda _: None).run(timedelta(0))
    entry = await store.get(key)
    assert entry is not None
    assert records.decode_grant(grant.grant_id, entry.value) == grant
    assert await fence(store) > 7 + FENCE_STEP - 1, "its fence is no other grant's"


async def test_a_node_that_starts_while_it_waits_is_seen() -> None:
    """One of a version without deployments does not look, and starts."""
    store = Lasting()
    said: list[str] = []
    adopting = asyncio.create_task(Adoption(store, KEYS, said.append).run(timedelta(seconds=1)))
    await eventually(lambda: any("last holder" in sentence for sentence in said))
    await store.commit([Put(KEYS.node("node-0"), b"")])
    with pytest.raises(AdoptError, match="node-0"):
        await adopting


async def test_that_it_waits_for_nodes_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Lasting()
    said: list[str] = []
    monkeypatch.setattr("seatkeeper.server.deployment.adopt.NODES_GONE_SECONDS", 0.5)
    monkeypatch.setattr("seatkeeper.server.deployment.adopt.POLL_SECONDS", 0.01)
    await store.commit([Put(KEYS.node("node-0"), b"")])
    with pytest.raises(AdoptError, match="stop all nodes"):
        await Adoption(store, KEYS, said.append).run(timedelta(0))
    assert said == ["waiting for the records of nodes to end: node-0"]
