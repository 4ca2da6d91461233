"""What ``make unit`` runs, and what a test there may not do: a pytest plug-in, ``-p tests.pure``.

A test belongs to ``make unit`` by its folder: one of ``FOLDERS``, and not below a folder named in
``ELSEWHERE``. Such a test imports nothing that only the full set-up installs and starts no etcd.
The plug-in holds a test to that also where everything is installed, so what fails in CI fails here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Final, NoReturn

import pytest
from tests.tree import ROOT

TESTS: Final = ROOT / "tests"
FOLDERS: Final = ("unit", "client", "builder", "simulation")
"""Below ``tests``. No other folder is looked into."""
ELSEWHERE: Final = frozenset({"compilers", "processes"})
"""Subfolders for tests that compile models, or are about programs and how they end."""
HEAVY: Final = frozenset(
    {"matplotlib", "numpy", "onnx", "onnxruntime", "onnxruntime_ep_nv_tensorrt_rtx"}
    | {"psutil", "tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"}
)
"""Modules that ``make unit`` does not install."""
SERVERS: Final = frozenset({"etcd", "haproxy", "prometheus"})
STAND_IN_BYTES_MAX: Final = 100_000
"""A program of a server's name that a test wrote itself is a short script."""
_WHERE: Final = (
    f"A test that needs it lies in another folder than tests/{{{','.join(FOLDERS)}}}, "
    f"or in a folder {' or '.join(sorted(ELSEWHERE))} of one of these"
)


class NotPureError(Exception):
    """A test of ``make unit`` did what only the full set-up can do."""


class _NotInstalled(MetaPathFinder):
    """Makes heavy modules missing, as they are after the small install."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Refuse a heavy module; leave all others to the finders behind this one."""
        if name.partition(".")[0] in HEAVY:
            raise ModuleNotFoundError(
                f"No module named {name!r}: make unit does not install it. {_WHERE}",
                name=name,
            )
        return None


def pytest_configure(config: pytest.Config) -> None:
    """Make heavy modules missing and servers impossible to start."""
    for name in HEAVY & {loaded.partition(".")[0] for loaded in sys.modules}:
        raise pytest.UsageError(f"{name} is loaded before any test: run with -p tests.pure")
    sys.meta_path.insert(0, _NotInstalled())
    sys.addaudithook(_refuse_servers)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out the folders of tests that need more."""
    if not collection_path.is_relative_to(TESTS) or not collection_path.is_dir():
        return None
    folders = collection_path.relative_to(TESTS).parts
    is_ours = not folders or (folders[0] in FOLDERS and ELSEWHERE.isdisjoint(folders))
    return None if is_ours else True


def _refuse_servers(event: str, arguments: tuple[object, ...]) -> None:
    if event != "subprocess.Popen":
        return
    program = os.fsdecode(arguments[0])  # type: ignore[arg-type]  # a path, says the event
    if Path(program).name in SERVERS and _is_real(Path(program)):
        _refuse(program)


def _is_real(program: Path) -> bool:
    return program.is_file() and program.stat().st_size > STAND_IN_BYTES_MAX


def _refuse(program: str) -> NoReturn:
    raise NotPureError(f"make unit starts no {program}. {_WHERE}")
