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

GIVES_WAY_SECONDS = 5.0
"""How long one that could not write lets others try."""

_logger = logging.getLogger("seatkeeper.events")


async def run(settings: LedgerConfig) -> None:
    """Write the ledger until a signal ends it. Raises ``DatabaseError`` and ``LedgerRefused``."""
    signals = Signals()
    database = await asyncio.to_thread(
        open_database, settings.ledger_database, settings.ledger_name
    )
    writing = asyncio.create_task(_write(settings, database))
    ending = asyncio.create_task(signals.drain.wait())
    try:
        await asyncio.wait({writing, ending}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end(writing, ending)
        await asyncio.to_thread(LedgerDatabase.close, database)
        signals.done()
    if not writing.cancelled():
        writing.result()


async def _write(settings: LedgerConfig, database: LedgerDatabase) -> None:
    """Write whenever elected; after too many failures, on a new connection, and not first."""
    keys, clock = Keys(settings.prefix), SystemClock()
    writer = f"{socket.gethostname()}:{os.getpid()}"
    _logger.info("ledger_started", extra={"ledger": settings.ledger_name, "writer": writer})
    while True:
        store = open_store(settings)
        try:
            record = records.encode_elected_ledger(writer, clock.now())
            election = Election(store, keys.elected_ledger(settings.ledger_name), record)
            follower = LedgerFollower(store, database, clock, keys=keys, writer=writer)
            await election.run(follower.run)
        finally:
            await store.close()
        _logger.warning("ledger_gives_way", extra={"seconds": GIVES_WAY_SECONDS})
        await asyncio.sleep(GIVES_WAY_SECONDS)


async def _end(*tasks: asyncio.Task[object]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
