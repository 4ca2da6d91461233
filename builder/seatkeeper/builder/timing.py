"""Times an engine on this machine's GPU: ``python -m seatkeeper.builder.timing BACKEND ENGINE RUNS``.

A process of its own, because the native library may die of an engine. It prints one JSON object: what
was found, or an error. Inputs are zeros in the sizes that the first profile is fastest at.

Tests without a GPU see that this is refused by name, and that the bindings have every call that is
made; those marked ``gpu`` run an engine.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seatkeeper.artifacts.errors import (
    BackendMissing,
    BuildError,
    EngineDamaged,
    error_to_fields,
)
from seatkeeper.builder.backends import load_backend
from seatkeeper.builder.backends._driver import host_targets
from seatkeeper.builder.backends._gpu import Gpu
from seatkeeper.builder.backends._tensorrt_listeners import ErrorLog, make_logger
from seatkeeper.builder.backends._untyped import Untyped

WARM_UPS = 10
RUNS_MAX = 100_000


def main(arguments: Sequence[str]) -> int:
    """Time the engine that is named, so many times; print what was found."""
    backend, path, runs = arguments
    try:
        found = {"timing": time_engine(backend, Path(path), int(runs))}
    except BuildError as error:
        found = {"error": error_to_fields(error)}
    print(json.dumps(found), flush=True)
    return 0


def time_engine(backend: str, path: Path, runs: int) -> dict[str, Any]:
    """Return how long an engine takes, in milliseconds, over so many runs after ten that do not count.

    Raises ``BackendMissing`` where there is no GPU or no library, and ``EngineDamaged`` for a file that
    the library does not load on this GPU.
    """
    targets = host_targets()
    if not targets:
        raise BackendMissing(f"{backend} runs engines on a GPU, and this machine has none")
    module: Untyped = load_backend(backend).module
    gpu, log = Gpu(BackendMissing), ErrorLog()
    runtime: Untyped = module.Runtime(make_logger(module, log))
    cuda_engine: Untyped = runtime.deserialize_cuda_engine(path.read_bytes())
    if cuda_engine is None:
        why = log.last() or "it is for another GPU or version"
        raise EngineDamaged(f"{backend} does not load {path.name} on {targets[0]}: {why}")
    execution: Untyped = cuda_engine.create_execution_context()
    names = [cuda_engine.get_tensor_name(each) for each in range(cuda_engine.num_io_tensors)]
    inputs = [n for n in names if cuda_engine.get_tensor_mode(n) == module.TensorIOMode.INPUT]
    shapes: dict[str, list[int]] = {}
    for name in inputs:
        shape = list(cuda_engine.get_tensor_shape(name))
        if -1 in shape:
            shape = list(cuda_engine.get_tensor_profile_shape(name, 0)[1])
        shapes[name] = shape
        execution.set_input_shape(name, shape)
    for name in names:
        volume = math.prod(max(0, size) for size in execution.get_tensor_shape(name))
        size_bytes = math.ceil(volume * cuda_engine.get_tensor_dtype(name).itemsize)
        execution.set_tensor_address(name, gpu.zeros(size_bytes))

    def run(stream: int) -> None:
        if not execution.execute_async_v3(stream):
            raise EngineDamaged(f"{path.name} does not run: {log.last() or 'no reason'}")

    times = sorted(gpu.milliseconds(run, runs, WARM_UPS))
    return {
        "runs": runs,
        "library": f"{backend} {module.__version__}",
        "gpu": targets[0],
        "shapes": shapes,
        "median_ms": statistics.median(times),
        "min_ms": times[0],
        "p99_ms": times[min(len(times) - 1, math.ceil(0.99 * len(times)) - 1)],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
