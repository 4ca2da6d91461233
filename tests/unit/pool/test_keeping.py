"""For which gangs seats are kept free, and from when on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from tests.unit.kit import NOW, a_ticket, changed, uuid7

from seatkeeper.core.projects import Overtaking
from seatkeeper.server.domain import Guard, Instant, PoolPolicy, PoolSpec, PoolState
from seatkeeper.server.domain.gang import GangMember
from seatkeeper.server.domain.hold_back import HoldBack
from seatkeeper.server.pool.keeping import keeping_at

GANG = (GangMember("a", uuid7(1), 1), GangMember("b", uuid7(2), 1))


@dataclass
class Seen:
    state: PoolState


def a_pool(
    name: str, number: int, *, within: int = 60, hold_back: int | None = 30, queued: int = 0
) -> Seen:
    """A pool in which a member of the gang waits since so many seconds after the others."""
    keeps = timedelta(seconds=hold_back) if hold_back is not None else None
    policy = PoolPolicy(overtaking=Overtaking(1, timedelta(seconds=within), keeps))
    state = PoolState(spec=PoolSpec(name, 1, policy=policy))
    at = Instant(NOW + 1000 * queued)
    state.put_ticket(changed(a_ticket(number), gang=GANG, queued_at=at))
    return Seen(state)


def kept(pool: Seen, since: int, until: int) -> Seen:
    moments = Instant(NOW + 1000 * since), Instant(NOW + 1000 * until)
    pool.state.guard = Guard(1, 9, hold_back=HoldBack(uuid7(9), *moments))
    return pool


def test_it_has_waited_for_as_long_as_each_of_its_pools_states() -> None:
    pools = {"a": a_pool("a", 1, within=60, queued=5), "b": a_pool("b", 2, within=90)}
    found = keeping_at(GANG, pools, NOW)
    assert found is not None
    assert (found.at, found.millis) == (NOW + 90_000, 30_000)
    assert found.tickets.keys() == {"a", "b"}


def test_the_shortest_time_counts_and_those_that_state_none_keep_none() -> None:
    pools = {"a": a_pool("a", 1, hold_back=20), "b": a_pool("b", 2)}
    found = keeping_at(GANG, pools, NOW)
    assert found is not None
    assert found.millis == 20_000
    pools["b"] = a_pool("b", 2, within=900, hold_back=None)
    found = keeping_at(GANG, pools, NOW)
    assert found is not None
    assert (found.at, set(found.tickets)) == (NOW + 60_000, {"a"})
    pools["a"] = a_pool("a", 1, hold_back=None)
    assert keeping_at(GANG, pools, NOW) is None


def test_others_are_served_for_as_long_as_seats_were_kept_before_it_begins_again() -> None:
    pools = {"a": a_pool("a", 1), "b": kept(a_pool("b", 2), 50, 75)}
    found = keeping_at(GANG, pools, NOW)
    assert found is not None
    assert found.at == NOW + 100_000


def test_one_of_which_a_part_is_not_there_keeps_none() -> None:
    assert keeping_at(GANG, {"a": a_pool("a", 1)}, NOW) is None
    other = {"a": a_pool("a", 1), "b": a_pool("b", 3)}
    assert keeping_at(GANG, other, NOW) is None


def test_of_alternatives_the_first_whose_time_has_come_keeps_seats() -> None:
    either = (GangMember("a", uuid7(1), 1, 0), GangMember("b", uuid7(2), 1, 9_000))
    pools = {"a": a_pool("a", 1), "b": a_pool("b", 2)}
    for pool in pools.values():
        for ticket in [*pool.state.tickets.values()]:
            pool.state.put_ticket(changed(ticket, gang=either))
    found = keeping_at(either, pools, NOW)
    assert found is not None
    assert set(found.tickets) == {"a"}
    pools["a"].state.spec = PoolSpec("a", 1)
    assert keeping_at(either, pools, NOW) is None
    found = keeping_at(either, pools, Instant(NOW + 9_000))
    assert found is not None
    assert set(found.tickets) == {"b"}
