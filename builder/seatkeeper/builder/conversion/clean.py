"""Brings a model into the form that the other steps understand.

Exporters leave identities, constants computed at run time, and old operator versions. Quantisation
for each channel needs opset 13, and the library wants 21 for 8 bits beside 16.
"""

from __future__ import annotations

import copy

import onnx
from onnx import ModelProto, version_converter

from seatkeeper.builder.conversion.libraries import onnxslim

OPSET_WANTED = 21


class Clean:
    """Folds constants, removes what does nothing, and raises the opset to ``OPSET_WANTED``.

    Each of these is left out where the libraries cannot do it; steps that need it say so.
    """

    name = "clean"

    def apply(self, model: ModelProto) -> ModelProto:
        """Keep the promise of ``BuildStep.apply``. Raises nothing."""
        slim = slimmed(model)
        return raised(slim) or raised(model) or slim


def slimmed(model: ModelProto) -> ModelProto:
    """Return the model without what does nothing; as it is where that cannot be found out."""
    try:
        slim: ModelProto = onnxslim().slim(
            copy.deepcopy(model), skip_fusion_patterns=["FusionGemm"]
        )
        onnx.checker.check_model(slim)
    except Exception:  # it raises whatever it meets, and only helps
        return model
    return slim


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
