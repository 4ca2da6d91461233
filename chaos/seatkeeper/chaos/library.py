"""The scenarios that come with Seatkeeper, and those that users write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from seatkeeper.chaos.scenario import Scenario, ScenarioError, parse

FOLDER = Path(__file__).with_name("scenarios")


def read_folder(folder: Path = FOLDER) -> dict[str, Scenario]:
    """Return the scenarios of a folder by name: that of the file, without ``.txt``."""
    return {
        path.stem: parse(path.stem, path.read_text()) for path in sorted(folder.glob("*.txt"))
    }


def find(name: str, known: Mapping[str, Scenario]) -> Scenario:
    """Return the known scenario of that name, or that of the file. Raises ``ScenarioError``."""
    if name in known:
        return known[name]
    path = Path(name)
    try:
        return parse(path.stem, path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, FileNotFoundError) and not path.suffix:
            there_are = ", ".join(known)
            raise ScenarioError(
                f"no scenario is called {name}; there are: {there_are}"
            ) from None
        raise ScenarioError(f"{name}: cannot be read: {error}") from error
