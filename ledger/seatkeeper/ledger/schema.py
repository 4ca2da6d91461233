"""The tables. Moments are Unix milliseconds, and a boolean is one; text is never null, but empty.

`migrations` makes them, and a test compares both.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

metadata = MetaData()
Columns = tuple[Column[Any], ...]


def _text(name: str) -> Column[str]:
    return Column(name, String, nullable=False, server_default="")


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


def _moment(name: str) -> Column[int | None]:
    return Column(name, BigInteger, nullable=True)


def _position() -> Columns:
    """Where the row's begin stands: its key."""
    return tuple(
        Column(name, BigInteger, primary_key=True, autoincrement=False)
        for name in ("ledger", "history", "revision", "operation")
    )


def _asked() -> Columns:
    return (
        *map(_text, ("pool", "grant_id", "session_id", "holder", "project")),
        _number("priority"),
        *map(_text, ("labels", "work_key", "cost_class", "host")),
        _number("seats"),
    )


def _ended() -> Columns:
    """How it ended; all null, or empty, while it is open."""
    return (
        *map(_moment, ("ended_at", "ended_from")),
        *(
            Column(name, BigInteger, nullable=True)
            for name in ("end_history", "end_revision", "end_operation")
        ),
        *map(_text, ("end_kind", "end_reason", "end_hint")),
    )


def _shared() -> Columns:
    return (
        Column("was_found", Boolean, nullable=False),
        Column("record", LargeBinary, nullable=True),
    )


ledgers = Table(
    "ledgers",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False),
    _number("epoch"),
    _text("writer"),
    *map(_number, ("history", "revision", "marked", "at")),
    Column("digest", LargeBinary, nullable=False),
    UniqueConstraint("name", name="ledgers_name"),
)
histories = Table(
    "histories",
    metadata,
    *(
        Column(name, BigInteger, primary_key=True, autoincrement=False)
        for name in ("ledger", "number")
    ),
    *map(_text, ("cluster_id", "deployment_id", "cause")),
    *map(_number, ("from_revision", "from_at")),
    ForeignKeyConstraint(["ledger"], ["ledgers.id"], name="histories_ledger"),
)
grants = Table(
    "grants",
    metadata,
    *_position(),
    *_asked(),
    _number("fence"),
    _moment("asked_at"),
    *map(_number, ("granted_at", "counts_from")),
    *map(_text, ("lots", "rule")),
    *_shared(),
    *_ended(),
    Index("grants_times", "ledger", "counts_from", "ended_at"),
    Index("grants_open", "ledger", "ended_at"),
)
waits = Table(
    "waits",
    metadata,
    *_position(),
    *_asked(),
    _number("asked_at"),
    *_shared(),
    *_ended(),
    Index("waits_times", "ledger", "asked_at", "ended_at"),
    Index("waits_open", "ledger", "ended_at"),
)
gaps = Table(
    "gaps",
    metadata,
    Column("id", Integer, primary_key=True),
    *map(_number, ("ledger", "history")),
    _text("cause"),
    *map(_number, ("from_revision", "to_revision", "from_at", "to_at")),
    _text("detail"),
    Index("gaps_times", "ledger", "from_at", "to_at"),
)
