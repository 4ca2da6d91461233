"""How the store is: what an operator reads about its members, leases, alarms and quorum."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tests.conftest import add_users

from seatkeeper.devcluster.etcd_process import EtcdCluster, EtcdOptions
from seatkeeper.server.store.etcd import EtcdConfig, EtcdStore

if TYPE_CHECKING:
    from tests.contract.conftest import Subject

    from seatkeeper.server.store.interface import StoreHealth

CALL_TIMEOUT = timedelta(seconds=1)
TOKEN_SECONDS = 1
QUICK_WITHIN_SECONDS = 60.0


async def test_a_store_that_is_well_says_so(subject: Subject) -> None:
    health = await subject.store.health()

    assert [member.is_leader for member in health.members] == [True]
    assert not any(member.failure or member.errors for member in health.members)
    assert health.alarms == frozenset()
    assert health.read_time is not None


async def test_its_leases_are_counted(subject: Subject) -> None:
    before = (await subject.store.health()).leases
    lease = subject.new_lease_id()
    await subject.store.grant_lease(lease, timedelta(seconds=60))
    after = (await subject.store.health()).leases
    await subject.store.revoke_lease(lease)

    assert before is not None
    assert after == before + 1


async def test_each_member_is_looked_at(cluster: EtcdCluster) -> None:
    store = EtcdStore(EtcdConfig(endpoints=cluster.endpoints, call_timeout=CALL_TIMEOUT))
    health = await store.health()
    await store.close()

    assert [member.endpoint for member in health.members] == list(cluster.endpoints)
    assert sorted(member.is_leader for member in health.members) == [False, False, True]
    assert len({member.name for member in health.members} - {""}) == 3
    assert all(member.version and member.size_bytes for member in health.members)


async def test_a_member_that_is_down_or_paused_is_named_and_the_others_have_a_quorum(
    cluster: EtcdCluster,
) -> None:
    store = EtcdStore(EtcdConfig(endpoints=cluster.endpoints, call_timeout=CALL_TIMEOUT))
    names = [member.name for member in (await store.health()).members]
    cluster.members[0].pause()
    paused = await store.health()
    cluster.members[0].resume()
    cluster.members[0].kill()
    down = await store.health()
    await store.close()

    for health in (paused, down):
        assert health.members[0].name == names[0], "the others know its name"
        assert [bool(member.failure) for member in health.members] == [True, False, False]
    assert down.read_time is not None


async def test_a_member_that_has_forgotten_the_token_is_given_another(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path: Path
) -> None:
    """As those do that are not in use: only calls to a member itself keep a token alive there."""
    options = replace(etcd_options, auth_token_ttl=timedelta(seconds=TOKEN_SECONDS))
    async with EtcdCluster(etcd_program, tmp_path, members=3, options=options) as cluster:
        await add_users(etcd_program, cluster, "ours/")
        store = EtcdStore(
            EtcdConfig(
                endpoints=cluster.endpoints,
                username="root",
                password="secret",
                call_timeout=timedelta(seconds=5),
            )
        )
        before = await _quick_look(store)
        after = await _quick_look(store, used_for=timedelta(seconds=3 * TOKEN_SECONDS))
        await store.close()

    assert [member.failure for member in before.members] == ["", "", ""]
    assert [member.failure for member in after.members] == ["", "", ""]


async def _quick_look(store: EtcdStore, used_for: timedelta = timedelta(0)) -> StoreHealth:
    """Look at all members once one has been in use for so long.

    On a slow machine a member forgets also the token that it was just given: another look, then.
    """
    deadline = time.monotonic() + QUICK_WITHIN_SECONDS
    while True:
        forgotten = time.monotonic() + used_for.total_seconds()
        while time.monotonic() < forgotten:
            await store.get("ours/key")  # of the member in use
        asked_at = time.monotonic()
        health = await store.health()
        if time.monotonic() < asked_at + TOKEN_SECONDS / 2:
            return health
        assert time.monotonic() < deadline, "no look was quick enough"


async def test_without_a_quorum_who_is_left_says_that_there_is_no_leader(
    cluster: EtcdCluster,
) -> None:
    store = EtcdStore(EtcdConfig(endpoints=cluster.endpoints, call_timeout=CALL_TIMEOUT))
    await store.status()
    for member in cluster.members[:2]:
        member.kill()
    async with asyncio.timeout(30):
        while True:
            health = await store.health()
            if health.members[2].errors:
                break
    await store.close()

    assert health.read_time is None
    assert not any(member.is_leader for member in health.members)
    assert "no leader" in " ".join(health.members[2].errors)


async def test_a_member_that_is_not_configured_is_named(cluster: EtcdCluster) -> None:
    store = EtcdStore(EtcdConfig(endpoints=cluster.endpoints[:2], call_timeout=CALL_TIMEOUT))
    # A member that has just started has not said yet under which address it serves.
    async with asyncio.timeout(30):
        while len((health := await store.health()).members) > len(cluster.endpoints):  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.1)
    await store.close()

    assert [member.is_configured for member in health.members] == [True, True, False]
    assert not any(member.failure for member in health.members)
    assert cluster.endpoints[2] in health.members[2].endpoint


async def test_no_answer_is_reported_and_not_raised() -> None:
    store = EtcdStore(
        EtcdConfig(endpoints=("127.0.0.1:1",), call_timeout=timedelta(seconds=0.3))
    )
    health = await store.health()
    await store.close()

    assert [member.failure for member in health.members] == ["cannot be reached"]
    assert (health.leases, health.read_time) == (None, None)
