"""The harness writes into records as a node of a later version would, and disturbs nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.compat.fields import TICKET_ATTRIBUTES, NotPlanted, Planter, tokens_in

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import Guard
from seatkeeper.server.store import Put, records
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.store.memory import MemoryStore


async def test_a_planted_record_keeps_its_lease_and_what_it_says() -> None:
    store, keys = MemoryStore(), Keys()
    await store.grant_lease(7, timedelta(seconds=30))
    key = keys.grant("pool", "g")
    await store.commit([Put(key, b"", 7)])

    await Planter(store, keys).plant(key)

    entry = await store.get(key)
    assert entry is not None
    assert entry.lease_id == 7
    assert len(tokens_in(entry.value)) == 1


async def test_a_planted_guard_is_of_no_decision_and_keeps_its_numbers() -> None:
    store, keys = MemoryStore(), Keys()
    guard = Guard(fence=5, ticket_number=6)
    await store.commit([Put(keys.guard("pool"), records.encode_guard(guard, 77))])

    await Planter(store, keys).plant(keys.guard("pool"))

    entry = await store.get(keys.guard("pool"))
    assert entry is not None
    assert records.decode_guard(entry.value) == (guard, 0)


async def test_what_is_not_there_cannot_be_planted_into() -> None:
    with pytest.raises(NotPlanted, match="not there"):
        await Planter(MemoryStore(), Keys()).plant("seatkeeper/pools/none")


def test_the_attributes_of_a_ticket_are_where_the_harness_writes_them() -> None:
    field = state_pb2.TicketRecord.DESCRIPTOR.fields_by_name["attributes"]

    assert field.number == TICKET_ATTRIBUTES


def test_keys_are_named_as_probes_name_them() -> None:
    planter = Planter(MemoryStore(), Keys())

    assert planter.key("mark", "pool", "s") == Keys().mark("pool", "s")
