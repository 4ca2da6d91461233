"""A pool's rules over a socket: set, shown, kept, refused, and gone by."""

from __future__ import annotations

import logging
from datetime import timedelta

import grpc
import pytest
from tests.unit.kit import POOL, uuid7
from tests.unit.service.test_administered_requests import explain
from tests.unit.service.test_pool_service import create, spec, update
from tests.unit.services import STORE_KEYS, Services, Stream, refused

from seatkeeper.server.store import Put
from seatkeeper.server.store.formats import COUNT_FORMAT
from seatkeeper.v1 import pool_service_pb2 as pb

INVALID = grpc.StatusCode.INVALID_ARGUMENT
WAIT = timedelta(minutes=1)
RULES = pb.PoolRules(
    groups=[pb.HolderGroup(name="bad", holders=["mal*"])],
    include=pb.Who(projects=["cv", "n*"]),
    exclude=pb.Who(groups=["bad"]),
    per_holder=pb.AtMost(seats=1, tickets=1),
)


def ruled(rules: pb.PoolRules, seats: int = 4) -> pb.PoolSpec:
    wanted = spec(seats=seats)
    wanted.policy.rules.CopyFrom(rules)
    return wanted


async def stored(services: Services) -> pb.PoolSpec:
    entry = await services.store.get(STORE_KEYS.pool(POOL))
    assert entry is not None
    return pb.PoolSpec.FromString(entry.value)


async def test_rules_are_stored_and_shown_and_an_older_node_must_not_overlook_them(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    await create(services, spec(seats=4))
    assert (await stored(services)).format == 0
    caplog.set_level(logging.INFO)
    pool = await update(services, ruled(RULES))
    assert pool.spec.policy.rules == RULES
    assert (await services.look()).spec == pool.spec
    assert (await stored(services)).format == 3
    (event,) = (each for each in caplog.records if each.getMessage() == "pool_updated")
    assert event.__dict__["policy_after"] == [
        "group bad: mal*",
        "include: project cv, project n*",
        "exclude: group bad",
        "per holder: seats=1,tickets=1",
    ]
    # One that says nothing of them leaves them; an empty policy takes them away.
    assert (await update(services, spec(seats=5))).spec.policy.rules == RULES
    none = spec(seats=4)
    none.policy.SetInParent()
    assert not (await update(services, none)).spec.policy.HasField("rules")
    assert (await stored(services)).format == 0


async def test_a_newer_format_still_is_refused(services: Services) -> None:
    await create(services, ruled(RULES))
    newer = await stored(services)
    newer.format = COUNT_FORMAT + 1
    await services.store.commit([Put(STORE_KEYS.pool(POOL), newer.SerializeToString())])
    failure = await refused(update(services, spec(seats=5)))
    assert failure.code is grpc.StatusCode.UNAVAILABLE


async def test_what_a_newer_version_says_of_rules_stays(services: Services) -> None:
    await create(services, ruled(RULES))
    newer = await stored(services)
    newer.policy.rules.MergeFromString(b"\xf8\x3f\x07")  # field 1023
    await services.store.commit([Put(STORE_KEYS.pool(POOL), newer.SerializeToString())])
    await update(services, spec(seats=5))
    assert (await stored(services)).policy == newer.policy


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        (pb.PoolRules(exclude=pb.Who(holders=["a*b*"])), "exclude.holders[0]"),
        (pb.PoolRules(include=pb.Who(groups=["x"])), "include.groups[0]"),
        (pb.PoolRules(include=pb.Who(projects=["cv", "Not"])), "include.projects[1]"),
        (pb.PoolRules(groups=[pb.HolderGroup(name="x")]), "groups[0].holders"),
        (pb.PoolRules(per_holder=pb.AtMost(seats=0)), "per_holder.seats"),
        (pb.PoolRules(per_project=pb.AtMost(tickets=-1)), "per_project.tickets"),
    ],
)
async def test_rules_that_make_no_sense_are_refused_by_their_field(
    rules: pb.PoolRules, field: str, services: Services
) -> None:
    failure = await refused(create(services, ruled(rules)))
    assert failure.code is INVALID
    assert f"spec.policy.rules.{field}" in failure.message
    assert await services.store.get(STORE_KEYS.pool(POOL)) is None


async def test_seats_go_by_them(services: Services) -> None:
    """One holder asks for three: the first is granted, the second waits, the third is refused."""
    await create(services, ruled(RULES))
    stream, anna = Stream(services), services.stranger()
    await stream.open(anna)
    await stream.acquire(1, project="cv", wait=WAIT)
    await stream.event("granted")
    await stream.acquire(2, project="cv", wait=WAIT)
    await stream.event("queued")
    await stream.acquire(3, project="cv", wait=WAIT)
    denied = (await stream.event("denied")).denied
    assert "TOO_MANY_TICKETS" in str(denied)
    assert "and each may have 1 (rule `per_holder`)" in denied.message
    reason = await explain(services, 2)
    assert reason.rule == "per_holder"
    assert "has 1 of the 1 seats that each may hold" in reason.message
    assert not reason.ahead
    # Another goes before the one that waits: three seats are free.
    bert = await services.session()
    failure = await refused(services.acquire(bert, 5, project="asr"))
    assert (failure.code, failure.reason) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "DENIAL_REASON_NOT_ALLOWED",
    )
    assert "(rule `include`)" in failure.message
    await stream.release(1)
    assert (await stream.event("granted")).granted.grant_id == uuid7(2)


async def test_a_rule_that_comes_ends_what_waits(services: Services) -> None:
    await create(services, spec(seats=1))
    stream, anna = Stream(services), services.stranger()
    await stream.open(anna)
    await stream.acquire(1, project="cv", wait=WAIT)
    await stream.event("granted")
    await stream.acquire(2, project="cv", wait=WAIT)
    await stream.event("queued")
    await update(services, ruled(pb.PoolRules(exclude=pb.Who(projects=["cv"])), seats=1))
    denied = (await stream.event("denied")).denied
    assert denied.grant_id == uuid7(2)
    assert "project cv is excluded (rule `exclude`)" in denied.message
    assert (await services.look()).held == 1
