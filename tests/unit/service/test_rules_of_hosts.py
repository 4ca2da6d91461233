"""Rules by host over a socket: the host is the session's, in records only where a pool looks at it."""

from __future__ import annotations

from datetime import timedelta

import grpc
from tests.unit.kit import POOL, uuid7
from tests.unit.service.test_pool_service import create, spec, update
from tests.unit.services import DEADLINE, STORE_KEYS, Services, Who, open_of, refused

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.v1 import pool_service_pb2 as pb
from seatkeeper.v1 import seat_pb2, seat_service_pb2

WAIT = timedelta(minutes=1)


def ruled(rules: pb.PoolRules, seats: int = 4) -> pb.PoolSpec:
    wanted = spec(seats=seats)
    wanted.policy.rules.CopyFrom(rules)
    return wanted


async def on(services: Services, host: str) -> Who:
    """Open a session of a client that says it is on a host; empty: it says nothing."""
    who = services.stranger()
    opening = open_of(who)
    if host:
        opening.client.CopyFrom(seat_pb2.ClientInfo(host=host, command="train.py"))
    request = seat_service_pb2.OpenSessionRequest(open=opening)
    await services.seats.OpenSession(request, timeout=DEADLINE)
    return who


async def stored(services: Services, number: int) -> state_pb2.GrantRecord:
    entry = await services.store.get(STORE_KEYS.grant(POOL, uuid7(number)))
    assert entry is not None
    return state_pb2.GrantRecord.FromString(entry.value)


async def test_a_host_is_kept_out_by_what_its_client_says(services: Services) -> None:
    await create(services, ruled(pb.PoolRules(exclude=pb.Who(hosts=["kiosk-*"]))))
    entry = await services.store.get(STORE_KEYS.pool(POOL))
    assert entry is not None
    assert pb.PoolSpec.FromString(entry.value).format == 4
    kiosk, desk, silent = [await on(services, host) for host in ("Kiosk-1", "desk", "")]
    failure = await refused(services.acquire(kiosk, 1))
    assert failure.code is grpc.StatusCode.PERMISSION_DENIED
    assert "host kiosk-* is excluded (rule `exclude`)" in failure.message
    await services.acquire(desk, 2)
    await services.acquire(silent, 3)
    assert (await stored(services, 2)).attributes.host == "desk"
    assert not (await stored(services, 3)).HasField("attributes")


async def test_what_a_request_says_of_its_host_is_not_looked_at(services: Services) -> None:
    await create(services, ruled(pb.PoolRules(include=pb.Who(hosts=["build-7"]))))
    build, desk = await on(services, "build-7"), await on(services, "desk")
    forged = seat_pb2.Attributes(host="build-7", cost=7)
    failure = await refused(services.acquire(desk, 1, attributes=forged))
    assert "nor host desk (rule `include`)" in failure.message
    assert (await services.acquire(build, 2)).seats == 1


async def test_each_host_has_its_most(services: Services) -> None:
    await create(services, ruled(pb.PoolRules(per_host=pb.AtMost(seats=1))))
    one, same, other = [await on(services, host) for host in ("a", "A", "b")]
    await services.acquire(one, 1)
    failure = await refused(services.acquire(same, 2, wait=timedelta(0)))
    assert "host a has 1 of the 1 seats that each may hold (rule `per_host`)" in failure.message
    await services.acquire(other, 3)


async def test_a_pool_that_does_not_look_at_hosts_is_written_as_before(
    services: Services,
) -> None:
    await create(services, spec(seats=2))
    anna = await on(services, "desk")
    await services.acquire(anna, 1)
    assert not (await stored(services, 1)).HasField("attributes")
    # Grants of before are of no known host, and stay.
    pool = await update(services, ruled(pb.PoolRules(include=pb.Who(hosts=["desk"])), seats=2))
    assert pool.held == 1
    await services.acquire(anna, 2)
    assert (await stored(services, 2)).attributes.host == "desk"
