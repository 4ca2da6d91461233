"""Which version of Seatkeeper runs here."""

from __future__ import annotations

import functools
from typing import Final

DISTRIBUTIONS: Final = ("seatkeeper", "seatkeeper-core")
"""The whole of a checkout, or the part of it that every other part needs."""


@functools.cache
def seatkeeper_version() -> str:
    """Return the installed version; ``0+unknown`` where the code runs without an installation.

    The one that was installed when it was first asked: an upgrade replaces no code that runs.
    """
    # Imported here, as every command line has this module and few need it; it brings `email` along.
    from importlib.metadata import PackageNotFoundError, version

    for name in DISTRIBUTIONS:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "0+unknown"
