"""From a model to a published engine: ``client.build`` and ``client.fetch``.

An engine's key is a hash of everything it follows from, so a request for the same thing finds
the same engine: a seat is taken only when there is none yet. The agent is chosen by a ring on the
key, so that those who ask at the same time meet at one agent, which builds once.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Protocol

from seatkeeper.artifacts.bundle import model_hash
from seatkeeper.artifacts.errors import ManifestUntrusted, ModelError, PlanError
from seatkeeper.artifacts.features import lacking_features, missing_plugins
from seatkeeper.artifacts.manifest import verify_manifest
from seatkeeper.artifacts.plan import BuildPlan, engine_key, plan_from_options, plan_to_options
from seatkeeper.artifacts.precision import Samples
from seatkeeper.artifacts.summary import (
    ModelLimits,
    check_conversion_size,
    check_file_size,
)
from seatkeeper.client.builds.agents import AsyncAgent
from seatkeeper.client.builds.bundle import WeightsFile
from seatkeeper.client.builds.model import EngineWriter, Model
from seatkeeper.client.builds.output import Output
from seatkeeper.client.builds.part import Part, is_there
from seatkeeper.client.builds.placement import Attempts, placed
from seatkeeper.client.builds.sample_headers import check_headers
from seatkeeper.client.builds.sending import (
    TRIES_MAX,
    TRIES_MAX_BEFORE_OTHERS,
    OnProgress,
    Upload,
    send_build,
)
from seatkeeper.client.session.grants import AsyncGrant, AsyncSeat, Keeper, SeatRequest
from seatkeeper.client.session.holding import HoldingState
from seatkeeper.core.errors import (
    AgentFull,
    AgentUnavailable,
    BuildFailed,
    BuildTimedOut,
    CompilerCrashed,
    EngineDamaged,
    EngineNotFound,
    InUse,
    InvalidArgument,
    ModelRejected,
    SeatLost,
    WorkEnded,
)
from seatkeeper.v1 import build_pb2, build_service_pb2
from seatkeeper.v1 import engine_service_pb2 as engines_pb

ANY_POOL = "any"
"""Stands for the pool of a seat to build under until the agents are known."""
_NUMBERS = re.compile(r"[0-9]{1,9}", re.ASCII)
ATTEMPTS_MAX = 5
"""How often one call waits for a build of others whose engine is then not to be had."""
_REPEATED: tuple[type[BuildFailed], ...] = (ModelRejected, CompilerCrashed, BuildTimedOut)
"""Failures of a build that would come again with the same model and options."""


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """A published engine."""

    manifest: build_pb2.EngineManifest
    """What is known of it; its signature has been verified."""
    cached: bool
    """Whether it had been published before, and nothing was built now."""
    waited: timedelta
    """Time spent waiting for a seat."""
    path: Path | None = None
    """Where its bytes are, when they were asked for."""
    upload_resumed: bool = False
    """Whether a lost connection interrupted the upload, which then went on where it had ended."""

    @property
    def key(self) -> str:
        """The key under which anybody can fetch it."""
        return self.manifest.key


@dataclass(frozen=True)
class PulledEngine:
    """An engine that is in its file."""

    signed_manifest: build_pb2.SignedManifest
    manifest: build_pb2.EngineManifest
    """What is known of it; its signature has been verified."""
    resumed_at: int
    """Bytes that were there already: of an earlier pull, or all."""


@dataclass(frozen=True)
class BuildRequest:
    """What to build, how to wait for it, and the callbacks."""

    options: build_pb2.BuildOptions
    pool: str | None
    """The pool that agents must take seats of; None: any."""
    seat: SeatRequest
    """The seat to build under; its pool is that of the agents that are found."""
    on_progress: OnProgress | None
    sample_files: Sequence[Model] = ()
    """The files that the options name, in that order."""
    weights: Sequence[WeightsFile] = ()
    """The files that the model keeps weights in."""

    def size_bytes(self, model: Model) -> int:
        """Return how many bytes the model has, with the files of its weights."""
        return model.size_bytes + sum(file.size_bytes for file in self.weights)


@dataclass(frozen=True)
class _Job:
    """One engine to be built, and the agents that can."""

    plan: BuildPlan
    able: Sequence[build_service_pb2.AgentInfo]
    version: str
    """Of the library that they have."""
    conversion: str
    """What converts the model there; empty: nothing, or they do not say."""
    key: str
    """The engine's key; also the name of the work, which one holder does at a time."""
    asked_at: float


class Catalogue(Protocol):
    """Which agents are alive, and which engines are published."""

    async def agents(self) -> Sequence[build_service_pb2.AgentInfo]:
        """Return the agents that are alive, in the order of ids."""
        ...

    async def get(self, key: str) -> engines_pb.PublishedEngine:
        """Return one published engine, and where it is. Raises `EngineNotFound`."""
        ...


class Builder(Keeper, Protocol):
    """What a build needs of the client that it is made for: seats, the catalogue, and agents."""

    @property
    def engines(self) -> Catalogue:
        """The catalogue."""
        ...

    def agent(self, address: str) -> AsyncAgent:
        """Return a connection to the build agent at ``address``."""
        ...


class AsyncBuilds:
    """Runs builds for one client."""

    def __init__(self, client: Builder) -> None:
        self._client = client

    async def build(self, model: Model, request: BuildRequest) -> BuiltEngine:
        """Return the engine, building it only if it is not published.

        Of those who ask for the same at once, one builds, under one seat; the others wait for what
        comes of it, in the places that they have in the queue.
        """
        plan = _plan(request.options)
        _check_sizes(model, request, plan)
        await asyncio.to_thread(_check_samples, model, request, plan)
        agents = await self._client.engines.agents()
        able, version = able_agents(
            agents, plan, request.size_bytes(model), request.pool, len(request.weights)
        )
        hashed = model_hash(model.sha256, (each.file for each in request.weights))
        conversion = conversion_of(able[0], plan)
        key = engine_key(hashed, plan, version, conversion)
        asked_at = self._client.now()
        for attempt in range(ATTEMPTS_MAX):
            found = await self._published(key)
            if found is not None:
                waited = self._client.now() - asked_at if attempt else 0.0
                return BuiltEngine(
                    manifest=found, cached=True, waited=timedelta(seconds=waited)
                )
            try:
                return await self._build(
                    model, request, _Job(plan, able, version, conversion, key, asked_at)
                )
            except WorkEnded as ended:
                if ended.failure:
                    raise _about(model, _repeated(ended)) from ended
        raise AgentUnavailable(
            f"{model.name}: engine {key} was built by others {ATTEMPTS_MAX} times, and no agent "
            "that has it answers; build it again"
        )

    async def _build(self, model: Model, request: BuildRequest, job: _Job) -> BuiltEngine:
        """Build it under a seat. Raises `WorkEnded` when another holder has built it meanwhile."""
        lost = asyncio.Event()

        def on_state(state: HoldingState) -> None:
            if state is HoldingState.LOST:
                lost.set()

        wait = request.seat.wait_seconds
        seat = replace(
            request.seat,
            wait_seconds=wait and max(0.0, wait - (self._client.now() - job.asked_at)),
            wanted=replace(request.seat.wanted, pool=job.able[0].pool, work_key=job.key),
            on_state=on_state,
            # What counts is whether the engine was published, which the service allows only under
            # a grant that is alive.
            check=False,
        )
        async with AsyncSeat(self._client, seat) as grant:
            waited = timedelta(seconds=self._client.now() - job.asked_at)
            # Others who wanted the same may have been served first.
            manifest = await self._published(job.key)
            if manifest is not None:
                built = BuiltEngine(manifest=manifest, cached=True, waited=waited)
            else:
                work = asyncio.create_task(self._on_some_agent(model, request, job, grant))
                built = replace(await _unless(lost, work, grant), waited=waited)
            grant.end_work()
        return built

    async def fetch(self, key: str, to: Output) -> build_pb2.EngineManifest:
        """Fetch a published engine to the file ``to``, and return its verified manifest."""
        engine = await self._client.engines.get(key)
        manifest = _of_catalogue(engine, key)
        trouble: BuildFailed | EngineNotFound = AgentUnavailable(
            f"no agent that has engine {key} is alive; build it again"
        )
        for address in engine.addresses:
            try:
                await self._fetch_from(address, engine, manifest, to)
            except (AgentFull, AgentUnavailable, EngineDamaged, EngineNotFound) as error:
                trouble = error
            else:
                return manifest
        raise trouble

    async def pull(self, key: str, to: Output) -> PulledEngine:
        """Fetch a published engine to the file ``to``, from where an earlier pull was cut off."""
        engine = await self._client.engines.get(key)
        manifest = _of_catalogue(engine, key)
        if await asyncio.to_thread(is_there, to, manifest.file):
            return PulledEngine(engine.manifest, manifest, resumed_at=manifest.file.size_bytes)
        with await asyncio.to_thread(Part, to, manifest.file) as part:
            resumed_at = part.size
            trouble: BuildFailed | EngineNotFound = AgentUnavailable(
                f"no agent that has engine {key} is alive; build it again"
            )
            # The second time is for what was cut off long ago and has become wrong.
            for address in (*engine.addresses, *engine.addresses):
                try:
                    await self._pull_from(address, engine, manifest, part)
                except (AgentFull, AgentUnavailable, EngineDamaged, EngineNotFound) as error:
                    trouble = error
                else:
                    return PulledEngine(engine.manifest, manifest, resumed_at=resumed_at)
        raise trouble

    async def _pull_from(
        self,
        address: str,
        engine: engines_pb.PublishedEngine,
        manifest: build_pb2.EngineManifest,
        part: Part,
    ) -> None:
        async with (
            self._client.agent(address) as agent,
            aclosing(agent.fetch(manifest.key, offset=part.size)) as parts,
        ):
            first = await anext(parts, None)
            if first is None or first.manifest.manifest != engine.manifest.manifest:
                raise EngineDamaged(f"{address} has another engine than the catalogue says")
            async for piece in parts:
                await asyncio.to_thread(part.write, piece.chunk)
            await asyncio.to_thread(part.finish)

    async def _published(self, key: str) -> build_pb2.EngineManifest | None:
        try:
            engine = await self._client.engines.get(key)
        except EngineNotFound:
            return None
        # What no live agent has cannot be fetched, and must be built again.
        for address in engine.addresses:
            if await self._has(address, key):
                return _of_catalogue(engine, key)
        return None

    async def _has(self, address: str, key: str) -> bool:
        """Ask an agent for an engine that the catalogue says it has; it checks every byte."""
        async with self._client.agent(address) as agent, aclosing(agent.fetch(key)) as parts:
            try:
                return await anext(parts, None) is not None
            except (AgentFull, AgentUnavailable, EngineDamaged, EngineNotFound):
                return False

    async def _fetch_from(
        self,
        address: str,
        engine: engines_pb.PublishedEngine,
        manifest: build_pb2.EngineManifest,
        to: Output,
    ) -> None:
        async with (
            self._client.agent(address) as agent,
            aclosing(agent.fetch(manifest.key)) as parts,
        ):
            first = await anext(parts, None)
            if first is None or first.manifest.manifest != engine.manifest.manifest:
                raise EngineDamaged(f"{address} has another engine than the catalogue says")
            writer = await asyncio.to_thread(EngineWriter, to, manifest.file)
            with writer:
                async for part in parts:
                    await asyncio.to_thread(writer.write, part.chunk)
                await asyncio.to_thread(writer.finish)

    async def _able_now(
        self, model: Model, request: BuildRequest, job: _Job
    ) -> Sequence[build_service_pb2.AgentInfo]:
        """Return the agents that could build it under its grant now. Raises `SeatError`."""
        agents = await self._client.engines.agents()
        size_bytes, pool = request.size_bytes(model), job.able[0].pool
        able, version = able_agents(agents, job.plan, size_bytes, pool, len(request.weights))
        makers = version, conversion_of(able[0], job.plan)
        return placed(able, job.key) if makers == (job.version, job.conversion) else ()

    async def _on_some_agent(
        self, model: Model, request: BuildRequest, job: _Job, grant: AsyncGrant
    ) -> BuiltEngine:
        header = _header(model, request, job)

        def with_token() -> build_service_pb2.BuildHeader:
            # The token as it is now: an earlier agent may have taken its time to refuse.
            header.token = grant.token
            return header

        attempts = Attempts(
            placed(job.able, job.key), partial(self._able_now, model, request, job)
        )
        while True:
            agent = await attempts.next()
            upload = Upload(
                (model, *request.sample_files, *request.weights),
                is_asked_for=agent.model_files_max > 0,
            )
            try:
                done = await send_build(
                    partial(self._client.agent, agent.address),
                    with_token,
                    upload,
                    request.on_progress,
                    tries_max=TRIES_MAX if attempts.is_last else TRIES_MAX_BEFORE_OTHERS,
                    random=random.random,
                )
            except InUse as error:
                await attempts.failed(error)
                continue
            except BuildFailed as error:
                if type(error) in _REPEATED and await upload.is_as_named():
                    grant.end_work(failure=type(error).__name__, message=str(error))
                await attempts.failed(_about(model, error))
                continue
            manifest = _verified(done.manifest, agent.public_key, job.key)
            if manifest.model_sha256 != model.sha256:
                raise EngineDamaged("the manifest is of another model")
            return BuiltEngine(
                manifest=manifest,
                cached=done.cached,
                waited=timedelta(0),
                upload_resumed=upload.is_resumed,
            )


def able_agents(
    agents: Iterable[build_service_pb2.AgentInfo],
    plan: BuildPlan,
    model_bytes: int,
    pool: str | None,
    files: int = 0,
) -> tuple[Sequence[build_service_pb2.AgentInfo], str]:
    """Return the agents that can build this with the newest library, and that library's version.

    Where the model may be converted, all of them convert it in the same way, the newest that there is.
    ``model_bytes`` counts the ``files`` that hold weights, too. All of them take seats of one pool.
    Raises `AgentUnavailable` when there is none, saying what the agents there are lack.
    """
    known = list(agents)
    if not known:
        raise AgentUnavailable("no build agent is alive; start one with `seatkeeper agent`")
    of_pool = [agent for agent in known if pool in (None, agent.pool)]
    if not of_pool:
        raise AgentUnavailable(
            f"no live agent takes seats of pool {pool}; those there are take seats of "
            f"{_listed(agent.pool for agent in known)}"
        )
    of_backend = [
        (backend, agent)
        for agent in of_pool
        for backend in agent.backends
        if backend.name == plan.backend
    ]
    among = "live agent" if pool is None else f"live agent of pool {pool}"
    if not of_backend:
        there = _listed(backend.name for agent in of_pool for backend in agent.backends)
        raise AgentUnavailable(f"no {among} has the backend {plan.backend}; there is {there}")
    of_targets = [each for each in of_backend if {*plan.targets} <= {*each[0].targets}]
    if not of_targets:
        sets = {" ".join(backend.targets) for backend, _ in of_backend}
        raise AgentUnavailable(
            f"no {among} builds with {plan.backend} for {', '.join(plan.targets)}; "
            f"those there are build for {' or for '.join(sorted(sets))}"
        )
    wanted = plan.precision
    of_precision = [each for each in of_targets if wanted.is_offered(each[0].precisions)]
    if not of_precision:
        raise AgentUnavailable(
            f"no {among} that builds for {', '.join(plan.targets)} converts to {wanted.precision}; "
            "use a newer agent, with the extra `builder` installed, or build without a precision"
        )
    of_files = [each for each in of_precision if files <= each[1].model_files_max]
    if not of_files:
        raise AgentUnavailable(
            f"the model keeps weights in {files} files, and no {among} that could build it takes so "
            "many; use a newer agent, or save the model with its weights inside"
        )
    of_features = [each for each in of_files if not _lack_of(plan, *each)]
    if not of_features:
        raise AgentUnavailable(f"no {among} can build this: {_lack_of(plan, *of_files[0])}")
    able = [each for each in of_features if model_bytes <= each[1].model_bytes_max]
    if not able:
        roomiest = max((agent for _, agent in of_features), key=lambda a: a.model_bytes_max)
        raise AgentUnavailable(
            f"the model has {model_bytes} bytes, and no {among} that could build it takes more "
            f"than {roomiest.model_bytes_max} (agent {roomiest.agent_id}): make the model "
            "smaller, or raise the agent's model_bytes_max"
        )
    version = max((backend.version for backend, _ in able), key=_version_order)
    newest = [agent for backend, agent in able if backend.version == version]
    conversion = max((conversion_of(agent, plan) for agent in newest), key=_conversion_order)
    newest = [agent for agent in newest if conversion_of(agent, plan) == conversion]
    # Seats of one pool are no good at an agent of another.
    first_pool = min(agent.pool for agent in newest)
    return [agent for agent in newest if agent.pool == first_pool], version


def _lack_of(
    plan: BuildPlan, backend: build_service_pb2.BackendInfo, agent: build_service_pb2.AgentInfo
) -> str:
    """Return what an agent lacks of a plan's features and plugins; empty: nothing."""
    offered = {each.name: each.lacking for each in backend.features}
    lacks = lacking_features(sorted(plan.features), offered)
    return "; ".join(filter(None, (*lacks, missing_plugins(plan.plugins, agent.plugins))))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(set(names))) or "none"


def conversion_of(agent: build_service_pb2.AgentInfo, plan: BuildPlan) -> str:
    """Return what converts the model of a plan at an agent; empty: nothing, or it does not say."""
    if not plan.precision.is_conversion:
        return ""
    return next((b.conversion for b in agent.backends if b.name == plan.backend), "")


def _conversion_order(conversion: str) -> tuple[tuple[int, ...], str]:
    return tuple(map(int, _NUMBERS.findall(conversion))), conversion


def _version_order(version: str) -> tuple[tuple[int, str], ...]:
    parts = version.replace("-", ".").replace("+", ".").split(".")
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in parts)


def _plan(options: build_pb2.BuildOptions) -> BuildPlan:
    try:
        return plan_from_options(options)
    except PlanError as error:
        raise InvalidArgument(error.explain(), field="options") from error


def _check_sizes(model: Model, request: BuildRequest, plan: BuildPlan) -> None:
    """Raise `ModelRejected` for a model that no agent can take, whatever its limits."""
    try:
        check_file_size(model.size_bytes, ModelLimits())
        check_conversion_size(plan.precision, request.size_bytes(model))
    except ModelError as error:
        raise ModelRejected(f"{model.name}: {error.explain()}") from error


def _check_samples(model: Model, request: BuildRequest, plan: BuildPlan) -> None:
    """Raise `ModelRejected` for samples that do not fit the model, as far as their headers show."""
    pictures = [each.sha256 for each in _samples(plan) if each.images is not None]
    for file in request.sample_files:
        if file.sha256 in pictures:
            continue
        try:
            check_headers(model, file)
        except PlanError as error:
            raise ModelRejected(f"{model.name}: {error.explain()}") from error
        except OSError:
            continue  # it is read again when it is sent, and then it is said what is wrong


def _samples(plan: BuildPlan) -> tuple[Samples, Samples]:
    return plan.precision.calibration, plan.precision.samples


def _of_catalogue(engine: engines_pb.PublishedEngine, key: str) -> build_pb2.EngineManifest:
    # The catalogue is what we trust: a node took this key from the agent that it knew.
    return _verified(engine.manifest, engine.manifest.public_key, key)


def _verified(
    signed: build_pb2.SignedManifest, public_key: bytes, key: str
) -> build_pb2.EngineManifest:
    try:
        manifest = verify_manifest(signed, public_key)
    except ManifestUntrusted as error:
        raise EngineDamaged(error.explain()) from error
    if manifest.key != key:
        raise EngineDamaged(f"the manifest is of engine {manifest.key}, not {key}")
    return manifest


def _header(model: Model, request: BuildRequest, job: _Job) -> build_service_pb2.BuildHeader:
    """Return what begins a build, all but the token."""
    return build_service_pb2.BuildHeader(
        options=plan_to_options(job.plan),
        conversion=job.conversion,
        model_name=model.name,
        model_size_bytes=model.size_bytes,
        model_sha256=model.sha256,
        attachments=[
            build_service_pb2.Attachment(sha256=file.sha256, size_bytes=file.size_bytes)
            for file in request.sample_files
        ],
        external_files=[
            build_service_pb2.ExternalFile(
                path=each.file.path, sha256=each.sha256, size_bytes=each.size_bytes
            )
            for each in request.weights
        ],
    )


def _repeated(ended: WorkEnded) -> BuildFailed:
    """Return the error of another's build of the same: it would come again."""
    kind = {each.__name__: each for each in _REPEATED}.get(ended.failure, BuildFailed)
    return kind(f"{ended.why} (another holder's build of the same model and options)")


def _about(model: Model, error: BuildFailed) -> BuildFailed:
    """Return the error with the model's name in front: who builds many must know which it was."""
    message = f"{model.name}: {error}"
    if isinstance(error, CompilerCrashed):
        return CompilerCrashed(message, stderr_tail=error.stderr_tail)
    return type(error)(message)


async def _unless(
    lost: asyncio.Event,
    work: asyncio.Task[BuiltEngine],
    grant: AsyncGrant,
) -> BuiltEngine:
    """Return what ``work`` returns; stop it and raise `SeatLost` when the seat is lost first."""
    watch = asyncio.create_task(lost.wait())
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise SeatLost(
                "the seat was lost before the agent said that the engine is published; build it "
                "again: if it was, it is found",
                grant_id=grant.grant_id,
            )
        return work.result()
    finally:
        for task in (work, watch):
            task.cancel()
        await asyncio.gather(work, watch, return_exceptions=True)
