"""``python -m seatkeeper.cli``: the command, for a Python that is named and not found on PATH."""

from __future__ import annotations

from seatkeeper.cli.app import main

if __name__ == "__main__":
    main()
