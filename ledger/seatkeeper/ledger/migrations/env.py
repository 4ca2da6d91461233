"""Where Alembic enters: the connection is the caller's."""

from __future__ import annotations

from alembic import context

from seatkeeper.ledger.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
