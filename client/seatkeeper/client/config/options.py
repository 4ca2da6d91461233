"""Groups of keyword arguments that several methods take: named once, in a `typing.TypedDict`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar

_F = TypeVar("_F", bound=Callable[..., object])


def refuse_others(kind: type, given: Mapping[str, object]) -> None:
    """Raise ``TypeError`` for a keyword argument that is none of ``kind``, as Python does."""
    if others := given.keys() - kind.__annotations__.keys():
        raise TypeError(f"got an unexpected keyword argument {min(others)!r}")


def spelled_out(kind: type, defaults: Mapping[str, object]) -> Callable[[_F], _F]:
    """Give a method that takes ``**options`` of ``kind`` the signature that they stand for.

    So ``help()`` and `inspect.signature` name every argument, as type checkers and editors do.
    """

    def spell(method: _F) -> _F:
        signature = inspect.signature(method)
        named = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        named += [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults[name],
                annotation=getattr(annotation, "__forward_arg__", annotation),
            )
            for name, annotation in kind.__annotations__.items()
        ]
        vars(method)["__signature__"] = signature.replace(parameters=named)
        return method

    return spell
