"""Which nodes of a model meet numbers that a type does not hold, found by running it on samples."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from onnx import ModelProto, TensorProto, helper

from seatkeeper.builder.conversion.libraries import first_line
from seatkeeper.builder.conversion.samples import Feeds
from seatkeeper.builder.conversion.shares import types_of


def beyond(model: ModelProto, samples: Sequence[Feeds], limit: float) -> frozenset[str]:
    """Return the names of nodes that take or give a number over ``limit``, on any of the samples.

    Nodes in branches and loops are not looked at. Only one number of each tensor is kept, so it takes
    no more memory than the model. None where that does not run.
    """
    from seatkeeper.builder.conversion.accuracy import runner

    types = types_of(model)
    looked_at = {
        name
        for node in model.graph.node
        for name in (*node.input, *node.output)
        if types.get(name) == TensorProto.FLOAT
    }
    measuring = copy.deepcopy(model)
    del measuring.graph.output[:]
    outputs: dict[str, str] = {}
    for number, name in enumerate(sorted(looked_at)):
        size, largest = f"seatkeeper/size/{number}", f"seatkeeper/largest/{number}"
        measuring.graph.node.append(helper.make_node("Abs", [name], [size]))
        measuring.graph.node.append(
            helper.make_node("ReduceMax", [size], [largest], keepdims=0)
        )
        measuring.graph.output.append(
            helper.make_tensor_value_info(largest, TensorProto.FLOAT, [])
        )
        outputs[largest] = name
    large: set[str] = set()
    try:
        run = runner(measuring)
        for sample in samples:
            found = run(sample)
            large |= {
                outputs[each] for each, value in found.items() if float(np.max(value)) > limit
            }
    except MemoryError:
        raise
    except Exception as error:  # it raises types of its own for each status; this only helps
        first_line(error)  # unless it says that memory ran out
        return frozenset()
    return frozenset(
        node.name
        for node in model.graph.node
        if large.intersection((*node.input, *node.output))
    )
