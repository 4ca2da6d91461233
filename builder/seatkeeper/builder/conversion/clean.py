"""Brings a model into the form that the other steps understand.

Exporters leave identities, constants computed at run time, and old operator versions. Quantisation
for each channel needs opset 13, and the library wants 21 for 8 bits beside 16.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import onnx
from onnx import ModelProto, version_converter

from seatkeeper.builder.conversion.libraries import onnxslim
from seatkeeper.builder.conversion.regular import regular, with_plain_constants

OPSET_WANTED = 21


IsSame = Callable[[ModelProto], bool]
"""Says whether a model computes what the one that was given does."""


def is_valid(model: ModelProto) -> bool:
    """Return whether a model is one, as far as that is seen without running it."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception:  # it raises what its C++ throws
        return False
    return True


class Clean:
    """Folds constants, removes what does nothing, and raises the opset to ``OPSET_WANTED``.

    Each of these is left out where the libraries cannot do it, or where what they make is another
    model, as ``is_same`` says; steps that need it say so.
    """

    name = "clean"

    def __init__(self, is_same: IsSame = is_valid) -> None:
        self._is_same = is_same

    def apply(self, model: ModelProto) -> ModelProto:
        """Keep the promise of ``BuildStep.apply``. Raises nothing but want of memory."""
        return regular(next(filter(self._is_same, _cleaned(model)), model))


def _cleaned(model: ModelProto) -> Iterator[ModelProto]:
    """Yield the model cleaned: as far as can be first, as little as can be last."""
    plain = with_plain_constants(model)
    slim = slimmed(plain)
    for each in (slim, plain):
        if (newer := raised(each)) is not None:
            yield newer
    yield slim
    yield plain


def slimmed(model: ModelProto) -> ModelProto:
    """Return the model without what does nothing; as it is where that cannot be found out."""
    try:
        slim: ModelProto = onnxslim().slim(
            copy.deepcopy(model), skip_fusion_patterns=["FusionGemm"]
        )
        onnx.checker.check_model(slim)
    except Exception:  # it raises whatever it meets, and only helps
        return model
    return slim if _keep_inputs(slim, model) else model


def _keep_inputs(slim: ModelProto, model: ModelProto) -> bool:
    """Give back the inputs that nothing takes; return whether outputs are as they were."""
    constants = {each.name for each in model.graph.initializer}
    left = {each.name: each for each in slim.graph.input}
    wanted = [v for v in model.graph.input if v.name in left or v.name not in constants]
    if [*left] != [each.name for each in wanted]:
        inputs = [copy.deepcopy(left.get(each.name, each)) for each in wanted]
        del slim.graph.input[:]
        slim.graph.input.extend(inputs)
    names = [[each.name for each in m.graph.output] for m in (slim, model)]
    return names[0] == names[1]


def raised(model: ModelProto) -> ModelProto | None:
    """Return the model with standard operators of ``OPSET_WANTED`` or newer; None: it cannot be."""
    if opset_of(model) >= OPSET_WANTED:
        return model
    try:
        return version_converter.convert_version(model, OPSET_WANTED)
    except Exception:  # it raises what its C++ throws
        return None


def opset_of(model: ModelProto) -> int:
    """Return the version of the standard operators that a model is written for."""
    return max(
        (each.version for each in model.opset_import if each.domain in {"", "ai.onnx"}),
        default=0,
    )
