"""TensorRT and TensorRT-RTX on this machine's GPU.

No machine of ours has such a GPU: what is tried is that the runner refuses where there is
none, and that the bindings have every call that is made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seatkeeper.artifacts.errors import (
    BackendMissing,
    EngineDamaged,
    EngineInaccurate,
    RunnerUnavailable,
)
from seatkeeper.artifacts.summary import ModelValue
from seatkeeper.builder.backends._driver import host_targets
from seatkeeper.builder.backends._gpu import Gpu
from seatkeeper.builder.backends._untyped import Untyped
from seatkeeper.builder.backends.tensorrt import bindings
from seatkeeper.builder.conversion.accuracy import Outputs
from seatkeeper.builder.conversion.samples import Array, Feeds

RUNTIME_CALLS = ("deserialize_cuda_engine",)
ENGINE_CALLS = (
    *("num_io_tensors", "get_tensor_name", "get_tensor_mode", "get_tensor_shape"),
    *("get_tensor_dtype", "create_execution_context"),
)
CONTEXT_CALLS = (
    *("set_input_shape", "get_tensor_shape", "set_tensor_address", "execute_async_v3"),
)
"""What is called of the library, so that a test can see whether it is there."""
_TYPES = {np.dtype(np.float32): "FLOAT", np.dtype(np.float64): "DOUBLE"}


class TensorRtRunner:
    """Runs an engine on the first GPU."""

    def __init__(self, backend: str, path: Path) -> None:
        """Load it. Raises ``RunnerUnavailable`` without a GPU or the library, or ``EngineDamaged``."""
        targets = host_targets()
        if not targets:
            raise RunnerUnavailable(
                f"{backend} runs engines on a GPU, and this machine has none"
            )
        try:
            self._library = bindings(backend)
        except BackendMissing as error:
            raise RunnerUnavailable(error.message) from error
        self._gpu = Gpu(RunnerUnavailable)
        self.name = f"{backend} {self._library.__version__} on {targets[0]}"
        logger = self._library.Logger(self._library.Logger.ERROR)
        self._runtime = self._library.Runtime(logger)
        self._engine: Untyped = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise EngineDamaged(
                f"{self.name} does not load it: it is for another GPU or version"
            )
        self._context: Untyped = self._engine.create_execution_context()
        is_input = self._library.TensorIOMode.INPUT
        names = [
            self._engine.get_tensor_name(each) for each in range(self._engine.num_io_tensors)
        ]
        modes = {each: self._engine.get_tensor_mode(each) for each in names}
        self.inputs: Sequence[ModelValue] = tuple(
            self._value(each) for each in names if modes[each] == is_input
        )
        self._outputs = [each for each in names if modes[each] != is_input]

    def run(self, feeds: Feeds) -> Outputs:
        """Compute the outputs of one sample."""
        addresses: list[int] = []
        try:
            for name, array in feeds.items():
                if not self._context.set_input_shape(name, array.shape):
                    raise EngineInaccurate(
                        f"it does not accept {array.shape} for input {name!r}"
                    )
                source = np.ascontiguousarray(array)
                addresses.append(self._gpu.allocated(source.nbytes))
                self._gpu.write(addresses[-1], source.ctypes.data, source.nbytes)
                self._context.set_tensor_address(name, addresses[-1])
            computed = {name: self._empty(name) for name in self._outputs}
            places = {}
            for name, array in computed.items():
                places[name] = self._gpu.allocated(array.nbytes)
                addresses.append(places[name])
                self._context.set_tensor_address(name, places[name])
            if not self._context.execute_async_v3(0):
                raise EngineInaccurate("it does not run")
            self._gpu.wait()
            for name, array in computed.items():
                self._gpu.read(places[name], array.ctypes.data, array.nbytes)
        finally:
            for address in addresses:
                self._gpu.free(address)
        return computed

    def _empty(self, name: str) -> Array:
        shape = tuple(self._context.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            raise EngineInaccurate(f"the size of output {name!r} follows from values")
        kind = self._library.nptype(self._engine.get_tensor_dtype(name))
        return np.zeros(shape, kind)

    def _value(self, name: str) -> ModelValue:
        kind = np.dtype(self._library.nptype(self._engine.get_tensor_dtype(name)))
        shape = tuple(self._engine.get_tensor_shape(name))
        return ModelValue(
            name=name,
            dims=tuple(None if size < 0 else size for size in shape),
            dtype=_TYPES.get(kind, kind.name.upper()),
        )
