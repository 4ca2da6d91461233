"""Borrowed grants, and pools that lend seats, as they are stored: older nodes refuse them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.unit.kit import NOW, POOL, a_grant

from seatkeeper.core.borrowing import BorrowRule
from seatkeeper.core.pool_rules import Who
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import Borrow, Instant, PoolPolicy, PoolSpec
from seatkeeper.server.store import records
from seatkeeper.server.store.formats import COUNT_FORMAT, STAY_FORMAT, FormatUnsupported
from seatkeeper.v1 import pool_service_pb2

BORROW = Borrow(b"k" * 32, "thumb", Instant(NOW + 5_000), Instant(NOW + 9_000), NOW)
LENT = replace(a_grant(1), session_id="", lease_id=0, borrow=BORROW)

LENDS = BorrowRule(longest=timedelta(days=1))


def test_what_is_written_is_read_again() -> None:
    value = records.encode_grant(LENT)
    assert records.decode_grant(LENT.grant_id, value) == LENT
    assert state_pb2.GrantRecord.FromString(value).format == STAY_FORMAT


def test_a_grant_that_is_lent_heeds_no_reclaim_any_more() -> None:
    held = records.encode_grant(replace(a_grant(1), heeds_within=timedelta(seconds=5)))
    record = state_pb2.GrantRecord.FromString(held)
    record.MergeFromString(b"\xfa\x07\x03new")  # a field of a newer version
    known = records.grant_of(LENT.grant_id, record)
    lent = replace(known, session_id="", lease_id=0, heeds_within=None, borrow=BORROW)
    written = state_pb2.GrantRecord.FromString(records.encode_grant(lent))
    assert written.heeds_within_millis == 0
    assert b"new" in written.SerializeToString(), "what is not known stays"


def test_other_grants_are_written_as_before() -> None:
    assert state_pb2.GrantRecord.FromString(records.encode_grant(a_grant(1))).format == 0


def test_a_newer_format_still_is_refused() -> None:
    record = state_pb2.GrantRecord(format=COUNT_FORMAT + 1)
    with pytest.raises(FormatUnsupported):
        records.grant_of("g", record)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (None, 0),
        (LENDS, STAY_FORMAT),
        (replace(LENDS, per_project=0), COUNT_FORMAT),
        (replace(LENDS, include=Who(projects=("cv",))), COUNT_FORMAT),
        (replace(LENDS, exclude=Who(hosts=("ws1",), groups=("g",))), COUNT_FORMAT),
    ],
)
def test_a_pool_that_lends_seats_has_a_format_of_its_own(
    rule: BorrowRule | None, expected: int
) -> None:
    spec = PoolSpec(POOL, 3, policy=PoolPolicy(borrow=rule))
    value = records.encode_spec(spec)
    assert pool_service_pb2.PoolSpec.FromString(value).format == expected
    assert records.decode_spec(value) == spec
