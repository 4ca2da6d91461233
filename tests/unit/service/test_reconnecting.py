"""Renewed certificates: connections between nodes are made anew, and calls under way go on."""

from __future__ import annotations

import grpc.aio
from tests.unit.kit import KEYS

from seatkeeper.core.ring import Ring
from seatkeeper.server.events.observer import Observer
from seatkeeper.server.routing.membership import Membership
from seatkeeper.server.routing.peers import Peers
from seatkeeper.server.store import MemoryStore


async def test_a_node_connects_anew_when_its_certificate_was_renewed() -> None:
    membership = Membership(MemoryStore(), KEYS, Observer(), "node-1")
    membership.ring = Ring(1, {"node-2": "127.0.0.1:1"})
    made: list[grpc.aio.Channel] = []

    def connect(address: str) -> grpc.aio.Channel:
        made.append(grpc.aio.insecure_channel(address))
        return made[-1]

    peers = Peers(membership, "secret", Observer(), connect=connect)
    await peers._stub("node-2")
    await peers._stub("node-2")
    assert len(made) == 1
    peers.reconnect()
    await peers._stub("node-2")
    assert len(made) == 2
    await peers.stop()
