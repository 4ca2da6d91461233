"""Answers from a database by its URL."""

from __future__ import annotations

from sqlalchemy import inspect
from sqlalchemy.exc import SQLAlchemyError

from seatkeeper.ledger.database import DatabaseError, engine_of, without_password
from seatkeeper.ledger.reports import UsageReport, usage
from seatkeeper.server.domain import Instant


def ask_usage(url: str, ledger: str, from_at: int, to_at: int, by: str) -> UsageReport:
    """Return who used what. Raises ``DatabaseError`` and ``ReportError``.

    Writes nothing: a database that is not there is not made.
    """
    engine = engine_of(url, reads_only=True)
    try:
        with engine.connect() as connection:
            if not inspect(connection).has_table("ledgers"):
                raise DatabaseError(
                    f"{without_password(url)} has no ledger: `seatkeeper ledger` writes one"
                )
            return usage(connection, ledger, Instant(from_at), Instant(to_at), by)
    except SQLAlchemyError as error:
        raise DatabaseError(f"{without_password(url)}: {error.__cause__ or error}") from error
    finally:
        engine.dispose()
