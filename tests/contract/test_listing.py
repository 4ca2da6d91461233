"""Listings: everything below a prefix, nothing beside it, at one revision."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from seatkeeper.server.store import Delete, Entry, Put

if TYPE_CHECKING:
    from tests.contract.conftest import Subject


async def test_it_is_in_the_order_of_keys_and_has_the_revision(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    first = await store.commit([Put(p + "b", b"2"), Put(p + "a/z", b"1")])
    last = await store.commit([Put(p + "c", b"3"), Put(p + "a", b"0")])

    listing = await store.list(p)

    assert listing.entries == (
        Entry(p + "a", b"0", last.revision),
        Entry(p + "a/z", b"1", first.revision),
        Entry(p + "b", b"2", first.revision),
        Entry(p + "c", b"3", last.revision),
    )
    assert listing.revision >= last.revision


@pytest.mark.parametrize(
    ("below", "beside"),
    [
        ("a/", ["a", "a0", "a.", "b"]),
        ("a~", ["a", "a}", "a\x7f", "b"]),
        ("a\x7f", ["a", "a\x80", "b"]),
        ("é", ["e", "è", "ê", "f"]),
        ("a\U0010ffff", ["a", "a\uffff", "b"]),
        # Bytes that are not UTF-8 travel as surrogate escapes; 0xff is the one that cannot be
        # raised by one to make the end of a range.
        ("a\udcff", ["a", "a\udcfe", "b", "c"]),
        ("a\udcff\udcff", ["a\udcff", "b", "c"]),
    ],
)
async def test_neighbours_stay_outside(subject: Subject, below: str, beside: list[str]) -> None:
    store, p = subject.store, subject.prefix
    inside = [p + below, p + below + "x"]
    await store.commit([Put(key, b"") for key in [*inside, *(p + key for key in beside)]])

    assert [entry.key for entry in (await store.list(p + below)).entries] == inside


async def test_the_empty_prefix_is_everything(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    await store.commit([Put(p + "a", b""), Put("\x01" + p, b""), Put("\udcff" + p, b"")])
    keys = {entry.key for entry in (await store.list("")).entries}
    assert keys >= {p + "a", "\x01" + p, "\udcff" + p}
    await store.commit([Delete("\x01" + p), Delete("\udcff" + p)])


async def test_an_empty_listing_has_a_revision(subject: Subject) -> None:
    done = await subject.store.commit([Put(subject.prefix + "a", b"")])
    listing = await subject.store.list(subject.prefix + "none/")
    assert listing.entries == ()
    assert listing.revision >= done.revision


async def test_it_may_be_larger_than_a_message(subject: Subject) -> None:
    """grpc's own limit for a message is 4 MiB, and a page is 512 keys."""
    store, p = subject.store, subject.prefix
    keys = [f"{p}{n:04d}" for n in range(1200)]
    for at in range(0, len(keys), 100):
        await store.commit([Put(key, key.encode() * 500) for key in keys[at : at + 100]])

    listing = await store.list(p)

    assert [entry.key for entry in listing.entries] == keys
    assert sum(len(entry.value) for entry in listing.entries) > 8 * 1024 * 1024
    await asyncio.gather(*(store.commit([Delete(key)]) for key in keys))


async def test_it_shows_one_moment_while_others_write(subject: Subject) -> None:
    """Every commit writes all keys alike, so a listing with two values would be two moments."""
    store, p = subject.store, subject.prefix
    keys = [f"{p}{n:03d}" for n in range(100)]

    async def write_all() -> None:
        for n in range(50):
            await store.commit([Put(key, b"%d" % n) for key in keys])

    await store.commit([Put(key, b"start") for key in keys])
    writer = asyncio.create_task(write_all())
    while not writer.done():
        listing = await store.list(p)
        assert len({(entry.value, entry.mod_revision) for entry in listing.entries}) == 1
    await writer


async def test_one_of_many_entries_is_found_by_its_key(subject: Subject) -> None:
    store, p = subject.store, subject.prefix
    keys = [f"{p}{n:04d}" for n in range(700)]  # more than a page
    for at in range(0, len(keys), 100):
        await store.commit([Put(key, key.encode()) for key in keys[at : at + 100]])

    listing = await store.list(p)

    for key in (keys[0], keys[350], keys[511], keys[512], keys[-1]):
        found = listing.find(key)
        assert found is not None
        assert found.value == key.encode()
    for key in (p, p + "0350a", p + "z"):
        assert listing.find(key) is None
    assert len(listing.entries) == 700
    assert [entry.key for entry in listing.entries[510:514]] == keys[510:514]
    assert listing.entries[-1].key == keys[-1]
    with pytest.raises(IndexError):
        _ = listing.entries[700]
