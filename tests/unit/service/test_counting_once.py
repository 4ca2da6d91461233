"""Grants that count once, and who may borrow, over a socket: set, shown, refused, and gone by."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import grpc
import pytest
from tests.unit.kit import POOL
from tests.unit.service.test_pool_service import create, spec, update
from tests.unit.service.test_rules_of_hosts import on, stored
from tests.unit.services import STORE_KEYS, Services, refused

from seatkeeper.v1 import pool_service_pb2 as pb

Said = Callable[[pb.PoolPolicy], None]


def counting(*named: str, seats: int = 1) -> pb.PoolSpec:
    wanted = spec(seats=seats)
    wanted.policy.count_once.extend(named)
    return wanted


async def test_processes_on_one_host_share_a_seat(services: Services) -> None:
    pool = await create(services, counting("holder", "host"))
    assert list(pool.spec.policy.count_once) == ["holder", "host"]
    entry = await services.store.get(STORE_KEYS.pool(POOL))
    assert entry is not None
    assert pb.PoolSpec.FromString(entry.value).format == 6
    one, same, other, silent = [await on(services, host) for host in ("a", "A", "b", "")]
    await services.acquire(one, 1)
    await services.acquire(same, 2, wait=timedelta(0))
    record = await stored(services, 2)
    assert record.format == 6
    assert [(each.attribute, each.value) for each in record.counts_once] == [
        *(("project", record.project), ("holder", record.holder), ("host", "a")),
    ]
    for who, number in ((other, 3), (silent, 4)):
        failure = await refused(services.acquire(who, number, wait=timedelta(0)))
        assert failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    shown = await services.look()
    assert (shown.held, shown.free, len(shown.grants)) == (1, 0, 2)
    assert all(list(each.counts_once) == list(record.counts_once) for each in shown.grants)
    # A rule that goes leaves what was granted as it is.
    none = spec(seats=1)
    none.policy.SetInParent()
    assert (await update(services, none)).held == 1


@pytest.mark.parametrize(
    ("say", "field"),
    [
        (lambda said: said.count_once.append("user"), "count_once[0]"),
        (lambda said: said.count_once.extend(["host", "host"]), "count_once[1]"),
        (lambda said: said.count_once.extend(f"label:{n}" for n in range(9)), "count_once[0]"),
        (
            lambda said: (
                said.count_once.append("host"),
                said.rules.per_holder.CopyFrom(pb.AtMost(seats=1)),
            ),
            "count_once[0]",
        ),
        (lambda said: setattr(said.borrow, "per_project", -1), "borrow.per_project"),
        (lambda said: said.borrow.include.groups.append("none"), "borrow.include.groups[0]"),
        (lambda said: said.borrow.exclude.projects.append("**"), "borrow.exclude.projects[0]"),
        (
            lambda said: said.borrow.exclude.holders.extend(f"h{n}" for n in range(1_001)),
            "borrow.exclude",
        ),
    ],
    ids=range(8),
)
async def test_what_cannot_be_is_refused(services: Services, say: Said, field: str) -> None:
    wanted = spec(seats=1)
    say(wanted.policy)
    if wanted.policy.HasField("borrow"):
        wanted.policy.borrow.longest.FromTimedelta(timedelta(days=1))
    failure = await refused(create(services, wanted))
    assert failure.code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"spec.policy.{field}" in failure.message
    assert await services.store.get(STORE_KEYS.pool(POOL)) is None
