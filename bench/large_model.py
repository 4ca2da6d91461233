"""Makes a model of any size whose weights lie in files beside it. None is committed: they are made.

``python -m bench.large_model FOLDER --gib 2.2`` writes ``FOLDER/model.onnx`` and its files of weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

WIDTH = 4096
BLOCK_BYTES = 4 << 20
GIB = 1 << 30


def make_large_model(folder: Path, size_bytes: int, files: int = 5) -> Path:
    """Write a model with weights of so many bytes, evenly in files, and return where it is.

    Each file is a matrix that the input is multiplied by. What is in them is drawn from a seed, one
    block a file, which is then repeated.
    """
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    columns = size_bytes // files // (4 * WIDTH)
    nodes, outputs, constants = [], [], []
    for number in range(files):
        location = f"weights/{number}.bin"
        length = 4 * WIDTH * columns
        _write_file(folder / location, length, seed=number)
        constants.append(_outside(f"w{number}", [WIDTH, columns], location, length))
        nodes.append(helper.make_node("MatMul", ["x", f"w{number}"], [f"p{number}"]))
        nodes.append(helper.make_node("ReduceMax", [f"p{number}"], [f"y{number}"]))
        outputs.append(helper.make_tensor_value_info(f"y{number}", TensorProto.FLOAT, None))
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, WIDTH])
    graph = helper.make_graph(nodes, "large", [given], outputs, constants)
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def _outside(name: str, dims: list[int], location: str, length: int) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims)
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", location), ("offset", "0"), ("length", str(length))):
        tensor.external_data.add(key=key, value=text)
    return tensor


def _write_file(path: Path, length: int, seed: int) -> None:
    drawn = np.random.default_rng(seed).normal(0, 0.01, BLOCK_BYTES // 4).astype(np.float32)
    block = drawn.tobytes()
    with path.open("wb") as file:
        for start in range(0, length, BLOCK_BYTES):
            file.write(block[: length - start])


def main() -> None:
    """Make one where it was asked for."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path, help="where to write it")
    options.add_argument("--gib", type=float, default=2.2, help="how large the weights are")
    arguments = options.parse_args()
    print(make_large_model(arguments.folder, round(arguments.gib * GIB)))


if __name__ == "__main__":
    main()
