"""Ids whose time is ahead of the nodes' clocks: they finish nothing but themselves."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kit import KEYS, NOW, POOL, acquire, release, writes_of
from tests.unit.services import DEADLINE, Services, Stream, acquire_of, refused

from seatkeeper.server.decide import decide
from seatkeeper.server.domain import (
    Acquire,
    Denied,
    Granted,
    Instant,
    Limits,
    PoolSpec,
    Refusal,
    Release,
)
from seatkeeper.server.domain.completed import SPANS_MAX
from seatkeeper.server.pool.mirror import PoolMirror
from seatkeeper.server.store import Change, Entry, Listing, Put, WatchBatch, Write
from seatkeeper.v1 import seat_service_pb2 as pb

HOUR = 36_000
"""An hour, in the numbers of ids: they are 100 ms apart."""


class Node:
    """One node's decisions, and all that it wrote."""

    def __init__(self) -> None:
        self.mirror = PoolMirror(KEYS, POOL)
        self.mirror.state.spec = PoolSpec(POOL, 100)
        self.written: dict[str, Put] = {}
        self.revision = 1

    def decide(self, *commands: Acquire | Release) -> list[object]:
        decision = decide(self.mirror.state, commands, Instant(NOW), Limits())
        self.revision += 1
        writes = writes_of(decision)
        self.mirror.committed(writes, self.revision)
        for write in writes:
            self.written.pop(write.key, None)
            if isinstance(write, Put):
                self.written[write.key] = write
        return [outcome for _, outcome in decision.outcomes]

    def use(self, number: int) -> None:
        """Take a seat and give it back."""
        assert isinstance(self.decide(acquire(number))[0], Granted)
        self.decide(release(number))

    def another(self) -> Node:
        """A node that begins now, and knows what a listing says."""
        node = Node()
        node.written, node.revision = dict(self.written), self.revision
        entries = tuple(
            Entry(put.key, put.value, self.revision, put.lease_id)
            for put in self.written.values()
        )
        node.mirror.reset(Listing(entries, self.revision))
        return node

    @property
    def mark(self) -> str:
        return self.mirror.state.completed.mark("anna")


def reason(outcome: object) -> Refusal | None:
    return outcome.reason if isinstance(outcome, Denied) else None


def test_an_id_of_the_future_does_not_finish_those_of_the_present() -> None:
    node = Node()
    node.use(HOUR)
    node.use(1)
    node.use(2)
    node.another().use(3)


def test_an_id_of_the_future_completes_only_itself_on_every_node() -> None:
    node = Node()
    node.use(HOUR)
    node.use(1)
    for each in (node, node.another(), node.another().another()):
        assert reason(each.decide(acquire(HOUR))[0]) is Refusal.FINISHED
        assert reason(each.decide(acquire(1))[0]) is Refusal.FINISHED


def test_a_node_that_learns_of_it_by_a_watch_knows_the_same() -> None:
    node, other = Node(), Node()
    for command in (acquire(HOUR), release(HOUR), acquire(1), release(1)):
        before = dict(node.written)
        node.decide(command)
        keys = {**before, **node.written}
        changes = [
            Change(key, _entry(node.written.get(key), node.revision), node.revision)
            for key in keys
            if before.get(key) != node.written.get(key)
        ]
        other.mirror.apply(WatchBatch(tuple(changes), node.revision))
    other.revision = node.revision
    assert reason(other.decide(acquire(HOUR))[0]) is Refusal.FINISHED
    assert reason(other.decide(acquire(1))[0]) is Refusal.FINISHED
    other.use(2)


def _entry(write: Write | None, revision: int) -> Entry | None:
    if not isinstance(write, Put):
        return None
    return Entry(write.key, write.value, revision, write.lease_id)


def test_a_client_that_is_always_ahead_is_served_and_remembered() -> None:
    node = Node()
    for number in range(200):
        node.use(HOUR + number)
    assert len(node.mirror.state.completed.spans("anna")) == 1
    for each in (node, node.another()):
        for number in range(200):
            assert reason(each.decide(acquire(HOUR + number))[0]) is Refusal.FINISHED
        each.use(HOUR + 200)


def test_a_clock_that_is_set_back_and_forth_is_served_and_remembered_in_little() -> None:
    node = Node()
    numbers = [HOUR * (step % 7) + 200 * step for step in range(60)]
    for number in numbers:
        assert len(node.mirror.state.completed.spans("anna")) <= SPANS_MAX
        outcome = node.decide(acquire(number + 1))[0]
        assert isinstance(outcome, Granted) or reason(outcome) is Refusal.FINISHED
        node.decide(release(number + 1))
    for each in (node, node.another()):
        for number in numbers:
            assert reason(each.decide(acquire(number + 1))[0]) is Refusal.FINISHED


def test_after_a_clock_was_set_back_new_ids_are_granted() -> None:
    """The client was not careful: its ids go back with its clock."""
    node = Node()
    node.use(2 * HOUR)
    for number in range(1, 50):
        node.use(number)
    node.another().use(60)


@given(
    st.lists(
        st.tuples(st.sampled_from([0, HOUR, 24 * HOUR]), st.integers(1, 40), st.booleans()),
        max_size=80,
    )
)
def test_nothing_is_granted_twice_whatever_the_clock_of_a_client(
    steps: list[tuple[int, int, bool]],
) -> None:
    node = Node()
    finished: set[int] = set()
    for ahead, number, is_new_node in steps:
        node = node.another() if is_new_node else node
        [outcome] = node.decide(acquire(ahead + number))
        if isinstance(outcome, Granted):
            assert ahead + number not in finished
        node.decide(release(ahead + number))
        finished.add(ahead + number)


# Over the wire --------------------------------------------------------------------------------


def id_at(services: Services, ahead: timedelta, number: int) -> str:
    millis = services.clock.now() + int(ahead.total_seconds() * 1000)
    return f"{millis >> 16:08x}-{millis & 0xFFFF:04x}-7000-8000-{number:012x}"


async def test_a_client_whose_clock_was_an_hour_ahead_goes_on_when_it_is_right(
    services: Services,
) -> None:
    await services.pool(1)
    who = await services.session()

    async def use(grant_id: str) -> None:
        acquired = acquire_of(1, grant_id=grant_id)
        request = pb.AcquireRequest(credentials=who.credentials, acquire=acquired)
        await services.seats.Acquire(request, timeout=DEADLINE)
        ref = pb.GrantRef(pool=POOL, grant_id=grant_id)
        release_it = pb.ReleaseRequest(
            credentials=who.credentials, release=pb.Release(grant=ref)
        )
        await services.seats.Release(release_it, timeout=DEADLINE)

    ahead = id_at(services, timedelta(hours=1), 1)
    await use(ahead)
    for number in range(2, 5):
        await use(id_at(services, timedelta(0), number))
    failure = await refused(use(ahead))
    assert failure.code is grpc.StatusCode.ABORTED
    assert failure.reason == "DENIAL_REASON_FINISHED"


@pytest.mark.parametrize("days", [2, 365 * 100])
async def test_an_id_days_ahead_is_refused_before_anything_is_taken(
    services: Services, days: int
) -> None:
    await services.pool(1)
    who = await services.session()
    stream = Stream(services)
    await stream.resume(who)
    await stream.acquire(1, grant_id=id_at(services, timedelta(days=days), 1))
    assert "days ahead" in (await stream.event("denied")).denied.message
    assert (await services.look()).held == 0
    await stream.break_off()
