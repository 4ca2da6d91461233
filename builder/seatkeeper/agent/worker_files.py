"""What workers found out and later ones may use: ranges of a calibration, timings of the compiler.

Kept by what it follows from, so that it is found once. The ranges are those of a model with its samples
and a method, whatever the target, tolerance or list of nodes to keep. The timings are those of a
library's version on this host's GPU, whatever the model.

A folder is bounded: what was not used for longest goes first. A worker's files are copied only if they
are plain, small and few, and are read only by workers. One that its model has taken over could spoil
the ranges of its own model and samples, and the timings of later builds on the same host: those get
slower, or fail, in workers that may do no more than it might.
"""

from __future__ import annotations

import hashlib
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
RANGES_BYTES_MAX = 16 << 20
"""Largest file of ranges that is kept."""
TIMINGS_BYTES_MAX = 256 << 20
"""Largest file of timings that is kept."""
FILES_OF_A_BUILD_MAX = 4
_FORMAT = "seatkeeper-calibration-1"
_RANGES = re.compile(r"[0-9a-f]{16}\.json", re.ASCII)
_TIMINGS = re.compile(r"timings", re.ASCII)


def calibration_key(model_sha256: str, plan: BuildPlan, conversion: str) -> str:
    """Return the hash of all that ranges follow from; empty for a plan that calibrates nothing."""
    wanted = plan.precision
    if not wanted.is_conversion or not wanted.calibration.are_there:
        return ""
    options = plan_to_options(plan)
    canonical = [
        _FORMAT,
        conversion,
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


def timings_key(backend: str, version: str) -> str:
    """Return the hash of all that timings follow from, on a host with one kind of GPU."""
    return hashlib.sha256(json.dumps(["timings", backend, version]).encode()).hexdigest()


@dataclass(frozen=True)
class WorkerFiles:
    """A folder of such files. Every method blocks, and none raises for want of room: it only helps."""

    folder: Path
    names: re.Pattern[str]
    """Of the files that a worker may leave."""
    file_bytes_max: int
    files_max: int = FILES_MAX

    @classmethod
    def of_ranges(cls, folder: Path) -> WorkerFiles:
        """Return the ranges kept in a folder."""
        return cls(folder, _RANGES, RANGES_BYTES_MAX)

    @classmethod
    def of_timings(cls, folder: Path) -> WorkerFiles:
        """Return the timings kept in a folder."""
        return cls(folder, _TIMINGS, TIMINGS_BYTES_MAX)

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
                entry.name for entry in os.scandir(found) if self.names.fullmatch(entry.name)
            )
            for name in names[:FILES_OF_A_BUILD_MAX]:
                content = _plain(found / name, self.file_bytes_max)
                if content is not None:
                    draft = self.folder / f".{secrets.token_hex(8)}"
                    draft.write_bytes(content)
                    draft.replace(self.folder / f"{key}-{name}")
            self._forget()

    def _forget(self) -> None:
        paths = sorted(self.folder.iterdir(), key=lambda path: path.stat().st_mtime)
        for path in paths[: max(0, len(paths) - self.files_max)]:
            path.unlink(missing_ok=True)


def _plain(path: Path, bytes_max: int) -> bytes | None:
    """Return what is in a plain file that is not too large; None: it is none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        is_plain = stat.S_ISREG(status.st_mode) and status.st_size <= bytes_max
        return file.read(bytes_max) if is_plain else None
