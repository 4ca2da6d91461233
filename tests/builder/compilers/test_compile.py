"""Real compilers on real models: what comes out, and what happens to the rest when they die."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from tests.builder.build_runner import BuildRunner, rtx_plan
from tests.builder.full_disks import can_mount, tiny_disk
from tests.builder.models import (
    branching_lstm,
    dynamic_relu,
    light_model,
    model,
    node,
    relu,
    relu_chain,
    value,
)

from seatkeeper.artifacts.errors import (
    STDERR_TAIL_BYTES_MAX,
    BackendUnknown,
    BuildError,
    BuildTimedOut,
    CompilerCrashed,
    CompilerRefused,
    CompilerStalled,
    DiskFull,
    EngineDamaged,
    EngineTooLarge,
    InputUnsupported,
    ModelInvalid,
    ModelNotOnnx,
    ModelTooLarge,
    ModelTruncated,
    OperatorUnsupported,
    OutOfMemory,
    ProfileMissingInput,
    WorkerKilled,
)
from seatkeeper.artifacts.plan import TARGETS, BuildPlan
from seatkeeper.artifacts.summary import ModelLimits
from seatkeeper.builder._worker_process import StderrTail, explain_end, private_folder
from seatkeeper.builder.backends.tensorrt import check_rtx_engine
from seatkeeper.builder.compile import probe_backend, worker_environment
from seatkeeper.builder.job import BuildLimits
from seatkeeper.builder.progress import BUILDING, CHECKING, PARSING, Progress

LONG = relu_chain(10_000)
"""Compiles for more than a minute, so whatever ends sooner was ended."""


@pytest.mark.parametrize("name", ["squeezenet", "resnet50"])
async def test_a_network_becomes_an_engine(build_runner: BuildRunner, name: str) -> None:
    engine = await build_runner.compile(light_model(name))

    content = engine.path.read_bytes()
    check_rtx_engine(content)
    assert (engine.sha256, engine.size_bytes) == (
        hashlib.sha256(content).hexdigest(),
        len(content),
    )
    assert dict(engine.summary.operators)["Conv"] >= 26
    assert engine.backend_version.split(".")[0] == "1"
    assert engine.build_time > timedelta(0)
    assert list(build_runner.engines.iterdir()) == [engine.path]


async def test_progress_is_the_compilers_own(build_runner: BuildRunner) -> None:
    await build_runner.compile(light_model("resnet50"))

    phases = [progress.phase for progress in build_runner.progress]
    assert phases == sorted(phases)
    assert set(phases) == {CHECKING, PARSING, BUILDING}
    steps = [progress for progress in build_runner.progress if progress.step]
    assert steps
    assert all(0 <= progress.steps_done <= progress.steps for progress in steps)


async def test_free_sizes_are_built_with_every_profile(build_runner: BuildRunner) -> None:
    plan = rtx_plan("x=1x4:8x4:32x4", "x=64x4:64x4:64x4")
    one = await build_runner.compile(
        dynamic_relu().SerializeToString(), rtx_plan("x=1x4:8x4:32x4")
    )
    both = await build_runner.compile(dynamic_relu().SerializeToString(), plan)
    assert both.size_bytes > one.size_bytes


async def test_several_targets_share_an_engine(build_runner: BuildRunner) -> None:
    plan = BuildPlan(backend="tensorrt_rtx", targets=("SM89", "SM120"), workspace_bytes=1 << 30)
    engine = await build_runner.compile(relu(), plan)
    check_rtx_engine(engine.path.read_bytes())


CYCLE = model(
    node("Add", ["x", "b"], "a"), node("Relu", ["a"], "b"), node("Relu", ["b"])
).SerializeToString()
BAD_SHAPES = model(
    node("MatMul", ["x", "w"], name="layer9/matmul"),
    inputs=[value("x", [1, 4]), value("w", [3, 3])],
).SerializeToString()
SHAPE_INPUT = model(
    node("Reshape", ["x", "shape"]),
    inputs=[value("x", [1, 4]), value("shape", [2], TensorProto.INT64)],
).SerializeToString()


def with_operator(operator: str, domain: str = "") -> ModelProto:
    return model(
        node(operator, ["x"], name="layer7/odd", domain=domain), inputs=[value("x", [1, 3, 3])]
    )


@pytest.mark.parametrize(
    ("candidate", "error", "complaint"),
    [
        (with_operator("Det"), OperatorUnsupported, r"Det \(node 'layer7/odd'\)"),
        (with_operator("FancyAttention"), OperatorUnsupported, "FancyAttention"),
        (
            with_operator("Fancy", "com.acme"),
            OperatorUnsupported,
            r"Fancy \(node 'layer7/odd'\)",
        ),
        (CYCLE, ModelInvalid, "topological"),
        (BAD_SHAPES, ModelInvalid, r"MatMul \(node 'layer9/matmul'\).* must match"),
        (SHAPE_INPUT, InputUnsupported, "'shape' is used as a shape"),
        (light_model("squeezenet")[:9_000], ModelTruncated, "at byte 9000"),
        (b"hello world", ModelNotOnnx, "not an ONNX model"),
        (b"", ModelNotOnnx, "empty"),
        (dynamic_relu(), ProfileMissingInput, "'x'"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
async def test_a_bad_model_is_refused_by_name_and_leaves_nothing(
    build_runner: BuildRunner,
    candidate: ModelProto | bytes,
    error: type[BuildError],
    complaint: str,
) -> None:
    model_bytes = candidate if isinstance(candidate, bytes) else candidate.SerializeToString()
    with pytest.raises(error, match=complaint):
        await build_runner.compile(model_bytes)
    assert build_runner.is_clean()


async def test_sizes_that_share_a_name_may_differ(build_runner: BuildRunner) -> None:
    """Exporters write one name for all that they do not know; the library alone refuses it."""
    net = model(
        node("Conv", ["x", "w"]),
        inputs=[value("x", [1, 3, "?", "?"])],
        outputs=[value("y", [1, 2, "?", "?"])],
        constants=[numpy_helper.from_array(np.ones((2, 3, 3, 3), np.float32), "w")],
    )
    engine = await build_runner.compile(
        net.SerializeToString(), rtx_plan("x=1x3x8x32:1x3x8x64:1x3x8x64")
    )
    assert engine.size_bytes > 0


async def test_an_assertion_in_the_library_is_said_to_be_one(build_runner: BuildRunner) -> None:
    """Of a recurrent network whose branches each have states of their own."""
    with pytest.raises(CompilerRefused, match=r"assertion of its own .*without `If`") as caught:
        await build_runner.compile(branching_lstm())
    assert "graphScope" in caught.value.message
    assert build_runner.is_clean()


async def test_a_refusal_of_the_compiler_is_reported_in_its_words(
    build_runner: BuildRunner,
) -> None:
    with pytest.raises(CompilerRefused, match=r"Turing.*FP32 GEMM is not supported"):
        await build_runner.compile(light_model("resnet50"), rtx_plan(target="SM75"))
    assert build_runner.is_clean()


async def test_a_model_over_the_limit_never_reaches_a_worker(build_runner: BuildRunner) -> None:
    limits = BuildLimits(model=ModelLimits(bytes_max=100))
    with pytest.raises(ModelTooLarge):
        await build_runner.compile(bytes(101), limits=limits)
    assert build_runner.progress == []


async def test_limits_of_the_model_are_kept_in_the_worker(build_runner: BuildRunner) -> None:
    limits = BuildLimits(model=ModelLimits(opset_max=8))
    with pytest.raises(BuildError) as caught:
        await build_runner.compile(light_model("squeezenet"), limits=limits)
    assert caught.value.code == "opset_unsupported"


async def test_an_engine_over_the_limit_is_not_kept(build_runner: BuildRunner) -> None:
    with pytest.raises(EngineTooLarge):
        await build_runner.compile(relu(), limits=BuildLimits(engine_bytes_max=100_000))
    assert build_runner.is_clean()


async def test_a_chain_of_3000_nodes_compiles(build_runner: BuildRunner) -> None:
    """It takes the compiler more than the usual 8 MiB of stack."""
    engine = await build_runner.compile(relu_chain(3_000))
    assert engine.summary.nodes == 3_000


async def test_a_crash_of_the_compiler_costs_this_build_alone(
    build_runner: BuildRunner,
) -> None:
    """The same chain on the usual stack is a real crash of the real library."""
    with pytest.raises(CompilerCrashed, match="SIGSEGV") as caught:
        await build_runner.compile(relu_chain(3_000), limits=BuildLimits(stack_bytes=8 << 20))
    assert "Segmentation fault" in caught.value.stderr_tail
    assert build_runner.is_clean()

    assert (await build_runner.compile(relu())).size_bytes > 0


async def test_the_stderr_tail_is_the_end() -> None:
    stderr_tail = StderrTail()
    reader = asyncio.StreamReader()
    reader.feed_data(b"the first\n" + b"." * 1_000_000)
    reader.feed_data(b"\xff the last\n")
    reader.feed_eof()
    await stderr_tail.collect(reader)
    assert stderr_tail.complete.is_set()
    assert stderr_tail.text.endswith("\N{REPLACEMENT CHARACTER} the last")
    assert len(stderr_tail.text) < STDERR_TAIL_BYTES_MAX


async def test_a_compiler_that_takes_too_much_memory_is_ended(
    build_runner: BuildRunner,
) -> None:
    """Python and the libraries have more than this when they begin to build."""
    with pytest.raises(OutOfMemory):
        await build_runner.compile(LONG, limits=BuildLimits(memory_bytes=150 << 20))
    assert build_runner.is_clean()


@pytest.mark.parametrize("megabytes", [60, 90, 150, 210])
async def test_too_little_memory_for_the_model_is_no_crash(
    build_runner: BuildRunner, megabytes: int
) -> None:
    weights = TensorProto(name="w", dims=[25 << 20], data_type=TensorProto.FLOAT)
    weights.raw_data = bytes(100 << 20)
    large = model(node("Add", ["x", "w"]), inputs=[value("x", [1])], constants=[weights])
    with pytest.raises(OutOfMemory):
        await build_runner.compile(
            large.SerializeToString(), limits=BuildLimits(memory_bytes=megabytes << 20)
        )
    assert build_runner.is_clean()


async def test_a_worker_that_falls_asleep_is_ended(build_runner: BuildRunner) -> None:
    """The library was seen to wait for itself forever; a stopped process is as silent."""

    def stop(progress: Progress) -> None:
        for pid in build_runner.workers():
            os.kill(pid, signal.SIGSTOP)

    with pytest.raises(CompilerStalled):
        await build_runner.compile(
            LONG,
            limits=BuildLimits(stall_timeout=timedelta(seconds=0.5)),
            on_progress=stop,
        )
    assert build_runner.is_clean()


async def test_a_build_that_takes_too_long_is_killed(build_runner: BuildRunner) -> None:
    """A Python process does not even start in a millisecond."""
    with pytest.raises(BuildTimedOut, match=r"0\.001 seconds"):
        await build_runner.compile(LONG, limits=BuildLimits(timeout=timedelta(milliseconds=1)))
    assert build_runner.is_clean()


@pytest.mark.parametrize("phase", [CHECKING, PARSING, BUILDING])
async def test_a_cancelled_build_is_dead_when_cancelling_returns(
    build_runner: BuildRunner, phase: int
) -> None:
    def cancel(progress: Progress) -> None:
        if progress.phase == phase:
            building.cancel()

    building = asyncio.create_task(build_runner.compile(LONG, on_progress=cancel))
    with pytest.raises(asyncio.CancelledError):
        await building
    assert len(build_runner.worker_pids) == 1
    assert build_runner.is_clean()


async def test_cancelling_twice_is_as_clean_as_once(build_runner: BuildRunner) -> None:
    def cancel(progress: Progress) -> None:
        building.cancel()
        asyncio.get_running_loop().call_soon(building.cancel)

    building = asyncio.create_task(build_runner.compile(LONG, on_progress=cancel))
    with pytest.raises(asyncio.CancelledError):
        await building
    assert build_runner.is_clean()


async def test_a_listener_that_fails_ends_the_build(build_runner: BuildRunner) -> None:
    def fail(progress: Progress) -> None:
        raise RuntimeError("the caller is gone")

    with pytest.raises(RuntimeError, match="the caller is gone"):
        await build_runner.compile(LONG, on_progress=fail)
    assert build_runner.is_clean()


async def test_kill_9_of_a_worker_fails_its_build_alone(
    build_runner: BuildRunner, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = BuildRunner(tmp_path_factory.mktemp("other"))

    def kill(progress: Progress) -> None:
        for pid in build_runner.workers():
            os.kill(pid, signal.SIGKILL)

    killed, finished = await asyncio.gather(
        build_runner.compile(LONG, on_progress=kill),
        other.compile(light_model("squeezenet")),
        return_exceptions=True,
    )
    assert isinstance(killed, WorkerKilled)
    assert killed.retryable
    assert build_runner.is_clean()
    assert not isinstance(finished, BaseException)
    assert finished.path.exists()


async def test_the_worker_dies_with_the_agent(tmp_path: Path) -> None:
    """The agent is killed; the kernel takes its worker along."""
    (tmp_path / "model.onnx").write_bytes(LONG)
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", AGENT, str(tmp_path)), stdout=asyncio.subprocess.PIPE
    )
    assert agent.stdout is not None
    worker = os.pidfd_open(int(await agent.stdout.readline()))
    try:
        agent.kill()
        await agent.wait()
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(worker, ended.set)  # a pidfd is readable once its process has ended
        await asyncio.wait_for(ended.wait(), timeout=60)
        loop.remove_reader(worker)
    finally:
        os.close(worker)


AGENT = """
import asyncio, os, sys
from pathlib import Path
import psutil
from seatkeeper.builder.compile import CompileJob, compile_engine
from seatkeeper.builder.job import BuildLimits
from seatkeeper.artifacts.plan import BuildPlan

def on_progress(progress):
    for child in psutil.Process(os.getpid()).children():
        print(child.pid, flush=True)

folder = Path(sys.argv[1])
plan = BuildPlan(backend="tensorrt_rtx", targets=("SM86",))
job = CompileJob(model_path=folder / "model.onnx", plan=plan, engine_path=folder / "engine")
asyncio.run(compile_engine(job, BuildLimits(), on_progress))
"""


async def test_a_worker_does_not_see_the_agents_secrets(build_runner: BuildRunner) -> None:
    environments: list[bytes] = []

    def look(progress: Progress) -> None:
        environments.extend(
            Path(f"/proc/{pid}/environ").read_bytes() for pid in build_runner.workers()
        )

    os.environ["SEATKEEPER_TEST_TOKEN"] = "secret"
    try:
        await build_runner.compile(relu(), on_progress=look)
    finally:
        del os.environ["SEATKEEPER_TEST_TOKEN"]
    assert environments
    assert not any(b"secret" in environment for environment in environments)


def test_a_worker_gets_paths_and_the_gpus_settings_only() -> None:
    environment = {
        "PATH": "/bin",
        "LD_LIBRARY_PATH": "/opt/lib",
        "CUDA_VISIBLE_DEVICES": "0",
        "NVIDIA_DRIVER_CAPABILITIES": "all",
        "SEATKEEPER_TOKEN": "secret",
        "HOME": "/root",
    }
    assert set(worker_environment(environment)) == {
        "PATH",
        "LD_LIBRARY_PATH",
        "CUDA_VISIBLE_DEVICES",
        "NVIDIA_DRIVER_CAPABILITIES",
    }


if can_mount():

    async def test_a_disk_that_is_full_while_building_is_reported(
        tmp_path: Path, build_runner: BuildRunner
    ) -> None:
        with tiny_disk(build_runner.engines):
            with pytest.raises(DiskFull):
                await build_runner.compile(relu())
            assert build_runner.is_clean()


def test_a_full_disk_is_reported_wherever_it_is_met(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "half").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DiskFull), private_folder(tmp_path) as folder:
        fill(folder)
    assert list(tmp_path.iterdir()) == []


async def test_a_backend_says_what_it_can_do_without_entering_the_agent(
    build_runner: BuildRunner,
) -> None:
    info = await probe_backend("tensorrt_rtx", build_runner.engines, BuildLimits())
    assert info.name == "tensorrt_rtx"
    assert tuple(info.targets) == TARGETS["tensorrt_rtx"]
    assert info.version
    assert build_runner.is_clean()


async def test_a_backend_that_does_not_exist_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(BackendUnknown):
        await probe_backend("tvm", tmp_path, BuildLimits())


@pytest.mark.parametrize(
    ("status", "stderr_tail", "oom_killed", "error"),
    [
        (-signal.SIGSEGV, "Fatal Python error", False, CompilerCrashed),
        (-signal.SIGABRT, "free(): invalid pointer", False, CompilerCrashed),
        (-signal.SIGABRT, "what():  std::bad_alloc", False, OutOfMemory),
        (1, "Traceback ...\nMemoryError", False, OutOfMemory),
        (1, "Traceback ...\nAttributeError", False, CompilerCrashed),
        (-signal.SIGKILL, "", True, OutOfMemory),
        (-signal.SIGKILL, "", False, WorkerKilled),
    ],
)
def test_every_end_of_a_worker_is_explained(
    status: int, stderr_tail: str, oom_killed: bool, error: type[BuildError]
) -> None:
    explained = explain_end(status, stderr_tail, oom_killed=oom_killed)
    assert type(explained) is error
    assert explained.stderr_tail == stderr_tail


@pytest.mark.parametrize(
    "damage",
    [
        lambda engine: b"",
        lambda engine: engine[:-1],
        lambda engine: engine + b"x",
        lambda engine: b"x" + engine[1:],
    ],
)
async def test_an_engine_with_a_wrong_header_is_not_an_engine(
    build_runner: BuildRunner, damage: Callable[[bytes], bytes]
) -> None:
    engine = (await build_runner.compile(relu())).path.read_bytes()
    with pytest.raises(EngineDamaged):
        check_rtx_engine(damage(engine))
