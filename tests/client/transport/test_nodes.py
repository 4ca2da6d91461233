from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatkeeper.client.config.values import BreakerConfig
from seatkeeper.client.transport.breaker import BreakerState
from seatkeeper.client.transport.nodes import NodePicker, parse_addresses
from seatkeeper.core.errors import InvalidArgument

A, B, C = "a:1", "b:1", "c:1"


@pytest.mark.parametrize(
    ("given_as", "addresses"),
    [
        ("a:1", ("a:1",)),
        ("a:1, b:2,", ("a:1", "b:2")),
        (["a:1", "b:2"], ("a:1", "b:2")),
        (["a:1,b:2", "c:3"], ("a:1", "b:2", "c:3")),
        ("a:1,a:1", ("a:1",)),
        ("[::1]:7400", ("[::1]:7400",)),
        ("10.0.0.1:7400", ("10.0.0.1:7400",)),
    ],
)
def test_addresses_are_read(given_as: str | list[str], addresses: tuple[str, ...]) -> None:
    assert parse_addresses(given_as) == addresses


@pytest.mark.parametrize(
    "wrong", ["", "a", "a:", "a:0", "a:65536", ":1", "http://a:1", "a b:1", []]
)
def test_a_wrong_address_is_named(wrong: str | list[str]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_addresses(wrong)
    assert caught.value.field == "address"


def test_more_addresses_than_anybody_needs_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="from 1 to 64"):
        parse_addresses(f"a:{port}" for port in range(1, 66))


def test_the_node_that_answered_last_comes_first() -> None:
    picker = NodePicker([A, B, C], BreakerConfig())
    picker.succeeded(B)
    assert picker.pick(0.0) == B
    assert picker.addresses == (B, A, C)


def test_clients_with_the_same_list_begin_at_different_nodes() -> None:
    firsts = {NodePicker([A, B, C], BreakerConfig(), random=r).pick(0.0) for r in (0, 0.4, 0.9)}
    assert firsts == {A, B, C}


def test_a_round_visits_every_node_once() -> None:
    picker = NodePicker([A, B, C], BreakerConfig())
    tried: list[str] = []
    while (address := picker.pick(0.0, tried=tried)) not in tried:
        tried.append(address)
        picker.failed(address, 0.0)
    assert sorted(tried) == [A, B, C]


def test_an_open_breaker_keeps_a_node_out_of_the_round() -> None:
    picker = NodePicker([A, B], BreakerConfig(failures_max=1))
    picker.failed(A, 0.0)
    assert picker.pick(1.0) == B
    assert picker.pick(1.0, tried=[B]) == B
    assert picker.pick(6.0, tried=[B]) == A


def test_when_every_breaker_is_open_the_one_that_waited_longest_is_tried() -> None:
    picker = NodePicker([A, B], BreakerConfig(failures_max=1))
    picker.failed(B, 0.0)
    picker.failed(A, 1.0)
    assert picker.state(A, 2.0) is BreakerState.OPEN
    assert picker.pick(2.0) == B


def test_a_node_that_is_leaving_comes_last_until_then() -> None:
    picker = NodePicker([A, B], BreakerConfig())
    picker.leaving(A, until=10.0)
    assert picker.pick(9.9) == B
    assert picker.pick(10.0) == A


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["pick", "fail", "succeed", "leave"]), st.sampled_from([A, B, C])
        )
    )
)
def test_there_is_always_somebody_to_call(events: list[tuple[str, str]]) -> None:
    picker = NodePicker([A, B, C], BreakerConfig(failures_max=2))
    for now, (event, address) in enumerate(events):
        match event:
            case "pick":
                assert picker.pick(float(now)) in (A, B, C)
            case "fail":
                picker.failed(address, float(now))
            case "succeed":
                picker.succeeded(address)
                assert picker.state(address, float(now)) is BreakerState.CLOSED
            case "leave":
                picker.leaving(address, now + 3.0)
        assert sorted(picker.addresses) == [A, B, C]
