"""A pool with a record of a newer format, or a damaged one, is not served, and all else is."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
from tests.unit.kit import (
    KEYS,
    POOL,
    Ear,
    a_grant,
    acquire,
    create_pool,
    eventually,
    release,
    uuid7,
)
from tests.unit.loops import Loops, granted, received, refusals

from seatkeeper.core.serving.log_limit import LogLimit
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.server.domain import Denied, PoolSpec, Refusal
from seatkeeper.server.events import log as events
from seatkeeper.server.sessions.sessions import lease_id_of
from seatkeeper.server.store import Delete, Put, Write, records
from seatkeeper.server.store.formats import COUNT_FORMAT, FORMAT, STAY_FORMAT
from seatkeeper.v1 import pool_service_pb2

NEWER = COUNT_FORMAT + 1
GRANT = KEYS.grant(POOL, uuid7(99))
RECORDS: dict[str, Write] = {
    "specification": Put(
        KEYS.pool(POOL),
        pool_service_pb2.PoolSpec(name=POOL, seats=5, format=NEWER).SerializeToString(),
    ),
    "guard": Put(
        KEYS.guard(POOL), state_pb2.GuardRecord(fence=9, format=NEWER).SerializeToString()
    ),
    "grant": Put(GRANT, state_pb2.GrantRecord(fence=9, format=NEWER).SerializeToString()),
    "ticket": Put(
        KEYS.ticket(POOL, uuid7(99)),
        state_pb2.TicketRecord(number=9, format=NEWER).SerializeToString(),
    ),
    "mark": Put(
        KEYS.mark(POOL, "bert"), state_pb2.MarkRecord(format=NEWER).SerializeToString()
    ),
}
GARBAGE = b"\xff\xff\xff\x01no record"
DAMAGED: dict[str, Write] = {
    **{
        f"damaged {what}": Put(put.key, GARBAGE)
        for what, put in RECORDS.items()
        if isinstance(put, Put)
    },
    "empty specification": Put(KEYS.pool(POOL), b""),
}
UNREADABLE = RECORDS | DAMAGED


@pytest.fixture(autouse=True)
def _fresh_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_unreadable", LogLimit())


@pytest.fixture
async def loops() -> AsyncIterator[Loops]:
    loops = Loops()
    yield loops
    await loops.close()


def newer_events(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [
        r
        for r in caplog.records
        if r.getMessage() in {"record_format_unsupported", "record_damaged"}
    ]


@pytest.mark.parametrize("what", UNREADABLE)
async def test_nothing_is_decided_on_it_and_commands_are_reported_why(
    loops: Loops, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    await loops.pool(seats=2)
    node = await loops.node()
    first = node.submit(acquire(1))
    await received(first)
    waits = node.submit(acquire(2, "bert", seats=2))
    await eventually(lambda: waits.received)

    written = UNREADABLE[what]
    do = "upgrade" if what in RECORDS else "put back what was there, or remove the key"
    await loops.store.commit([written])
    await eventually(lambda: node.loop.unsupported)
    commits = len(node.store.commits)

    # The client that waits asks another node; its place stays.
    await received(waits)
    assert refusals(waits) == [Refusal.UNAVAILABLE]
    later = [node.submit(acquire(3, "cora")), node.submit(release(1), Ear())]
    for ear in later:
        await received(ear)
        (denied,) = ear.answers
        assert isinstance(denied, Denied)
        assert denied.reason is Refusal.UNAVAILABLE
        assert written.key in denied.message
        assert do in denied.message
        assert denied.retry_after is not None
    assert len(node.store.commits) == commits
    assert await loops.store.get(KEYS.ticket(POOL, uuid7(2))) is not None
    assert await loops.store.get(KEYS.grant(POOL, uuid7(1))) is not None

    (event,) = newer_events(caplog)
    assert event.levelno == logging.ERROR
    facts = event.__dict__
    assert do in facts["do"]
    if what in DAMAGED:
        assert (facts["key"], event.getMessage()) == (written.key, "record_damaged")
        return
    may_be_newer = {
        KEYS.pool(POOL): COUNT_FORMAT,
        KEYS.ticket(POOL, uuid7(99)): STAY_FORMAT,
        GRANT: COUNT_FORMAT,
    }
    known = may_be_newer.get(written.key, FORMAT)
    assert (facts["key"], facts["format"], facts["known"]) == (written.key, NEWER, known)


@pytest.mark.parametrize("what", UNREADABLE)
async def test_a_node_that_starts_on_it_refuses_from_the_first_command_on(
    loops: Loops, what: str
) -> None:
    await loops.pool(seats=2)
    await loops.store.commit([UNREADABLE[what]])
    node = await loops.node()
    ear = node.submit(acquire(1))
    await received(ear)
    assert refusals(ear) == [Refusal.UNAVAILABLE]
    assert node.store.commits == []


@pytest.mark.parametrize(
    "what", ["specification", "grant", "damaged specification", "damaged grant"]
)
async def test_the_pool_is_served_again_when_it_is_gone(loops: Loops, what: str) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    written = UNREADABLE[what]
    waits = node.submit(acquire(2, "bert"))
    await eventually(lambda: waits.received)
    await loops.store.commit([written])
    await received(waits)

    gone: Write = Delete(written.key)
    if what.endswith("specification"):
        gone = Put(written.key, records.encode_spec(PoolSpec(POOL, 2)))
    await loops.store.commit([gone])
    await eventually(lambda: node.loop.unsupported is None)
    if what.endswith("grant"):
        node.submit(release(1))
    again = node.submit(acquire(2, "bert"))
    await received(again)
    assert granted(again) == [uuid7(2)]


async def test_another_pool_of_the_same_node_goes_on(loops: Loops) -> None:
    await loops.pool(seats=1)
    await create_pool(loops.store, 1, "other")
    newer = state_pb2.GrantRecord(fence=1, format=NEWER).SerializeToString()
    await loops.store.commit([Put(KEYS.grant("other", uuid7(5)), newer)])
    node = await loops.node()
    ear = node.submit(acquire(1))
    await received(ear)
    assert granted(ear) == [uuid7(1)]
    assert node.catalogue.unsupported(POOL) is None


async def test_what_is_seen_while_it_is_decided_is_not_decided_on(loops: Loops) -> None:
    """A lease has ended, so it is decided again: meanwhile the watch has delivered a newer record."""
    await loops.pool(seats=2)
    node = await loops.node()
    ear = node.submit(acquire(1, "stranger"))
    await received(ear)
    assert refusals(ear) == [Refusal.SESSION_LOST]
    await loops.store.commit([RECORDS["guard"]])
    await eventually(lambda: node.loop.unsupported)
    with pytest.raises(Exception, match=f"format {NEWER}"):
        await node.loop._committer.commit([])


def test_a_grant_of_the_present_format_says_so_or_nothing() -> None:
    record = records.grant_record(a_grant(1))
    for number in (0, 1):
        record.format = number
        assert records.decode_grant(uuid7(1), record.SerializeToString()).fence == 1
    assert lease_id_of("anna") == record.lease_id
