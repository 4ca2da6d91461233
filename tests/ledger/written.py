"""What a ledger's tables have, in the words of the checker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, create_engine, select

from seatkeeper.ledger.schema import grants, waits
from seatkeeper.oracle.usage import UnservedRequest, Usage, UsedSeats

Counted = tuple[Counter[UsedSeats], Counter[UnservedRequest]]


@contextmanager
def reading(url: str) -> Iterator[Connection]:
    """A connection of one's own."""
    engine = create_engine(url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def written(url: str) -> Counted:
    """What the tables have, as the checker reads the history."""
    with reading(url) as connection:
        used = Counter(
            UsedSeats(
                *(row.pool, row.grant_id, row.fence, row.holder, row.project, row.seats),
                *(row.granted_at, row.revision, row.end_revision, row.end_kind),
            )
            for row in connection.execute(select(grants))
        )
        unserved = Counter(
            UnservedRequest(
                *(row.pool, row.grant_id, row.holder, row.project, row.seats),
                *(row.asked_at, row.revision, row.end_revision, row.end_kind),
            )
            for row in connection.execute(select(waits))
        )
    return used, unserved


def counted(usage: Usage) -> Counted:
    """What a history has, likewise."""
    return Counter(usage.used), Counter(usage.unserved)
