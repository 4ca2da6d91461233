"""Which version of Seatkeeper runs here."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

DISTRIBUTIONS: Final = ("seatkeeper", "seatkeeper-core")
"""The whole of a checkout, or the part of it that every other part needs."""


def seatkeeper_version() -> str:
    """Return the installed version; ``0+unknown`` where the code runs without an installation."""
    for name in DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "0+unknown"
