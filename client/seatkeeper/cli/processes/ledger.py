"""``seatkeeper ledger``: who used which seats, written into a database."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seatkeeper.cli.exits import Exit, fail, fail_in_json
from seatkeeper.cli.processes.common import settings_app
from seatkeeper.core.extras import explain

if TYPE_CHECKING:
    from pydantic import BaseModel

    from seatkeeper.ledger.config import LedgerConfig

LEDGER_NEEDS = ("server", "ledger")


def _settings() -> type[BaseModel] | None:
    try:
        from seatkeeper.ledger.config import LedgerConfig
    except ModuleNotFoundError:
        return None
    return LedgerConfig


def _ledger(config: Path | None, flags: dict[str, Any]) -> None:
    """Write who used which seats into a database, until it is stopped (SIGTERM, SIGINT, SIGQUIT).

    Start as many as you like: one writes, and another goes on when it ends. `seatkeeper report` reads
    the database.

    It has the settings of a node, of which only those for etcd, `prefix` and the log count, and its
    own.
    """
    try:
        from seatkeeper.core.serving.logs import configure_logs
        from seatkeeper.core.serving.settings import ConfigError, load_settings
        from seatkeeper.core.serving.signals import shield
        from seatkeeper.ledger.config import LedgerConfig
        from seatkeeper.ledger.main import run  # noqa: F401  # whether it can be
    except ModuleNotFoundError:
        fail(Exit.CONFIG, explain("this command", *LEDGER_NEEDS))
    shield()
    try:
        settings = load_settings(LedgerConfig, config, flags)
    except ConfigError as error:
        fail(Exit.CONFIG, str(error))
    fail_in_json(settings.log_format == "json")
    configure_logs(settings.log_level, settings.log_format)
    asyncio.run(_run(settings))


async def _run(settings: LedgerConfig) -> None:
    from seatkeeper.ledger.database import DatabaseError
    from seatkeeper.ledger.following import LedgerRefused
    from seatkeeper.ledger.main import run

    try:
        await run(settings)
    except DatabaseError as error:
        fail(Exit.CONFIG, f"ledger_database: {error}")
    except LedgerRefused as error:
        fail(Exit.CONFIG, str(error))


_ledger.__name__ = "ledger"
app = settings_app(_ledger, _settings())
