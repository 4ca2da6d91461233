"""A folder in which tests compile models, and see what is left of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from seatkeeper.artifacts.plan import BuildPlan, parse_profile
from seatkeeper.builder.compile import CompiledEngine, CompileJob, compile_engine
from seatkeeper.builder.job import BuildLimits
from seatkeeper.builder.progress import Progress


def rtx_plan(*profiles: str, target: str = "SM86") -> BuildPlan:
    return BuildPlan(
        backend="tensorrt_rtx", targets=(target,), profiles=tuple(map(parse_profile, profiles))
    )


class BuildRunner:
    """Compiles one model after another."""

    def __init__(self, folder: Path) -> None:
        self.engines = folder / "engines"
        self.engines.mkdir()
        self._model_path = folder / "model.onnx"
        self.progress: list[Progress] = []
        self.worker_pids: set[int] = set()

    async def compile(
        self,
        model: bytes,
        plan: BuildPlan | None = None,
        limits: BuildLimits | None = None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> CompiledEngine:
        """Compile for real, and remember the progress and the workers that made it."""

        def watch(progress: Progress) -> None:
            self.progress.append(progress)
            self.worker_pids |= set(self.workers())
            on_progress(progress)

        self._model_path.write_bytes(model)
        job = CompileJob(
            model_path=self._model_path,
            plan=plan or rtx_plan(),
            engine_path=self.engines / "engine",
        )
        return await compile_engine(job, limits or BuildLimits(), watch)

    def workers(self) -> list[int]:
        """The processes that work in this folder."""
        found = []
        for process in psutil.Process(os.getpid()).children():
            with suppress(psutil.Error):  # it ended just now
                if any(str(self.engines) in word for word in process.cmdline()):
                    found.append(process.pid)
        return found

    def is_clean(self) -> bool:
        """Whether no file and no process is left."""
        alive = [pid for pid in self.worker_pids if psutil.pid_exists(pid)]
        return not alive and not self.workers() and list(self.engines.iterdir()) == []
