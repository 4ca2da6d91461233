"""``seatkeeper agent``: one build agent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.serve import settings_app

if TYPE_CHECKING:
    from pydantic import BaseModel

INSTALL_BUILDER = (
    "this command needs the builder: pip install 'seatkeeper[server,builder,tensorrt-rtx]'"
)


def _settings() -> type[BaseModel] | None:
    try:
        from seatkeeper.builder.agent.config import AgentConfig
    except ModuleNotFoundError:
        return None
    return AgentConfig


def _agent(config: Path | None, flags: dict[str, Any]) -> None:
    """Run one build agent until it is told to stop (SIGTERM, SIGINT).

    Every setting can also be given in the file as its name, or in the environment as
    SEATKEEPER_AGENT_NAME; a flag wins over the environment, and that over the file.
    """
    try:
        from seatkeeper.builder.agent.config import AgentConfig
        from seatkeeper.builder.agent.main import run
        from seatkeeper.server.settings import ConfigError, load_settings
    except ModuleNotFoundError:
        fail(Exit.CONFIG, INSTALL_BUILDER)
    try:
        settings = load_settings(AgentConfig, config, flags)
    except ConfigError as error:
        fail(Exit.CONFIG, str(error))
    run(settings)


_agent.__name__ = "agent"
app = settings_app(_agent, _settings())
