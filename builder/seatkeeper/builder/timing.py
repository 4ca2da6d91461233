"""Times an engine on this machine's GPU: ``python -m seatkeeper.builder.timing BACKEND ENGINE RUNS``.

A process of its own, because the native library may die of an engine. It prints one JSON object: what
was found, or an error. Memory and clock are the driver's, by ctypes, because the bindings have none.
Inputs are zeros in the sizes that the first profile is fastest at.

Tests without a GPU see that this is refused by name, and that the bindings have every call that is
made; those marked ``gpu`` run an engine.
"""

from __future__ import annotations

import ctypes
import json
import math
import statistics
import sys
from collections.abc import Callable, Sequence
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
    gpu, log = _Gpu(), ErrorLog()
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


class _Gpu:
    """Memory and clock of the first GPU, in its primary context. All ends with the process."""

    def __init__(self) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        context, self._stream = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuInit", 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
        self._call("cuCtxSetCurrent", context)
        self._call("cuStreamCreate", ctypes.byref(self._stream), 0)

    def zeros(self, size_bytes: int) -> int:
        """Return the address of so many bytes that are 0."""
        address, size = ctypes.c_uint64(), ctypes.c_size_t(max(1, size_bytes))
        self._call("cuMemAlloc_v2", ctypes.byref(address), size)
        self._call("cuMemsetD8_v2", address, ctypes.c_ubyte(0), size)
        return address.value

    def milliseconds(self, run: Callable[[int], None], runs: int, warm_ups: int) -> list[float]:
        """Return how long each run took, by events on the stream that it is given."""
        begin, end = ctypes.c_size_t(), ctypes.c_size_t()
        for event in (begin, end):
            self._call("cuEventCreate", ctypes.byref(event), 0)
        times: list[float] = []
        for number in range(warm_ups + runs):
            self._call("cuEventRecord", begin, self._stream)
            run(self._stream.value or 0)
            self._call("cuEventRecord", end, self._stream)
            self._call("cuEventSynchronize", end)
            took = ctypes.c_float()
            self._call("cuEventElapsedTime", ctypes.byref(took), begin, end)
            if number >= warm_ups:
                times.append(took.value)
        return times

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self._driver, name)(*arguments)
        if status != 0:
            raise BackendMissing(f"the GPU's driver refuses {name}: error {status}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
