"""Settings from a file, the environment and flags, in that order of rising weight."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from seatkeeper.core.address import parse_address, parse_list

Settings = TypeVar("Settings", bound=BaseSettings)


class ConfigError(Exception):
    """A setting is wrong. The message names it and where it may be set."""


def settings_of(environment_prefix: str) -> SettingsConfigDict:
    """Return how our settings behave: immutable, and nothing unknown."""
    return SettingsConfigDict(
        env_prefix=environment_prefix, extra="forbid", frozen=True, env_ignore_empty=True
    )


def check_listen(value: str) -> str:
    """Return an address to listen on, port 0: any, without blanks; raise ``ValueError``."""
    return str(parse_address(value, port_min=0))


def check_advertised(value: str) -> str:
    """Return an address to advertise; raise ``ValueError`` where they could not use it."""
    address = parse_address(value)
    if address.is_everywhere:
        raise ValueError(f"{value!r} is no address that others can reach; say which is")
    return str(address)


def check_addresses(value: str) -> str:
    """Return addresses separated by commas, each once; raise ``ValueError``."""
    if not (found := parse_list(value)):
        raise ValueError("name at least one, such as seats.example.com:7420")
    return ",".join(map(str, found))


def check_endpoints(value: str) -> str:
    """Return addresses of etcd: the same, with ``http://`` or ``https://`` before them if need be."""
    ends = [end.strip() for end in value.removesuffix(",").split(",")]
    checked = []
    for end in ends:
        scheme = next((s for s in ("http://", "https://") if end.startswith(s)), "")
        checked.append(scheme + str(parse_address(end.removeprefix(scheme).removesuffix("/"))))
    return ",".join(dict.fromkeys(checked))


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
