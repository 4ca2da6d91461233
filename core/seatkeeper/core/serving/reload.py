"""Reading settings and certificates again while a server serves.

All or nothing: a file that is wrong changes nothing, and is reported. What cannot change without a
restart is reported, too, and stays as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import ClassVar, Generic, Protocol, TypeVar

from pydantic_settings import BaseSettings

from seatkeeper.core.serving.listening import ListenError
from seatkeeper.core.serving.logs import set_level
from seatkeeper.core.serving.settings import ConfigError

logger = logging.getLogger(__name__)

Settings = TypeVar("Settings", bound=BaseSettings)
Settings_contra = TypeVar("Settings_contra", bound=BaseSettings, contravariant=True)

LOG_LEVEL = "log_level"


class Reloadable(Protocol[Settings_contra]):
    """A server that can take other settings in while it serves."""

    reloads: ClassVar[frozenset[str]]
    """The settings that it applies, beside ``log_level``."""

    def reload(self, settings: Settings_contra) -> None:
        """Apply settings, and read the files that they name. Raises ``ListenError``: unchanged."""
        ...


class Reloader(Generic[Settings]):
    """Reads settings again for one server, whenever it is called."""

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        server: Reloadable[Settings],
    ) -> None:
        """Reload nothing yet. ``load`` reads the settings as they were read at the start."""
        self._settings = settings
        self._load = load
        self._server = server

    def __call__(self) -> None:
        """Reload. Never raises: the log says what has changed, or why nothing has."""
        try:
            changed = self._reload()
        except (ConfigError, ListenError, OSError) as error:
            why = "the settings stay as they were; fix this, and send HUP again"
            logger.error("reload_failed", extra={"error": str(error), "then": why})
        except Exception:
            logger.exception("reload_failed")
        else:
            logger.info("reloaded", extra={"changed": changed})

    def _reload(self) -> list[str]:
        latest = self._load()
        takes = self._server.reloads | {LOG_LEVEL}
        changed = self._changed(latest)
        taken = {name: getattr(latest, name) for name in changed if name in takes}
        settings = self._settings.model_copy(update=taken)
        self._server.reload(settings)
        self._settings = settings
        set_level(getattr(settings, LOG_LEVEL))
        if others := [name for name in changed if name not in takes]:
            then = "these stay as they were until a restart"
            logger.warning("reload_needs_restart", extra={"settings": others, "then": then})
        return sorted(taken)

    def _changed(self, latest: Settings) -> list[str]:
        """Return the settings that differ. A generated default is no change."""
        given = latest.model_fields_set | self._settings.model_fields_set
        return [
            name
            for name in type(latest).model_fields
            if name in given and getattr(latest, name) != getattr(self._settings, name)
        ]
