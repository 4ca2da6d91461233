"""Names, ids and durations: what is refused, and that the limits themselves are allowed."""

from __future__ import annotations

from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration
from tests.unit.kit import uuid7

from seatkeeper.core.validate import (
    Malformed,
    check_duration,
    check_id,
    check_name,
    is_id,
    is_name,
)

SHORTEST, LONGEST = timedelta(seconds=2), timedelta(hours=1)


@pytest.mark.parametrize("name", ["a", "0", "tensorrt-10.x_y", "a" * 63])
def test_a_name_is_what_the_contract_says(name: str) -> None:
    check_name("pool", name)


@pytest.mark.parametrize(
    "name", ["", "A", "-a", ".a", "_a", "a" * 64, "a b", "a/b", "\u00e4", "a\n", "a\x00"]
)
def test_anything_else_is_no_name(name: str) -> None:
    with pytest.raises(Malformed) as caught:
        check_name("pool", name)
    assert caught.value.field == "pool"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        uuid7(1).upper().replace("0", "A"),
        uuid7(1).replace("-", ""),
        uuid7(1).replace("-7000-", "-4000-"),
        uuid7(1).replace("-8000-", "-c000-"),
        uuid7(1) + "\n",
        " " + uuid7(1),
        "{" + uuid7(1) + "}",
        "x" * 10_000,
    ],
)
def test_only_a_canonical_uuidv7_is_an_id(value: str) -> None:
    with pytest.raises(Malformed) as caught:
        check_id("grant_id", value)
    assert caught.value.field == "grant_id"
    assert len(str(caught.value)) < 200, "an error does not repeat a book"


@pytest.mark.parametrize("seconds", [2, 2.5, 3600])
def test_a_duration_within_its_limits_is_accepted(seconds: float) -> None:
    value = Duration()
    value.FromTimedelta(timedelta(seconds=seconds))
    check_duration("ttl", value, SHORTEST, LONGEST, "2 s to 1 h")


@pytest.mark.parametrize(
    "value",
    [
        Duration(seconds=1, nanos=999_999_999),
        Duration(seconds=3600, nanos=1),
        Duration(seconds=-3),
        Duration(seconds=2**62),
        Duration(seconds=3, nanos=-1),
        Duration(seconds=3, nanos=1_000_000_000),
    ],
    ids=["short", "long", "negative", "huge", "signs differ", "too many nanos"],
)
def test_any_other_duration_is_refused_by_its_field(value: Duration) -> None:
    with pytest.raises(Malformed) as caught:
        check_duration("ttl", value, SHORTEST, LONGEST, "2 s to 1 h")
    assert caught.value.field == "ttl"


def test_asking_and_checking_agree() -> None:
    assert is_name("tensorrt")
    assert not is_name("Tensorrt")
    assert is_id(uuid7(1))
    assert not is_id(uuid7(1).upper())
