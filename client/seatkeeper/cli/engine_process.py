"""A process that runs an engine: the native library may die of it, and must see no password."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS_MAX = 3600.0
FORWARDED = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "PYTHONPATH", "CUDA_VISIBLE_DEVICES")
"""Of our environment: what runs an engine must not see tokens and passwords."""


@dataclass(frozen=True)
class Said:
    """What a process printed last, and how it ended."""

    found: dict[str, Any] | None
    """The JSON object of its last line; None: it printed none."""
    code: int
    err: str
    """All of its standard error."""


def said_by(module: str, arguments: Sequence[str], *, folder: Path | None = None) -> Said:
    """Run a module of ours with arguments, in a folder, to its end; it is killed with all it started.

    Raises ``TimeoutError`` after ``SECONDS_MAX``.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={name: os.environ[name] for name in FORWARDED if name in os.environ},
        cwd=folder,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=SECONDS_MAX)
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    try:
        found: dict[str, Any] | None = json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        found = None
    return Said(found, process.returncode, err)
