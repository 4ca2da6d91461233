"""Which node a session goes to: what the nodes say of each other, and when that is believed."""

from __future__ import annotations

import pytest

from seatkeeper.client.config.values import BreakerConfig
from seatkeeper.client.session.home import Home
from seatkeeper.client.transport.nodes import SHUNNED_SECONDS, NodePicker
from seatkeeper.core.ring import Ring
from seatkeeper.v1 import seat_service_pb2 as pb

A, B, C = "a.example:1", "b.example:1", "c.example:1"
ADDRESSES = {"a": A, "b": B, "c": C}


def ring_message(revision: int = 1, **addresses: str) -> pb.Ring:
    message = pb.Ring(revision=revision)
    for node_id, address in (addresses or ADDRESSES).items():
        message.nodes.add(node_id=node_id, address=address)
    return message


def pool_of(node_id: str, addresses: dict[str, str] | None = None) -> str:
    """Return the name of a pool that a node owns."""
    ring = Ring(1, addresses or ADDRESSES)
    return next(f"p{n}" for n in range(1000) if ring.owner(f"p{n}") == node_id)


@pytest.fixture
def nodes() -> NodePicker:
    return NodePicker([A], BreakerConfig())


def test_a_client_knows_no_ring_at_first(nodes: NodePicker) -> None:
    assert Home(nodes, follow=True).address(["p"], A, 0.0) is None


def test_it_goes_to_the_owner_of_the_pool_that_it_uses(nodes: NodePicker) -> None:
    home = Home(nodes, follow=True)
    home.learn(ring_message(), A)
    assert home.address([pool_of("b")], A, 0.0) == B
    assert home.address([pool_of("a")], A, 0.0) is None, "it is there"
    assert home.address([], A, 0.0) is None
    assert set(nodes.addresses) == {A, B, C}


def test_the_owner_of_most_pools_is_best_and_a_tie_moves_no_client(nodes: NodePicker) -> None:
    home = Home(nodes, follow=True)
    home.learn(ring_message(), A)
    a, b = pool_of("a"), pool_of("b")
    assert home.address([a, b, b], A, 0.0) == B
    assert home.address([a, b], A, 0.0) is None
    assert home.address([a, b], B, 0.0) is None


def test_behind_a_balancer_nothing_that_nodes_say_of_addresses_is_followed() -> None:
    nodes = NodePicker(["balancer.example:1"], BreakerConfig())
    home = Home(nodes, follow=True)
    home.learn(ring_message(), "balancer.example:1")
    assert home.address([pool_of("b")], "balancer.example:1", 0.0) is None
    assert nodes.addresses == ("balancer.example:1",)


def test_a_client_configured_not_to_follow_does_not(nodes: NodePicker) -> None:
    home = Home(nodes, follow=False)
    home.learn(ring_message(), A)
    assert home.address([pool_of("b")], A, 0.0) is None
    assert nodes.addresses == (A,)


def test_an_older_ring_says_nothing(nodes: NodePicker) -> None:
    home = Home(nodes, follow=True)
    home.learn(ring_message(7, a=A, b=B), A)
    home.learn(ring_message(6), A)
    assert set(nodes.addresses) == {A, B}


def test_a_node_that_has_left_is_forgotten_and_one_that_was_given_is_not(
    nodes: NodePicker,
) -> None:
    home = Home(nodes, follow=True)
    home.learn(ring_message(1), A)
    home.learn(ring_message(2, b=B, c=C), B)
    assert set(nodes.addresses) == {A, B, C}
    home.learn(ring_message(3, c=C), C)
    assert set(nodes.addresses) == {A, C}


def test_no_client_moves_to_a_node_that_failed_or_is_leaving(nodes: NodePicker) -> None:
    home = Home(nodes, follow=True)
    home.learn(ring_message(), A)
    pool = pool_of("b")
    nodes.failed(B, 0.0)
    assert home.address([pool], A, 1.0) is None
    assert home.address([pool], A, SHUNNED_SECONDS) == B
    nodes.leaving(B, 50.0)
    assert home.address([pool], A, 49.0) is None
    assert home.address([pool], A, 50.0) == B


def test_a_preferred_node_is_called_first(nodes: NodePicker) -> None:
    nodes.learn([B, C])
    nodes.prefer(C)
    assert nodes.pick(0.0) == C
    nodes.prefer("unknown.example:1")
    assert nodes.pick(0.0) == C


def test_each_pool_is_new_once(nodes: NodePicker) -> None:
    home = Home(nodes, follow=True)
    assert [home.is_new(pool) for pool in ("p", "q", "p")] == [True, True, False]
