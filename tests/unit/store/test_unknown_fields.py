"""What a newer version wrote into a record survives whatever this one does with it.

Every kind of key in ``KINDS`` is here, with what nodes do to its record: read, change, write. Kinds
come from the layout and messages from their descriptors, so a new one cannot be forgotten. Each record
is given unknown fields, also in the messages within it, and is changed by the code of a node.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.kit import KEYS, NOW, FakeClock, a_grant, a_ticket, acquire, release, uuid7

from seatkeeper.internal.v1 import peer_service_pb2, state_pb2
from seatkeeper.server.decide import decide
from seatkeeper.server.decide.staying import NOTHING_ENDS
from seatkeeper.server.deployment.adopt import Adoption
from seatkeeper.server.domain import (
    Granted,
    Guard,
    Limits,
    MoveTicket,
    PoolPolicy,
    PoolSpec,
    Queued,
    StayRule,
    To,
    Watermark,
)
from seatkeeper.server.engines.registry import Engines
from seatkeeper.server.pool.admin import Pools
from seatkeeper.server.pool.confirmed import heed
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.pool.writes import writes_of
from seatkeeper.server.routing import wire
from seatkeeper.server.sessions.sessions import Session, Sessions, lease_id_of
from seatkeeper.server.store import MemoryStore, Put, Unchanged, records
from seatkeeper.server.store.formats import FORMAT, kept, knows_all
from seatkeeper.server.store.keys import KINDS, Keys
from seatkeeper.v1 import build_pb2, build_service_pb2, pool_service_pb2, seat_service_pb2

POOL = "p"
SESSION = uuid7(1)
LEASE = lease_id_of(SESSION)
OTHERS_ALONE = {
    "nodes/<node_id>": "a node writes its own record, and no other does",
    "ledgers/<name>": "a ledger writes its own record, and no other does",
    "keys/<kid>": "a node writes its own key, and no other does",
    "sessions/<session_id>": "written once, when the session is opened",
    "secret": "text, written once",
}
"""Kinds whose records no node changes that another one wrote."""


# Unknown fields -------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


UNKNOWN = st.lists(
    st.builds(
        _field,
        st.integers(1000, 200_000),
        st.integers(0, 2**63) | st.binary(max_size=20),
    ),
    min_size=1,
    max_size=4,
).map(b"".join)


def within(message: Message) -> Iterator[Message]:
    """The message and all that are set within it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for part in value if field.is_repeated else [value]:
            yield from within(part)


@st.composite
def of_a_newer_version(draw: st.DrawFn, message: Message) -> Message:
    """The message with more in it, and in the messages within it, than this version knows."""
    newer = type(message).FromString(message.SerializeToString())
    for part in list(within(newer)):
        part.MergeFromString(draw(UNKNOWN))
    return newer


def without(message: Message, fields: frozenset[str]) -> bytes:
    """What remains of a message beside these fields, in one order."""
    rest = type(message).FromString(message.SerializeToString())
    for name in fields:
        rest.ClearField(name)
    return rest.SerializeToString(deterministic=True)


# What nodes do to records ---------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """One thing that a node does to a record that is there."""

    kind: str
    record: Message
    """The record before, as this version would have written it."""
    does: Callable[[MemoryStore], Awaitable[object]]
    sets: frozenset[str]
    """The fields that it sets, or clears; a message among them is replaced whole."""

    @property
    def key(self) -> str:
        parts = {
            *(("<pool>", POOL), ("<grant_id>", uuid7(1)), ("<session_id>", SESSION)),
            *(("<agent_id>", "agent-1"), ("<key>", "k")),
        }
        key = f"{KEYS.prefix}/{self.kind}"
        for name, value in parts:
            key = key.replace(name, value)
        return key


async def decide_once(
    store: MemoryStore, *commands: object, spec: PoolSpec | None = None
) -> None:
    """What a pool's loop does: list, decide, and commit against the guard."""
    mirror = PoolMirror(KEYS, POOL)
    mirror.reset(await store.list(KEYS.seats(POOL)))
    mirror.state.spec = spec or PoolSpec(POOL, 1)
    decision = decide(mirror.state, commands, NOW, Limits(), kept=NOTHING_ENDS)  # type: ignore[arg-type]  # any commands
    has_guard = bool(mirror.guard_revision)
    writes = writes_of(KEYS, POOL, decision, 5, has_guard=has_guard)
    guard = Unchanged(KEYS.guard(POOL), mirror.guard_revision)
    assert (await store.commit(writes, only_if=[guard])).succeeded


async def update_a_pool(store: MemoryStore) -> None:
    await Pools(store, KEYS).update(PoolSpec(POOL, 3, "more"))


async def take_a_seat(store: MemoryStore) -> None:
    await decide_once(store, acquire(9, SESSION, lease_id=LEASE))


async def give_up(store: MemoryStore) -> None:
    await decide_once(store, release(900_000, SESSION, lease_id=LEASE))


async def keep_a_lost_seat(store: MemoryStore) -> None:
    spec = PoolSpec(POOL, 1, policy=PoolPolicy(stay=StayRule(lock_delay=timedelta(seconds=9))))
    await decide_once(store, spec=spec)


async def adopt(store: MemoryStore) -> None:
    await Adoption(store, KEYS, lambda said: None).run(timedelta(0))


async def claim(store: MemoryStore) -> None:
    await Engines(store, KEYS).claim(POOL, uuid7(1), 4, agent_id="agent-1", claim_id=uuid7(8))


async def yield_claim(store: MemoryStore) -> None:
    await Engines(store, KEYS).yield_claim(POOL, uuid7(1), uuid7(7))


async def heed_a_revoke(store: MemoryStore) -> None:
    entry = await store.get(KEYS.grant(POOL, uuid7(1)))
    assert entry is not None
    grant = records.decode_grant(uuid7(1), entry.value)
    assert await heed(store, grant, entry, timedelta(seconds=9))


async def take_what_a_newer_node_asks(store: MemoryStore) -> None:
    """The ticket comes with the command of a newer node, and waits here."""
    entry = await store.get(KEYS.ticket(POOL, uuid7(1)))
    assert entry is not None
    await store.commit(
        [
            Put(KEYS.grant(POOL, uuid7(2)), records.encode_grant(a_grant(2)), LEASE),
            Put(KEYS.ticket(POOL, uuid7(1)), b"", LEASE),
        ]
    )
    asked = peer_service_pb2.PeerCommand(
        acquire=peer_service_pb2.AcquireCommand(
            grant_id=uuid7(1),
            may_wait=True,
            ticket=state_pb2.TicketRecord.FromString(entry.value),
        )
    )
    mirror = PoolMirror(KEYS, POOL)
    mirror.reset(await store.list(KEYS.seats(POOL)))
    mirror.state.remove_ticket(uuid7(1))
    mirror.state.spec = PoolSpec(POOL, 1)
    command = wire.decode_command(asked)
    # Forwarded once more, as it may be, before it is decided.
    command = wire.decode_command(wire.encode_command(command))
    decision = decide(mirror.state, [command], NOW, Limits())
    assert len(decision.tickets) == 1
    await store.commit(writes_of(KEYS, POOL, decision, 5, has_guard=False))


async def move_a_ticket(store: MemoryStore) -> None:
    grant, second = a_grant(8), a_ticket(2, order=99, session=SESSION)
    await store.commit(
        [
            Put(KEYS.guard(POOL), records.encode_guard(Guard(1, 99))),
            Put(KEYS.grant(POOL, uuid7(8)), records.encode_grant(grant), LEASE),
            Put(KEYS.ticket(POOL, uuid7(2)), records.encode_ticket(second), LEASE),
        ]
    )
    await decide_once(store, MoveTicket(uuid7(1), SESSION, To.LAST, "why", uuid7(3)))


async def close_a_session(store: MemoryStore) -> None:
    sessions = Sessions(store, KEYS, FakeClock(), default_ttl=timedelta(seconds=10))
    credentials = seat_service_pb2.SessionCredentials(session_id=SESSION, secret=b"x" * 16)
    entry = await store.get(KEYS.opened(SESSION))
    assert entry is not None
    await store.commit([Put(KEYS.session(SESSION), entry.value, LEASE)])
    await sessions.close(await sessions.find(credentials))


async def register_an_agent(store: MemoryStore) -> None:
    session = Session(SESSION, LEASE, "a", "p", timedelta(seconds=9), b"", "", NOW)
    info = build_service_pb2.AgentInfo(agent_id="agent-1", address="elsewhere:1")
    await Engines(store, KEYS).register(session, info)


async def drain_an_agent(store: MemoryStore) -> None:
    await Engines(store, KEYS).drain("agent-1")


async def publish(store: MemoryStore) -> None:
    grant = a_grant(2, fence=9, session=SESSION)
    value = records.with_claim(records.encode_grant(grant), "agent-1", uuid7(7))
    await store.commit([Put(KEYS.grant(POOL, uuid7(2)), value, LEASE)])
    manifest = build_pb2.EngineManifest(
        key="k", agent_id="agent-1", pool=POOL, grant_id=uuid7(2), fence=9
    )
    signed = build_pb2.SignedManifest(manifest=manifest.SerializeToString())
    await Engines(store, KEYS).publish(manifest, signed, uuid7(7))


def _sha256() -> bytes:
    import hashlib

    return hashlib.sha256(b"x" * 16).digest()


A_GRANT = records.grant_record(a_grant(1, fence=4, session=SESSION))
A_GRANT.agent_id, A_GRANT.claim_id = "gone", uuid7(7)
A_GRANT.attributes.SetInParent()
A_STAY = state_pb2.StayRecord(grant=A_GRANT)
A_TICKET = records.ticket_record(a_ticket(1, session=SESSION))
A_TICKET.attributes.SetInParent()
A_MARK = state_pb2.MarkRecord.FromString(
    records.encode_watermark(Watermark(LEASE, uuid7(3), spans=((uuid7(3), uuid7(3)),)))
)
A_SESSION = state_pb2.SessionRecord(
    secret_sha256=_sha256(), lease_id=LEASE, holder="a", ttl_millis=9000
)
A_SESSION.client.pid = 4711
CHANGES = [
    Change(
        "pools/<pool>",
        records.spec_message(PoolSpec(POOL, 2, "two")),
        update_a_pool,
        frozenset({"seats", "description"}),
    ),
    *(
        Change(
            "seats/<pool>/guard",
            state_pb2.GuardRecord(fence=4, ticket_number=5, decision_id=6),
            does,
            frozenset({"fence", "ticket_number", "decision_id", "facts"}),
        )
        for does in (take_a_seat, adopt)
    ),
    *(
        Change(
            "seats/<pool>/grants/<grant_id>", A_GRANT, does, frozenset({"agent_id", "claim_id"})
        )
        for does in (claim, yield_claim)
    ),
    Change(
        "seats/<pool>/grants/<grant_id>",
        A_GRANT,
        heed_a_revoke,
        frozenset({"heeds_within_millis"}),
    ),
    Change(
        "seats/<pool>/stays/<grant_id>",
        A_STAY,
        keep_a_lost_seat,
        frozenset({"since_millis", "until_millis", "may_return"}),
    ),
    Change(
        "seats/<pool>/queue/<grant_id>",
        A_TICKET,
        take_what_a_newer_node_asks,
        frozenset({"number", "queued_at_millis"}),
    ),
    Change(
        "seats/<pool>/queue/<grant_id>",
        A_TICKET,
        move_a_ticket,
        frozenset({"move", "format"}),
    ),
    Change(
        "seats/<pool>/marks/<session_id>",
        A_MARK,
        give_up,
        frozenset({"finished", "unrecorded", "denied", "spans"}),
    ),
    Change(
        "opened/<session_id>",
        A_SESSION,
        close_a_session,
        frozenset(
            {"lease_id", "holder", "project", "ttl_millis", "opened_at_millis", "client"}
        ),
    ),
    Change(
        "agents/<agent_id>",
        state_pb2.AgentRecord(
            agent=build_service_pb2.AgentInfo(agent_id="agent-1"), session_id=SESSION
        ),
        register_an_agent,
        frozenset({"agent"}),
    ),
    Change(
        "agents/<agent_id>",
        state_pb2.AgentRecord(
            agent=build_service_pb2.AgentInfo(agent_id="agent-1"), session_id=SESSION
        ),
        drain_an_agent,
        frozenset({"drain"}),
    ),
    Change(
        "engines/<key>",
        state_pb2.EngineRecord(
            manifest=build_pb2.SignedManifest(
                manifest=build_pb2.EngineManifest(pool="q", fence=3).SerializeToString()
            ),
            fences={"r": 2},
        ),
        publish,
        frozenset({"manifest", "fences"}),
    ),
    Change(
        "deployment",
        state_pb2.DeploymentRecord(deployment_id="d", cluster_id=1),
        adopt,
        frozenset(
            {
                "deployment_id",
                "cluster_id",
                "created_at_millis",
                "fence_base",
                "is_being_adopted",
            }
        ),
    ),
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda c: f"{c.kind} {c.does.__name__}")
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_a_newer_version_wrote_survives_each_change(
    change: Change, data: st.DataObject
) -> None:
    before = data.draw(of_a_newer_version(change.record))

    async def changed() -> bytes:
        store = MemoryStore(now=lambda: 1000.0)
        await store.grant_lease(LEASE, timedelta(hours=1))
        await store.commit([Put(change.key, before.SerializeToString(), LEASE)])
        first = await store.get(change.key)
        await change.does(store)
        entry = await store.get(change.key)
        assert entry is not None
        assert first is not None
        assert entry.mod_revision > first.mod_revision, "nothing was written"
        return entry.value

    after = type(before).FromString(asyncio.run(changed()))
    assert without(after, change.sets) == without(before, change.sets)
    assert not knows_all(after)


@settings(max_examples=50)
@given(data=st.data())
def test_a_stretch_of_ids_that_stays_keeps_what_it_had(data: st.DataObject) -> None:
    before = data.draw(of_a_newer_version(A_MARK))
    assert isinstance(before, state_pb2.MarkRecord)
    mark = records.decode_watermark(before.SerializeToString())
    mark.spans = (*mark.spans, (uuid7(900_000), uuid7(900_000)))
    after = state_pb2.MarkRecord.FromString(records.encode_watermark(mark))
    assert after.spans[0].SerializeToString() == before.spans[0].SerializeToString()
    assert len(after.spans) == 2


@settings(max_examples=50)
@given(data=st.data())
def test_what_nodes_pass_to_each_other_keeps_it_as_well(data: st.DataObject) -> None:
    grant, ticket = (data.draw(of_a_newer_version(each)) for each in (A_GRANT, A_TICKET))
    assert isinstance(grant, state_pb2.GrantRecord)
    assert isinstance(ticket, state_pb2.TicketRecord)
    for outcome in (
        peer_service_pb2.PeerOutcome(granted=grant),
        peer_service_pb2.PeerOutcome(queued=ticket),
    ):
        read = wire.decode_outcome(uuid7(1), outcome)
        assert isinstance(read, Granted | Queued)
        written = wire.encode_outcome(read)
        assert written.SerializeToString(deterministic=True) == outcome.SerializeToString(
            deterministic=True
        )


@settings(max_examples=50)
@given(data=st.data())
def test_who_asks_an_older_node_for_a_pool_sees_all_of_it(data: st.DataObject) -> None:
    """So that a newer client that changes what it has read writes back what it cannot see here."""
    before = data.draw(of_a_newer_version(records.spec_message(PoolSpec(POOL, 2, "two"))))
    shown = records.spec_message(records.decode_spec(before.SerializeToString()))
    assert shown.SerializeToString() == before.SerializeToString()


def test_a_reason_that_a_newer_node_wrote_is_an_unknown_outcome() -> None:
    newer = state_pb2.MarkRecord(lease_id=1)
    newer.denied.add(grant_id=uuid7(1), message="why").MergeFromString(
        b"\x10\x63"
    )  # reason: 99
    (denied,) = records.decode_watermark(newer.SerializeToString()).denied
    assert denied.reason.name == "UNAVAILABLE"


def test_a_record_of_this_version_is_not_kept_twice() -> None:
    assert records.decode_grant(uuid7(1), A_GRANT.SerializeToString()).kept == b""
    assert records.decode_ticket(uuid7(1), A_TICKET.SerializeToString()).kept == b""
    assert records.decode_guard(records.encode_guard(Guard(1, 2), 3))[0].kept == b""
    assert records.decode_watermark(A_MARK.SerializeToString()).kept == b""
    assert kept(A_SESSION) == b""


# Nothing is forgotten -------------------------------------------------------------------------


def test_every_kind_of_record_is_changed_here_or_written_by_one_owner() -> None:
    changed = {change.kind for change in CHANGES}
    assert changed | OTHERS_ALONE.keys() == KINDS.keys()
    assert not changed & OTHERS_ALONE.keys()


def test_every_key_is_of_a_kind() -> None:
    keys = Keys("some/prefix")
    found = set()
    # Of the class: on Python 3.11.2 the members of an object with slots cannot be asked for.
    for name, _ in inspect.getmembers(Keys, inspect.isfunction):
        if name.startswith("_") or name == "kind":
            continue
        method = getattr(keys, name)
        names = inspect.signature(method).parameters
        key = method(*(["x"] * len(names)))
        if not key.endswith("/"):
            kind = keys.kind(key)
            assert kind is not None, name
            found.add(kind)
    assert found == KINDS.keys()
    assert keys.kind("some/prefix/pools/a/b") is None


def _stored() -> set[Any]:
    return {kind.DESCRIPTOR for kind in KINDS.values() if kind is not None}


def test_every_record_of_the_contract_has_a_kind_and_a_format() -> None:
    declared = state_pb2.DESCRIPTOR.message_types_by_name
    within = {
        "ReclaimRecord",
        "RevokeRecord",
        "AdvisoryRecord",
        "HoldBackRecord",
    }  # parts of the guard's
    within |= {"BorrowRecord"}  # and of a grant's
    stored = {
        each
        for name, each in declared.items()
        if name.endswith("Record") and name not in within
    }
    assert stored | {pool_service_pb2.PoolSpec.DESCRIPTOR} == _stored()
    for record in _stored():
        field = record.fields_by_name["format"]
        assert (field.number, field.type) == (15, FieldDescriptor.TYPE_INT32), record.name
    assert FORMAT == 1


def _enums(descriptor: Any, above: tuple[str, ...] = ()) -> Iterator[str]:
    for field in descriptor.fields:
        if field.enum_type is not None:
            yield f"{descriptor.name}.{field.name}"
        elif field.message_type is not None and field.message_type.full_name not in above:
            yield from _enums(field.message_type, (*above, descriptor.full_name))


def test_every_enum_in_a_record_is_known_here() -> None:
    """A value of tomorrow reads as something harmless: see the test of reasons above.

    A phase of a build is shown to people only, by its number where it has no name here.
    """
    found = {name for record in _stored() for name in _enums(record)}
    # The reason of a lost grant: what is not a reclaim is an end by force. A lot whose state is not
    # known has no seats. A window whose state is not known keeps none. A cause that is not known counts
    # as an administrator's.
    lots = {"Lot.kind", "Lot.state", "LotPrice.per", "LotSeats.kind", "ReservedWindow.state"}
    # Seats that are kept for a cause that is not known count as lost.
    causes = {"ReclaimRecord.cause", "StayRecord.cause"}
    assert found == {"Denied.reason", "Lost.reason", "RunningBuild.phase"} | lots | causes


def test_changes_begin_with_the_records_of_their_kind() -> None:
    for change in CHANGES:
        assert type(change.record) is KINDS[change.kind]
        assert KEYS.kind(change.key) == change.kind
        assert change.sets <= set(change.record.DESCRIPTOR.fields_by_name)
