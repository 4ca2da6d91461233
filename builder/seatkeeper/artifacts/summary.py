"""What a model is from outside, and whether a plan's profiles fit it.

Pure, so that the agent can hold a summary without loading ``onnx`` beside its connections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from seatkeeper.artifacts.errors import (
    ConversionFailed,
    ModelNotOnnx,
    ModelTooLarge,
    ProfileMismatch,
    ProfileMissingInput,
    ProfileUnknownInput,
)
from seatkeeper.artifacts.plan import Profile, ProfileShape
from seatkeeper.artifacts.precision import Precision, PrecisionPlan

CONVERTED_BYTES_MAX = 2**31 - 2**26
"""Largest model that is converted: as one protobuf message, with room for what conversion adds."""

Dim = int | None
"""A fixed size, or None for one that a profile must give."""


@dataclass(frozen=True, kw_only=True)
class ModelLimits:
    """What a model may have before we refuse to look further."""

    bytes_max: int = 2**33
    """Largest model, with all its files."""
    file_bytes_max: int = 2**31 - 1
    """Largest file of a model itself, without those of its weights; protobuf ends here."""
    nodes_max: int = 50_000
    """Nodes in all graphs. Compile time grows with the square of a chain's length."""
    values_max: int = 1_000
    """Inputs, and outputs, each."""
    constant_bytes_max: int = 2**34
    """Largest single constant, stored or made by a node: a few bytes can ask for 256 GiB."""
    opset_max: int | None = None
    """Newest version of the standard operators. None: the newest that our ``onnx`` knows."""


@dataclass(frozen=True, kw_only=True)
class ModelValue:
    """An input or an output of a model."""

    name: str
    dims: tuple[Dim, ...]
    """Sizes; None where a profile gives them. An output's are a hint and may be missing."""
    dtype: str
    """ONNX's name of the type of its elements, such as ``FLOAT16``."""

    @property
    def is_dynamic(self) -> bool:
        """Whether it has a size that a profile must give."""
        return None in self.dims


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """What a model is, for people who wonder what they are building."""

    inputs: tuple[ModelValue, ...]
    outputs: tuple[ModelValue, ...]
    operators: tuple[tuple[str, int], ...]
    """The 200 most used operators and how often each is used, the most used first."""
    opset: int
    nodes: int
    parameters_bytes: int
    """Bytes of the constants stored in the file."""


def check_model_size(size_bytes: int, limits: ModelLimits) -> None:
    """Raise ``ModelTooLarge`` or, for nothing at all, ``ModelNotOnnx``."""
    if size_bytes > limits.bytes_max:
        raise ModelTooLarge(f"the model has {size_bytes} bytes, more than {limits.bytes_max}")
    if size_bytes == 0:
        raise ModelNotOnnx("the model is empty")


def check_file_size(size_bytes: int, limits: ModelLimits) -> None:
    """Raise ``ModelTooLarge`` for a model's own file that is larger than such files can be."""
    if size_bytes > limits.file_bytes_max:
        raise ModelTooLarge(
            f"the model's file has {size_bytes} bytes, and ONNX files end at"
            f" {limits.file_bytes_max}: keep its weights in files of their own"
            " (`onnx.save(..., save_as_external_data=True)`)"
        )


def check_conversion_size(precision: PrecisionPlan, size_bytes: int) -> None:
    """Raise ``ConversionFailed`` for a model with too many bytes to be converted.

    ``auto`` may try: it ends at the model as it is.
    """
    if not precision.is_conversion or precision.precision is Precision.AUTO:
        return
    if reason := why_not_converted(size_bytes):
        raise ConversionFailed(f"{reason}; build it as it is, with precision `model`")


def why_not_converted(size_bytes: int) -> str:
    """Return why a model of so many bytes, with all its files, is not converted; empty: it is."""
    if size_bytes <= CONVERTED_BYTES_MAX:
        return ""
    return (
        f"the model has {size_bytes} bytes, and the libraries that convert hold"
        f" {CONVERTED_BYTES_MAX} at most"
    )


def summary_from_fields(fields: dict[str, Any]) -> ModelSummary:
    """Return the summary that ``dataclasses.asdict`` and JSON took apart.

    Raises ``KeyError``, ``TypeError`` or ``ValueError`` for anything else.
    """
    return ModelSummary(
        inputs=tuple(_value_from_fields(value) for value in fields["inputs"]),
        outputs=tuple(_value_from_fields(value) for value in fields["outputs"]),
        operators=tuple((str(name), int(count)) for name, count in fields["operators"]),
        opset=int(fields["opset"]),
        nodes=int(fields["nodes"]),
        parameters_bytes=int(fields["parameters_bytes"]),
    )


def check_profiles(inputs: Sequence[ModelValue], profiles: Sequence[Profile]) -> None:
    """Raise a ``PlanError`` unless every profile fits the model's inputs.

    Every input of free size needs a shape in every profile. An input of fixed size may have
    one, if it repeats the fixed sizes.
    """
    by_name = {value.name: value for value in inputs}
    dynamic = [value for value in inputs if value.is_dynamic]
    if dynamic and not profiles:
        raise ProfileMissingInput(
            f"input {dynamic[0].name!r} has free sizes {_sizes(dynamic[0].dims)}, and the plan"
            " has no profile"
        )
    for number, profile in enumerate(profiles):
        shapes = {shape.input: shape for shape in profile.shapes}
        for name, shape in shapes.items():
            if name not in by_name:
                known = ", ".join(repr(value.name) for value in inputs)
                raise ProfileUnknownInput(
                    f"profile {number} names {name!r}; the model's inputs are {known}"
                )
            _check_shape(by_name[name], shape, number)
        for value in dynamic:
            if value.name not in shapes:
                raise ProfileMissingInput(f"profile {number} has no shape for {value.name!r}")


def _check_shape(value: ModelValue, shape: ProfileShape, number: int) -> None:
    if len(shape.min) != len(value.dims):
        raise ProfileMismatch(
            f"profile {number} gives {value.name!r} {len(shape.min)} dimensions; the model has"
            f" {len(value.dims)}: {_sizes(value.dims)}"
        )
    for axis, dim in enumerate(value.dims):
        given = (shape.min[axis], shape.opt[axis], shape.max[axis])
        if dim is not None and given != (dim, dim, dim):
            raise ProfileMismatch(
                f"profile {number} gives dimension {axis} of {value.name!r} the sizes"
                f" {given[0]}, {given[1]}, {given[2]}; the model fixes it to {dim}"
            )


def _value_from_fields(fields: dict[str, Any]) -> ModelValue:
    dims = tuple(None if dim is None else int(dim) for dim in fields["dims"])
    return ModelValue(name=str(fields["name"]), dims=dims, dtype=str(fields["dtype"]))


def _sizes(dims: tuple[Dim, ...]) -> str:
    return "x".join("?" if dim is None else str(dim) for dim in dims) or "none"
