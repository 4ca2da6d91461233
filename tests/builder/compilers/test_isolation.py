"""What a worker may not do, tried by real workers whose compiler is replaced by one that does it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from tests.builder import mischief
from tests.builder.build_runner import rtx_plan
from tests.builder.models import light_model, relu

from seatkeeper.artifacts.errors import (
    BackendMissing,
    BuildError,
    BuildTimedOut,
    CompilerCrashed,
    FilesTooLarge,
    OutOfMemory,
    TooManyProcesses,
)
from seatkeeper.builder.compile import CompileJob, compile_engine, probe_isolation
from seatkeeper.builder.job import BuildLimits

MIB = 1 << 20
SMALL = BuildLimits(timeout=timedelta(seconds=60), memory_bytes=400 * MIB)


@pytest.fixture(scope="module")
def refusal(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Why this host's kernel does not isolate; empty: it does."""
    return asyncio.run(probe_isolation(tmp_path_factory.mktemp("probe"), BuildLimits()))


@pytest.fixture(params=[True, False], ids=["isolated", "bare"])
def limits(request: pytest.FixtureRequest, refusal: str) -> BuildLimits:
    """Both ways of a worker: in namespaces, and as on hosts that have none."""
    if request.param and refusal:
        pytest.skip(f"this kernel does not isolate: {refusal}")
    return replace(SMALL, isolate=request.param)


@pytest.fixture
def isolated(refusal: str) -> BuildLimits:
    """In namespaces."""
    if refusal:
        pytest.skip(f"this kernel does not isolate: {refusal}")
    return replace(SMALL, isolate=True)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., object]]:
    """Run a worker whose library is a program; return how it failed. Nothing may be left of it."""
    engines = tmp_path / "engines"
    engines.mkdir()
    (tmp_path / "model.onnx").write_bytes(relu())

    async def failed(program: str, limits: BuildLimits) -> BuildError:
        environment = mischief.instead_of_the_library(tmp_path / "library", program)
        job = CompileJob(
            model_path=tmp_path / "model.onnx", plan=rtx_plan(), engine_path=engines / "engine"
        )
        with pytest.raises(BuildError) as caught:
            await compile_engine(job, limits, lambda progress: None, environment)
        return caught.value

    yield failed
    assert list(engines.iterdir()) == []
    assert workers_of(engines) == []


def workers_of(engines: Path) -> list[psutil.Process]:
    """What runs with a file in a folder as its job, wherever it hides."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it ended just now
            if any(str(engines) in word for word in process.cmdline()):
                found.append(process)
    return found


async def test_a_worker_reaches_no_network(
    run: Callable[..., asyncio.Future[BuildError]], isolated: BuildLimits
) -> None:
    with mischief.listener() as server:
        program = mischief.CONNECTS.format(port=mischief.port_of(server))
        error = await run(program, isolated)
        assert not mischief.was_reached(server)
        assert isinstance(error, BackendMissing)
        assert "unreachable" in error.message


async def test_without_isolation_it_would(
    run: Callable[..., asyncio.Future[BuildError]],
) -> None:
    """Otherwise that it does not would prove nothing."""
    with mischief.listener() as server:
        await run(mischief.CONNECTS.format(port=mischief.port_of(server)), SMALL)
        assert mischief.was_reached(server)


async def test_a_worker_does_not_read_the_agents_environment(
    run: Callable[..., asyncio.Future[BuildError]], isolated: BuildLimits
) -> None:
    """The kernel shows the environment that a process began with, so another one has the secret."""
    secret = "a-secret-of-the-agent"
    agent = await asyncio.create_subprocess_exec("sleep", "60", env={"TOKEN": secret})
    try:
        error = await run(mischief.READS_THE_PARENT.format(secret=secret), isolated)
        assert "AttributeError: unseen" in error.stderr_tail
        error = await run(mischief.READS_THE_PARENT.format(secret=secret), SMALL)
        assert "AttributeError: seen" in error.stderr_tail
    finally:
        agent.kill()
        await agent.wait()


async def test_a_worker_that_forks_forever_is_ended_whole(
    run: Callable[..., asyncio.Future[BuildError]], limits: BuildLimits
) -> None:
    error = await run(mischief.FORKS, limits)
    assert isinstance(error, TooManyProcesses | OutOfMemory)


async def test_a_daemon_of_a_worker_dies_with_it(
    run: Callable[..., asyncio.Future[BuildError]], limits: BuildLimits, tmp_path: Path
) -> None:
    """It has left the worker's session and closed its pipes, and works beside it."""
    growing = tmp_path / "growing"
    program = mischief.LEAVES_A_DAEMON.format(path=str(growing), ending=mischief.SPINS)
    error = await run(program, replace(limits, timeout=timedelta(seconds=3)))
    assert isinstance(error, BuildTimedOut)
    assert growing.exists()


async def test_a_daemon_dies_with_a_worker_that_ends_by_itself(
    run: Callable[..., asyncio.Future[BuildError]], isolated: BuildLimits, tmp_path: Path
) -> None:
    growing = tmp_path / "growing"
    program = mischief.LEAVES_A_DAEMON.format(path=str(growing), ending="os._exit(3)")
    error = await run(program, isolated)
    assert isinstance(error, CompilerCrashed)
    assert growing.exists()


@pytest.mark.parametrize(
    "program", [mischief.WRITES_ONE_FILE, mischief.WRITES_MANY_FILES], ids=["one", "many"]
)
async def test_a_worker_that_writes_too_much_is_ended(
    run: Callable[..., asyncio.Future[BuildError]], limits: BuildLimits, program: str
) -> None:
    tight = replace(limits, engine_bytes_max=20 * MIB, files_bytes_max=60 * MIB)
    assert isinstance(await run(program, tight), FilesTooLarge)


async def test_memory_is_counted_with_what_a_worker_starts(
    run: Callable[..., asyncio.Future[BuildError]], limits: BuildLimits
) -> None:
    error = await run(mischief.EATS_MEMORY, limits)
    assert isinstance(error, OutOfMemory)


async def test_processor_time_is_limited(
    run: Callable[..., asyncio.Future[BuildError]], limits: BuildLimits
) -> None:
    error = await run(mischief.SPINS, replace(limits, cpu_time=timedelta(seconds=2)))
    assert isinstance(error, BuildTimedOut)
    assert "processor time" in error.message


async def test_the_engine_of_an_isolated_worker_is_as_any(
    tmp_path: Path, isolated: BuildLimits
) -> None:
    (tmp_path / "model.onnx").write_bytes(light_model("squeezenet"))
    job = CompileJob(
        model_path=tmp_path / "model.onnx", plan=rtx_plan(), engine_path=tmp_path / "engine"
    )
    wide = replace(isolated, memory_bytes=4 << 30)
    engine = await compile_engine(job, wide, lambda progress: None)
    assert engine.size_bytes > 1_000_000
