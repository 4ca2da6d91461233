"""Who owns a pool: everybody agrees, and little moves when nodes come and go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatkeeper.core.ring import Ring

POOLS = [f"pool-{number}" for number in range(400)]
node_sets = st.sets(
    st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True), min_size=2, max_size=9
)


def ring_of(*node_ids: str) -> Ring:
    return Ring(1, {node_id: f"{node_id}:1" for node_id in node_ids})


def test_without_nodes_pools_have_no_owner() -> None:
    assert ring_of().owner("a") is None
    assert ring_of("one").owner("a", without=["one"]) is None


@given(nodes=node_sets)
def test_the_order_in_which_nodes_were_learned_does_not_matter(nodes: set[str]) -> None:
    forwards, backwards = ring_of(*sorted(nodes)), ring_of(*sorted(nodes, reverse=True))
    assert [forwards.owner(p) for p in POOLS[:20]] == [backwards.owner(p) for p in POOLS[:20]]


@given(nodes=node_sets)
def test_a_node_that_goes_moves_only_what_it_owned(nodes: set[str]) -> None:
    gone = min(nodes)
    ring = ring_of(*nodes)
    moved = [p for p in POOLS[:50] if ring.owner(p) != ring.owner(p, without=[gone])]
    assert all(ring.owner(pool) == gone for pool in moved)
    assert [ring.owner(p, without=[gone]) for p in POOLS[:50]] == [
        ring_of(*(nodes - {gone})).owner(p) for p in POOLS[:50]
    ]


@pytest.mark.parametrize("count", [2, 3, 5, 9])
def test_every_node_owns_its_share_more_or_less(count: int) -> None:
    nodes = [f"node-{number}" for number in range(count)]
    owners = [ring_of(*nodes).owner(pool) for pool in POOLS]
    shares = [owners.count(node) for node in nodes]
    assert min(shares) > len(POOLS) / count / 2
    assert max(shares) < len(POOLS) / count * 2
