"""The ledger in SQL: one transaction for each page, and one writer at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from alembic import command
from alembic.config import Config
from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Table,
    and_,
    bindparam,
    create_engine,
    event,
    func,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from seatkeeper.core.lot_use import LotSeats
from seatkeeper.ledger.accounts import OpenRow
from seatkeeper.ledger.rows import Asked, Ending, GrantRow, Page, Position, Standing, WaitRow
from seatkeeper.ledger.schema import gaps, grants, histories, ledgers, waits
from seatkeeper.server.domain import Instant

Row = dict[str, Any]
MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 0x5EA7_1ED6
"""The number by which PostgreSQL knows who changes the tables."""
BUSY_SECONDS = 30
"""How long SQLite waits for another process that writes."""
_SERVER = {"connect_timeout": 10, "keepalives_idle": 10, "tcp_user_timeout": 30_000}
"""How long a server may be silent: seconds to connect, seconds of rest, milliseconds unanswered."""
_POSITION = ("ledger", "history", "revision", "operation")


class DatabaseError(Exception):
    """The database cannot be used; the message says what to do."""


class TakenOver(Exception):
    """Nothing was written: another ledger writes now, or what was to be written is there already."""


@dataclass(frozen=True, slots=True)
class HistorySource:
    """Whose history it is."""

    cluster_id: int
    deployment_id: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What a ledger finds that begins to write."""

    epoch: int
    standing: Standing | None
    """None: nothing is written yet."""
    source: HistorySource | None
    earlier: frozenset[HistorySource] = frozenset()
    """Those of its histories before the present one."""
    opened: tuple[OpenRow, ...] = ()


@dataclass(frozen=True, slots=True)
class NewHistory:
    """A history that begins with a page."""

    source: HistorySource
    cause: str


class _Began(Protocol):
    began: Position
    asked: Asked
    record: bytes
    was_found: bool
    ended: Ending | None


class LedgerDatabase:
    """One ledger in a database. Not for several threads at once."""

    def __init__(self, engine: Engine, name: str = "default") -> None:
        """Use a database that has the tables: see ``open_database``."""
        self._engine = engine
        self._name = name
        self._id = 0

    def take_over(self, writer: str) -> Taken:
        """Become the one that writes, and return what is there.

        Makes the tables, or brings them up to date.

        ``writer`` is for people. Who wrote before writes nothing any more: its next page raises
        ``TakenOver``.
        """
        with self._engine.begin() as connection:
            migrate(connection)
        with self._engine.begin() as connection:
            self._id = self._found(connection)
            mine = ledgers.c.id == self._id
            raised = ledgers.update().where(mine).values(epoch=ledgers.c.epoch + 1)
            connection.execute(raised.values(writer=writer))
            row = connection.execute(select(ledgers).where(mine)).one()
            if not row.history:
                return Taken(row.epoch, None, None)
            at = Instant(row.at)
            standing = Standing(row.history, row.revision, row.marked, row.digest, at)
            columns = histories.c.number, histories.c.cluster_id, histories.c.deployment_id
            sources = {
                number: HistorySource(int(cluster_id, 16), deployment_id)
                for number, cluster_id, deployment_id in connection.execute(
                    select(*columns).where(histories.c.ledger == self._id)
                )
            }
            known = sources.pop(row.history)
            opened = (*self._opened(connection, grants), *self._opened(connection, waits))
            earlier = frozenset(sources.values()) - {known}
            return Taken(row.epoch, standing, known, earlier, opened)

    def write(self, page: Page, epoch: int, begins: NewHistory | None = None) -> None:
        """Write a page: all of it, or nothing. Raises ``TakenOver``, and what SQLAlchemy raises.

        ``begins``: the page is the first of a history.
        """
        with self._engine.begin() as connection:
            self._advance(connection, page, epoch)
            if begins is not None:
                self._add(connection, histories, [self._history(page, begins)])
            self._add(connection, grants, map(self._grant, page.grants.values()))
            self._add(connection, waits, map(self._wait, page.waits.values()))
            self._end(connection, grants, page.grants_ended)
            self._end(connection, waits, page.waits_ended)
            self._take_out(connection, page.waits_served)
            rows = [
                {name: getattr(gap, name) for name in gap.__slots__}
                | {"ledger": self._id, "detail": _text(gap.detail)}
                for gap in page.gaps
            ]
            self._add(connection, gaps, rows)

    def close(self) -> None:
        """Release connections."""
        self._engine.dispose()

    def _found(self, connection: Connection) -> int:
        where = ledgers.c.name == self._name
        found = connection.execute(select(ledgers.c.id).where(where)).scalar_one_or_none()
        if found is None:
            empty = dict.fromkeys(("epoch", "history", "revision", "marked", "at"), 0)
            made = ledgers.insert().values(name=self._name, digest=b"", **empty)
            found = connection.execute(made.returning(ledgers.c.id)).scalar_one()
        return int(found)

    def _opened(self, connection: Connection, table: Table) -> Iterator[OpenRow]:
        columns = (table.c.history, table.c.revision, table.c.operation)
        rows = connection.execute(
            select(*columns, table.c.pool, table.c.grant_id, table.c.record).where(
                table.c.ledger == self._id, table.c.ended_at.is_(None)
            )
        )
        for row in rows:
            began = Position(row.history, row.revision, row.operation)
            yield OpenRow(began, row.pool, row.grant_id, table is grants, row.record)

    def _advance(self, connection: Connection, page: Page, epoch: int) -> None:
        before, after = page.before, page.after
        condition = and_(
            ledgers.c.id == self._id,
            ledgers.c.epoch == epoch,
            ledgers.c.history == before.history,
            ledgers.c.revision == before.revision,
        )
        done = connection.execute(
            ledgers.update()
            .where(condition)
            .values(
                history=after.history,
                revision=after.revision,
                marked=after.marked,
                digest=after.digest,
                at=after.at,
            )
        )
        if done.rowcount != 1:
            raise TakenOver(
                f"ledger {self._name!r} is written by another, or from another page"
            )

    def _history(self, page: Page, begins: NewHistory) -> Row:
        return {
            "ledger": self._id,
            "number": page.after.history,
            "cluster_id": f"{begins.source.cluster_id:x}",
            "deployment_id": begins.source.deployment_id,
            "cause": begins.cause,
            "from_revision": page.after.revision,
            "from_at": page.after.at,
        }

    def _add(self, connection: Connection, table: Table, rows: Iterable[Row]) -> None:
        if listed := list(rows):
            connection.execute(table.insert(), listed)

    def _end(
        self, connection: Connection, table: Table, ended: Mapping[Position, Ending]
    ) -> None:
        rows = [self._where(began) | _ending(ending) for began, ending in ended.items()]
        if rows:
            statement = table.update().where(_at(table)).values(record=None)
            names: Row = {name: bindparam(name) for name in _ending(None)}
            connection.execute(statement.values(names), rows)

    def _take_out(self, connection: Connection, served: Sequence[Position]) -> None:
        if served:
            connection.execute(waits.delete().where(_at(waits)), list(map(self._where, served)))

    def _where(self, position: Position) -> Row:
        return {f"at_{name}": value for name, value in self._position(position).items()}

    def _position(self, position: Position) -> Row:
        return dict(zip(_POSITION, (self._id, *position), strict=True))

    def _began(self, row: _Began) -> Row:
        asked = row.asked
        who = asked.attribution
        return {
            **self._position(row.began),
            "pool": _text(asked.pool),
            "grant_id": _text(asked.grant_id),
            "session_id": _text(asked.session_id),
            "holder": _text(who.holder),
            "project": _text(who.project),
            "priority": who.priority,
            "labels": _json(dict(who.labels)),
            "work_key": _text(who.work_key),
            "cost_class": _text(who.cost_class),
            "host": _text(who.host),
            "seats": asked.seats,
            "was_found": row.was_found,
            "record": row.record if row.ended is None else None,
            **_ending(row.ended),
        }

    def _grant(self, row: GrantRow) -> Row:
        return {
            **self._began(row),
            "fence": row.fence,
            "asked_at": row.asked_at,
            "granted_at": row.granted_at,
            "counts_from": row.counts_from,
            "lots": _json([_lot(each) for each in row.lots]),
            "rule": row.rule,
        }

    def _wait(self, row: WaitRow) -> Row:
        return {**self._began(row), "asked_at": row.asked_at}


def open_database(url: str, name: str = "default") -> LedgerDatabase:
    """Return a ledger in the database at ``url``, which answers.

    Raises ``DatabaseError`` for a URL that is none, one whose driver is not installed, and where there
    is no such database, or it does not let us in.
    """
    engine = engine_of(url)
    try:
        with engine.connect():
            pass
    except DBAPIError as error:
        engine.dispose()
        raise DatabaseError(f"{without_password(url)}: {error.orig}") from error
    return LedgerDatabase(engine, name)


def migrate(connection: Connection) -> None:
    """Make the tables, or bring them up to date. One at a time."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def engine_of(url: str, *, reads_only: bool = False) -> Engine:
    """Return SQLAlchemy's engine for ``url``; nothing is connected to yet.

    ``reads_only``: a file of SQLite is not made where there is none. Raises ``DatabaseError``.
    """
    try:
        where = _checked(url)
        made = create_engine(
            _read_only(where) if reads_only else where,
            connect_args=_SERVER if where.get_backend_name() == "postgresql" else {},
        )
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ValueError) as error:
        raise DatabaseError(
            f"{without_password(url)}: {error}; such as sqlite:////var/lib/seatkeeper/ledger.db"
        ) from error
    if made.dialect.name == "sqlite" and not reads_only:
        event.listen(made, "connect", _set_up_sqlite)
        event.listen(
            made, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE")
        )
    return made


def _checked(url: str) -> URL:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}:
        raise ValueError("a ledger in memory is gone with the process; name a file")
    return parsed


def _read_only(parsed: URL) -> URL:
    """Return the same, for a connection that makes and changes nothing, where SQLite can be asked."""
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return parsed
    return parsed.set(
        database=f"file:{quote(parsed.database)}", query={"mode": "ro", "uri": "true"}
    )


def _set_up_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401  # of any driver
    # Its driver would begin transactions late, and not for everything: see `begin` above.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {1000 * BUSY_SECONDS}")
    # Not WAL: who reads such a file writes beside it, and it may be another user who then owns that.
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA synchronous = FULL")


def without_password(url: str) -> str:
    """Return a URL as it may be shown."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        return "the URL of the ledger's database"


def _at(table: Table) -> Any:  # noqa: ANN401  # SQLAlchemy's expressions have no simple type
    return and_(*(table.c[name] == bindparam(f"at_{name}") for name in _POSITION))


def _ending(ending: Ending | None) -> Row:
    if ending is None:
        empty = ("ended_at", "ended_from", "end_history", "end_revision", "end_operation")
        return dict.fromkeys(empty) | dict.fromkeys(("end_kind", "end_reason", "end_hint"), "")
    return {
        "ended_at": ending.at,
        "ended_from": ending.after,
        "end_history": ending.position.history,
        "end_revision": ending.position.revision,
        "end_operation": ending.position.operation,
        "end_kind": str(ending.kind),
        "end_reason": ending.reason,
        "end_hint": ending.hint,
    }


def _lot(each: LotSeats) -> Row:
    found: Row = {"lot": each.lot, "seats": each.seats, "kind": each.kind.value}
    if each.began_at is not None:
        found["began_at"] = each.began_at
    if each.price is not None:
        found |= {
            "price": each.price.amount,
            "currency": each.price.currency,
            "per": each.price.per.value,
        }
    return found


def _text(value: str) -> str:
    """Return a text as every database takes it: without what is no character, and without NUL."""
    found = value.encode(errors="backslashreplace").decode()
    return found.replace("\0", "\\x00")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if value else ""
