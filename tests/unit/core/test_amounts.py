"""Amounts, as people read them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from seatkeeper.core.amounts import count, size, span


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0 s"),
        (0.01, "0 s"),
        (0.05, "0.1 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (3_600, "1 h 0 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_a_length_of_time_has_two_units_at_most(seconds: float, shown: str) -> None:
    assert span(seconds) == shown
    assert span(timedelta(seconds=seconds)) == shown


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 seats"), (1, "1 seat"), (2, "2 seats"), (-1, "-1 seats")]
)
def test_one_is_not_many(number: int, shown: str) -> None:
    assert count(number, "seat") == shown


@pytest.mark.parametrize(
    ("bytes_", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3 << 20, "3.0 MiB"),
        (3 << 30, "3.00 GiB"),
        (2 << 40, "2048.00 GiB"),
    ],
)
def test_a_size_is_in_a_unit_that_suits_it(bytes_: int, shown: str) -> None:
    assert size(bytes_) == shown
