"""Builds an engine with TensorRT-RTX as its documentation does: no agent, no checks, one process.

``python -m bench.direct_build MODEL ENGINE WORKSPACE_BYTES``
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def main(model: str, engine: str, workspace_bytes: int) -> None:
    """Read the model, build, write the engine."""
    import onnxruntime_ep_nv_tensorrt_rtx  # noqa: F401  # its import loads the libraries
    import tensorrt_rtx_bindings

    trt: Any = tensorrt_rtx_bindings
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse_from_file(model):
        raise SystemExit(f"{model} cannot be read")
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise SystemExit(f"{model} cannot be built")
    Path(engine).write_bytes(built)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
