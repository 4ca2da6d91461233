"""``ApplyPools`` over a socket: all or nothing, by what was seen, with all that single changes keep."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

import grpc
import pytest
from tests.unit.kit import POOL, uuid7
from tests.unit.service.test_pool_policies import CV, shared
from tests.unit.service.test_pool_service import create, delete, spec, update
from tests.unit.services import DEADLINE, STORE_KEYS, Services, refused

from seatkeeper.server.pool.batches import BATCH_BYTES_MAX
from seatkeeper.server.store import OutcomeUnknown, Put
from seatkeeper.v1 import pool_service_pb2 as pb

ABORTED = grpc.StatusCode.ABORTED
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def to(wanted: pb.PoolSpec, seen_revision: int = 0) -> pb.PoolChange:
    return pb.PoolChange(name=wanted.name, seen_revision=seen_revision, spec=wanted)


def stays(name: str, seen_revision: int = 0) -> pb.PoolChange:
    return pb.PoolChange(name=name, seen_revision=seen_revision)


def goes(name: str, seen_revision: int) -> pb.PoolChange:
    return pb.PoolChange(name=name, seen_revision=seen_revision, delete=True)


async def apply(services: Services, *changes: pb.PoolChange, reason: str = "") -> int:
    request = pb.ApplyPoolsRequest(changes=changes, reason=reason)
    return (await services.pools.ApplyPools(request, timeout=DEADLINE)).revision


async def listed(services: Services) -> dict[str, pb.Pool]:
    answer = await services.pools.ListPools(pb.ListPoolsRequest(), timeout=DEADLINE)
    return {pool.spec.name: pool for pool in answer.pools}


async def test_pools_are_made_changed_and_deleted_at_one_revision(services: Services) -> None:
    old = await create(services, spec("old", 2))
    gone = await create(services, spec("gone", 2))
    other = await create(services, spec("other", 2))

    revision = await apply(
        services,
        to(spec("new", 4, "made together")),
        to(shared(4, CV)),
        to(spec("old", 3), old.revision),
        goes("gone", gone.revision),
        stays("other", other.revision),
    )

    pools = await listed(services)
    assert {name: pool.revision for name, pool in pools.items()} == {
        "new": revision,
        "old": revision,
        POOL: revision,
        "other": other.revision,
    }
    assert pools["new"].spec == spec("new", 4, "made together")
    assert pools["old"].spec.seats == 3
    assert [*pools[POOL].spec.policy.projects] == [CV]
    assert pools["other"] == other


async def test_a_new_pool_can_be_used(services: Services) -> None:
    await apply(services, to(spec(seats=1)))
    granted = await services.acquire(await services.session(), 1)
    assert (granted.pool, granted.fence) == (POOL, 1)


async def test_one_bad_pool_of_many_and_none_is_applied(services: Services) -> None:
    good = [to(spec(f"pool-{n}", 1)) for n in range(499)]
    bad = to(spec("bad", -1))
    failure = await refused(apply(services, *good[:250], bad, *good[250:]))
    assert failure.code is INVALID
    assert failure.fields == ["changes[250].spec.seats"]
    assert "pool bad: -1 is not from 0" in failure.message
    assert await listed(services) == {}


async def test_a_thousand_at_once(services: Services) -> None:
    revision = await apply(services, *(to(spec(f"pool-{n}", 1)) for n in range(1_000)))
    listing = await services.store.list(STORE_KEYS.pools())
    assert len(listing.entries) == 1_000
    assert {entry.mod_revision for entry in listing.entries} == {revision}
    failure = await refused(apply(services, *(stays(f"p{n}") for n in range(1_001))))
    assert failure.fields == ["changes"]


@pytest.mark.parametrize(
    ("happens", "how"),
    [
        (lambda s: update(s, spec("a", 5)), "a is at revision"),
        (lambda s: delete(s, "a"), "a was deleted"),
        (lambda s: create(s, spec("b", 5)), "b was created"),
        (lambda s: update(s, spec("same", 5)), "same is at revision"),
        (lambda s: delete(s, "same"), "same was deleted"),
        (lambda s: delete(s, "gone"), "gone was deleted"),
    ],
    ids=["changed", "deleted", "created", "beside", "deleted beside", "deleted already"],
)
async def test_what_changed_since_it_was_seen_is_named_and_nothing_is_applied(
    happens: Callable[[Services], asyncio.Future[object]], how: str, services: Services
) -> None:
    seen = {name: await create(services, spec(name, 1)) for name in ("a", "same", "gone")}
    await happens(services)
    before = await listed(services)

    failure = await refused(
        apply(
            services,
            to(spec("a", 2), seen["a"].revision),
            to(spec("b", 2)),
            goes("gone", seen["gone"].revision),
            stays("same", seen["same"].revision),
        )
    )

    assert failure.code is ABORTED
    assert failure.reason == "POOLS_CHANGED"
    assert how in failure.message
    info = failure.details["ErrorInfo"]
    assert info.metadata == {"pools": how.partition(" ")[0], "count": "1"}  # type: ignore[attr-defined]  # of its kind
    assert await listed(services) == before


async def test_many_that_changed_fit_into_a_refusal(services: Services) -> None:
    names = [f"{'x' * 58}-{n:03d}" for n in range(300)]
    failure = await refused(apply(services, *(stays(name, 7) for name in names)))
    assert failure.code is ABORTED
    info = failure.details["ErrorInfo"]
    metadata: dict[str, str] = dict(info.metadata)  # type: ignore[attr-defined]  # of its kind
    assert metadata["count"] == "300"
    assert set(metadata["pools"].split(",")) < set(names)
    assert "and 290 more" in failure.message


async def test_a_change_of_another_pool_does_not_matter(services: Services) -> None:
    """One that is not named is below the same prefix: the commit is made again, by a new listing."""
    pool = await create(services, spec("a", 1))
    await create(services, spec("beside", 1))
    times = 0

    async def change_beside(call: str) -> None:
        nonlocal times
        if call == "commit_large" and times < 3:
            times += 1
            entry = await services.store.get(STORE_KEYS.pool("beside"))
            assert entry is not None
            await services.store.commit([Put(entry.key, entry.value)])

    services.store.before_call = change_beside
    assert await apply(services, to(spec("a", 2), pool.revision))
    assert times == 3


async def test_pools_that_change_all_the_time_end_it(services: Services) -> None:
    pool = await create(services, spec("a", 1))
    await create(services, spec("beside", 1))

    async def change_beside(call: str) -> None:
        if call == "commit_large":
            entry = await services.store.get(STORE_KEYS.pool("beside"))
            assert entry is not None
            await services.store.commit([Put(entry.key, entry.value)])

    services.store.before_call = change_beside
    failure = await refused(apply(services, to(spec("a", 2), pool.revision)))
    assert failure.code is ABORTED
    assert failure.reason == "STATUS_ABORTED"
    assert (await listed(services))["a"].spec.seats == 1


async def test_a_change_between_the_listing_and_the_commit_is_noticed(
    services: Services,
) -> None:
    pool = await create(services, spec("a", 1))

    async def overtake(call: str) -> None:
        if call == "commit_large":
            services.store.before_call = None
            await delete(services, "a")

    services.store.before_call = overtake
    failure = await refused(apply(services, to(spec("a", 2), pool.revision)))
    assert failure.code is ABORTED
    assert "a was deleted" in failure.message
    assert await listed(services) == {}


async def test_of_two_at_once_one_wins(services: Services) -> None:
    pools = [await create(services, spec(f"pool-{n}", 1)) for n in range(20)]

    def all_to(seats: int) -> asyncio.Task[int]:
        changes = [to(spec(pool.spec.name, seats), pool.revision) for pool in pools]
        return asyncio.ensure_future(apply(services, *changes))

    outcomes = await asyncio.gather(all_to(2), all_to(3), return_exceptions=True)

    won = [each for each in outcomes if isinstance(each, int)]
    (lost,) = (each for each in outcomes if isinstance(each, grpc.aio.AioRpcError))
    assert len(won) == 1
    assert lost.code() is ABORTED
    assert len({pool.spec.seats for pool in (await listed(services)).values()}) == 1


async def test_fences_go_on_after_a_pool_came_back(services: Services) -> None:
    await apply(services, to(spec(seats=1)))
    who = await services.session()
    await services.acquire(who, 1)
    await services.release(who, 1)
    pool = await services.look()
    assert pool.fence == 1
    await apply(services, goes(POOL, pool.revision))
    await apply(services, to(spec(seats=1)))
    assert (await services.acquire(who, 2)).fence == 2


async def test_a_pool_in_use_is_not_deleted_and_nothing_else_is_done(
    services: Services,
) -> None:
    pool = await create(services, spec(seats=1))
    await services.acquire(await services.session(), 1)
    failure = await refused(apply(services, to(spec("new", 1)), goes(POOL, pool.revision)))
    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert "1 seat held" in failure.message
    assert list(await listed(services)) == [POOL]


async def test_a_seat_taken_while_it_is_deleted_keeps_the_pool(services: Services) -> None:
    pool = await create(services, spec(seats=1))
    who = await services.session()

    async def overtake(call: str) -> None:
        if call == "commit_large":
            services.store.before_call = None
            await services.acquire(who, 1)

    services.store.before_call = overtake
    failure = await refused(apply(services, goes(POOL, pool.revision)))
    assert failure.code is grpc.StatusCode.FAILED_PRECONDITION
    assert (await services.look()).held == 1


async def test_lowering_revokes_nothing(services: Services) -> None:
    pool = await create(services, spec(seats=2))
    await services.acquire(await services.session(), 1, seats=2)
    await apply(services, to(spec(seats=1), pool.revision))
    pool = await services.look()
    assert (pool.held, pool.spec.seats, pool.free) == (2, 1, 0)


async def test_a_policy_that_is_not_said_stays_and_must_hold(services: Services) -> None:
    pool = await create(services, shared(4, CV))
    await apply(services, to(spec(seats=5), pool.revision))
    pool = await services.look()
    assert [*pool.spec.policy.projects] == [CV]

    failure = await refused(
        apply(services, to(spec("new", 1)), to(spec(seats=1), pool.revision))
    )
    assert failure.code is INVALID
    assert "guaranteed of project cv" in failure.message
    assert list(await listed(services)) == [POOL]

    none = spec(seats=1)
    none.policy.SetInParent()
    await apply(services, to(none, pool.revision))
    assert not (await services.look()).spec.policy.projects


async def test_what_a_newer_version_says_of_a_pool_stays(services: Services) -> None:
    await create(services, spec(seats=4))
    entry = await services.store.get(STORE_KEYS.pool(POOL))
    assert entry is not None
    done = await services.store.commit(
        [Put(entry.key, entry.value + b"\xf8\x3f\x07")]
    )  # field 1023
    await apply(services, to(spec(seats=5), done.revision))
    entry = await services.store.get(STORE_KEYS.pool(POOL))
    assert entry is not None
    assert entry.value.endswith(b"\xf8\x3f\x07")
    assert pb.PoolSpec.FromString(entry.value).seats == 5


async def test_a_pool_of_a_newer_format_is_refused(services: Services) -> None:
    newer = pb.PoolSpec(name=POOL, seats=4, format=99).SerializeToString()
    done = await services.store.commit([Put(STORE_KEYS.pool(POOL), newer)])
    failure = await refused(apply(services, to(spec("a", 1)), to(spec(seats=1), done.revision)))
    assert failure.code is grpc.StatusCode.UNAVAILABLE
    assert await services.store.get(STORE_KEYS.pool("a")) is None


async def test_each_change_is_an_event_with_who_and_why(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    old = await create(services, spec("old", 2))
    gone = await create(services, spec("gone", 2))
    caplog.set_level(logging.INFO)

    revision = await apply(
        services,
        to(shared(4, CV)),
        to(spec("old", 3), old.revision),
        goes("gone", gone.revision),
        reason="a new quarter",
    )

    acts = {
        record.getMessage(): record.__dict__
        for record in caplog.records
        if record.name == "seatkeeper.server.identity.audit"
    }
    assert list(acts) == ["pools_applied", "pool_created", "pool_updated", "pool_deleted"]
    assert all(act["reason"] == "a new quarter" for act in acts.values())
    assert {act["revision"] for act in acts.values()} == {revision}
    assert all("127.0.0.1" in act["by"] for act in acts.values())
    whole = acts["pools_applied"]
    assert (whole["pools_created"], whole["pools_updated"], whole["pools_deleted"]) == (1, 1, 1)
    assert acts["pool_created"]["policy"] == ["cv: guaranteed=2,limit=3,weight=2"]
    updated = acts["pool_updated"]
    assert (updated["pool"], updated["seats_before"], updated["seats_after"]) == ("old", 2, 3)
    assert (acts["pool_deleted"]["pool"], acts["pool_deleted"]["seats"]) == ("gone", 2)


async def test_an_unknown_outcome_is_logged_as_one(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    async def lose_the_answer(call: str) -> None:
        if call == "commit_large":
            raise OutcomeUnknown("the connection was reset")

    services.store.after_call = lose_the_answer
    failure = await refused(apply(services, to(spec(seats=1)), reason="why"))
    services.store.after_call = None
    assert failure.code is grpc.StatusCode.UNAVAILABLE
    (act,) = (each for each in caplog.records if each.getMessage() == "pools_applied_unknown")
    assert act.__dict__["reason"] == "why"
    assert (await services.look()).spec.seats == 1


async def test_nothing_to_change_writes_nothing(services: Services) -> None:
    pool = await create(services, spec(seats=1))
    before = (await services.store.status()).revision
    assert await apply(services, stays(POOL, pool.revision)) == 0
    assert await apply(services) == 0
    assert (await services.store.status()).revision == before


async def test_more_than_a_transaction_holds_is_refused(services: Services) -> None:
    projects = [
        pb.ProjectShare(project=f"{'p' * 59}{n:03d}", parent=f"{'p' * 59}000" if n else "")
        for n in range(500)
    ]
    changes = []
    for n in range(20):
        wanted = shared(4, *projects)
        wanted.name = f"pool-{n}"
        changes.append(to(wanted))
    failure = await refused(apply(services, *changes))
    assert failure.code is INVALID
    assert f"one transaction takes {BATCH_BYTES_MAX}" in failure.message
    assert await listed(services) == {}
    assert await apply(services, *changes[:10])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (pb.PoolChange(name="Not A Name"), "name"),
        (pb.PoolChange(name="a", seen_revision=-1), "seen_revision"),
        (pb.PoolChange(name="a", spec=spec("b", 1)), "spec.name"),
        (pb.PoolChange(name="a", spec=pb.PoolSpec(name="a")), "spec.seats"),
        (pb.PoolChange(name="a", delete=True), "delete"),
        (pb.PoolChange(name="a", seen_revision=1, delete=False), "delete"),
    ],
    ids=["name", "revision", "another name", "no seats", "nothing to delete", "not deleted"],
)
async def test_a_malformed_change_is_refused_by_its_field(
    change: pb.PoolChange, field: str, services: Services
) -> None:
    failure = await refused(apply(services, to(spec("good", 1)), change))
    assert failure.code is INVALID
    assert failure.fields == [f"changes[1].{field}"]
    assert await listed(services) == {}


async def test_other_malformed_requests(services: Services) -> None:
    twice = await refused(apply(services, to(spec("a", 1)), to(spec("a", 2))))
    assert twice.fields == ["changes[1].name"]
    many = await refused(apply(services, *(goes(f"p{n}", 1) for n in range(61))))
    assert many.fields == ["changes"]
    long = await refused(apply(services, reason="x" * 501))
    assert long.fields == ["reason"]
    hidden = await refused(apply(services, reason="a\u202eb"))
    assert hidden.code is INVALID
    assert await listed(services) == {}


async def test_the_grants_of_a_closed_session_do_not_matter(services: Services) -> None:
    """A pool whose only holder has gone can be deleted, as by the single call."""
    pool = await create(services, spec(seats=1))
    who = await services.session(ttl=timedelta(seconds=5))
    assert (await services.acquire(who, 1)).grant_id == uuid7(1)
    services.pass_time(timedelta(seconds=6))
    await apply(services, goes(POOL, pool.revision))
    assert await listed(services) == {}
