"""Settings from a file, the environment and flags, in that order of rising weight."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

Settings = TypeVar("Settings", bound=BaseSettings)


class ConfigError(Exception):
    """A setting is wrong. The message names it and where it may be set."""


def settings_of(environment_prefix: str) -> SettingsConfigDict:
    """Return how our settings behave: frozen, and nothing unknown."""
    return SettingsConfigDict(
        env_prefix=environment_prefix, extra="forbid", frozen=True, env_ignore_empty=True
    )


def check_address(value: str) -> str:
    """Return ``value`` if it is host:port; raise ``ValueError``."""
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{value!r} is not host:port")
    return value


def check_readable(value: Path | None) -> Path | None:
    """Return ``value`` if it is a file that can be read; raise ``ValueError``."""
    if value is not None and not (value.is_file() and os.access(value, os.R_OK)):
        raise ValueError(f"{value} cannot be read")
    return value


def load_settings(
    kind: type[Settings], file: Path | None, flags: Mapping[str, Any]
) -> Settings:
    """Return settings; flags that are None were not given. Raises ``ConfigError``."""
    prefix = kind.model_config["env_prefix"]
    settings = _read_file(file) if file else {}
    for name in list(settings):
        if os.environ.get(f"{prefix}{name.upper()}"):
            del settings[name]
    settings |= {name: value for name, value in flags.items() if value is not None}
    try:
        return kind(**settings)
    except ValidationError as error:
        raise ConfigError(_explain(error, prefix)) from error


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {file}: {error}") from error


def _explain(error: ValidationError, prefix: str) -> str:
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if not name:
            lines.append(message)
        elif problem["type"] == "extra_forbidden":
            lines.append(f"{name}: there is no such setting; --help lists them")
        else:
            flag, variable = name.replace("_", "-"), name.upper()
            lines.append(
                f"{name}: {message} (set by --{flag}, {prefix}{variable}, or the file)"
            )
    return "\n".join(lines)
