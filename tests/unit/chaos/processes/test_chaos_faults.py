"""Faults affect what they say, and recover, whatever happens meanwhile."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.kit import eventually

from seatkeeper.chaos import faults as faults_module
from seatkeeper.chaos.faults import Users, described, faults_of
from seatkeeper.chaos.worker import WorkerConfig
from seatkeeper.chaos.worker_pool import WorkerPool, WorkerPoolError, WorkerProcess

UNUSED = "127.0.0.1:1"


def config(name: str, number: int) -> WorkerConfig:
    """Users without a service, who go on asking."""
    return WorkerConfig(name=name, seed=number, users=2, nodes=[UNUSED], pools=[("pool", 1)])


@pytest.fixture
async def worker_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[WorkerPool]:
    """Two processes of two users, without a service."""
    monkeypatch.setattr(faults_module, "HOLDING_SECONDS_MAX", 0.0)
    worker_pool = WorkerPool(config, workers=2, folder=tmp_path)
    await worker_pool.start()
    yield worker_pool
    await worker_pool.end()


def state(worker: WorkerProcess) -> str:
    """Return the letter that the system has for what a process does."""
    status = Path(f"/proc/{worker.process.pid}/stat").read_text()
    return status.rpartition(")")[2].split()[0]


def names(worker_pool: WorkerPool) -> list[str]:
    return [worker.name for worker in worker_pool.alive]


async def test_a_fault_is_called_by_its_class_and_its_own_name(worker_pool: WorkerPool) -> None:
    faults = faults_of(Users(worker_pool, random.Random(0)))
    assert faults.keys() == described(Users).keys()
    assert "Users.all_die" in faults


async def test_a_killed_worker_is_replaced_and_recorded(worker_pool: WorkerPool) -> None:
    async with Users(worker_pool, random.Random(0)).die() as place:
        assert place not in names(worker_pool)
        assert len(worker_pool.alive) == 1
    assert names(worker_pool)[-1] == "users-3"
    assert len(worker_pool.alive) == 2
    assert worker_pool.record.killed.keys() >= {f"{place}-0", f"{place}-1"}
    assert not worker_pool.record.killed.keys() & {f"{name}-0" for name in names(worker_pool)}


async def test_when_all_are_killed_as_many_others_come(worker_pool: WorkerPool) -> None:
    async with Users(worker_pool, random.Random(0)).all_die() as place:
        assert place == "2 processes"
        assert worker_pool.alive == []
    assert names(worker_pool) == ["users-3", "users-4"]
    dead = {f"users-{worker}-{number}" for worker in (1, 2) for number in (0, 1)}
    assert worker_pool.record.killed.keys() >= dead


async def test_a_paused_worker_stands_still_until_resumed(worker_pool: WorkerPool) -> None:
    async with Users(worker_pool, random.Random(0)).freeze() as place:
        name = place.removesuffix(" with 0 seats")
        (paused,) = [worker for worker in worker_pool.alive if worker.name == name]
        (other,) = [worker for worker in worker_pool.alive if worker.name != name]
        assert state(paused) == "T"
        assert state(other) != "T"
    await eventually(lambda: state(paused) != "T")


async def test_a_worker_killed_while_paused_needs_no_resume(worker_pool: WorkerPool) -> None:
    users, before = Users(worker_pool, random.Random(0)), list(worker_pool.alive)
    async with users.freeze():
        async with users.all_die():
            pass
        await eventually(lambda: all(worker.process.returncode for worker in before))
    assert names(worker_pool) == ["users-3", "users-4"]


async def test_who_ends_by_itself_is_noticed(worker_pool: WorkerPool) -> None:
    worker_pool.check()
    worker = worker_pool.alive[0]
    worker.process.kill()
    await worker.process.wait()
    with pytest.raises(WorkerPoolError, match=f"{worker.name} ended"):
        worker_pool.check()


async def test_who_ends_by_itself_before_a_fault_is_noticed_after_it(
    worker_pool: WorkerPool,
) -> None:
    users = Users(worker_pool, random.Random(0))
    for worker in worker_pool.alive:
        os.kill(worker.process.pid, signal.SIGKILL)
    async with users.freeze():  # it may be dying
        pass
    await eventually(lambda: all(worker.process.returncode for worker in worker_pool.alive))
    async with users.freeze():
        pass
    with pytest.raises(WorkerPoolError, match="ended"):
        worker_pool.check()
    for worker in worker_pool.alive:
        worker.kill()


async def test_who_cannot_start_says_why(tmp_path: Path) -> None:
    says = ("sh", "-c", "echo no such machine >&2; exit 3")
    worker_pool = WorkerPool(config, workers=1, folder=tmp_path, commands=lambda name: says)
    with pytest.raises(WorkerPoolError, match="users-1 did not start: no such machine"):
        await worker_pool.start()
    await worker_pool.end()
