"""Draining a pool and opening it, over a socket."""

from __future__ import annotations

import logging
from datetime import timedelta

import grpc
import pytest
from tests.unit.kit import POOL, uuid7
from tests.unit.service.test_administered_requests import (
    INVALID,
    NOT_FOUND,
    explain,
    holding,
    said,
    waiting,
)
from tests.unit.service.test_pool_policies import stored
from tests.unit.service.test_pool_service import spec, update
from tests.unit.services import DEADLINE, Services, refused

from seatkeeper.server.store.formats import RULES_FORMAT
from seatkeeper.v1 import pool_service_pb2 as pb

WHY = "the licence server is moved"


async def drain(services: Services, *, name: str = POOL, reason: str = WHY) -> pb.Pool:
    request = pb.DrainPoolRequest(name=name, reason=reason)
    return (await services.pools.DrainPool(request, timeout=DEADLINE)).pool


async def open_it(services: Services, *, name: str = POOL, reason: str = "") -> pb.Pool:
    request = pb.OpenPoolRequest(name=name, reason=reason)
    return (await services.pools.OpenPool(request, timeout=DEADLINE)).pool


async def test_nothing_is_granted_until_it_is_opened(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    who, _ = await holding(services, 1, seats=2)
    caplog.set_level(logging.INFO)
    pool = await drain(services)
    assert (pool.spec.drain.reason, pool.spec.seats) == (WHY, 2)
    assert (pool.held, pool.free) == (1, 0)
    _, bert = await waiting(services, 2)
    failure = await refused(services.acquire(who, 3, wait=timedelta(0)))
    assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert failure.reason == "DENIAL_REASON_POOL_DRAINED"
    assert WHY in failure.message
    reason = await explain(services, 2)
    assert reason.rule == "drained"
    assert WHY in reason.message
    audit = said(caplog, "pool_drained")
    assert (audit["pool"], audit["reason"], audit["held"]) == (POOL, WHY, 1)
    assert "anonymous at" in str(audit["by"])
    assert pool.spec.drain.by == audit["by"]
    opened = await open_it(services, reason="it has moved")
    assert not opened.spec.HasField("drain")
    assert (await bert.event("granted")).granted.grant_id == uuid7(2)
    audit = said(caplog, "pool_opened")
    assert (audit["reason"], audit["drained_for"]) == ("it has moved", WHY)


async def test_an_older_node_must_not_overlook_it(services: Services) -> None:
    await services.pool(2)
    assert (await stored(services)).format == 0
    await drain(services)
    assert (await stored(services)).format == RULES_FORMAT
    await open_it(services)
    assert (await stored(services)) == pb.PoolSpec(name=POOL, seats=2), (
        "as it was, byte for byte"
    )


async def test_a_change_of_the_specification_leaves_it_drained(services: Services) -> None:
    await services.pool(2)
    await drain(services)
    said_of_it = spec(seats=5)
    said_of_it.drain.reason = "another"
    changed = await update(services, said_of_it)
    assert (changed.spec.seats, changed.spec.drain.reason) == (5, WHY)
    seen = pb.PoolChange(name=POOL, seen_revision=changed.revision, spec=spec(seats=6))
    await services.pools.ApplyPools(pb.ApplyPoolsRequest(changes=[seen]), timeout=DEADLINE)
    pool = await services.look()
    assert (pool.spec.seats, pool.spec.drain.reason) == (6, WHY)
    await open_it(services)
    changed = await update(services, said_of_it)
    assert not changed.spec.HasField("drain"), "nor does one drain it"


async def test_drained_again_it_has_the_new_reason_and_open_it_stays(
    services: Services,
) -> None:
    await services.pool(2)
    await drain(services)
    assert (await drain(services, reason="still")).spec.drain.reason == "still"
    first = await open_it(services)
    assert (await open_it(services)).revision == first.revision, "nothing is written"


async def test_what_is_malformed_or_unknown_is_refused(services: Services) -> None:
    await services.pool(2)
    for reason in ("", " ", "x" * 201, "a\x1b[2Jb"):
        failure = await refused(drain(services, reason=reason))
        assert (failure.code, failure.fields) == (INVALID, ["reason"])
    failure = await refused(open_it(services, reason="x" * 201))
    assert (failure.code, failure.fields) == (INVALID, ["reason"])
    for call in (drain(services, name="absent"), open_it(services, name="absent")):
        failure = await refused(call)
        assert (failure.code, failure.resource) == (NOT_FOUND, ("pool", "absent"))
    assert not (await services.look()).spec.HasField("drain")
