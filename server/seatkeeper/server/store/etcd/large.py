"""Transactions of more writes than ``--max-txn-ops``: 128 unless an operator says otherwise.

etcd counts the operations of a transaction level by level: a transaction may hold others, and what it
counts is the longest of a level's three lists, summed along each path downwards. So the writes are put
into groups, each an inner transaction without comparisons, and the outermost one has those that decide.
A path is then the groups or the comparisons, whichever are more, one group's writes, and one more for
a write that asks whether its key is there: at most 61 + 60 + 1. All of it is applied at one revision,
or, where a comparison fails, none of it.

One comparison covers all keys of a range, as etcd compares each of them. It compares nothing that is
not there, so ``PutOver`` has etcd look whether its key is: a put that keeps its key's lease fails the
whole request where there is no key, before anything is written.
"""

from __future__ import annotations

from collections.abc import Sequence

from seatkeeper.etcd.v3 import etcd_pb2 as pb
from seatkeeper.server.store.etcd.key_bytes import encode, prefix_range
from seatkeeper.server.store.interface import (
    LARGE_COMPARISONS_MAX,
    LARGE_WRITES_MAX,
    OPERATIONS_MAX,
    Delete,
    LargeWrite,
    PutNew,
    PutOver,
    Unchanged,
    UnwrittenBelow,
)

GROUP_WRITES_MAX = 60
"""Writes of one inner transaction."""
_GROUPS_MAX = -(-LARGE_WRITES_MAX // GROUP_WRITES_MAX)
assert max(_GROUPS_MAX, LARGE_COMPARISONS_MAX + 1) + GROUP_WRITES_MAX + 1 <= OPERATIONS_MAX


def build_large_transaction(
    writes: Sequence[LargeWrite], only_if: Sequence[Unchanged], below: UnwrittenBelow
) -> pb.TxnRequest:
    """Return the request for one large transaction. See ``Store.commit_large``."""
    request = pb.TxnRequest()
    first, end = prefix_range(below.prefix)
    request.compare.add(
        result=pb.Compare.LESS,
        target=pb.Compare.MOD,
        key=first,
        range_end=end,
        mod_revision=below.revision + 1,
    )
    for expected in only_if:
        request.compare.add(
            target=pb.Compare.MOD,
            key=encode(expected.key),
            mod_revision=expected.mod_revision,
        )
    for at in range(0, len(writes), GROUP_WRITES_MAX):
        group = request.success.add().request_txn
        for write in writes[at : at + GROUP_WRITES_MAX]:
            _add(group.success.add(), write)
    return request


def _add(step: pb.RequestOp, write: LargeWrite) -> None:
    key = encode(write.key)
    match write:
        case Delete():
            step.request_delete_range.key = key
        case PutNew():
            inner = step.request_txn
            inner.compare.add(target=pb.Compare.CREATE, key=key, create_revision=0)
            put = inner.success.add().request_put
            put.key, put.value = key, write.value
        case _:
            put = step.request_put
            put.key, put.value = key, write.value
            put.ignore_lease = isinstance(write, PutOver)
