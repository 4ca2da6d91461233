"""Values of the wrong type are refused by the name of their field, where they are given.

Python compares a timedelta with a number only to raise a `TypeError` that names neither, and takes a
string where a number is meant until it is sent.
"""

from __future__ import annotations

import dataclasses
import os
from datetime import timedelta
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from seatkeeper.core.errors import InvalidArgument

_WANTED: dict[object, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    timedelta: "a timedelta, such as timedelta(seconds=30)",
    Path: "a path",
    NoneType: "None",
}


def check_fields(
    value: Any,  # noqa: ANN401 # a dataclass of any kind
    prefix: str = "",
) -> None:
    """Check every field of a dataclass against its annotation.

    Raises `InvalidArgument` whose ``field`` is the field's name behind ``prefix``.
    """
    for name, hint in _hints(type(value)).items():
        check_type(f"{prefix}{name}", getattr(value, name), hint)


def check_type(field: str, value: object, hint: object) -> None:
    """Raise `InvalidArgument` naming ``field`` unless ``value`` is of the type ``hint``.

    Understands classes, unions, and literals; a number is no truth value, nor the other way round.
    """
    if _is_of(value, hint):
        return
    kinds = [k for k in get_args(hint) if k is not NoneType] if _is_union(hint) else [hint]
    wanted = " or ".join(_wanted(kind) for kind in kinds)
    write = ""
    if timedelta in kinds and isinstance(value, int | float):
        write = f": write timedelta(seconds={value!r})"
        wanted = "a timedelta"
    raise InvalidArgument(f"{field} must be {wanted}, not {value!r}{write}", field=field)


def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    return {name: hints[name] for name in names}


def _is_union(hint: object) -> bool:
    return get_origin(hint) in (Union, UnionType)


def _is_of(value: object, hint: object) -> bool:
    if _is_union(hint):
        return any(_is_of(value, each) for each in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is Path:
        return isinstance(value, str | os.PathLike)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return not isinstance(hint, type) or isinstance(value, hint)


def _wanted(hint: object) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(f'"{each}"' for each in get_args(hint))
    if hint in _WANTED:
        return _WANTED[hint]
    name = getattr(hint, "__name__", str(hint))
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"
