"""The oracle reads by its own means what the service writes by other means."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.kit import a_grant, a_ticket, uuid7

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.stored import (
    PREFIX,
    StoredGrant,
    StoredTicket,
    concerning,
    guard_key,
    located,
    pool_key,
    read_completed,
    read_engine,
    read_grant,
    read_ticket,
    seats_in_spec,
)
from seatkeeper.server.domain import PoolSpec, Watermark
from seatkeeper.server.store import Change, Entry, records
from seatkeeper.server.store.keys import Keys
from seatkeeper.v1 import build_pb2

NUMBERS = st.integers(0, 2**31 - 1)
UNKNOWN_FIELD = b"\xfa\x3e\x05later"  # field 1007, of a version to come


def put(key: str, value: bytes = b"") -> Change:
    return Change(key, Entry(key, value, 1), 1)


@settings(deadline=None)
@given(seats=NUMBERS, priority=st.integers(-1000, 1000), fence=NUMBERS)
def test_a_grant_is_read_as_it_was_written(seats: int, priority: int, fence: int) -> None:
    grant = a_grant(7, seats=seats, priority=priority, fence=fence)
    written = records.encode_grant(grant) + UNKNOWN_FIELD
    assert read_grant(grant.grant_id, written) == StoredGrant(
        grant_id=grant.grant_id,
        session_id=grant.session_id,
        holder=grant.holder,
        project=grant.project,
        seats=seats,
        priority=priority,
        fence=fence,
        held_since=grant.granted_at,
        granted_at_millis=grant.granted_at,
    )


@settings(deadline=None)
@given(seats=NUMBERS, priority=st.integers(-1000, 1000), number=NUMBERS)
def test_a_ticket_is_read_as_it_was_written(seats: int, priority: int, number: int) -> None:
    ticket = a_ticket(number, seats=seats, priority=priority)
    written = records.encode_ticket(ticket) + UNKNOWN_FIELD
    assert read_ticket(ticket.grant_id, written) == StoredTicket(
        grant_id=ticket.grant_id,
        session_id=ticket.session_id,
        holder=ticket.holder,
        project=ticket.project,
        seats=seats,
        priority=priority,
        number=number,
        queued_at_millis=ticket.queued_at,
    )


def test_capacity_and_completed_requests_are_read_as_they_were_written() -> None:
    assert seats_in_spec(records.encode_spec(PoolSpec("a", 12, "twelve"))) == 12
    assert read_completed(records.encode_watermark(Watermark(1, uuid7(5)))) == uuid7(5)


@pytest.mark.parametrize("read", [read_grant, read_ticket])
def test_a_value_that_is_no_such_message_is_not_guessed_at(read: object) -> None:
    assert callable(read)
    with pytest.raises(DecodeError):
        read(uuid7(1), b"\xff")


@pytest.mark.parametrize("prefix", [PREFIX, "other/place"])
def test_keys_are_where_the_service_puts_them(prefix: str) -> None:
    keys = Keys(prefix)
    places: Mapping[str, tuple[str, str, str]] = {
        keys.pool("a"): ("a", "spec", ""),
        keys.guard("a"): ("a", "guard", ""),
        keys.grant("a", uuid7(1)): ("a", "grants", uuid7(1)),
        keys.ticket("a", uuid7(2)): ("a", "queue", uuid7(2)),
        keys.mark("a", uuid7(3)): ("a", "marks", uuid7(3)),
    }
    found = list(located([put(key) for key in places], prefix))
    assert [(pool, kind, name) for pool, kind, name, _ in found] == list(places.values())
    assert [change.key for *_, change in found] == list(places)
    assert pool_key("a", prefix) == keys.pool("a")
    assert guard_key("a", prefix) == keys.guard("a")


def test_keys_of_no_pool_and_of_another_service_are_skipped() -> None:
    ours, theirs = Keys("ours"), Keys("theirs")
    changes = [
        put(ours.session("s")),
        put(ours.node("n")),
        put(ours.engine("e")),
        put(ours.deployment()),
        put(theirs.grant("a", uuid7(1))),
        put("ours2/pools/a"),
    ]
    assert list(located(changes, "ours")) == []


def test_only_named_pools_and_engines_are_kept() -> None:
    keys = Keys()
    kept = [put(keys.pool("a")), put(keys.guard("a")), put(keys.engine("e"))]
    others = [put(keys.pool("ab")), put(keys.guard("ab")), put(keys.node("a"))]
    assert list(concerning([*others, *kept], ["a"])) == kept


def test_a_manifest_is_read_from_what_publishes_it_alone() -> None:
    manifest = build_pb2.EngineManifest(key="e", pool="a", grant_id=uuid7(1), fence=4)
    signed = build_pb2.SignedManifest(manifest=manifest.SerializeToString())
    value = state_pb2.EngineRecord(manifest=signed).SerializeToString()
    keys = Keys()
    assert read_engine(put(keys.engine("e"), value)) == manifest
    assert read_engine(put(keys.pool("e"), value)) is None
    assert read_engine(Change(keys.engine("e"), None, 2)) is None
