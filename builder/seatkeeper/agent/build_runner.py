"""What all builds of one agent share: backends, engines, limits, places."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from weakref import WeakValueDictionary

import grpc

from seatkeeper.agent.failures import RETRY_AFTER, log_end_of_worker
from seatkeeper.agent.holdings import Holdings
from seatkeeper.agent.places import Places
from seatkeeper.agent.plugins import Plugins
from seatkeeper.agent.uploads import Uploads
from seatkeeper.agent.worker_files import WorkerFiles
from seatkeeper.artifacts.errors import (
    BackendMissing,
    BuildError,
    EngineError,
    FeatureUnsupported,
    IsolationUnavailable,
)
from seatkeeper.artifacts.features import lacking_features, missing_plugins
from seatkeeper.artifacts.manifest import AgentKey
from seatkeeper.artifacts.plan import TARGETS, BuildPlan, check_targets
from seatkeeper.artifacts.store import EngineStore
from seatkeeper.builder.compile import (
    CompiledEngine,
    CompileJob,
    compile_engine,
    probe_backend,
    probe_isolation,
    worker_environment,
)
from seatkeeper.builder.job import BuildLimits
from seatkeeper.builder.progress import OnProgress
from seatkeeper.core.extras import explain
from seatkeeper.core.serving.failure import Failure, retry_info
from seatkeeper.v1 import build_pb2, build_service_pb2

logger = logging.getLogger(__name__)

CHARS_MAX = 200
"""How much of what a client says is quoted."""
UPLOAD_BYTES_MAX = 8 << 30
UPLOAD_SECONDS = 900.0
MEMORY_BASE_BYTES = 600 << 20
MEMORY_PER_MODEL_BYTE = 4
"""What a build of a new model is expected to need."""
MEMORY_MARGIN = 1.25
"""Over what builds of the same model needed."""
PEAKS_MAX = 10_000
"""Models whose builds are remembered."""


class ConvertsOtherwise(Failure):
    """The agent converts models otherwise than the client expects: another may not."""

    def __init__(self, message: str) -> None:
        super().__init__(grpc.StatusCode.UNAVAILABLE, message, retry_info(RETRY_AFTER))


@dataclass
class BuildRunner:
    """Compiles models, as many at a time as there are places and memory."""

    holdings: Holdings
    key: AgentKey
    limits: BuildLimits
    places: Places
    backends: Mapping[str, build_service_pb2.BackendInfo]
    uploads: Uploads
    calibrations: WorkerFiles
    timings: WorkerFiles
    plugins: Plugins = field(default_factory=Plugins)
    _peaks: dict[str, int] = field(default_factory=dict)
    _locks: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    @classmethod
    async def open(
        cls,
        folder: Path,
        limits: BuildLimits,
        places: Places,
        isolation: str = "auto",
        *,
        store: str = "",
        upload_bytes_max: int = UPLOAD_BYTES_MAX,
        upload_seconds: float = UPLOAD_SECONDS,
    ) -> BuildRunner:
        """Open the folder of an agent and see what can be built on this host.

        ``store`` is the address of the store that it shares; empty: none. Of interrupted uploads so
        much is kept, for so long. Raises ``BackendMissing`` when nothing can be built,
        ``IsolationUnavailable``, and a ``StoreError`` for a store that can never be used.
        """
        holdings, key = await asyncio.to_thread(_open_folder, folder, store)
        local = holdings.local
        # At once: each starts a process, and an agent should be back soon.
        isolating = asyncio.create_task(_isolates(local.staging, limits, isolation))
        try:
            backends = await _probe(local.staging, limits)
            limits = replace(limits, isolate=await isolating)
        finally:
            isolating.cancel()
            await asyncio.gather(isolating, return_exceptions=True)
        uploads = Uploads(
            local.staging / "uploads",
            kept_bytes_max=upload_bytes_max,
            kept_seconds=upload_seconds,
        )
        calibrations = WorkerFiles.of_ranges(local.staging.with_name("calibrations"))
        timings = WorkerFiles.of_timings(local.staging.with_name("timings"))
        build_runner = cls(
            holdings, key, limits, places, backends, uploads, calibrations, timings
        )
        for manifest in await asyncio.to_thread(_manifests, local):
            model = manifest.bundle.sha256 or manifest.model_sha256
            build_runner.note_peak(model, manifest.stats.peak_memory_bytes)
        return build_runner

    @property
    def store(self) -> EngineStore:
        """The engines in the agent's folder."""
        return self.holdings.local

    def version(self, plan: BuildPlan) -> str:
        """Return the version of the plan's backend. Raises a ``BuildError`` when it cannot be built."""
        info = self.backends.get(plan.backend)
        if info is None:
            raise BackendMissing(f"this agent cannot build with {plan.backend}")
        check_targets(plan.targets, info.targets)
        if not plan.precision.is_offered(info.precisions):
            raise BackendMissing(
                explain(f"converting to {plan.precision.precision}", "builder")
            )
        offered = {each.name: each.lacking for each in info.features}
        if lacks := lacking_features(sorted(plan.features), offered):
            raise FeatureUnsupported("; ".join(lacks))
        if why := missing_plugins(plan.plugins, self.plugins.paths):
            raise FeatureUnsupported(why)
        return info.version

    def conversion(self, plan: BuildPlan, wanted: str) -> str:
        """Return what converts the model of a plan, of a client that ``wanted`` just that.

        Empty for a client that wants none, and so does not know of it, as for a plan that converts
        nothing. Raises ``ConvertsOtherwise`` where it is another.
        """
        if not wanted or not plan.precision.is_conversion:
            return ""
        own = self.backends[plan.backend].conversion
        if wanted != own:
            raise ConvertsOtherwise(
                f"this agent converts with {own or 'nothing'}, and not with {wanted[:CHARS_MAX]}: "
                "build it again"
            )
        return own

    def memory_needed(self, model_sha256: str, model_bytes: int) -> int:
        """Return what a build of a model is expected to need, at most its limit.

        More than its builds here had at most, or what models of its size have where it is new.
        """
        known = self._peaks.get(model_sha256)
        expected = (
            MEMORY_BASE_BYTES + MEMORY_PER_MODEL_BYTE * model_bytes
            if known is None
            else int(MEMORY_MARGIN * known)
        )
        return min(expected, self.limits.memory_bytes)

    def note_peak(self, model_sha256: str, peak_memory_bytes: int) -> None:
        """Remember what a build of a model had at most."""
        if peak_memory_bytes <= 0:
            return
        self._peaks[model_sha256] = max(peak_memory_bytes, self._peaks.pop(model_sha256, 0))
        while len(self._peaks) > PEAKS_MAX:
            del self._peaks[next(iter(self._peaks))]

    async def whole(self, key: str) -> build_pb2.SignedManifest | None:
        """Return the manifest of an engine that is here, and whole; None: it is not."""
        return await self.holdings.whole(key)

    @asynccontextmanager
    async def only_build_of(self, key: str) -> AsyncIterator[None]:
        """Wait until no other build of ``key`` runs here: the second one finds it built."""
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        async with lock:
            yield

    async def compile(self, job: CompileJob, on_progress: OnProgress) -> CompiledEngine:
        """Compile in a process of its own. Raises a ``BuildError``."""
        environment = worker_environment(os.environ)
        return await compile_engine(job, self.limits, on_progress, environment)


def _manifests(store: EngineStore) -> list[build_pb2.EngineManifest]:
    """Return what is known of the engines here; those that are damaged are left out."""
    found = []
    for key in store.keys()[:PEAKS_MAX]:
        with suppress(EngineError):
            signed = store.manifest(key)
            found.append(build_pb2.EngineManifest.FromString(signed.manifest))
    return found


def _open_folder(folder: Path, store: str) -> tuple[Holdings, AgentKey]:
    folder = folder.absolute()
    holdings = Holdings.open(folder, store)
    return holdings, AgentKey.load_or_create(folder / "agent-key.pem")


async def _isolates(scratch: Path, limits: BuildLimits, isolation: str) -> bool:
    """Return whether workers are isolated. Raises ``IsolationUnavailable`` if they must be."""
    if isolation == "off":
        return False
    refusal = await _refusal(scratch, limits)
    if not refusal:
        return True
    if isolation == "required":
        raise IsolationUnavailable(f"builds cannot be isolated on this host: {refusal}")
    hint = "builds can reach the network, and see this host's processes; isolation=off says so quietly"
    logger.warning("isolation_unavailable", extra={"error": refusal, "hint": hint})
    return False


async def _refusal(scratch: Path, limits: BuildLimits) -> str:
    """Return why the kernel does not isolate workers here; empty: it does."""
    return await probe_isolation(scratch, limits, worker_environment(os.environ))


async def _probe(
    scratch: Path, limits: BuildLimits
) -> dict[str, build_service_pb2.BackendInfo]:
    """Return the backends that load on this host."""
    backends: dict[str, build_service_pb2.BackendInfo] = {}
    reasons: list[str] = []
    for name in TARGETS:
        try:
            info = await probe_backend(name, scratch, limits, worker_environment(os.environ))
        except BuildError as error:
            reasons.append(f"{name}: {error.explain()}")
            if error.stderr_tail:
                log_end_of_worker(error, backend=name)
        else:
            if info.targets:
                backends[name] = info
    if not backends:
        raise BackendMissing("no backend can build on this host. " + " ".join(reasons))
    return backends
