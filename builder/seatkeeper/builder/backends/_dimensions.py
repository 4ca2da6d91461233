"""Names of free sizes that a profile contradicts.

Two sizes of one name are equal, says ONNX, and the library refuses a profile that gives them different
values. Exporters also write one name, such as ``?``, for all that they do not know. What a profile says
is what the caller wants; without the name the library takes each size for itself.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from seatkeeper.artifacts.plan import Profile

Place = tuple[str, int]
"""An input, and the number of a dimension of it."""


def contradicted(
    names: Mapping[Place, str], profiles: Sequence[Profile]
) -> dict[str, list[Place]]:
    """Return the names that stand for different sizes in some profile, and where they are."""
    places: dict[str, list[Place]] = {}
    for place, name in names.items():
        if name:
            places.setdefault(name, []).append(place)
    return {name: there for name, there in places.items() if _differ(there, profiles)}


def without_names(model: bytes, names: Mapping[str, Sequence[Place]]) -> bytes:
    """Return the model without a name for each of these sizes.

    The library binds names as it parses, so a parsed network cannot be changed so.
    """
    from onnx import ModelProto  # in a worker alone

    parsed = ModelProto.FromString(model)
    places = {place for there in names.values() for place in there}
    for value in parsed.graph.input:
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            if (value.name, axis) in places:
                dimension.Clear()
    return parsed.SerializeToString()


def _differ(places: Sequence[Place], profiles: Sequence[Profile]) -> bool:
    for profile in profiles:
        shapes = {shape.input: shape for shape in profile.shapes}
        sizes = {
            (shape.min[axis], shape.opt[axis], shape.max[axis])
            for name, axis in places
            if (shape := shapes.get(name)) is not None and axis < len(shape.min)
        }
        if len(sizes) > 1:
            return True
    return False
