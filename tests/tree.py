"""Where the files of this tree are, at whatever depth a test lies."""

from __future__ import annotations

from pathlib import Path
from typing import Final


def root_above(path: Path) -> Path:
    """Return the nearest folder above ``path`` that holds the project's ``pyproject.toml``.

    ``tests/`` beside it distinguishes it from a distribution's own. Raises ``LookupError`` outside a
    checkout, or an unpacked archive of one.
    """
    for folder in path.resolve().parents:
        if (folder / "pyproject.toml").is_file() and (folder / "tests").is_dir():
            return folder
    raise LookupError(f"no pyproject.toml beside a folder tests above {path}")


def portions_of(root: Path) -> tuple[str, ...]:
    """Return the folders that hold a portion (PEP 420) of the namespace package, by name."""
    return tuple(
        sorted(
            package.parent.name
            for package in root.glob("*/seatkeeper")
            # What a folder left behind that is no longer there is at most byte code.
            if not package.parent.name.startswith(".") and has_sources(package)
        )
    )


def has_sources(package: Path) -> bool:
    """Return whether a folder holds a module or a contract of ours."""
    return any(next(package.rglob(pattern), None) for pattern in ("*.py", "*.proto"))


ROOT: Final = root_above(Path(__file__))
"""The folder with ``pyproject.toml``."""
PORTIONS: Final = portions_of(ROOT)
"""The folders with a ``seatkeeper`` in them: ``client``, ``server`` and so on."""
