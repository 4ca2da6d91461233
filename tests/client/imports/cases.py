"""The corpus: licence and options files, and what each must become."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from seatkeeper.client.imports import FLEXNET, RLM, Dialect, Translation, translate

CORPUS = Path(__file__).with_name("corpus")
TODAY = date(2026, 6, 1)
DIALECTS: dict[str, Dialect] = {"flexnet": FLEXNET, "rlm": RLM}
EXPECTED = ("pools.yaml", "report.txt")


def folders() -> list[Path]:
    """The cases; each is a folder with what was read and what must come of it."""
    return sorted(path for path in CORPUS.glob("*/*") if path.is_dir())


def name_of(folder: Path) -> str:
    """How a case is called."""
    return folder.relative_to(CORPUS).as_posix()


def inputs(folder: Path) -> list[tuple[str, bytes]]:
    """The files of a case that are read."""
    found = sorted(path for path in folder.iterdir() if path.name not in EXPECTED)
    return [(path.name, path.read_bytes()) for path in found]


def translated(folder: Path) -> Translation:
    """What comes of a case."""
    return translate(DIALECTS[folder.parent.name], inputs(folder), today=TODAY)
