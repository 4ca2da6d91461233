"""When waits end: by the node's own monotonic clock, whatever the time of day."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.kit import FakeClock, a_ticket, acquire, uuid7

from seatkeeper.server.domain import PoolState, Ticket
from seatkeeper.server.pool.wait_timers import WaitTimers

WAIT = timedelta(seconds=5)


class Queue:
    """A pool's queue as one node sees it, and its waits."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.state = PoolState()
        self.waits = WaitTimers(self.clock)

    def put(self, ticket: Ticket) -> None:
        self.state.put_ticket(ticket)
        self.waits.review([ticket.grant_id], self.state)

    def remove(self, number: int) -> None:
        self.state.remove_ticket(uuid7(number))
        self.waits.review([uuid7(number)], self.state)

    def advance(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    def due(self) -> list[str]:
        return [ticket.grant_id for ticket in self.waits.due(self.state)]


@pytest.fixture
def queue() -> Queue:
    return Queue()


def test_a_ticket_is_due_its_wait_after_it_was_seen(queue: Queue) -> None:
    queue.put(a_ticket(1, wait=WAIT))
    queue.advance(4.99)
    assert queue.due() == []
    queue.advance(0.01)
    assert queue.due() == [uuid7(1)]


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_clock_that_is_set_changes_no_wait(queue: Queue, hours: int) -> None:
    queue.put(a_ticket(1, wait=WAIT))
    queue.clock.unix_millis += hours * 3_600_000
    assert queue.due() == []
    queue.clock.seconds += 5
    assert queue.due() == [uuid7(1)]


def test_the_node_that_was_asked_counts_from_then(queue: Queue) -> None:
    asked_at = queue.clock.monotonic()
    queue.advance(3)  # the store was slow
    queue.waits.asked(acquire(1, wait=WAIT), asked_at)
    queue.put(a_ticket(1, wait=WAIT))
    assert queue.waits.next_end() == asked_at + 5


def test_who_asks_again_waits_no_longer_and_no_longer_than_is_left(queue: Queue) -> None:
    queue.put(a_ticket(1, wait=WAIT))
    end = queue.waits.next_end()
    assert end is not None
    queue.waits.asked(acquire(1, wait=timedelta(seconds=60)), queue.clock.monotonic())
    assert queue.waits.next_end() == end
    # A node that started lately has seen the ticket lately.
    queue.waits.asked(acquire(1, wait=timedelta(seconds=2)), queue.clock.monotonic())
    queue.advance(2)
    assert queue.due() == [uuid7(1)]


def test_a_wait_without_limit_is_never_due(queue: Queue) -> None:
    queue.put(a_ticket(1))
    queue.waits.asked(acquire(1), queue.clock.monotonic())
    queue.advance(1e9)
    assert queue.due() == []
    assert queue.waits.next_end() is None


def test_a_request_whose_ticket_is_gone_by_then_leaves_nothing(queue: Queue) -> None:
    queue.waits.asked(acquire(1, wait=WAIT), queue.clock.monotonic())
    queue.remove(1)
    queue.advance(9)
    assert queue.due() == []
    assert queue.waits.next_end() is None


CHANGES = st.lists(
    st.tuples(st.integers(1, 8), st.none() | st.integers(0, 9)) | st.floats(0.1, 5), max_size=40
)


@given(CHANGES)
def test_what_is_due_and_what_is_next_are_what_a_recount_gives(
    changes: list[tuple[int, int | None] | float],
) -> None:
    queue, ends = Queue(), dict[str, float]()
    for change in changes:
        if isinstance(change, float):
            queue.advance(change)
        else:
            number, seconds = change
            queue.remove(number)
            ends.pop(uuid7(number), None)
            if seconds is not None:
                wait = timedelta(seconds=seconds) if seconds else None
                queue.put(a_ticket(number, wait=wait))
                if seconds:
                    ends[uuid7(number)] = queue.clock.seconds + seconds
        due = [grant_id for grant_id, end in ends.items() if end <= queue.clock.seconds]
        assert sorted(queue.due()) == sorted(due)
        assert queue.waits.next_end() == min(ends.values(), default=None)
