"""The entries of a listing, as etcd sent them.

A large pool's listing is read once and then let go. Made into 100,000 values beforehand it would be
that many objects for the garbage collector to look through, again and again while it grows; so each
value is made when it is looked at.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import overload

from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store.interface import Entry


def decode(key: bytes) -> str:
    """Return the key of these bytes. Those that are not UTF-8 become surrogate escapes."""
    return key.decode("utf-8", "surrogateescape")


def entry_of(kv: pb.KeyValue) -> Entry:
    """Return what etcd says of a key."""
    return Entry(decode(kv.key), kv.value, kv.mod_revision, kv.lease)


class PageEntries(Sequence[Entry]):
    """What is on all pages of a listing, in their order."""

    def __init__(self, pages: Sequence[pb.RangeResponse]) -> None:
        self._pages = [page.kvs for page in pages if page.kvs]
        self._begins = [0]
        for kvs in self._pages:
            self._begins.append(self._begins[-1] + len(kvs))

    def __len__(self) -> int:
        return self._begins[-1]

    def __iter__(self) -> Iterator[Entry]:
        return (entry_of(kv) for kvs in self._pages for kv in kvs)

    @overload
    def __getitem__(self, index: int) -> Entry: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Entry]: ...

    def __getitem__(self, index: int | slice) -> Entry | Sequence[Entry]:
        if isinstance(index, slice):
            return tuple(self[each] for each in range(*index.indices(len(self))))
        at = range(len(self))[index]  # from the end, or an IndexError, as everywhere
        page = bisect_right(self._begins, at) - 1
        return entry_of(self._pages[page][at - self._begins[page]])

    def __eq__(self, other: object) -> bool:
        return tuple(self) == tuple(other) if isinstance(other, Sequence) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))
