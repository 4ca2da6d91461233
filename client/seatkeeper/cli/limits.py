"""What the system must leave us before we begin."""

from __future__ import annotations

import os

from seatkeeper.cli.exits import Exit, fail

DESCRIPTORS_MIN = 16
"""So many files gRPC and we open at once, reconnecting included. gRPC's core does not refuse when it
gets none: it crashes."""


def check_descriptors() -> None:
    """End the command, in one line, unless we may open as many files as we shall need."""
    opened: list[int] = []
    try:
        for _ in range(DESCRIPTORS_MIN):
            opened.append(os.open(os.devnull, os.O_RDONLY))  # noqa: PERF401 (what was opened counts)
    except OSError as error:
        why = f"cannot open {DESCRIPTORS_MIN} files more: {error.strerror}"
        fail(Exit.FAILED, f"{why}; raise the limit (`ulimit -n`)")
    finally:
        for descriptor in opened:
            os.close(descriptor)
