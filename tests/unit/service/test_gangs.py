"""Seats of several pools, over a socket: granted together, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.kit import eventually, uuid7
from tests.unit.service.test_administered_requests import INVALID
from tests.unit.services import (
    DEADLINE,
    Services,
    Stream,
    Who,
    acquire_of,
    ref_of,
    refused,
)

from seatkeeper.core.validate import SEATS_MAX
from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.gangs import check_gangs, count_gangs
from seatkeeper.oracle.history import replay
from seatkeeper.server.pool.gangs import DECIDED_MAX
from seatkeeper.server.store import (
    Change,
    Committed,
    LeaseNotFound,
    MemoryStore,
    OutcomeUnknown,
    StoreFull,
    StoreUnavailable,
    Write,
)
from seatkeeper.server.store.formats import TERMS_FORMAT
from seatkeeper.server.store.keys import Keys
from seatkeeper.v1 import pool_service_pb2 as pools_pb
from seatkeeper.v1 import seat_pb2
from seatkeeper.v1 import seat_service_pb2 as pb

Wanted = Mapping[str, tuple[int, int]]
"""By pool: the number of its request, and its seats."""


def gang_of(wanted: Wanted) -> list[seat_pb2.GangMember]:
    return [
        seat_pb2.GangMember(pool=pool, grant_id=uuid7(number), seats=seats)
        for pool, (number, seats) in wanted.items()
    ]


def member(pool: str, wanted: Wanted, **fields: object) -> seat_pb2.Acquire:
    number, _ = wanted.get(pool, (1, 1))
    request = acquire_of(number, pool=pool, **({"seats": 0} | fields))
    request.attributes.gang.extend(gang_of(wanted))
    return request


async def ask(stream: Stream, wanted: Wanted, *pools: str) -> None:
    """Ask for some of a gang; none named: all of it."""
    commands = [pb.SessionCommand(acquire=member(pool, wanted)) for pool in (pools or wanted)]
    await stream.send(*commands)


async def a_stream(services: Services) -> Stream:
    stream = Stream(services)
    await stream.open(services.stranger())
    return stream


async def held(services: Services, *pools: str) -> list[tuple[int, int]]:
    """How many seats are held of each pool, and how many wait."""
    found = [await services.look(pool) for pool in pools]
    return [(pool.held, pool.queued) for pool in found]


async def pools(services: Services, **seats: int) -> None:
    for name, number in seats.items():
        await services.pool(number, name)


async def granted(stream: Stream, count: int) -> dict[str, int]:
    """Read grants until there are so many; return the seats by pool."""
    found = {}
    for _ in range(count):
        event = (await stream.event("granted")).granted
        found[event.pool] = event.seats
    return found


BOTH: Wanted = {"a": (1, 1), "b": (2, 1)}


async def test_what_others_decide_at_the_same_moment_is_not_granted(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the last of its pools, while the transaction is on its way."""
    await pools(services, a=1, b=1)
    other = await services.session()
    commit, late = services.store.commit, ["b"]

    async def commit_late(writes: Sequence[Write], **given: Any) -> Committed:
        if sum(write.key.endswith("/guard") for write in writes) > 1 and late:
            await services.acquire(other, 20, pool=late.pop())
        return await commit(writes, **given)

    monkeypatch.setattr(services.store, "commit", commit_late)
    stream = await a_stream(services)
    await ask(stream, BOTH)
    await eventually(lambda: not late)
    await eventually(lambda: holds(services, "b", queued=1))
    assert await held(services, "a", "b") == [(0, 1), (1, 1)]
    await services.release(other, 20, pool="b")
    assert await granted(stream, 2) == {"a": 1, "b": 1}
    history = replay(changes_of(services), Keys().prefix)
    assert all(pool.is_correct for pool in history.values())


def changes_of(services: Services) -> list[Change]:
    return [change for together in services.store._history for change in together]


async def test_all_are_granted_at_one_revision(services: Services) -> None:
    await pools(services, a=2, b=1)
    stream = await a_stream(services)
    wanted = {"a": (1, 2), "b": (2, 1)}
    await ask(stream, wanted)
    assert await granted(stream, 2) == {"a": 2, "b": 1}
    assert await held(services, "a", "b") == [(2, 0), (1, 0)]
    changes = changes_of(services)
    assert list(check_gangs(changes)) == []
    assert count_gangs(changes) == 1


async def counting(services: Services, pool: str, said: pools_pb.Counting) -> None:
    """Create a pool of one seat that counts so."""
    spec = pools_pb.PoolSpec(name=pool, seats=1)
    spec.policy.counting.CopyFrom(said)
    await services.pools.CreatePool(pools_pb.CreatePoolRequest(spec=spec), timeout=DEADLINE)


async def test_an_advisory_pool_that_is_full_holds_up_none_and_marks_it(
    services: Services,
) -> None:
    await pools(services, a=1)
    await counting(services, "b", pools_pb.Counting(advisory=True))
    other = await services.session()
    await services.acquire(other, 10, pool="a")
    await services.acquire(other, 11, pool="b")
    stream = await a_stream(services)
    await ask(stream, BOTH)
    await eventually(lambda: holds(services, "b", queued=1))
    assert await held(services, "a", "b") == [(1, 1), (1, 1)], "it waits for the other pool"
    await services.release(other, 10, pool="a")
    assert await granted(stream, 2) == {"a": 1, "b": 1}
    found = {each.grant_id: each.advisory for each in (await services.look("b")).grants}
    assert (found[uuid7(2)].rule, found[uuid7(2)].seats_beyond) == ("seats", 1)
    history = replay(changes_of(services), Keys().prefix)
    assert all(pool.is_correct for pool in history.values())


async def test_what_a_seat_costs_is_each_pools_own(services: Services) -> None:
    await pools(services, a=2)
    costs = [pools_pb.ClassCost(name="default", seats=3)]
    await counting(services, "b", pools_pb.Counting(costs=costs))
    bigger = pools_pb.PoolSpec(name="b", seats=6)
    await services.pools.UpdatePool(pools_pb.UpdatePoolRequest(spec=bigger), timeout=DEADLINE)
    stream = await a_stream(services)
    await ask(stream, {"a": (1, 2), "b": (2, 2)})
    assert await granted(stream, 2) == {"a": 2, "b": 6}
    changes = changes_of(services)
    assert list(check_gangs(changes)) == []
    assert all(pool.is_correct for pool in replay(changes, Keys().prefix).values())


async def test_while_one_is_not_there_none_is_granted(services: Services) -> None:
    await pools(services, a=2, b=1)
    stream = await a_stream(services)
    wanted = {"a": (1, 2), "b": (2, 1)}
    await ask(stream, wanted, "b")
    assert (await stream.event("queued")).queued.position == 1
    assert await held(services, "a", "b") == [(0, 0), (0, 1)]
    await ask(stream, wanted, "a")
    assert await granted(stream, 2) == {"a": 2, "b": 1}


async def test_while_seats_of_one_pool_are_held_it_holds_none_and_others_are_served(
    services: Services,
) -> None:
    await pools(services, a=1, b=1)
    other = await services.session()
    await services.acquire(other, 10, pool="b")
    stream = await a_stream(services)
    wanted = {"a": (1, 1), "b": (2, 1)}
    await ask(stream, wanted)
    await eventually(lambda: holds(services, "a", queued=1))
    await services.acquire(other, 11, pool="a")
    await services.release(other, 10, pool="b")
    assert await held(services, "a", "b") == [(1, 1), (0, 1)]
    await services.release(other, 11, pool="a")
    assert await granted(stream, 2) == {"a": 1, "b": 1}


async def holds(services: Services, pool: str, *, queued: int) -> bool:
    return (await services.look(pool)).queued == queued


async def test_one_that_is_given_up_keeps_the_others_from_being_granted(
    services: Services,
) -> None:
    await pools(services, a=1, b=1)
    holder = await services.session()
    await services.acquire(holder, 10, pool="b")
    stream = await a_stream(services)
    wanted = {"a": (1, 1), "b": (2, 1)}
    await ask(stream, wanted)
    await eventually(lambda: holds(services, "b", queued=1))
    await stream.send(pb.SessionCommand(release=pb.Release(grant=ref_of(1, "a"))))
    assert (await stream.event("released")).released.grant_id == uuid7(1)
    await services.release(holder, 10, pool="b")
    # One that waits behind it alone is served.
    await services.acquire(holder, 12, pool="b")
    assert await held(services, "a", "b") == [(0, 0), (1, 1)]


async def test_one_that_is_given_back_leaves_the_others_to_their_holder(
    services: Services,
) -> None:
    await pools(services, a=1, b=1)
    stream = await a_stream(services)
    await ask(stream, {"a": (1, 1), "b": (2, 1)})
    await granted(stream, 2)
    await stream.send(pb.SessionCommand(release=pb.Release(grant=ref_of(1, "a"))))
    await stream.event("released")
    assert await held(services, "a", "b") == [(0, 0), (1, 0)]


async def test_the_end_of_its_session_ends_all_of_it(services: Services) -> None:
    await pools(services, a=1, b=1, c=1)
    stream = await a_stream(services)
    await ask(stream, {"a": (1, 1), "b": (2, 1)})
    await granted(stream, 2)
    await ask(stream, {"b": (3, 1), "c": (4, 1)})
    await eventually(lambda: holds(services, "c", queued=1))
    stream.call.cancel()
    services.pass_time(timedelta(seconds=60))
    await eventually(lambda: is_empty(services, "a", "b", "c"))


async def is_empty(services: Services, *names: str) -> bool:
    return all(each == (0, 0) for each in await held(services, *names))


class Trouble:
    """Makes the first transactions of several pools fail, in one way each."""

    def __init__(self, store: MemoryStore, *kinds: str) -> None:
        self._commit = store.commit
        self.left = list(kinds)

    async def commit(self, writes: Sequence[Write], **given: Any) -> Committed:
        guards = [write for write in writes if write.key.endswith("/guard")]
        kind = self.left.pop(0) if len(guards) > 1 and self.left else ""
        match kind:
            case "a lease is over":
                raise LeaseNotFound("as asked")
            case "the store is not there":
                raise StoreUnavailable("as asked")
            case "the store is full":
                raise StoreFull("as asked")
            case "the answer is lost":
                await self._commit(writes, **given)
                raise OutcomeUnknown("as asked")
            case "it was lost itself":
                raise OutcomeUnknown("as asked")
            case "another has decided":
                (guard, *_) = given["only_if"]
                older = replace(guard, mod_revision=guard.mod_revision - 1)
                return await self._commit(writes, **(given | {"only_if": [older]}))
        return await self._commit(writes, **given)


in_each_trouble = pytest.mark.parametrize(
    "kinds",
    [
        ("a lease is over",),
        ("the store is not there", "the store is full"),
        ("the answer is lost",),
        ("it was lost itself",),
        ("another has decided",) * 5,
    ],
    ids=lambda kinds: kinds[0],
)


@in_each_trouble
async def test_whatever_becomes_of_the_transaction_it_is_granted_once(
    services: Services, kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    await pools(services, a=1, b=1)
    trouble = Trouble(services.store, *kinds)
    monkeypatch.setattr(services.store, "commit", trouble.commit)
    stream = await a_stream(services)
    await ask(stream, BOTH)
    assert await granted(stream, 2) == {"a": 1, "b": 1}
    assert trouble.left == []
    changes = changes_of(services)
    assert list(check_gangs(changes)) == []
    assert count_gangs(changes) == 1
    assert await held(services, "a", "b") == [(1, 0), (1, 0)]


async def test_its_tickets_are_not_for_nodes_that_do_not_know_gangs(
    services: Services,
) -> None:
    await pools(services, a=0, b=1)
    stream = await a_stream(services)
    await ask(stream, {"a": (1, 1), "b": (2, 1)})
    await eventually(lambda: holds(services, "b", queued=1))
    found = [
        state_pb2.TicketRecord.FromString(change.entry.value)
        for change in changes_of(services)
        if change.entry is not None and "/queue/" in change.key
    ]
    assert [record.format for record in found] == [TERMS_FORMAT] * 2
    assert [[each.pool for each in record.attributes.gang] for record in found] == [
        ["a", "b"]
    ] * 2


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (member("a", {"a": (1, 1)}), "attributes.gang"),
        (
            member("a", {f"p{n}": (n, 1) for n in range(2, 10)} | {"a": (1, 1)}),
            "attributes.gang",
        ),
        (member("c", BOTH), "attributes.gang"),
        (member("a", {"a": (1, 0), "b": (2, 1)}), "attributes.gang.seats"),
        (member("a", {"a": (1, SEATS_MAX + 1), "b": (2, 1)}), "attributes.gang.seats"),
        (member("a", {"a": (1, 1), "b/c": (2, 1)}), "attributes.gang.pool"),
        (member("a", {"a": (1, 1), "b": (1, 1)}), "attributes.gang"),
        (member("a", BOTH, seats=1), "seats"),
        (
            member("a", BOTH, attributes=seat_pb2.Attributes(work_key="k")),
            "attributes.work_key",
        ),
        (acquire_of(1, pool="a", seats=0), "seats"),
    ],
    ids=(
        *("one pool", "nine pools", "not of this pool", "no seats", "very many seats"),
        *("a name that is none", "one id twice", "seats beside it"),
        *("work", "no seats and no gang, as an older node sees it"),
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


async def test_a_pool_that_is_named_twice_is_refused(services: Services) -> None:
    await pools(services, a=2)
    who = await services.session()
    request = acquire_of(1, pool="a", seats=0)
    for number in (1, 2):
        request.attributes.gang.add(pool="a", grant_id=uuid7(number), seats=1)
    call = services.seats.Acquire(
        pb.AcquireRequest(credentials=who.credentials, acquire=request), timeout=DEADLINE
    )
    failure = await refused(call)
    assert (failure.code, failure.fields) == (INVALID, ["attributes.gang"])


async def test_a_mate_of_another_session_does_not_join(services: Services) -> None:
    """However it came by the ids: seats are granted together to one holder alone."""
    await pools(services, a=2, b=1, c=1)
    one, two, three = [await a_stream(services) for _ in range(3)]
    await ask(one, BOTH, "a")
    await ask(two, BOTH, "b")
    await eventually(lambda: holds(services, "b", queued=1))
    await eventually(lambda: holds(services, "a", queued=1))
    # Comes after it in the queue of the pool that both begin with.
    await ask(three, {"a": (5, 1), "c": (6, 1)})
    assert await granted(three, 2) == {"a": 1, "c": 1}
    assert await held(services, "a", "b", "c") == [(1, 1), (0, 1), (1, 0)]


async def test_one_that_does_not_wait_finds_what_there_is_and_is_denied_what_there_is_not(
    services: Services,
) -> None:
    """As a client asks that has lost its stream."""
    await pools(services, a=1, b=1)
    stream, now = await a_stream(services), timedelta(0)
    await stream.send(pb.SessionCommand(acquire=member("a", BOTH, wait=now)))
    denied = (await stream.event("denied")).denied
    assert denied.reason == seat_pb2.DENIAL_REASON_NO_SEAT_FREE
    assert "all of its seats" in denied.message
    wanted = {"a": (11, 1), "b": (12, 1)}
    await ask(stream, wanted)
    await granted(stream, 2)
    await stream.send(pb.SessionCommand(acquire=member("a", wanted, wait=now)))
    assert await granted(stream, 1) == {"a": 1}


async def test_the_same_id_with_another_gang_is_refused(services: Services) -> None:
    await pools(services, a=1, b=0, c=1)
    stream = await a_stream(services)
    await ask(stream, BOTH, "a")
    await eventually(lambda: holds(services, "a", queued=1))
    await ask(stream, {"a": (1, 1), "c": (3, 1)}, "a")
    denied = (await stream.event("denied")).denied
    assert denied.reason == seat_pb2.DENIAL_REASON_INVALID_ARGUMENT
    assert "with seats of a and b" in denied.message


async def test_however_many_wait_before_it_one_whose_seats_are_free_is_granted(
    services: Services,
) -> None:
    await pools(services, a=200, busy=0, free=1)
    stream = await a_stream(services)
    for number in range(100):
        await ask(stream, {"a": (10 + 2 * number, 1), "busy": (11 + 2 * number, 1)})
    await ask(stream, {"a": (900, 1), "free": (901, 1)})
    assert await granted(stream, 2) == {"a": 1, "free": 1}


async def test_those_that_have_the_seats_and_not_the_turn_keep_none_behind_them_out(
    services: Services,
) -> None:
    """More of them than are decided on in one look: a large request is before them."""
    await pools(services, a=200, big=3, free=1)
    holder = await services.session()
    await services.acquire(holder, 5, pool="big", seats=1)
    stream = await a_stream(services)
    await stream.acquire(6, pool="big", seats=3)
    await eventually(lambda: holds(services, "big", queued=1))
    for number in range(2 * DECIDED_MAX):
        await ask(stream, {"a": (10 + 2 * number, 1), "big": (11 + 2 * number, 1)})
    await ask(stream, {"a": (900, 1), "free": (901, 1)})
    assert await granted(stream, 2) == {"a": 1, "free": 1}
