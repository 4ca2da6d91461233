"""Ranges that calibration found, kept by what they follow from, so that they are found once.

A build of the same model with the same samples and method, for another target, tolerance or list of
nodes to keep, has another engine and the same ranges. The folder is bounded: what was not used for
longest goes first. A worker's files are copied only if they are plain, small and few, and are read only
by workers; a worker could spoil the ranges of its own model and samples, and nothing else.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from seatkeeper.artifacts.plan import BuildPlan, plan_to_options

FILES_MAX = 64
"""Most files that are kept."""
FILE_BYTES_MAX = 16 << 20
"""Largest file that is kept."""
FILES_OF_A_BUILD_MAX = 4
_FORMAT = "seatkeeper-calibration-1"
_NAME = re.compile(r"[0-9a-f]{16}\.json", re.ASCII)


def calibration_key(model_sha256: str, plan: BuildPlan) -> str:
    """Return the hash of all that ranges follow from; empty for a plan that calibrates nothing."""
    wanted = plan.precision
    if not wanted.is_conversion or not wanted.calibration.are_there:
        return ""
    options = plan_to_options(plan)
    canonical = [
        _FORMAT,
        importlib.metadata.version("onnxruntime"),
        model_sha256,
        options.precision.calibration.SerializeToString(deterministic=True).hex(),
        # Where there are none to measure with, a part of the calibration's is kept out of it.
        wanted.samples.are_there,
        wanted.method,
        # Noise has the sizes of the first profile.
        [profile.SerializeToString(deterministic=True).hex() for profile in options.profiles]
        if wanted.calibration.is_random
        else [],
    ]
    return hashlib.sha256(json.dumps(canonical).encode()).hexdigest()


@dataclass(frozen=True)
class CalibrationCache:
    """A folder of ranges. Every method blocks, and none raises for want of room: it only helps."""

    folder: Path
    files_max: int = FILES_MAX

    def lay_out(self, key: str, into: Path) -> None:
        """Make the folder ``into``, with what is known under ``key``."""
        into.mkdir(mode=0o700)
        with suppress(OSError):
            for path in sorted(self.folder.glob(f"{key}-*"))[:FILES_OF_A_BUILD_MAX]:
                (into / path.name.removeprefix(f"{key}-")).write_bytes(path.read_bytes())
                os.utime(path)

    def keep(self, key: str, found: Path) -> None:
        """Keep under ``key`` what a worker left in the folder ``found``."""
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            names = sorted(
                entry.name for entry in os.scandir(found) if _NAME.fullmatch(entry.name)
            )
            for name in names[:FILES_OF_A_BUILD_MAX]:
                content = _plain(found / name)
                if content is not None:
                    draft = self.folder / f".{secrets.token_hex(8)}"
                    draft.write_bytes(content)
                    draft.replace(self.folder / f"{key}-{name}")
            self._forget()

    def _forget(self) -> None:
        paths = sorted(self.folder.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in paths[: max(0, len(paths) - self.files_max)]:
            path.unlink(missing_ok=True)


def _plain(path: Path) -> bytes | None:
    """Return what is in a plain file that is not too large; None: it is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        is_plain = stat.S_ISREG(status.st_mode) and status.st_size <= FILE_BYTES_MAX
        return file.read(FILE_BYTES_MAX) if is_plain else None
