"""What a ledger finds when it goes on, and what it makes of it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from tests.ledger.conftest import Opened
from tests.ledger.test_exactly_once import a_history, begun, caught_up, deployment, follower
from tests.ledger.written import reading, written
from tests.unit.kit import KEYS, NOW, POOL, a_grant, a_ticket, uuid7
from tests.unit.loops import Loops

from seatkeeper.ledger import following
from seatkeeper.ledger.accounts import Accounts, OpenRow
from seatkeeper.ledger.database import LedgerDatabase, NewHistory
from seatkeeper.ledger.following import LedgerFollower, LedgerRefused
from seatkeeper.ledger.rows import Page, Position, Standing
from seatkeeper.ledger.schema import gaps, histories
from seatkeeper.server.domain import Acquire, Denied, Grant, Guard, Instant, Refusal
from seatkeeper.server.events.facts import encode_facts
from seatkeeper.server.store import (
    Change,
    Entry,
    Listing,
    MemoryStore,
    Put,
    StoreStatus,
    records,
)

LATER = Instant(NOW + 60_000)
STOOD = Standing(1, 5, 5, b"", NOW)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """What is found does not depend on the database."""
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GATHER_SECONDS", "IDLE_SECONDS", "PENDING_MAX", "PAUSE_MIN", "PAUSE_MAX"):
        monkeypatch.setattr(following, name, 0)
    monkeypatch.setattr(following, "SERVICE_SECONDS", 0.01)


def causes(url: str) -> list[str]:
    with reading(url) as connection:
        return list(connection.execute(select(gaps.c.cause).order_by(gaps.c.id)).scalars())


# Which history it is --------------------------------------------------------------------------


async def test_what_changed_where_nothing_had_is_another_history(
    loops: Loops, url: str, opened: Opened
) -> None:
    """A restored store that has the last revision of ours, and others of ours after it."""
    service = await a_history(loops, "between")
    database = opened()
    for _ in range(3):
        await loops.store.commit([Put("another-prefix/x", b"")])
    await caught_up(follower(service, database), loops.store)
    taken = database.take_over("").standing
    assert taken is not None
    await loops.store.commit([Put(f"{KEYS.prefix}/x", b"")])
    await caught_up(follower(service, database), loops.store)
    taken = database.take_over("").standing
    assert taken is not None
    marked = taken.marked
    for _ in range(3):
        await loops.store.commit([Put("another-prefix/x", b"")])
    await caught_up(follower(service, database), loops.store)

    changes = await service.changes()
    cluster_id = (await loops.store.status()).cluster_id
    other = MemoryStore(cluster_id=cluster_id)
    for revision in range(1, marked + 1):
        at_once = [each for each in changes if each.revision == revision and each.entry]
        puts = [Put(each.key, each.entry.value) for each in at_once if each.entry]
        await other.commit(puts or [Put("another-prefix/x", b"")])
    for number in range(5):
        await other.commit([Put(f"{KEYS.prefix}/y{number}", b"")])
    loops.store = other
    await caught_up(follower(service, database), loops.store)
    assert causes(url) == ["restored"]


class Lagging(MemoryStore):
    """A member of it answers for its status that is behind."""

    async def status(self) -> StoreStatus:
        found = await super().status()
        return replace(found, revision=1)


async def test_a_member_that_lags_is_no_restore(loops: Loops, url: str, opened: Opened) -> None:
    loops.store = Lagging()
    service, database = await begun(loops, "lags", opened)
    await service.work()
    await caught_up(follower(service, database), loops.store)
    await caught_up(follower(service, database), loops.store)
    assert causes(url) == []


async def test_it_waits_for_a_service_and_notices_another(
    loops: Loops, url: str, opened: Opened
) -> None:
    database = opened()
    first = LedgerFollower(loops.store, database, loops.clock, keys=KEYS)
    working = asyncio.create_task(first.run())
    await asyncio.sleep(0.05)
    assert first.written == 0
    await loops.store.commit([deployment("ours")])
    await _until(lambda: first.written > 0, loops)
    done = await loops.store.commit([deployment("adopted")])
    await _until(lambda: first.written >= done.revision, loops)
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working
    with reading(url) as connection:
        found = connection.execute(select(histories).order_by(histories.c.number)).all()
    assert [row.deployment_id for row in found] == ["ours", "adopted"]
    assert causes(url) == ["another store"]


async def test_two_services_do_not_take_a_ledger_from_one_another_forever(
    loops: Loops, opened: Opened
) -> None:
    database = opened()
    await loops.store.commit([deployment("ours")])
    other = MemoryStore()
    await other.commit([deployment("theirs")])
    ours = LedgerFollower(loops.store, database, loops.clock, keys=KEYS)
    await caught_up(ours, loops.store)
    await caught_up(LedgerFollower(other, database, loops.clock, keys=KEYS), other)
    with pytest.raises(LedgerRefused, match="--ledger-name"):
        await ours.run()


class Full(LedgerDatabase):
    """A database that takes no rows."""

    def write(self, page: Page, epoch: int, begins: NewHistory | None = None) -> None:
        raise OperationalError("INSERT", {}, OSError("no space left"))


async def test_one_that_cannot_write_lets_another_try(loops: Loops, opened: Opened) -> None:
    await loops.store.commit([deployment("ours")])
    full = Full(opened()._engine)
    await asyncio.wait_for(
        LedgerFollower(loops.store, full, loops.clock, keys=KEYS).run(), timeout=20
    )


@pytest.mark.parametrize("key", ["seats/foo", "seats/p/q/\udcff", "seats/p/guard"])
async def test_a_key_of_another_program_stops_nothing(
    key: str, loops: Loops, url: str, opened: Opened
) -> None:
    service, database = await begun(loops, "keys", opened)
    await loops.store.commit([Put(f"{KEYS.prefix}/{key}", b"\xff\xff")])
    await service.work()
    await caught_up(follower(service, database), loops.store)
    assert written(url)[0].total() > 3


async def _until(condition: object, loops: Loops) -> None:
    assert callable(condition)
    for _ in range(2000):
        if condition():
            return
        loops.store.expire_due()
        await asyncio.sleep(0.005)
    raise AssertionError("it never was")


# Rows of what is found ------------------------------------------------------------------------


def put(key: str, value: bytes, revision: int = 6) -> Change:
    return Change(key, Entry(key, value, revision), revision)


def grant_entry(grant: Grant) -> Entry:
    return Entry(KEYS.grant(POOL, grant.grant_id), records.encode_grant(grant), 6)


def open_grant(grant: Grant) -> OpenRow:
    entry = grant_entry(grant)
    return OpenRow(Position(1, 2, 0), POOL, grant.grant_id, True, entry.value)


def test_seats_that_were_made_anew_under_their_id_are_others() -> None:
    """As kept seats are that their holder takes again, within a gap."""
    old = a_grant(1, fence=1)
    new = replace(old, fence=9, session_id="bert")
    accounts = Accounts(KEYS, STOOD, [open_grant(old)])
    accounts.find(Listing([grant_entry(new)], 9), 1, "compacted", LATER)
    page = accounts.page()
    (ending,) = page.grants_ended.values()
    assert (ending.reason, ending.after, ending.at) == ("GAP", NOW, LATER)
    (row,) = page.grants.values()
    assert (row.fence, row.asked.session_id) == (9, "bert")


def test_seats_that_a_restore_brought_back_do_not_count_twice() -> None:
    old = replace(a_grant(1), granted_at=Instant(NOW - 1_000_000))
    accounts = Accounts(KEYS, STOOD)  # it had ended, by all that is written
    accounts.find(Listing([grant_entry(old)], 4), 2, "restored", LATER)
    (row,) = accounts.page().grants.values()
    assert (row.granted_at, row.counts_from) == (old.granted_at, NOW)


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(days=1)])
def test_a_clock_that_is_ahead_makes_no_gap_that_ends_before_it_begins(
    ahead: timedelta,
) -> None:
    stood = replace(STOOD, at=Instant(NOW + ahead // timedelta(milliseconds=1)))
    accounts = Accounts(KEYS, stood, [open_grant(a_grant(1))])
    accounts.find(Listing([], 9), 1, "compacted", LATER)
    page = accounts.page()
    (gap,) = page.gaps
    assert gap.from_at <= gap.to_at == LATER
    (ending,) = page.grants_ended.values()
    assert ending.after is not None
    assert ending.after <= ending.at


def test_time_goes_on_where_nothing_happens() -> None:
    accounts = Accounts(KEYS, STOOD)
    accounts.passed(5, LATER)
    assert accounts.standing == replace(STOOD, at=LATER)


def test_who_names_the_request_of_another_is_a_row_and_ends_nothing() -> None:
    waits = a_ticket(1)
    key = KEYS.ticket(POOL, waits.grant_id)
    row = OpenRow(Position(1, 2, 0), POOL, waits.grant_id, False, records.encode_ticket(waits))
    accounts = Accounts(KEYS, STOOD, [row])
    command = Acquire(waits.grant_id, "bert", 7, waits.attribution, 1)
    denied = Denied(waits.grant_id, Refusal.NOT_YOURS, "not yours")
    facts = encode_facts(7, NOW, [], [(command, denied)])
    guard = put(KEYS.guard(POOL), records.encode_guard(Guard(9, 9), 7, facts))
    accounts.read(6, [guard], LATER, is_late=False)
    page = accounts.page()
    assert not page.waits_ended
    (refused,) = page.waits.values()
    assert refused.ended is not None
    assert refused.ended.reason == "NOT_YOURS"
    accounts.read(7, [Change(key, None, 7)], LATER, is_late=False)
    assert list(accounts.page().waits_ended) == [Position(1, 2, 0)]


def test_what_an_earlier_version_could_read_ends_when_it_is_deleted() -> None:
    row = OpenRow(Position(1, 2, 0), POOL, uuid7(1), True, b"\xff\xff")
    accounts = Accounts(KEYS, STOOD, [row])
    assert [gap.cause for gap in accounts.page().gaps] == ["unreadable"]
    accounts.read(6, [Change(KEYS.grant(POOL, uuid7(1)), None, 6)], LATER, is_late=False)
    (ending,) = accounts.page().grants_ended.values()
    assert ending.reason == "UNREADABLE"
