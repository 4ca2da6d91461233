"""Files that the user names."""

from __future__ import annotations

from pathlib import Path

from seatkeeper.cli.exits import Exit, fail


def check_output(output: Path) -> None:
    """Fail unless a file can be put there: before long work, not at the end of it."""
    if not output.absolute().parent.is_dir():
        fail(Exit.NOT_FOUND, f"{output.parent}: no such folder for --output; make it first")
    if output.is_dir():
        fail(Exit.USAGE, f"--output {output} is a folder; name a file in it")
