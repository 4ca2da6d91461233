"""``seatkeeper agent``: one build agent."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seatkeeper.cli.exits import Exit, fail, fail_in_json
from seatkeeper.cli.processes.common import AGENT_NEEDS, settings_app
from seatkeeper.core.extras import explain

if TYPE_CHECKING:
    from pydantic import BaseModel


def _settings() -> type[BaseModel] | None:
    try:
        from seatkeeper.agent.config import AgentConfig
    except ModuleNotFoundError:
        return None
    return AgentConfig


def _agent(config: Path | None, flags: dict[str, Any]) -> None:
    """Run one build agent until it is stopped (SIGTERM, SIGINT, SIGQUIT).

    SIGHUP has it read its settings and its certificate again; the log says what has changed.

    Every setting can also be given in the file as its name, or in the environment as
    SEATKEEPER_AGENT_NAME; a flag wins over the environment, and that over the file.
    """
    try:
        from seatkeeper.agent.config import AgentConfig
        from seatkeeper.agent.main import run
        from seatkeeper.core.serving.logs import configure_logs
        from seatkeeper.core.serving.settings import ConfigError, load_settings
        from seatkeeper.core.serving.signals import shield
    except ModuleNotFoundError:
        fail(Exit.CONFIG, explain("this command", *AGENT_NEEDS))
    shield()
    load = functools.partial(load_settings, AgentConfig, config, flags)
    try:
        settings = load()
    except ConfigError as error:
        fail(Exit.CONFIG, str(error))
    fail_in_json(settings.log_format == "json")
    configure_logs(settings.log_level, settings.log_format)
    # Not uvloop: it starts processes by fork, in which gRPC's threads crash now and then.
    asyncio.run(_run_until_stopped(run(settings, load)))


async def _run_until_stopped(agent: Coroutine[Any, Any, None]) -> None:
    from seatkeeper.artifacts.errors import BuildError
    from seatkeeper.core.errors import SeatError
    from seatkeeper.core.serving.listening import ListenError

    try:
        await agent
    except ListenError as error:
        fail(Exit.CONFIG, str(error))
    except BuildError as error:
        fail(Exit.CONFIG, error.explain())
    except SeatError as error:
        fail(Exit.UNAVAILABLE, f"no node takes this agent on: {error}")


_agent.__name__ = "agent"
app = settings_app(_agent, _settings())
