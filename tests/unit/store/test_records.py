"""Values survive the store, and keys are where the design has them."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kit import a_grant, uuid7

from seatkeeper.server.domain import (
    Attribution,
    Cause,
    Drain,
    Grant,
    Guard,
    Holds,
    Instant,
    Move,
    PoolSpec,
    Reclaim,
    Reclaims,
    Revoke,
    Ticket,
    Watermark,
)
from seatkeeper.server.domain.move import HALVINGS_MAX
from seatkeeper.server.store import records
from seatkeeper.server.store.keys import Keys

NUMBERS = st.integers(0, 2**63 - 1)
SEATS = st.integers(1, 100_000)
TEXT = st.text(max_size=20)
NAMES = st.text(min_size=1, max_size=20)
PRIORITIES = st.integers(-1000, 1000)
ATTRIBUTIONS = st.builds(Attribution, TEXT, TEXT, PRIORITIES)
WAITS = st.integers(1, 10**15).map(lambda millis: timedelta(milliseconds=millis))
INSTANTS = st.integers(1, 2**53).map(Instant)
PLACES = st.builds(
    lambda above, halvings: Fraction(above, 2**halvings),
    st.integers(0, 2**1100),
    st.integers(0, HALVINGS_MAX),
)
MOVES = st.builds(Move, PLACES, TEXT, TEXT, INSTANTS)


DRAINS = st.builds(Drain, TEXT, TEXT, INSTANTS.map(lambda at: at % 10**13))


@given(st.builds(PoolSpec, NAMES, SEATS, TEXT, drain=st.none() | DRAINS))
def test_a_specification_survives_the_store(spec: PoolSpec) -> None:
    assert records.decode_spec(records.encode_spec(spec)) == spec


IDS = st.sampled_from([uuid7(number) for number in range(4)])
TIMES = st.integers(1, 10**10).map(lambda millis: timedelta(milliseconds=millis))
REVOKES = st.builds(Revoke, TEXT, TEXT, INSTANTS, TIMES, TIMES)
HOLDS = st.builds(
    Holds,
    st.dictionaries(IDS, REVOKES),
    st.dictionaries(IDS, TIMES),
    st.dictionaries(IDS, TIMES),
)
RECLAIM = st.builds(
    Reclaim, NUMBERS, INSTANTS, TIMES, TEXT, st.sampled_from(Cause), TEXT, INSTANTS
)
RECLAIMS = st.builds(
    Reclaims, st.dictionaries(IDS, RECLAIM), st.lists(INSTANTS).map(tuple), st.integers(1, 99)
)


@given(
    st.builds(Guard, NUMBERS, NUMBERS, reclaims=RECLAIMS, holds=HOLDS), st.integers(0, 2**63)
)
def test_a_guard_survives_the_store(guard: Guard, decision_id: int) -> None:
    value = records.encode_guard(guard, decision_id)
    assert records.decode_guard(value) == (guard, decision_id)


@given(
    st.builds(
        Grant,
        TEXT,
        TEXT,
        NUMBERS,
        ATTRIBUTIONS,
        SEATS,
        NUMBERS,
        INSTANTS,
        INSTANTS,
        TEXT,
        TEXT,
    )
)
def test_a_grant_survives_the_store(grant: Grant) -> None:
    assert records.decode_grant(grant.grant_id, records.encode_grant(grant)) == grant


@given(
    st.builds(
        Ticket,
        TEXT,
        TEXT,
        NUMBERS,
        ATTRIBUTIONS,
        SEATS,
        NUMBERS,
        INSTANTS,
        st.none() | WAITS,
        move=st.none() | MOVES,
    )
)
def test_a_ticket_survives_the_store(ticket: Ticket) -> None:
    assert records.decode_ticket(ticket.grant_id, records.encode_ticket(ticket)) == ticket


SPANS = st.lists(st.tuples(TEXT, TEXT), min_size=1).map(tuple)


@given(st.builds(Watermark, NUMBERS, TEXT, st.lists(TEXT), spans=SPANS))
def test_a_mark_survives_the_store(mark: Watermark) -> None:
    assert records.decode_watermark(records.encode_watermark(mark)) == mark


def test_a_mark_of_an_older_node_covers_all_up_to_it() -> None:
    older = records.encode_watermark(Watermark(1, uuid7(5)))
    assert records.decode_watermark(older).spans == (("", uuid7(5)),)


SESSION = uuid7(2)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (Keys("p").pool("a"), "p/pools/a"),
        (Keys("p").guard("a"), "p/seats/a/guard"),
        (Keys("p").grant("a", uuid7(1)), f"p/seats/a/grants/{uuid7(1)}"),
        (Keys("p").ticket("a", uuid7(1)), f"p/seats/a/queue/{uuid7(1)}"),
        (Keys("p").mark("a", SESSION), f"p/seats/a/marks/{SESSION}"),
        (Keys("p").session(SESSION), f"p/sessions/{SESSION}"),
        (Keys("p").node("n"), "p/nodes/n"),
        (Keys("p").agent("n"), "p/agents/n"),
        (Keys("p").engine("e"), "p/engines/e"),
        (Keys("p").signing_key("k"), "p/keys/k"),
        (Keys().pool("a"), "seatkeeper/pools/a"),
    ],
)
def test_keys_are_where_the_design_has_them(key: str, expected: str) -> None:
    assert key == expected


def test_all_that_a_decision_needs_is_below_one_prefix_and_nothing_of_another_pool() -> None:
    keys = Keys()
    mine = [keys.guard("a"), keys.grant("a", "g"), keys.ticket("a", "g"), keys.mark("a", "s")]
    assert all(key.startswith(keys.seats("a")) for key in mine)
    others = [keys.guard("a.b"), keys.guard("a-1"), keys.guard("ab"), keys.pool("a")]
    assert not any(key.startswith(keys.seats("a")) for key in others)


def test_each_prefix_holds_its_kind() -> None:
    keys = Keys()
    assert keys.pool("x").removeprefix(keys.pools()) == "x"
    assert keys.node("x").removeprefix(keys.nodes()) == "x"
    assert keys.agent("x").removeprefix(keys.agents()) == "x"
    assert keys.engine("x").removeprefix(keys.engines()) == "x"
    assert keys.signing_key("x").removeprefix(keys.signing_keys()) == "x"


def test_another_claim_keeps_what_a_newer_node_wrote() -> None:
    unknown = b"\xc2\x3e\x05later"  # field 1000, of a node to come
    value = records.encode_grant(a_grant(1)) + unknown
    claimed = records.with_claim(value, "agent-1", "claim-1")
    assert unknown in claimed
    assert records.decode_grant(uuid7(1), claimed).agent_id == "agent-1"
    assert unknown in records.with_claim(claimed, "", "")
