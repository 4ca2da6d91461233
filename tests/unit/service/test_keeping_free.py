"""Pools that keep seats free for gangs which have waited for long, over a socket."""

from __future__ import annotations

from datetime import timedelta

from tests.unit.kit import eventually, uuid7
from tests.unit.service.test_alternatives import EITHER, granted_of
from tests.unit.service.test_alternatives import ask as ask_for_one
from tests.unit.service.test_gangs import BOTH, a_stream, ask, changes_of, granted, held, holds
from tests.unit.services import DEADLINE, Services, Stream, Who, ref_of

from seatkeeper.oracle.gangs import check_gangs
from seatkeeper.server.store.formats import STAY_FORMAT
from seatkeeper.v1 import pool_service_pb2 as pools_pb
from seatkeeper.v1 import seat_service_pb2 as pb

WITHIN, HOLD_BACK = 60, 30


async def a_pool(services: Services, name: str, *, seats: int = 1, keeps: bool = True) -> None:
    spec = pools_pb.PoolSpec(name=name, seats=seats)
    if keeps:
        spec.policy.overtaking.within.FromSeconds(WITHIN)
        spec.policy.overtaking.hold_back.FromSeconds(HOLD_BACK)
    request = pools_pb.CreatePoolRequest(spec=spec)
    await services.pools.CreatePool(request, timeout=DEADLINE)


async def keeps(services: Services, pool: str) -> bool:
    return (await services.look(pool)).HasField("hold_back")


async def look_again(services: Services, number: int) -> None:
    """Have the gangs of pool `a` looked at now: a change of it is one."""
    stream = await a_stream(services)
    await stream.acquire(number, pool="a")
    await eventually(lambda: waits(services, "a", number))
    await stream.send(pb.SessionCommand(release=pb.Release(grant=ref_of(number, "a"))))
    await stream.event("released")


async def waits(services: Services, pool: str, number: int) -> bool:
    found = await services.look(pool)
    return any(ticket.grant_id == uuid7(number) for ticket in found.tickets)


async def a_gang_that_waits(services: Services, *, keeps: bool = True) -> tuple[Who, Stream]:
    """Return who holds the seat of the first pool, and who waits; the second pool may keep none."""
    await a_pool(services, "a")
    await a_pool(services, "b", keeps=keeps)
    other = await services.session(ttl=timedelta(hours=1))
    await services.acquire(other, 10, pool="a")
    stream = await a_stream(services)
    await ask(stream, BOTH)
    await eventually(lambda: holds(services, "b", queued=1))
    return other, stream


async def test_one_that_has_waited_is_passed_no_more_and_is_granted(services: Services) -> None:
    other, stream = await a_gang_that_waits(services)
    await services.acquire(other, 11, pool="b")  # passes it
    await services.release(other, 11, pool="b")
    assert not await keeps(services, "b")
    services.clock.advance(timedelta(seconds=WITHIN))
    await look_again(services, 30)
    await eventually(lambda: keeps(services, "b"))
    assert await keeps(services, "a")
    shown = (await services.look("b")).hold_back
    assert (shown.grant_id, shown.idle) == (uuid7(2), 1)
    assert shown.until.ToMilliseconds() - shown.since.ToMilliseconds() == 1000 * HOLD_BACK
    late = await a_stream(services)
    await late.acquire(12, pool="b")
    await eventually(lambda: holds(services, "b", queued=2))
    assert await held(services, "b") == [(0, 2)]
    await services.release(other, 10, pool="a")
    assert await granted(stream, 2) == {"a": 1, "b": 1}
    assert await held(services, "a", "b") == [(1, 0), (1, 1)]
    assert not await keeps(services, "b")
    assert list(check_gangs(changes_of(services))) == []


async def test_it_is_bounded_and_others_are_served_for_as_long_after_it(
    services: Services,
) -> None:
    await a_gang_that_waits(services)
    services.clock.advance(timedelta(seconds=WITHIN))
    await look_again(services, 30)
    await eventually(lambda: keeps(services, "b"))
    since = (await services.look("b")).hold_back.since.ToMilliseconds()
    late = await a_stream(services)
    await late.acquire(12, pool="b")
    await eventually(lambda: holds(services, "b", queued=2))
    services.clock.advance(timedelta(seconds=HOLD_BACK))
    await late.acquire(13, pool="b")  # looks again
    assert await granted(late, 1) == {"b": 1}
    await look_again(services, 31)
    assert (await services.look("b")).hold_back.since.ToMilliseconds() == since
    services.clock.advance(timedelta(seconds=HOLD_BACK))
    await look_again(services, 32)
    await eventually(lambda: is_kept_since(services, "b", since + 1))


async def is_kept_since(services: Services, pool: str, least: int) -> bool:
    shown = (await services.look(pool)).hold_back
    return shown.since.ToMilliseconds() >= least


async def test_a_pool_that_does_not_say_so_keeps_none(services: Services) -> None:
    """The other does, from the same moment on."""
    other, _ = await a_gang_that_waits(services, keeps=False)
    services.clock.advance(timedelta(seconds=WITHIN))
    await look_again(services, 30)
    await eventually(lambda: keeps(services, "a"))
    await services.acquire(other, 11, pool="b")
    assert not await keeps(services, "b")


async def test_for_one_that_something_else_holds_back_none_are_kept(services: Services) -> None:
    """One of its pools is drained; when it is opened, seats are kept."""
    await a_pool(services, "a")
    await a_pool(services, "b")
    other = await services.session(ttl=timedelta(hours=1))
    await services.acquire(other, 10, pool="a")
    drain = pools_pb.DrainPoolRequest(name="b", reason="moving")
    await services.pools.DrainPool(drain, timeout=DEADLINE)
    stream = await a_stream(services)
    await ask(stream, BOTH)
    await eventually(lambda: holds(services, "b", queued=1))
    services.clock.advance(timedelta(seconds=WITHIN))
    await look_again(services, 30)
    await look_again(services, 31)
    assert not await keeps(services, "a")
    opening = pools_pb.OpenPoolRequest(name="b")
    await services.pools.OpenPool(opening, timeout=DEADLINE)
    await look_again(services, 32)
    await eventually(lambda: keeps(services, "a"))


async def test_seats_are_kept_for_one_of_several_alternatives(services: Services) -> None:
    await a_pool(services, "a")
    await a_pool(services, "b")
    other = await services.session(ttl=timedelta(hours=1))
    for number, pool in ((10, "a"), (11, "b")):
        await services.acquire(other, number, pool=pool)
    stream = await a_stream(services)
    await ask_for_one(stream, EITHER)
    await eventually(lambda: holds(services, "b", queued=1))
    services.clock.advance(timedelta(seconds=WITHIN))
    await look_again(services, 30)
    await eventually(lambda: keeps(services, "a"))
    assert not await keeps(services, "b")
    late = await a_stream(services)
    await late.acquire(12, pool="a")
    await eventually(lambda: holds(services, "a", queued=2))
    await services.release(other, 10, pool="a")
    assert await granted_of(stream) == "a"
    assert await held(services, "a", "b") == [(1, 1), (1, 0)]


async def test_such_a_pool_is_not_for_nodes_that_do_not_know_it(services: Services) -> None:
    await a_pool(services, "a")
    found = [
        pools_pb.PoolSpec.FromString(change.entry.value)
        for change in changes_of(services)
        if change.entry is not None and change.key.endswith("/pools/a")
    ]
    assert [record.format for record in found] == [STAY_FORMAT]
