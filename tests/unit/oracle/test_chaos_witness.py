"""The witness sees every change once and in order, and dates none of them too late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from itertools import accumulate
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kit import KEYS, TIME_LIMIT, eventually

from seatkeeper.oracle import witness as witness_module
from seatkeeper.oracle.witness import RevisionTimes, Witness
from seatkeeper.server.store import (
    Change,
    Delete,
    MemoryStore,
    Put,
    StoreUnavailable,
    WatchBatch,
)

OURS = f"{KEYS.prefix}/"

Begin = Callable[[], Awaitable[Witness]]


class GatedStore(MemoryStore):
    """Watches begin when the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()

    async def watch(
        self, prefix: str, *, from_revision: int
    ) -> AsyncGenerator[WatchBatch, None]:
        await self.gate.wait()
        async with aclosing(super().watch(prefix, from_revision=from_revision)) as watch:
            async for batch in watch:
                yield batch


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness_module, "LOOK_SECONDS", 0.005)
    monkeypatch.setattr(witness_module, "RETRY_SECONDS", 0.005)


@pytest.fixture
async def store() -> AsyncIterator[GatedStore]:
    """A store that gives signs of life all the time."""
    store = GatedStore()
    store.start_expiry(timedelta(milliseconds=5))
    yield store
    await store.close()


@pytest.fixture
async def begin(store: GatedStore) -> AsyncIterator[Begin]:
    """Begin to watch."""
    witness = Witness(store, KEYS.prefix)

    async def begin() -> Witness:
        await witness.start()
        return witness

    yield begin
    await witness.stop()


async def write(store: GatedStore, *names: str) -> int:
    """Write these at one revision, and return it."""
    return (await store.commit([Put(OURS + name, b"") for name in names])).revision


async def caught_up(witness: Witness) -> None:
    async with asyncio.timeout(TIME_LIMIT):
        await witness.catch_up()


def has_looked(witness: Witness, times: int) -> bool:
    return len(witness.changed_at) >= times


def reported(changes: list[Change]) -> list[str]:
    """What became of which key, in order."""
    return [f"{'' if each.entry else '-'}{each.key.removeprefix(OURS)}" for each in changes]


async def test_it_begins_with_what_is_there_in_the_order_in_which_it_came(
    store: GatedStore, begin: Begin
) -> None:
    first = await write(store, "z")
    await write(store, "a", "b")
    await store.commit([Put("elsewhere/c", b"")])
    last = await write(store, "m")

    witness = await begin()
    assert reported(witness.changes) == ["z", "a", "b", "m"]
    assert [each.revision for each in witness.changes] == [first, first + 1, first + 1, last]
    assert witness.revision == last


async def test_it_collects_what_happens_and_nothing_of_others(
    store: GatedStore, begin: Begin
) -> None:
    await write(store, "a")
    witness = await begin()
    await write(store, "b", "c")
    await store.commit([Put("elsewhere/d", b"")])
    await store.commit([Put(f"{KEYS.prefix}2/e", b"")])
    await store.commit([Delete(OURS + "a"), Delete(OURS + "c")])
    await write(store, "a")

    await caught_up(witness)
    assert reported(witness.changes) == ["a", "b", "c", "-a", "-c", "a"]
    revisions = [each.revision for each in witness.changes]
    assert revisions == sorted(revisions)
    assert witness.lost == ""


async def test_to_catch_up_is_to_have_seen_all_that_has_happened_before(
    store: GatedStore, begin: Begin
) -> None:
    witness = await begin()
    for number in range(20):
        store.gate.clear()
        store.end_watches("a lost connection")
        revision = await write(store, str(number))
        catching_up = asyncio.create_task(caught_up(witness))
        await asyncio.wait({catching_up}, timeout=0.01)
        assert not catching_up.done()

        store.gate.set()
        await catching_up
        assert witness.revision >= revision
        assert reported(witness.changes)[-1] == str(number)


async def test_watches_that_end_lose_nothing_and_repeat_nothing(
    store: GatedStore, begin: Begin
) -> None:
    witness = await begin()
    for number in range(200):
        await write(store, str(number))
        if number % 7 == 0:
            store.end_watches("a lost connection")
        if number % 3 == 0:
            await asyncio.sleep(0.001)
    await caught_up(witness)
    assert reported(witness.changes) == [str(number) for number in range(200)]


async def test_a_store_that_does_not_answer_for_a_while_is_asked_again(
    store: GatedStore, begin: Begin
) -> None:
    witness = await begin()
    asked = 0

    async def refuse(call: str) -> None:
        nonlocal asked
        asked += 1
        if asked < 10:
            raise StoreUnavailable("no member answers")

    await write(store, "a")
    store.before_call = refuse
    await caught_up(witness)
    assert asked >= 10
    assert reported(witness.changes) == ["a"]


async def test_who_cannot_begin_says_so(store: GatedStore, begin: Begin) -> None:
    async def refuse(call: str) -> None:
        raise StoreUnavailable("no member answers")

    store.before_call = refuse
    with pytest.raises(StoreUnavailable):
        await begin()


async def test_to_catch_up_has_its_limit(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = MemoryStore()
    witness = Witness(silent, KEYS.prefix)
    await witness.start()
    await silent.commit([Put("elsewhere", b"")])  # and the watch gets no progress
    monkeypatch.setattr(witness_module, "CATCH_UP_SECONDS_MAX", 0.05)
    with pytest.raises(TimeoutError):
        await witness.catch_up()
    silent.expire_due()
    monkeypatch.setattr(witness_module, "CATCH_UP_SECONDS_MAX", TIME_LIMIT)
    await witness.catch_up()
    await witness.stop()
    await silent.close()


async def test_history_that_was_thrown_away_before_it_was_seen_is_lost_and_said_to_be(
    store: GatedStore, begin: Begin
) -> None:
    witness = await begin()
    seen = await write(store, "a")
    await caught_up(witness)

    store.gate.clear()
    store.end_watches("a lost connection")
    for name in ("b", "c", "d"):
        last = await write(store, name)
    store.compact(last)
    store.gate.set()

    await eventually(lambda: witness.lost)
    assert witness.lost == f"etcd has thrown away what came after revision {seen}"
    assert reported(witness.changes) == ["a"]
    # Nothing is waited for that cannot come.
    await caught_up(witness)


async def test_history_that_was_thrown_away_after_it_was_seen_is_no_loss(
    store: GatedStore, begin: Begin
) -> None:
    witness = await begin()
    last = await write(store, "a")
    await caught_up(witness)
    store.compact(last)
    store.end_watches("a lost connection")
    await write(store, "b")
    await caught_up(witness)
    assert reported(witness.changes) == ["a", "b"]
    assert witness.lost == ""


async def test_after_it_stops_it_sees_no_more(store: GatedStore, begin: Begin) -> None:
    witness = await begin()
    await write(store, "a")
    await caught_up(witness)
    await witness.stop()
    await witness.stop()
    await write(store, "b")
    store.expire_due()
    await asyncio.sleep(0)
    assert reported(witness.changes) == ["a"]


async def test_each_change_is_dated_before_it_came_and_after_what_was_seen_before(
    store: GatedStore, begin: Begin
) -> None:
    witness = await begin()
    previous = time.monotonic()
    for number in range(5):
        # A look that began after `previous` has seen that this has not happened yet.
        enough = len(witness.changed_at) + 2
        await eventually(partial(has_looked, witness, enough))
        revision = await write(store, str(number))
        came = time.monotonic()
        assert previous <= witness.changed_at[revision] <= came
        previous = came


async def test_what_happens_while_the_first_answer_is_on_its_way_is_not_dated_after_it(
    store: GatedStore, begin: Begin
) -> None:
    came: dict[int, float] = {}

    async def write_meanwhile(call: str) -> None:
        if call == "list" and not came:
            came[0] = 0.0
            came[await write(store, "a")] = time.monotonic()

    store.after_call = write_meanwhile
    witness = await begin()
    await caught_up(witness)
    (change,) = witness.changes
    assert witness.changed_at[change.revision] <= came[change.revision]


SMALL = st.integers(0, 3)


@given(looks=st.lists(st.tuples(SMALL, SMALL), max_size=20), after=SMALL)
def test_no_revision_is_dated_after_it_came_about(
    looks: list[tuple[int, int]], after: int
) -> None:
    """Each look: how many revisions come before it is asked, and before it is answered."""
    times = RevisionTimes()
    came: dict[int, float] = {}
    asked: list[tuple[float, int]] = []
    answered: list[tuple[float, int]] = []
    now, revision = 1.0, 1

    def happen(count: int) -> None:
        nonlocal now, revision
        for _ in range(count):
            now, revision = now + 1, revision + 1
            came[revision] = now

    for before, meanwhile in looks:
        happen(before)
        now += 1
        asked.append((now, revision + meanwhile))
        happen(meanwhile)
        now += 1
        answered.append((now, revision))
        times.note(*asked[-1], now)
    happen(after)

    for number, at in came.items():
        assert times[number] <= at
        # Nor earlier than can be known: at the last look that had not seen it yet.
        assert times[number] == max((t for t, seen in asked if seen < number), default=0.0)
        # And it had come about when the first look that has seen it was answered, if one has.
        seen_at = min((t for t, seen in answered if seen >= number), default=inf)
        assert at <= times.by(number) == seen_at
    assert list(times) == list(accumulate((seen for _, seen in asked), max))


def test_an_answer_that_is_older_than_one_before_dates_nothing() -> None:
    times = RevisionTimes()
    times.note(1.0, 10)
    times.note(2.0, 5)
    times.note(3.0, 20)
    assert [times[number] for number in (6, 10, 11, 20, 21)] == [0.0, 0.0, 1.0, 1.0, 3.0]


def test_before_anything_was_read_everything_may_have_been_at_any_time() -> None:
    assert RevisionTimes()[7] == 0.0
