"""Seats of one of several pools, over a socket: one is granted, and the others leave their queues."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.kit import eventually, uuid7
from tests.unit.service.test_administered_requests import INVALID
from tests.unit.service.test_gangs import (
    Trouble,
    a_stream,
    changes_of,
    held,
    in_each_trouble,
    pools,
)
from tests.unit.services import DEADLINE, Services, Stream, Who, acquire_of, refused

from seatkeeper.core.gang import AFTER_MAX_SECONDS
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.alternatives import check_alternatives, count_alternatives
from seatkeeper.oracle.history import replay
from seatkeeper.server.pool.gang_part import GangPart, GangParts
from seatkeeper.server.store.formats import STAY_FORMAT
from seatkeeper.server.store.keys import Keys
from seatkeeper.v1 import pool_service_pb2 as pools_pb
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

Wanted = Mapping[str, tuple[int, int]]
"""By pool, in the order of preference: the number of its request, and after how many milliseconds."""
EITHER: Wanted = {"a": (1, 0), "b": (2, 0)}


def one(pool: str, wanted: Wanted, **fields: object) -> seat_pb2.Acquire:
    number, _ = wanted.get(pool, (1, 0))
    request = acquire_of(number, pool=pool, **({"seats": 0} | fields))
    for each, (its_number, after) in wanted.items():
        request.attributes.alternatives.add(
            pool=each, grant_id=uuid7(its_number), seats=1, after_millis=after
        )
    return request


async def ask(stream: Stream, wanted: Wanted, *only: str) -> None:
    """Ask for some of several alternatives; none named: all of them."""
    commands = [pb.SessionCommand(acquire=one(pool, wanted)) for pool in (only or wanted)]
    await stream.send(*commands)


async def granted_of(stream: Stream) -> str:
    """Read events until one is granted, whatever is said of the others; return its pool."""
    while True:
        event = await stream.next()
        if event.WhichOneof("event") == "granted":
            return event.granted.pool
        assert event.WhichOneof("event") != "denied" or "instead" in event.denied.message


def is_sound(services: Services) -> bool:
    changes = changes_of(services)
    history = replay(changes, Keys().prefix)
    return not list(check_alternatives(changes)) and all(
        pool.is_correct for pool in history.values()
    )


async def test_the_preferred_one_is_granted_and_the_other_is_denied(services: Services) -> None:
    await pools(services, a=1, b=1)
    stream = await a_stream(services)
    await ask(stream, {"b": (2, 0), "a": (1, 0)})
    kinds: dict[str | None, pb.SessionEvent] = {}
    while kinds.keys() < {"granted", "denied"}:
        event = await stream.next()
        kinds[event.WhichOneof("event")] = event
    assert kinds["granted"].granted.pool == "b"
    denied = kinds["denied"].denied
    assert denied.reason == seat_pb2.DENIAL_REASON_GRANTED_ELSEWHERE
    assert denied.message == "granted in b instead"
    assert await held(services, "a", "b") == [(0, 0), (1, 0)]
    assert count_alternatives(changes_of(services)) == 1
    assert is_sound(services)


async def test_none_is_granted_before_all_wait(services: Services) -> None:
    await pools(services, a=1, b=1)
    stream = await a_stream(services)
    await ask(stream, EITHER, "a")
    await eventually(lambda: holds(services, "a", queued=1))
    assert await held(services, "a", "b") == [(0, 1), (0, 0)]
    await ask(stream, EITHER, "b")
    assert await granted_of(stream) == "a"
    assert await held(services, "a", "b") == [(1, 0), (0, 0)]


async def holds(services: Services, pool: str, *, queued: int) -> bool:
    return (await services.look(pool)).queued == queued


async def test_a_seat_that_becomes_free_anywhere_serves_it_in_its_turn(
    services: Services,
) -> None:
    await pools(services, a=1, b=1)
    other = await services.session()
    for number, pool in enumerate(("a", "b"), start=10):
        await services.acquire(other, number, pool=pool)
    first, stream = await a_stream(services), await a_stream(services)
    await first.acquire(20, pool="b")
    await eventually(lambda: holds(services, "b", queued=1))
    await ask(stream, EITHER)
    await eventually(lambda: holds(services, "b", queued=2))
    await services.release(other, 11, pool="b")
    assert await granted_of(first) == "b"  # who waited there before
    await services.release(other, 10, pool="a")
    assert await granted_of(stream) == "a"
    assert await held(services, "a", "b") == [(1, 0), (1, 0)]
    assert is_sound(services)


async def test_a_later_alternative_waits_for_its_time(services: Services) -> None:
    await pools(services, a=0, b=1)
    stream = await a_stream(services)
    await ask(stream, {"a": (1, 0), "b": (2, 60_000)})
    await eventually(lambda: holds(services, "b", queued=1))
    assert await held(services, "a", "b") == [(0, 1), (0, 1)]
    services.clock.advance(timedelta(seconds=61))
    await stream.acquire(30, pool="a")  # a change that is seen at once
    assert await granted_of(stream) == "b"


@in_each_trouble
async def test_whatever_becomes_of_the_transaction_one_is_granted_once(
    services: Services, kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    await pools(services, a=1, b=1)
    trouble = Trouble(services.store, *kinds)
    monkeypatch.setattr(services.store, "commit", trouble.commit)
    stream = await a_stream(services)
    await ask(stream, EITHER)
    assert await granted_of(stream) == "a"
    assert trouble.left == []
    await eventually(lambda: holds(services, "b", queued=0))
    assert await held(services, "a", "b") == [(1, 0), (0, 0)]
    assert count_alternatives(changes_of(services)) == 1
    assert is_sound(services)


async def test_where_one_cannot_leave_its_queue_none_is_granted(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes before that may take all the room that its part of the transaction has."""
    await pools(services, a=1, b=1)
    withdraw, full = GangParts.withdraw, [None, None, None]

    def crowded(parts: GangParts, *given: Any) -> GangPart | None:
        return full.pop() if full else withdraw(parts, *given)

    monkeypatch.setattr(GangParts, "withdraw", crowded)
    stream = await a_stream(services)
    await ask(stream, EITHER)
    await eventually(lambda: not full)
    await stream.acquire(30, pool="b")  # looks again
    assert await granted_of(stream) in {"a", "b"}
    assert is_sound(services)


async def test_its_tickets_are_not_for_nodes_that_do_not_know_it(services: Services) -> None:
    await pools(services, a=0, b=0)
    stream = await a_stream(services)
    await ask(stream, EITHER)
    await eventually(lambda: holds(services, "b", queued=1))
    found = [
        state_pb2.TicketRecord.FromString(change.entry.value)
        for change in changes_of(services)
        if change.entry is not None and "/queue/" in change.key
    ]
    assert [record.format for record in found] == [STAY_FORMAT] * 2


async def test_it_says_why_it_waits(services: Services) -> None:
    await pools(services, a=0, b=1)
    stream = await a_stream(services)
    await ask(stream, {"a": (1, 0), "b": (2, 90_000)})
    await eventually(lambda: holds(services, "b", queued=1))
    request = pools_pb.ExplainTicketRequest(pool="b", grant_id=uuid7(2))
    reason = (await services.pools.ExplainTicket(request, timeout=DEADLINE)).reason
    assert (reason.rule, reason.message) == (
        "alternatives",
        "the first of several alternatives that is free is granted: 1 seat of a, 1 seat of b after "
        "90 s",
    )


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (one("a", {"a": (1, 0)}), "attributes.alternatives"),
        (
            one("a", {f"p{n}": (n, 0) for n in range(2, 6)} | {"a": (1, 0)}),
            "attributes.alternatives",
        ),
        (one("c", EITHER), "attributes.alternatives"),
        (one("a", {"a": (1, 0), "b": (1, 0)}), "attributes.alternatives"),
        (one("a", {"a": (1, 0), "b/c": (2, 0)}), "attributes.alternatives.pool"),
        (one("a", {"a": (1, 5), "b": (2, 6)}), "attributes.alternatives.after_millis"),
        (one("a", {"a": (1, 0), "b": (2, -1)}), "attributes.alternatives.after_millis"),
        (
            one("a", {"a": (1, 0), "b": (2, 9), "c": (3, 8)}),
            "attributes.alternatives.after_millis",
        ),
        (
            one("a", {"a": (1, 0), "b": (2, AFTER_MAX_SECONDS * 1000 + 1)}),
            "attributes.alternatives.after_millis",
        ),
        (one("a", EITHER, seats=1), "seats"),
        (
            one("a", EITHER, attributes=seat_pb2.Attributes(work_key="k")),
            "attributes.work_key",
        ),
        (
            one(
                "a",
                EITHER,
                attributes=seat_pb2.Attributes(
                    gang=[seat_pb2.GangMember(pool="a", grant_id=uuid7(1), seats=1)]
                ),
            ),
            "attributes.alternatives",
        ),
    ],
    ids=(
        *("one pool", "five pools", "not of this pool", "one id twice", "a name that is none"),
        *("the first later", "before it was asked", "before the one before", "after a day"),
        *("seats beside it", "work", "a gang as well"),
    ),
)
async def test_what_cannot_be_one_is_refused_and_takes_nothing(
    services: Services, request_: seat_pb2.Acquire, field: str
) -> None:
    await pools(services, a=1, b=1)
    who: Who = await services.session()
    call = services.seats.Acquire(
        pb.AcquireRequest(credentials=who.credentials, acquire=request_), timeout=DEADLINE
    )
    failure = await refused(call)
    assert (failure.code, failure.fields) == (INVALID, [field])
    assert await held(services, "a", "b") == [(0, 0), (0, 0)]


async def test_the_same_id_with_others_is_refused_and_one_that_does_not_wait_is_denied(
    services: Services,
) -> None:
    await pools(services, a=1, b=0, c=1)
    stream = await a_stream(services)
    await ask(stream, EITHER, "a")
    await eventually(lambda: holds(services, "a", queued=1))
    await ask(stream, {"a": (1, 0), "c": (3, 0)}, "a")
    denied = (await stream.event("denied")).denied
    assert denied.reason == seat_pb2.DENIAL_REASON_INVALID_ARGUMENT
    assert "with seats of a or b" in denied.message
    at_once = {"a": (11, 0), "b": (12, 0)}
    await stream.send(pb.SessionCommand(acquire=one("a", at_once, wait=timedelta(0))))
    denied = (await stream.event("denied")).denied
    assert denied.reason == seat_pb2.DENIAL_REASON_NO_SEAT_FREE
    assert "alternatives" in denied.message
