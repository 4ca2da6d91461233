"""One real node for all tests here; each test has a pool of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.cli.commands import Result, address_of, in_process, seatkeeper, serving

from seatkeeper.client.sync import SeatClient
from seatkeeper.v1 import pool_service_pb2 as pb

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Cluster:
    """A node and how to make pools on it."""

    address: str
    client: SeatClient
    """For preparing and looking; commands are for testing."""

    def __call__(self, *arguments: str, stdin: str | None = None, **more: str) -> Result:
        """Run a command against the node."""
        return seatkeeper(
            *arguments, stdin=stdin, environ=more | {"SEATKEEPER_NODES": self.address}
        )

    def here(self, *arguments: str, stdin: str | None = None, **more: str) -> Result:
        """Run a command against the node in this process: a tenth of a process of its own."""
        return in_process(
            *arguments, stdin=stdin, environ=more | {"SEATKEEPER_NODES": self.address}
        )

    def pool(self, seats: int = 1) -> str:
        """Make a pool that no other test uses."""
        name = f"pool-{next(_numbers)}"
        self.client.pools.create(name, seats=seats)
        return name

    def look(self, pool: str) -> pb.Pool:
        """Return a pool as it stands."""
        return self.client.pools.get(pool)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A node that lives as long as the tests."""
    with serving(tmp_path_factory.mktemp("node")) as node:
        address = address_of(node)
        with SeatClient(address) as client:
            yield Cluster(address, client)


@pytest.fixture
def pool(cluster: Cluster) -> str:
    """A pool of one seat."""
    return cluster.pool()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a file into the test's folder."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write
