"""The view of a pool: updates come late, twice and in any order, and the view ends up right."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.decide.test_decide_properties import check_indexes
from tests.unit.kit import KEYS, NOW, POOL, a_grant, a_ticket, uuid7

from seatkeeper.server.domain import Guard, Watermark
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.sessions.sessions import lease_id_of
from seatkeeper.server.store import (
    Change,
    Delete,
    Entry,
    Listing,
    MemoryStore,
    Put,
    WatchBatch,
    Write,
    records,
)

SESSIONS = ("anna", "bert")


def guard_put(fence: int = 1) -> Put:
    return Put(KEYS.guard(POOL), records.encode_guard(Guard(fence, 0)))


def grant_put(number: int, session: str = "anna", seats: int = 1) -> Put:
    grant = a_grant(number, session=session, seats=seats)
    return Put(KEYS.grant(POOL, grant.grant_id), records.encode_grant(grant))


def ticket_put(number: int, session: str = "anna", order: int = 1) -> Put:
    ticket = a_ticket(number, session=session, order=order)
    return Put(KEYS.ticket(POOL, ticket.grant_id), records.encode_ticket(ticket))


def mark_put(session: str, finished: int, *unrecorded: int) -> Put:
    mark = Watermark(lease_id_of(session), uuid7(finished), [uuid7(n) for n in unrecorded])
    return Put(KEYS.mark(POOL, session), records.encode_watermark(mark))


def grant_gone(number: int) -> Delete:
    return Delete(KEYS.grant(POOL, uuid7(number)))


def ticket_gone(number: int) -> Delete:
    return Delete(KEYS.ticket(POOL, uuid7(number)))


def mark_gone(session: str) -> Delete:
    return Delete(KEYS.mark(POOL, session))


def reported(revision: int, *writes: Write) -> WatchBatch:
    """What the watch delivers of a transaction."""
    changes = tuple(
        Change(
            write.key,
            Entry(write.key, write.value, revision) if isinstance(write, Put) else None,
            revision,
        )
        for write in writes
    )
    return WatchBatch(changes, revision)


def listed(revision: int, *entries: tuple[int, Put]) -> Listing:
    """A listing of puts, each with the revision that made it."""
    found = [Entry(put.key, put.value, at) for at, put in entries]
    return Listing(tuple(sorted(found, key=lambda entry: entry.key)), revision)


@pytest.fixture
def mirror() -> PoolMirror:
    """A view of a pool that was empty at revision 1."""
    mirror = PoolMirror(KEYS, POOL)
    mirror.reset(Listing((), 1))
    return mirror


def test_an_own_commit_is_seen_at_once_and_its_echo_changes_nothing(mirror: PoolMirror) -> None:
    writes = [guard_put(3), grant_put(1), ticket_put(2)]
    assert mirror.committed(writes, 2) == {uuid7(1), uuid7(2)}
    assert mirror.guard_revision == 2
    assert mirror.state.guard.fence == 3
    assert (mirror.state.held, list(mirror.state.tickets)) == (1, [uuid7(2)])

    assert mirror.apply(reported(2, *writes)) == set()


def test_the_echo_of_an_older_commit_does_not_bring_back_what_is_gone(
    mirror: PoolMirror,
) -> None:
    mirror.committed([grant_put(1)], 2)
    mirror.committed([grant_gone(1)], 3)
    mirror.apply(reported(2, grant_put(1)))

    assert mirror.state.grants == {}


def test_an_own_commit_that_the_watch_has_overtaken_brings_nothing_back(
    mirror: PoolMirror,
) -> None:
    """We queued a ticket; another node served it and it was given back before we had our answer."""
    mine = [guard_put(), ticket_put(1)]
    mirror.apply(reported(2, *mine))
    mirror.apply(reported(3, guard_put(), grant_put(1), ticket_gone(1)))
    mirror.apply(reported(4, guard_put(), mark_put("anna", 1), grant_gone(1)))

    mirror.committed(mine, 2)

    assert mirror.state.tickets == {}
    assert mirror.state.grants == {}
    assert mirror.guard_revision == 4


def test_a_listing_that_the_watch_has_overtaken_brings_nothing_back(mirror: PoolMirror) -> None:
    mirror.apply(reported(2, ticket_put(1)))
    late = listed(2, (2, ticket_put(1)))
    mirror.apply(reported(3, ticket_gone(1)))

    mirror.reset(late)

    assert mirror.state.tickets == {}


def test_a_watch_that_a_listing_has_overtaken_brings_nothing_back(mirror: PoolMirror) -> None:
    """Served a second time, its seat would have no holder."""
    mirror.reset(listed(9, (8, guard_put(5))))
    mirror.apply(reported(3, ticket_put(1)))

    assert mirror.state.tickets == {}
    assert mirror.guard_revision == 8


def test_a_listing_takes_away_what_it_does_not_have(mirror: PoolMirror) -> None:
    mirror.apply(reported(2, guard_put(), grant_put(1), ticket_put(2), mark_put("anna", 1)))
    touched = mirror.reset(listed(7, (2, guard_put()), (5, grant_put(3))))

    assert touched == {uuid7(1), uuid7(2), uuid7(3)}
    assert list(mirror.state.grants) == [uuid7(3)]
    assert mirror.state.tickets == {}
    assert [grant.grant_id for grant in mirror.ended] == [uuid7(1)]


def test_a_grant_whose_seats_are_taken_over_ends_no_hold(mirror: PoolMirror) -> None:
    mirror.apply(reported(2, guard_put(), grant_put(1)))
    (there,) = mirror.state.grants.values()
    moved = replace(there, grant_id=uuid7(2), fence=9, continues=there.fence, taken_from=NOW)
    moved_put = Put(KEYS.grant(POOL, uuid7(2)), records.encode_grant(moved))
    mirror.committed([moved_put, Delete(KEYS.grant(POOL, uuid7(1)))], 3)
    assert [*mirror.state.grants] == [uuid7(2)]
    assert mirror.ended == []
    mirror.committed([Delete(KEYS.grant(POOL, uuid7(2)))], 4)
    assert [grant.grant_id for grant in mirror.ended] == [uuid7(2)]


def test_a_listing_from_before_an_own_commit_takes_nothing_away(mirror: PoolMirror) -> None:
    mirror.committed([guard_put(), grant_put(1)], 5)
    mirror.reset(Listing((), 4))

    assert list(mirror.state.grants) == [uuid7(1)]
    assert mirror.guard_revision == 5


def test_a_commit_without_writes_hides_nothing_of_its_revision(mirror: PoolMirror) -> None:
    """It is a read, and says at which revision it read."""
    mirror.committed([grant_put(1)], 2)
    mirror.committed([], 3, is_whole=True)
    mirror.apply(reported(3, grant_gone(1)))
    assert mirror.state.grants == {}


def test_what_one_decision_gives_and_ends_has_ended(mirror: PoolMirror) -> None:
    """A request that was sent again is answered with the grant that the same decision ends."""
    mirror.reset(Listing((), 1))
    mirror.committed([grant_put(1)], 3)
    mirror.released("anna", uuid7(1), 3)
    assert mirror.state.grants == {}
    mirror.committed([grant_put(1)], 3)
    assert mirror.state.grants == {}


@pytest.mark.parametrize("is_listed", [True, False], ids=["listed", "watched"])
def test_what_was_given_and_ended_at_one_revision_is_gone_by_whatever_shows_it(
    mirror: PoolMirror, is_listed: bool
) -> None:
    mirror.reset(Listing((), 1))
    mirror.committed([grant_put(1)], 3)
    if is_listed:
        mirror.reset(Listing((Entry(KEYS.guard(POOL), guard_put().value, 3),), 3))
    else:
        mirror.apply(reported(3, guard_put(), grant_gone(1)))
    assert mirror.state.grants == {}
    assert mirror.expired == []


def test_a_claim_replaces_the_grant_and_counts_its_seats_once(mirror: PoolMirror) -> None:
    mirror.apply(reported(2, grant_put(1, seats=2)))
    mirror.apply(reported(3, grant_put(1, seats=2)))

    assert mirror.state.held == 2
    assert mirror.ended == []


def test_ids_that_ended_are_completed_and_others_are_not(mirror: PoolMirror) -> None:
    mirror.apply(reported(2, grant_put(1), grant_put(3), ticket_put(4)))
    mirror.apply(reported(3, mark_put("anna", 3), grant_gone(3)))
    mirror.apply(reported(4, mark_put("anna", 5, 5)))

    finished = mirror.state.completed
    assert finished.contains("anna", uuid7(3))
    assert finished.contains("anna", uuid7(5))
    assert not finished.contains("anna", uuid7(1))
    assert not finished.contains("anna", uuid7(2)), "it may have been overtaken"
    assert not finished.contains("anna", uuid7(4))
    assert not finished.contains("anna", uuid7(6))
    assert not finished.contains("bert", uuid7(3))


def test_a_ticket_that_was_served_is_not_completed(mirror: PoolMirror) -> None:
    mirror.apply(reported(2, ticket_put(2), mark_put("anna", 1)))
    mirror.apply(reported(3, grant_put(2), ticket_gone(2)))

    assert not mirror.state.completed.contains("anna", uuid7(2))


def test_a_ticket_that_was_served_unseen_is_not_completed(mirror: PoolMirror) -> None:
    """Else its release would leave no mark, and a late duplicate would take a second seat."""
    mirror.apply(reported(2, ticket_put(2), mark_put("anna", 1)))
    mirror.reset(listed(9, (2, mark_put("anna", 1)), (7, grant_put(2))))

    assert not mirror.state.completed.contains("anna", uuid7(2))


def test_after_a_listing_all_ids_up_to_the_mark_count_as_finished(mirror: PoolMirror) -> None:
    mirror.reset(listed(5, (3, mark_put("anna", 4))))

    assert mirror.state.completed.contains("anna", uuid7(2))
    assert not mirror.state.completed.contains("anna", uuid7(5))


def test_with_its_mark_a_session_is_forgotten(mirror: PoolMirror) -> None:
    mirror.apply(reported(2, mark_put("anna", 4)))
    mirror.state.dead_sessions.add("anna")
    mirror.apply(reported(3, mark_gone("anna")))

    assert not mirror.state.completed.contains("anna", uuid7(4))
    assert mirror.state.dead_sessions == set()


# Any interleaving ------------------------------------------------------------------------

NUMBERS = st.integers(1, 4)
WRITES: st.SearchStrategy[Write] = st.one_of(
    st.builds(grant_put, NUMBERS, st.sampled_from(SESSIONS), st.integers(1, 3)),
    st.builds(grant_gone, NUMBERS),
    st.builds(ticket_put, NUMBERS, st.sampled_from(SESSIONS), st.integers(1, 4)),
    st.builds(ticket_gone, NUMBERS),
    st.builds(mark_put, st.sampled_from(SESSIONS), NUMBERS),
    st.builds(mark_gone, st.sampled_from(SESSIONS)),
)


@dataclass(frozen=True)
class Transaction:
    """A change of the pool. ``own``: made by the node whose view is tested."""

    writes: tuple[Write, ...]
    own: bool
    is_listed_after: bool
    is_read_after: bool
    """The node itself commits nothing, and learns the revision."""
    is_given_again: bool
    """Another node answers with a grant that the transaction ends."""


TRANSACTIONS = st.builds(
    Transaction,
    st.lists(WRITES, min_size=1, max_size=4, unique_by=lambda write: write.key).map(
        lambda writes: (guard_put(), *writes)
    ),
    st.booleans(),
    *[st.sampled_from([False, False, True])] * 3,
)


@dataclass
class Update:
    """What reaches the view: three queues, each in order, delivered in any interleaving."""

    watch: deque[WatchBatch] = field(default_factory=deque)
    own: deque[tuple[tuple[Write, ...], int, bool]] = field(default_factory=deque)
    """Own commits, and what other nodes answer of theirs: writes, revision, whether they are all."""
    listings: deque[Listing] = field(default_factory=deque)
    final: Listing = field(default_factory=lambda: Listing((), 1))


async def happened(transactions: list[Transaction]) -> Update:
    store = MemoryStore()
    update = Update()
    await store.commit([guard_put()])
    update.listings.append(await store.list(KEYS.seats(POOL)))
    start = update.listings[0].revision
    for transaction in transactions:
        before = {entry.key: entry for entry in (await store.list(KEYS.seats(POOL))).entries}
        committed = await store.commit(transaction.writes)
        if transaction.own:
            update.own.append((transaction.writes, committed.revision, True))
        elif transaction.is_given_again:
            ended = [w.key for w in transaction.writes if isinstance(w, Delete)]
            given = tuple(
                Put(k, before[k].value) for k in ended if k in before and "/marks/" not in k
            )
            update.own.append((given, committed.revision, False))
        if transaction.is_read_after:
            update.own.append(((), committed.revision, True))
        if transaction.is_listed_after:
            update.listings.append(await store.list(KEYS.seats(POOL)))
    update.final = await store.list(KEYS.seats(POOL))
    async with aclosing(store.watch(KEYS.seats(POOL), from_revision=start + 1)) as watch:
        for _ in range(len(transactions) + 1):
            update.watch.append(await anext(watch))
    return update


def delivered(mirror: PoolMirror, update: Update, order: list[int]) -> None:
    """Deliver all of it. Listings are brought in record by record, also several side by side."""
    mirror.reset(update.listings.popleft())
    readings: deque[Iterator[set[str]]] = deque()

    def brought_in(writes: tuple[Write, ...], revision: int, is_whole: bool) -> set[str]:
        return mirror.committed(writes, revision, is_whole=is_whole)

    def begin_to_read() -> None:
        if update.listings:
            readings.append(mirror.reset_in_steps(update.listings.popleft(), step=1))

    def read_on(which: int) -> None:
        if readings and next(readings[which], None) is None:
            del readings[which]

    steps: list[Callable[[], object]] = [
        lambda: update.watch and mirror.apply(update.watch.popleft()),
        lambda: update.own and brought_in(*update.own.popleft()),
        begin_to_read,
        lambda: read_on(0),
        lambda: read_on(-1),
    ]
    for step in order:
        steps[step]()
        check_indexes(mirror.state)
    while update.watch or update.own or update.listings or readings:
        for deliver in steps:
            deliver()


ORDERS = st.lists(st.integers(0, 4), max_size=60)


@settings(max_examples=400, deadline=None)
@given(st.lists(TRANSACTIONS, max_size=12), ORDERS)
def test_updates_in_any_order_leave_the_view_equal_to_the_store(
    transactions: list[Transaction], order: list[int]
) -> None:
    update = asyncio.run(happened(transactions))
    late, fresh = PoolMirror(KEYS, POOL), PoolMirror(KEYS, POOL)
    fresh.reset(update.final)

    delivered(late, update, order)

    assert late.state.grants == fresh.state.grants
    assert late.state.tickets == fresh.state.tickets
    assert late.guard_revision == fresh.guard_revision
    assert late.state.guard == fresh.state.guard
    check_indexes(late.state)


@settings(max_examples=400, deadline=None)
@given(st.lists(TRANSACTIONS, max_size=12), ORDERS)
def test_the_view_never_falls_behind_a_revision_that_it_has_seen_whole(
    transactions: list[Transaction], order: list[int]
) -> None:
    """A ticket that comes back for a moment can be served in that moment."""
    update = asyncio.run(happened(transactions))
    history = [batch for batch in update.watch if batch.changes]
    seen_whole = 0

    class Watchful(PoolMirror):
        def check(self) -> None:
            gone = _last_changes(history, seen_whole)
            for key, change in gone.items():
                if change.entry is None:
                    later = [
                        c
                        for b in history
                        if b.revision > seen_whole
                        for c in b.changes
                        if c.key == key and c.entry is not None
                    ]
                    name = key.rpartition("/")[2]
                    back = "/grants/" in key and name in self.state.grants
                    back = back or ("/queue/" in key and name in self.state.tickets)
                    assert not back or later, f"{key} came back"

        def apply(self, batch: WatchBatch) -> set[str]:
            nonlocal seen_whole
            touched = super().apply(batch)
            seen_whole = max(seen_whole, batch.revision)
            self.check()
            return touched

        def reset_in_steps(self, listing: Listing, *, step: int) -> Iterator[set[str]]:
            nonlocal seen_whole
            for touched in super().reset_in_steps(listing, step=step):
                self.check()
                yield touched
            seen_whole = max(seen_whole, listing.revision)
            self.check()

        def committed(self, *arguments: Any, **options: Any) -> set[str]:
            touched = super().committed(*arguments, **options)
            self.check()
            return touched

    delivered(Watchful(KEYS, POOL), update, order)


@settings(max_examples=400, deadline=None)
@given(st.lists(TRANSACTIONS, max_size=12), ORDERS)
def test_a_listing_half_brought_in_misses_nothing_written_up_to_the_guard_s_version(
    transactions: list[Transaction], order: list[int]
) -> None:
    """A decision commits if no other was made since that version: it must know all before."""
    of_others = [replace(each, own=False) for each in transactions]
    update = asyncio.run(happened(of_others))
    history = [batch for batch in update.watch if batch.changes]

    class Watchful(PoolMirror):
        def check(self) -> None:
            known = {
                *(KEYS.grant(POOL, each) for each in self.state.grants),
                *(KEYS.ticket(POOL, each) for each in self.state.tickets),
            }
            last = _last_changes(history, upto=sys.maxsize)
            for key, change in _last_changes(history, upto=self.guard_revision).items():
                is_seat = "/grants/" in key or "/queue/" in key
                if is_seat and change.revision == last[key].revision:
                    assert (key in known) == (change.entry is not None), f"{key} is missed"

        def apply(self, batch: WatchBatch) -> set[str]:
            touched = super().apply(batch)
            self.check()
            return touched

        def reset_in_steps(self, listing: Listing, *, step: int) -> Iterator[set[str]]:
            for touched in super().reset_in_steps(listing, step=step):
                self.check()
                yield touched

    delivered(Watchful(KEYS, POOL), update, order)


def _last_changes(history: list[WatchBatch], upto: int) -> dict[str, Change]:
    return {
        change.key: change
        for batch in history
        if batch.revision <= upto
        for change in batch.changes
    }
