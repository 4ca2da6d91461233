"""What an engine can be beside fast, where the library makes such engines on the agent's host.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum

from seatkeeper.artifacts.errors import OptionInvalid

PLUGINS_MAX = 16
_SHA256_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Feature(StrEnum):
    """A kind of engine. Its value is a field of ``BuildOptions``."""

    VERSION_COMPATIBLE = "version_compatible"
    """It runs with later versions of the library, too."""
    HARDWARE_COMPATIBLE = "hardware_compatible"
    """It runs on other GPUs of this architecture and newer ones, too."""
    STRIP_WEIGHTS = "strip_weights"
    """Its weights are left out, and are put in where it runs."""
    REFIT = "refit"
    """Its weights can be replaced by others of the same graph, without a build."""


def lacking_features(wanted: Iterable[Feature], offered: Mapping[str, str]) -> list[str]:
    """Return why each feature that is wanted cannot be had; empty: all can.

    ``offered`` has what a backend says: by feature, why it cannot; empty: it can. What it does not
    speak of, it does not know.
    """
    return [
        f"{feature}: {offered.get(feature, 'this agent does not know it')}"
        for feature in wanted
        if offered.get(feature) != ""
    ]


def normal_plugins(hashes: Iterable[str]) -> tuple[str, ...]:
    """Return hashes of plugin libraries, sorted and each once. Raises ``OptionInvalid``."""
    unique = tuple(sorted(set(hashes)))
    if len(unique) > PLUGINS_MAX:
        raise OptionInvalid(f"{len(unique)} plugins are over {PLUGINS_MAX}")
    for each in unique:
        if not _SHA256_HEX.fullmatch(each):
            raise OptionInvalid(
                f"{each[:100]!r} is no hash of a plugin: 64 lower-case hexadecimal digits"
            )
    return unique


def missing_plugins(wanted: Iterable[str], listed: Iterable[str]) -> str:
    """Return why plugins cannot be had of an agent that lists some; empty: they can."""
    missing = sorted(set(wanted) - set(listed))
    if not missing:
        return ""
    return (
        f"plugin {missing[0][:12]}... is not among those that the agent's administrator lists "
        "(setting `plugins`)"
    )
