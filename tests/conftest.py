"""What many tests share: a real etcd, started once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from seatkeeper.server.etcd_binary import EtcdNotFoundError, find_etcd
from seatkeeper.server.etcd_process import EtcdCluster, EtcdOptions

QUICK_ETCD = EtcdOptions(
    heartbeat_interval=timedelta(milliseconds=50),
    election_timeout=timedelta(milliseconds=500),
    fsync=False,
)
"""Elects within a second and grants leases of 1 s."""


@pytest.fixture(scope="session")
def etcd_program() -> Path:
    """The etcd program to test with."""
    try:
        return find_etcd().path
    except EtcdNotFoundError as error:
        pytest.fail(f"these tests need a real etcd: run `make etcd`. {error}", pytrace=False)


@pytest.fixture(scope="session")
def etcd_options() -> EtcdOptions:
    """How tests run etcd."""
    return QUICK_ETCD


@pytest.fixture(scope="session")
def etcd(
    etcd_program: Path, etcd_options: EtcdOptions, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EtcdCluster]:
    """One member, shared by all tests: keep below a key prefix of your own, and break nothing."""
    cluster = EtcdCluster(etcd_program, tmp_path_factory.mktemp("etcd"), options=etcd_options)
    asyncio.run(cluster.start())
    yield cluster
    cluster.kill()
