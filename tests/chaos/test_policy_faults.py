"""What faults in the middle of policies wait for, in requests to etcd as nodes send them."""

from __future__ import annotations

import pytest
from tests.chaos.policy_faults import GROUPS, grants_gang, grants_one_of, writes
from tests.chaos.policy_pools import EITHER, GANG, MIX, POOLS
from tests.chaos.service import KEYS
from tests.unit.kit import uuid7

from seatkeeper.chaos.faults import described
from seatkeeper.chaos.worker import KINDS
from seatkeeper.etcd.v3 import etcd_pb2 as pb

ONE, OTHER = GANG[:2]


def request(*, compares: str = "", puts: tuple[str, ...] = (), deletes: str = "") -> bytes:
    """A transaction as it is sent."""
    made = pb.TxnRequest()
    if compares:
        made.compare.add(key=compares.encode(), mod_revision=18)
    for key in puts:
        made.success.add().request_put.CopyFrom(pb.PutRequest(key=key.encode(), value=b"v"))
    if deletes:
        made.success.add().request_delete_range.key = deletes.encode()
    return made.SerializeToString()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (request(puts=(KEYS.pool("p"),)), True),
        (request(puts=(KEYS.pool("p-2"),)), False),
        (request(compares=KEYS.pool("p"), puts=(KEYS.guard("p"),)), False),
        (request(deletes=KEYS.pool("p")), False),
    ],
)
def test_a_key_is_written_where_a_value_follows(data: bytes, expected: bool) -> None:
    assert writes(KEYS.pool("p"))(data) is expected


def grant(pool: str) -> str:
    return KEYS.grant(pool, uuid7(1))


def ticket(pool: str) -> str:
    return KEYS.ticket(pool, uuid7(1))


def test_a_gang_is_granted_by_grants_of_two_pools() -> None:
    assert grants_gang(request(puts=(grant(ONE), grant(OTHER))))
    assert not grants_gang(request(puts=(grant(ONE), grant(ONE))))
    assert not grants_gang(request(puts=(grant(ONE),), deletes=grant(OTHER)))
    assert not grants_gang(request(puts=(ticket(ONE), ticket(OTHER))))


def test_an_alternative_is_granted_where_the_other_queue_is_left() -> None:
    first, second = EITHER
    assert grants_one_of(request(puts=(grant(first),), deletes=ticket(second)))
    assert not grants_one_of(request(puts=(grant(first),), deletes=ticket(first)))
    assert not grants_one_of(request(puts=(ticket(first), ticket(second))))


def test_every_fault_says_what_it_does_and_every_user_uses_pools_that_there_are() -> None:
    assert all(described(*GROUPS).values())
    for member in MIX:
        assert member.kind in KINDS
        assert {name for name, _ in member.pools} <= set(POOLS)
