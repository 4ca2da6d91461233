"""Data of time zones that have changed: real ones, under the name of another zone."""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

_REAL = zoneinfo.TZPATH


def write_zone(folder: Path, name: str, like: str) -> Path:
    """Make a folder of data in which a zone has the rules of another one; return the folder."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(_data(like))
    return folder


@contextmanager
def data_in(folder: Path) -> Iterator[None]:
    """Have this process know time zones by the data in a folder, and by those of the machine."""
    zoneinfo.reset_tzpath([folder, *_REAL])
    zoneinfo.ZoneInfo.clear_cache()
    try:
        yield
    finally:
        zoneinfo.reset_tzpath(_REAL)
        zoneinfo.ZoneInfo.clear_cache()


def _data(zone: str) -> bytes:
    for folder in _REAL:
        if (file := Path(folder, zone)).is_file():
            return file.read_bytes()
    return resources.files("tzdata").joinpath("zoneinfo", zone).read_bytes()
