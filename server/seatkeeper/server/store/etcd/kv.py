"""KeyValues: building requests for them and reading the answers.

``commit`` is the hot path of the whole service: a transaction of 126 writes is built in 70 µs by
filling messages in place, and in 190 µs by passing finished messages to constructors.
"""

from __future__ import annotations

from collections.abc import Sequence

from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store._request import (
    check_key,
    check_large_transaction,
    check_transaction,
)
from seatkeeper.server.store.errors import (
    OutcomeUnknown,
    StoreError,
    StoreFull,
    StoreUnavailable,
)
from seatkeeper.server.store.etcd.caller import Caller
from seatkeeper.server.store.etcd.calls import RANGE, TXN
from seatkeeper.server.store.etcd.config import EtcdConfig
from seatkeeper.server.store.etcd.failures import Compacted, KeyNotFound
from seatkeeper.server.store.etcd.key_bytes import encode, prefix_range
from seatkeeper.server.store.etcd.large import build_large_transaction
from seatkeeper.server.store.etcd.page_entries import PageEntries, entry_of
from seatkeeper.server.store.etcd.paging import Pages
from seatkeeper.server.store.interface import (
    Committed,
    Delete,
    Entry,
    LargeWrite,
    Listing,
    Put,
    PutNew,
    Unchanged,
    UnwrittenBelow,
    Write,
)

LIST_ATTEMPTS_MAX = 5
"""How often a listing is begun again because its revision was compacted while it was read."""


class KeyValues:
    """Reads and transactions."""

    def __init__(self, caller: Caller, config: EtcdConfig) -> None:
        self._caller = caller
        self._timeout = config.call_timeout.total_seconds()
        self._page_keys = config.list_page_keys

    async def get(self, key: str) -> Entry | None:
        """Return the entry as of now, or None."""
        check_key(key)
        answer = await self._caller.read(RANGE, pb.RangeRequest(key=encode(key)), self._timeout)
        return entry_of(answer.kvs[0]) if answer.kvs else None

    async def list(self, prefix: str) -> Listing:
        """Return all entries below a prefix at one revision. Each page has its own deadline."""
        for _ in range(LIST_ATTEMPTS_MAX):
            try:
                return await self._list_once(prefix)
            except Compacted:
                continue
        raise StoreUnavailable(f"history is compacted faster than {prefix!r} can be listed")

    async def commit(
        self,
        writes: Sequence[Write],
        only_if: Sequence[Unchanged],
        else_read: Sequence[str],
        timeout: float | None,
    ) -> Committed:
        """Run one transaction. See ``Store.commit``."""
        check_transaction(writes, only_if, else_read)
        request = build_transaction(writes, only_if, else_read)
        timeout = self._timeout if timeout is None else timeout
        if not writes:
            return _committed(await self._caller.read(TXN, request, timeout), else_read)
        try:
            return _committed(await self._caller.change(TXN, request, timeout), else_read)
        except StoreFull as full:
            if await self._may_be_written(writes):
                raise OutcomeUnknown("etcd is full, and this transaction filled it") from full
            raise

    async def commit_large(
        self,
        writes: Sequence[LargeWrite],
        only_if: Sequence[Unchanged],
        unwritten_below: UnwrittenBelow,
    ) -> Committed:
        """Run one large transaction. See ``Store.commit_large``."""
        check_large_transaction(writes, only_if)
        request = build_large_transaction(writes, only_if, unwritten_below)
        try:
            answer = await self._caller.change(TXN, request, self._timeout)
        except KeyNotFound:
            return Committed(False, 0)
        except StoreFull as full:
            if await self._may_be_written(writes):
                raise OutcomeUnknown("etcd is full, and this transaction filled it") from full
            raise
        return Committed(answer.succeeded, answer.header.revision)

    async def _list_once(self, prefix: str) -> Listing:
        pages = Pages(*prefix_range(prefix), self._page_keys)
        request = pb.RangeRequest(limit=self._page_keys)
        answers: list[pb.RangeResponse] = []
        is_over = False
        while not is_over:
            request.key, request.range_end = pages.key, pages.range_end
            page = await self._caller.read(RANGE, request, self._timeout)
            answers.append(page)
            if request.revision == 0:
                request.revision = page.header.revision
            keys = [kv.key for kv in page.kvs]
            is_over = not pages.turn(keys, count=page.count, more=page.more)
        return Listing(PageEntries(answers), request.revision)

    async def _may_be_written(self, writes: Sequence[LargeWrite]) -> bool:
        """Look whether a transaction that was answered "full" is in the store nevertheless.

        etcd applies the transaction that crosses its quota, then answers it with an error (its
        ``quotaApplierV3``). The answer comes after the transaction has run or never will, and a
        full store takes no other writes, so its present content decides.
        """
        for write in writes:
            if not isinstance(write, Delete | PutNew):
                try:
                    entry = await self.get(write.key)
                except StoreError:
                    return True
                if entry is not None and entry.value == write.value:
                    return True
        return False


def build_transaction(
    writes: Sequence[Write], only_if: Sequence[Unchanged], else_read: Sequence[str]
) -> pb.TxnRequest:
    """Return the request for one transaction. See ``Store.commit``."""
    request = pb.TxnRequest()
    for expected in only_if:
        compare = request.compare.add()
        compare.target = pb.Compare.MOD
        compare.key = expected.key.encode("utf-8", "surrogateescape")
        compare.mod_revision = expected.mod_revision
    steps = request.success
    for write in writes:
        if type(write) is Put:
            put = steps.add().request_put
            put.key = write.key.encode("utf-8", "surrogateescape")
            put.value = write.value
            if write.lease_id:
                put.lease = write.lease_id
        else:
            steps.add().request_delete_range.key = encode(write.key)
    steps = request.failure
    for key in else_read:
        steps.add().request_range.key = encode(key)
    return request


def _committed(answer: pb.TxnResponse, else_read: Sequence[str]) -> Committed:
    if answer.succeeded:
        return Committed(True, answer.header.revision)
    read: dict[str, Entry | None] = {}
    for key, response in zip(else_read, answer.responses, strict=True):
        kvs = response.response_range.kvs
        read[key] = entry_of(kvs[0]) if kvs else None
    return Committed(False, answer.header.revision, read)
