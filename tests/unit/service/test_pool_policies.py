"""A pool's policy over a socket: set, shown, kept and refused."""

from __future__ import annotations

import logging
from datetime import timedelta

import grpc
import pytest
from tests.unit.kit import POOL, uuid7
from tests.unit.service.test_pool_service import create, spec, update
from tests.unit.services import STORE_KEYS, Services, Stream, refused

from seatkeeper.server.store import Put
from seatkeeper.server.store.formats import STAY_FORMAT
from seatkeeper.v1 import pool_service_pb2 as pb

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def shared(seats: int, *projects: pb.ProjectShare) -> pb.PoolSpec:
    wanted = spec(seats=seats)
    wanted.policy.projects.extend(projects)
    return wanted


WAIT = timedelta(minutes=1)
CV = pb.ProjectShare(project="cv", guaranteed=2, limit=3, weight=2)
NLP = pb.ProjectShare(project="nlp", weight=1)


async def stored(services: Services) -> pb.PoolSpec:
    entry = await services.store.get(STORE_KEYS.pool(POOL))
    assert entry is not None
    return pb.PoolSpec.FromString(entry.value)


async def test_a_policy_is_stored_and_shown_with_what_projects_have(services: Services) -> None:
    pool = await create(services, shared(4, CV, NLP))
    assert [*pool.spec.policy.projects] == [CV, NLP]
    assert [(each.project, each.held, each.queued) for each in pool.projects] == [
        ("cv", 0, 0),
        ("nlp", 0, 0),
    ]
    assert (await services.look()).spec == pool.spec


async def test_an_older_node_must_not_overlook_it(services: Services) -> None:
    await create(services, shared(4, CV))
    assert (await stored(services)).format == 2
    none = spec(seats=4)
    none.policy.SetInParent()
    pool = await update(services, none)
    assert not pool.spec.policy.projects
    assert (await stored(services)).format == 0


async def test_the_audit_says_what_was_changed_of_it(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    await create(services, shared(4, CV))
    aged = shared(4, CV)
    aged.policy.usage_half_life.FromTimedelta(timedelta(hours=1))
    caplog.set_level(logging.INFO)
    await update(services, aged)
    (event,) = (each for each in caplog.records if each.getMessage() == "pool_updated")
    said = "cv: guaranteed=2,limit=3,weight=2"
    assert event.__dict__["policy_before"] == [said]
    assert event.__dict__["policy_after"] == [said, "usage half-life: 3600 s"]


def overtaken(seats: int, seconds: int, hold_back: int | None = None) -> pb.PoolSpec:
    wanted = spec(seats=4)
    if hold_back is not None:
        wanted.policy.overtaking.hold_back.FromSeconds(hold_back)
    wanted.policy.overtaking.seats = seats
    wanted.policy.overtaking.within.FromSeconds(seconds)
    return wanted


async def test_a_pool_without_projects_may_allow_overtaking(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    """An older node allows none, which is right everywhere: the record is for it, too."""
    await create(services, spec(seats=4))
    caplog.set_level(logging.INFO)
    pool = await update(services, overtaken(4, 60))
    assert pool.spec.policy == overtaken(4, 60).policy
    assert (await services.look()).spec.policy == pool.spec.policy
    assert (await stored(services)).format == 0
    (event,) = (each for each in caplog.records if each.getMessage() == "pool_updated")
    assert event.__dict__["policy_after"] == ["overtaking: seats=4,within=60"]


async def test_a_pool_may_keep_seats_for_gangs_and_allow_nothing_else(
    services: Services,
) -> None:
    await create(services, overtaken(0, 60, 30))
    assert (await services.look()).spec.policy == overtaken(0, 60, 30).policy
    assert (await stored(services)).format == STAY_FORMAT
    await update(services, overtaken(1, 60))
    assert (await stored(services)).format == 0


async def test_an_update_that_says_nothing_of_it_leaves_it(services: Services) -> None:
    await create(services, shared(4, CV))
    pool = await update(services, spec(seats=5, description="more"))
    assert [*pool.spec.policy.projects] == [CV]
    closed = await update(services, spec(seats=0))
    assert [*closed.spec.policy.projects] == [CV]


async def test_fewer_seats_than_it_guarantees_are_refused(services: Services) -> None:
    await create(services, shared(4, CV))
    failure = await refused(update(services, spec(seats=1)))
    assert failure.code is INVALID
    assert "guaranteed of project cv" in failure.message
    assert "in the same call" in failure.message
    assert (await services.look()).spec.seats == 4
    smaller = pb.ProjectShare(project="cv", guaranteed=1)
    assert (await update(services, shared(1, smaller))).spec.seats == 1


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (shared(4, pb.ProjectShare(project="Not A Name")), "spec.policy.projects[0].project"),
        (shared(4, CV, CV), "spec.policy.projects[1].project"),
        (shared(1, CV), "spec.policy.projects[0].guaranteed"),
        (
            shared(4, CV, pb.ProjectShare(project="a", weight=-1)),
            "spec.policy.projects[1].weight",
        ),
        (shared(4, pb.ProjectShare(project="a", parent="b")), "spec.policy.projects[0].parent"),
        (
            shared(4, *(pb.ProjectShare(project=f"p{n}") for n in range(501))),
            "spec.policy.projects",
        ),
        (overtaken(0, 60), "spec.policy.overtaking.seats"),
        (overtaken(-1, 60), "spec.policy.overtaking.seats"),
        (overtaken(4, 0), "spec.policy.overtaking.within"),
        (overtaken(4, 91 * 86_400), "spec.policy.overtaking.within"),
        (overtaken(-1, 60, 60), "spec.policy.overtaking.seats"),
        (overtaken(0, 60, 0), "spec.policy.overtaking.hold_back"),
        (overtaken(0, 60, 91 * 86_400), "spec.policy.overtaking.hold_back"),
    ],
    ids=[
        "name",
        "twice",
        "guaranteed",
        "weight",
        "parent",
        "many",
        "none",
        "less",
        "now",
        "long",
        *("less, for gangs", "no time for gangs", "long for gangs"),
    ],
)
async def test_one_that_cannot_be_kept_is_refused_by_its_field(
    wanted: pb.PoolSpec, field: str, services: Services
) -> None:
    failure = await refused(create(services, wanted))
    assert failure.code is INVALID
    assert field in failure.message
    assert await services.store.get(STORE_KEYS.pool(POOL)) is None


async def test_what_a_newer_version_says_of_a_project_stays(services: Services) -> None:
    await create(services, shared(4, CV))
    entry = await services.store.get(STORE_KEYS.pool(POOL))
    assert entry is not None
    newer = pb.PoolSpec.FromString(entry.value)
    newer.policy.projects[0].MergeFromString(b"\xf8\x3f\x07")  # field 1023
    await services.store.commit([Put(entry.key, newer.SerializeToString())])
    await update(services, spec(seats=5))
    kept = await stored(services)
    assert kept.policy == newer.policy
    assert kept.seats == 5


async def test_seats_go_by_it(services: Services) -> None:
    """To the project under its guarantee, though the other has asked before."""
    await create(services, shared(2, pb.ProjectShare(project="cv", guaranteed=1, limit=1)))
    stream, anna = Stream(services), services.stranger()
    await stream.open(anna)
    for number, project in enumerate(("nlp", "nlp", "nlp", "cv"), start=1):
        await stream.acquire(number, project=project, wait=WAIT)
        await stream.event("granted" if number < 3 else "queued")
    pool = await services.look()
    assert [ticket.project for ticket in pool.tickets] == ["cv", "nlp"]
    await stream.release(1)
    assert (await stream.event("granted")).granted.grant_id == uuid7(4)
    pool = await services.look()
    assert sorted(grant.project for grant in pool.grants) == ["cv", "nlp"]
    assert [(each.held, each.queued) for each in pool.projects] == [(1, 0)]
    failure = await refused(
        services.acquire(await services.session(), 5, seats=2, project="cv")
    )
    assert failure.reason == "DENIAL_REASON_TOO_MANY_SEATS"
    assert "project cv may hold at most 1, not 2, seats of pool" in failure.message
