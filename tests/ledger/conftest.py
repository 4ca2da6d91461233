"""The databases that a ledger is written into: SQLite, and a real PostgreSQL where there is one."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from bench.peer_programs import POSTGRES, find
from bench.peer_servers import postgres_server
from sqlalchemy import create_engine, text
from tests.unit.loops import Loops

from seatkeeper.ledger.database import LedgerDatabase, open_database

NewDatabase = Callable[[], str]
Opened = Callable[[], LedgerDatabase]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[NewDatabase]:
    """Makes databases in a server of its own."""
    if find(POSTGRES) is None:
        pytest.skip("needs PostgreSQL: `make peers` fetches it on Debian")
    # Not pytest's folder: as root, it is for root alone, whom PostgreSQL refuses to run as.
    with tempfile.TemporaryDirectory(prefix="seatkeeper-") as above, asyncio.Runner() as runner:
        (folder := Path(above) / "postgresql").mkdir()
        server = postgres_server(folder)
        runner.run(server.__aenter__())

        def made() -> str:
            name = f"ledger_{next(_numbers)}"
            engine = create_engine(_url(folder, "postgres"), isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.execute(text(f"CREATE DATABASE {name}"))
            engine.dispose()
            return _url(folder, name)

        yield made
        runner.run(server.__aexit__(None, None, None))


def _url(folder: Path, name: str) -> str:
    return f"postgresql+psycopg://bench@/{name}?host={folder}"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with nothing in it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    new: NewDatabase = request.getfixturevalue("postgresql")
    return new()


@pytest.fixture
def opened(url: str) -> Iterator[Opened]:
    """Opens the database at ``url``, as often as it is called; closed when the test ends."""
    found: list[LedgerDatabase] = []

    def another() -> LedgerDatabase:
        found.append(open_database(url))
        return found[-1]

    yield another
    for each in found:
        each.close()


@pytest.fixture
async def loops() -> AsyncIterator[Loops]:
    """Nodes of a pool, over a store that has nothing."""
    made = Loops()
    yield made
    await made.close()
