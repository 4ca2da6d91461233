"""Two engines in reduced precision, for the end of the demo, and how accurate they are.

The network is made here, with random weights, because none with trained ones may be downloaded for a
demo: `make models` builds real ones. Its samples are seeded noise in the place of pictures.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from rich.table import Table

from seatkeeper.artifacts.plan import BuildPlan, plan_to_options
from seatkeeper.artifacts.precision import Precision, PrecisionPlan
from seatkeeper.client import AsyncSeatClient, packed_samples, samples_of
from seatkeeper.client.builds.builds import BuiltEngine

SEED = 20261129
SAMPLES = 40
TOLERANCE = 0.1
"""Random weights are harder on 8 bits than trained ones."""
CHANNELS = (3, 16, 32, 64)


async def build_both(client: AsyncSeatClient) -> list[BuiltEngine]:
    """Build the network in FP16 and in INT8, under a seat each; both are measured on samples."""
    model = network().SerializeToString()
    random = np.random.default_rng(SEED)
    data = packed_samples(
        {"image": random.normal(0, 1, (1, 3, 64, 64)).astype(np.float32)}
        for _ in range(SAMPLES)
    )
    samples = samples_of(data)
    wanted = (
        PrecisionPlan(precision=Precision.FP16, samples=samples),
        PrecisionPlan(precision=Precision.INT8, calibration=samples, tolerance=TOLERANCE),
    )
    built = []
    for precision in wanted:
        plan = BuildPlan(backend="tensorrt_rtx", targets=("SM86",), precision=precision)
        built.append(
            await client.build(
                model, plan_to_options(plan), model_name="made.onnx", sample_files=[data]
            )
        )
    return built


def network() -> onnx.ModelProto:
    """Return a small convolutional classifier."""
    random = np.random.default_rng(SEED)
    nodes, constants, last = [], [], "image"
    for number, (before, after) in enumerate(itertools.pairwise(CHANNELS)):
        constants.append(_weights(random, f"w{number}", after, before, 3, 3))
        convolved, out = f"c{number}", f"r{number}"
        nodes += [
            helper.make_node(
                "Conv", [last, f"w{number}"], [convolved], f"/conv{number}", strides=[2, 2]
            ),
            helper.make_node("Relu", [convolved], [out], f"/relu{number}"),
        ]
        last = out
    constants.append(_weights(random, "w", CHANNELS[-1], 10))
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["p"], "/pool"),
        helper.make_node("Flatten", ["p"], ["f"], "/flat"),
        helper.make_node("Gemm", ["f", "w"], ["scores"], "/head"),
    ]
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 10])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def accuracy_table(built: Sequence[BuiltEngine]) -> Table:
    """Return what each computes in, and how far its outputs are from the model's."""
    table = Table(title="One network in reduced precision: model against model, not engine")
    for column in ("precision", "nodes"):
        table.add_column(column)
    for column in ("L2 error", "same class", "samples", "engine size"):
        table.add_column(column, justify="right")
    for each in built:
        report = each.manifest.precision
        worst = max(report.accuracy.outputs, key=lambda output: output.relative_l2)
        table.add_row(
            report.precision,
            ", ".join(f"{s.nodes} in {s.precision}" for s in report.shares if s.nodes),
            f"{worst.relative_l2:.3%}",
            f"{worst.top1_agreement:.0%}",
            str(report.accuracy.samples),
            f"{each.manifest.file.size_bytes / 1e6:.1f} MB",
        )
    return table


def _weights(random: np.random.Generator, name: str, *shape: int) -> TensorProto:
    values = random.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    return numpy_helper.from_array(values.astype(np.float32), name)
