"""A usage event comes to every subscriber, and to the log as a line of its own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

import pytest
from tests.unit.faults import Fault
from tests.unit.kit import NOW, POOL, a_grant, acquire, eventually, release, uuid7
from tests.unit.loops import Loops, NodeLoop, received

from seatkeeper.server.domain import Command, Instant
from seatkeeper.server.events.feed import UsageFeed
from seatkeeper.server.events.usage import UsageEvent, UsageKind, grant_begins, grant_ends
from seatkeeper.server.pool.forwarder import Forwarded
from seatkeeper.server.routing.peers import Decided, PeerSilent

LATER = Instant(NOW + 1500)


def kinds(node: NodeLoop) -> list[str]:
    """What a node published, in order."""
    return [event.kind.value for event in node.tally.usage_events]


def test_a_subscriber_that_fails_keeps_nothing_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    feed, received = UsageFeed(), list[UsageEvent]()

    def fail(event: UsageEvent) -> None:
        raise ValueError("a bug")

    feed.subscribe(fail)
    feed.subscribe(received.append)
    feed.publish(grant_begins(POOL, a_grant(1)))
    assert len(received) == 1
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.message == "usage_subscriber_failed"


def test_a_line_has_the_facts_of_its_event_as_fields(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "seatkeeper.events")
    feed, grant = UsageFeed(), a_grant(1, fence=4)
    feed.publish(grant_begins(POOL, grant))  # for each seat: at debug
    feed.publish(grant_ends(UsageKind.EXPIRED, POOL, grant, LATER, reason="SESSION_ENDED"))
    (record,) = caplog.records
    facts = vars(record)
    assert (record.message, facts["held_s"], facts["fence"]) == ("expired", 1.5, 4)
    assert (facts["holder"], facts["project"], facts["priority"]) == ("anna@host", "cv", 0)
    assert facts["grant_id"] == facts["request_id"] == uuid7(1)
    assert "hint" not in facts


async def test_a_seat_s_life_is_published_in_order(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    ear = node.submit(acquire(1))
    await received(ear)
    waiting = node.submit(acquire(2, "bert", wait=timedelta(seconds=1)))
    await eventually(lambda: node.loop.state.tickets)
    node.submit(acquire(2, "bert"), waiting)  # asked again: nothing new happens
    node.submit(acquire(3, "cora", may_wait=False))
    await eventually(lambda: "denied" in kinds(node))
    node.submit(release(1))
    await eventually(lambda: uuid7(2) in node.loop.state.grants)
    await loops.end_session("bert")
    await eventually(lambda: kinds(node)[-1] == "expired")
    assert kinds(node) == ["granted", "queued", "denied", "released", "granted", "expired"]
    fences = [event.fence for event in node.tally.usage_events if event.fence]
    assert fences == [1, 1, 2, 2]


async def test_a_commit_whose_answer_was_lost_is_published_when_it_is_seen(
    loops: Loops,
) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    node.store.faults += [Fault.ANSWER_LOST, Fault.APPLIED_AFTER_THE_NEXT_READ]
    await received(node.submit(acquire(1)))
    await received(node.submit(release(1)))
    assert kinds(node) == ["granted", "released"]


async def test_a_commit_that_was_lost_is_not_published(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    node.store.faults += [Fault.REQUEST_LOST]
    await received(node.submit(acquire(1)))
    assert kinds(node) == ["granted"]


async def test_a_seat_that_expired_while_the_watch_was_broken_is_reported(loops: Loops) -> None:
    """No decision was made since the node's own last one, so a listing is enough."""
    await loops.pool(seats=1)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    node.store.is_down = True
    loops.store.end_watches("cut")
    await loops.end_session("anna")
    node.store.is_down = False
    await eventually(lambda: not node.loop.state.grants)
    assert kinds(node) == ["granted", "expired"]


async def test_a_full_store_publishes_what_it_still_frees(loops: Loops) -> None:
    await loops.pool(seats=1)
    node = await loops.node()
    await received(node.submit(acquire(1)))
    waiting = node.submit(acquire(2, "bert", wait=timedelta(seconds=1)))
    await eventually(lambda: node.loop.state.tickets)
    node.store.is_full = True
    node.submit(release(1))
    await eventually(lambda: "released" in kinds(node))
    loops.clock.advance(timedelta(seconds=1))
    node.loop.ring_changed()
    await received(waiting)
    assert kinds(node)[:4] == ["granted", "queued", "released", "gave_up"]
    refused = node.submit(acquire(3, "cora"))
    await received(refused)
    assert kinds(node)[4:] == ["denied"]


async def test_a_seat_that_expires_under_its_release_ended_once(loops: Loops) -> None:
    await loops.pool(seats=3)
    node = await loops.node()
    for number in (1, 2, 3):
        await received(node.submit(acquire(number)))
    await received(node.submit(release(1)))
    await received(node.submit(release(3)))
    # The session's watermark covers it already, so nothing of this release is attached to the lease.
    node.store.gate.clear()
    late = node.submit(release(2))
    await eventually(lambda: len(node.store.commits) == 6)
    await loops.end_session("anna")
    await eventually(lambda: not node.loop.state.grants)
    node.store.gate.set()
    await received(late)
    await eventually(lambda: kinds(node)[-1] == "expired")
    ends = [e.kind for e in node.tally.usage_events if e.grant_id == uuid7(2)]
    assert ends == [UsageKind.GRANTED, UsageKind.EXPIRED]


class Ring:
    """Who owns the pool."""

    def __init__(self, elsewhere: str | None) -> None:
        self.elsewhere = elsewhere

    def owner(self, pool: str) -> str | None:
        return self.elsewhere or "here"

    def owner_elsewhere(self, pool: str) -> str | None:
        return self.elsewhere

    async def decide(
        self, node_id: str, pool: str, commands: Sequence[Command], peers: Sequence[str] = ()
    ) -> Decided:
        raise PeerSilent


async def test_the_owner_follows_a_pool_while_seats_are_held_and_reports_their_end(
    loops: Loops,
) -> None:
    """Also when the clients are those of other nodes: no other node would report it."""
    ring = Ring(None)
    await loops.pool(seats=1)
    node = await loops.node(forwarder=ring)
    forwarded = Forwarded()
    node.loop.submit(acquire(1), forwarded)
    await forwarded.outcome
    await eventually(lambda: node.loop.state.grants)
    assert not node.loop.idle
    ring.elsewhere = "node-2"
    assert node.loop.idle
    ring.elsewhere = None
    await loops.end_session("anna")
    await eventually(lambda: kinds(node) == ["granted", "expired"])
    assert node.loop.idle
