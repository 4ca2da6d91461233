"""The pages of a listing: every key once, whatever the keys are, and few of them counted often."""

from __future__ import annotations

from bisect import bisect_left
from random import Random
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seatkeeper.server.store.etcd.key_bytes import prefix_range
from seatkeeper.server.store.etcd.paging import Pages

LIMIT = 8
PREFIX = "sk/seats/big/"
HOURS_8_MILLIS = 8 * 3600 * 1000

some_keys = st.lists(
    st.one_of(
        st.binary(max_size=6),
        st.text(alphabet="09af-/gz", max_size=8).map(str.encode),
        st.uuids().map(lambda each: b"grants/%s" % str(each).encode()),
        st.integers(0, 300).map(lambda each: b"grants/%08x-00" % each),
    ),
    max_size=200,
)


def listed(keys: list[bytes], limit: int, prefix: str = PREFIX) -> tuple[list[bytes], int, int]:
    """List as etcd answers: return the keys, how many pages, and how many keys were counted."""
    pages = Pages(*prefix_range(prefix), limit)
    found: list[bytes] = []
    counted = read = 0
    is_over = False
    while not is_over:
        assert read <= 3 * len(keys) + 3, "it ends"
        end = len(keys) if pages.range_end == b"\0" else bisect_left(keys, pages.range_end)
        inside = keys[bisect_left(keys, pages.key) : end]
        page = inside[:limit]
        found += page
        counted += len(inside)
        read += 1
        is_over = not pages.turn(page, count=len(inside), more=len(inside) > limit)
    return found, read, counted


@given(some_keys)
@example([b"grants/%08x" % n for n in (*range(100), *range(0xFFFFFF00, 0x100000000))])
@example([b"\xff" * n for n in range(1, 60)])
def test_every_key_is_listed_once_and_in_order(suffixes: list[bytes]) -> None:
    keys = sorted({PREFIX.encode() + each for each in suffixes})
    found, read, _ = listed(keys, LIMIT)
    assert found == keys
    assert read <= 2 * (len(keys) // LIMIT + 1) + 1


@given(some_keys)
def test_so_is_the_whole_store(suffixes: list[bytes]) -> None:
    keys = sorted(set(suffixes) - {b"", b"\0"})
    assert listed(keys, LIMIT, "")[0] == keys


@pytest.mark.parametrize("kind", ["spread over a day", "at once", "in bursts", "at random"])
def test_what_etcd_counts_grows_as_what_is_listed(kind: str) -> None:
    assert counted_per_key(20_000, kind) < 1.5 * counted_per_key(5_000, kind) + 1
    assert counted_per_key(20_000, kind) < 16, "pages of the whole rest would count 20"


def counted_per_key(number: int, kind: str) -> float:
    rng, ids = Random(kind), set()
    for n in range(number):
        millis = {
            "spread over a day": n * HOURS_8_MILLIS // number,
            "at once": n // 100,
            "in bursts": n * 50 // number * 600_000 + rng.randrange(1000),
            "at random": rng.randrange(HOURS_8_MILLIS),
        }[kind]
        ids.add((1_700_000_000_000 + millis) << 80 | 7 << 76 | rng.getrandbits(74))
    keys = [f"{PREFIX}grants/{UUID(int=each)}".encode() for each in sorted(ids)]
    keys += [f"{PREFIX}guard".encode()]
    found, _, counted = listed(keys, 512)
    assert found == keys
    return counted / len(keys)
