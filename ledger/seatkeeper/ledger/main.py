"""The process of a ledger: waits until it is elected, and writes."""

from __future__ import annotations

import asyncio
import logging
import os
import socket

from seatkeeper.core.serving.signals import Signals
from seatkeeper.ledger.config import LedgerConfig
from seatkeeper.ledger.database import LedgerDatabase, open_database
from seatkeeper.ledger.election import Election
from seatkeeper.ledger.following import LedgerFollower
from seatkeeper.server.start import open_store
from seatkeeper.server.store import records
from seatkeeper.server.store.keys import Keys
from seatkeeper.server.system_clock import SystemClock

_logger = logging.getLogger("seatkeeper.events")


async def run(settings: LedgerConfig) -> None:
    """Write the ledger until a signal ends it. Raises ``DatabaseError``, and what SQLAlchemy raises."""
    signals = Signals()
    database = await asyncio.to_thread(
        open_database, settings.ledger_database, settings.ledger_name
    )
    store, keys, clock = open_store(settings), Keys(settings.prefix), SystemClock()
    writer = f"{socket.gethostname()}:{os.getpid()}"
    record = records.encode_elected_ledger(writer, clock.now())
    election = Election(store, keys.elected_ledger(), record)
    follower = LedgerFollower(store, database, clock, keys=keys, writer=writer)
    _logger.info("ledger_started", extra={"ledger": settings.ledger_name, "writer": writer})
    writing = asyncio.create_task(election.run(follower.run))
    ending = asyncio.create_task(signals.drain.wait())
    try:
        await asyncio.wait({writing, ending}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end(writing, ending)
        await store.close()
        await asyncio.to_thread(LedgerDatabase.close, database)
        signals.done()
    if not writing.cancelled():
        writing.result()


async def _end(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
