"""The compilers, behind one interface.

Nothing of a vendor is imported until ``load_backend`` is called, and then in the worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from seatkeeper.artifacts.errors import BackendUnknown
from seatkeeper.artifacts.plan import BuildPlan
from seatkeeper.builder.backends._untyped import Untyped
from seatkeeper.builder.backends.tensorrt import load_tensorrt, load_tensorrt_rtx
from seatkeeper.builder.progress import OnProgress

_LOADERS = {"tensorrt_rtx": load_tensorrt_rtx, "tensorrt": load_tensorrt}


class Backend(Protocol):
    """A compiler that is loaded in this process."""

    @property
    def name(self) -> str:
        """As in ``BuildPlan.backend``."""

    @property
    def version(self) -> str:
        """Version of the library; part of an engine's key."""

    @property
    def targets(self) -> tuple[str, ...]:
        """GPU architectures that it can compile for on this host; empty when it can for none."""

    @property
    def features(self) -> Mapping[str, str]:
        """By ``Feature``, why it does not make such engines on this host; empty: it does."""

    @property
    def module(self) -> Untyped:
        """The library's module, for what is not compiling."""

    def load_plugins(self, paths: Sequence[Path]) -> None:
        """Have all that is compiled from now on use these libraries of plugins.

        They run in this process: only those that the agent's administrator listed may be given.
        """

    def use_timings(self, folder: Path) -> None:
        """Have all that is compiled from now on use what was timed before, and leave its own there.

        Nothing happens where the library makes no use of it.
        """

    def compile(self, model: Path, plan: BuildPlan, on_progress: OnProgress) -> memoryview:
        """Return the engine of the model in a file, which may name others in its folder.

        Those must have been checked: the library reads whatever the model names. Blocks for as long
        as it takes. Raises a ``ModelError``, ``TargetUnsupported`` or ``OutOfMemory``. The library
        may also take the whole process down.
        """


def load_backend(name: str) -> Backend:
    """Load a backend's library into this process.

    Raises ``BackendMissing``, with the command that installs it, when it does not load, and
    ``BackendUnknown`` for a name that no backend has.
    """
    if name not in _LOADERS:
        raise BackendUnknown(f"no backend is called {name[:100]!r}")
    return _LOADERS[name]()
