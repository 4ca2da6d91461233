"""The edge of the library: what cannot be sent is refused by name before anybody is asked.

Protobuf takes UTF-8 only, and raises deep inside of a call what looks like a service that does not
answer. Python has text that is not UTF-8: names of files, arguments and variables of the environment.
Its whole numbers have no end either, and those of the wire do.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.text import as_text
from seatkeeper.core.typed import check_type

_C = TypeVar("_C", bound=type)
_TEXT = frozenset({"str", "str | None"})
_NUMBERS = frozenset({"int", "int | None"})
_DURATIONS = frozenset({"timedelta", "timedelta | None"})
_WIDE = frozenset({"expected_revision"})
"""Numbers of 64 bits; others have 32."""
INT32_MAX = (1 << 31) - 1
INT64_MAX = (1 << 63) - 1


def sendable(field: str, value: str) -> str:
    """Return ``value`` as it is sent. Raises `InvalidArgument` naming ``field`` where it cannot be."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{field} must be text, not {value!r}", field=field)
    if value.isascii():
        return value
    try:
        return as_text(value)
    except ValueError as error:
        raise InvalidArgument(f"{field}: {error}", field=field) from None


def sendable_number(field: str, value: int) -> int:
    """Return ``value``. Raises `InvalidArgument` naming ``field`` where the wire has no room for it."""
    most = INT64_MAX if field in _WIDE else INT32_MAX
    if not isinstance(value, int) or not -most <= value <= most:
        raise InvalidArgument(
            f"{field} must be a whole number of at most {most}, not {value!r}", field=field
        )
    return value


def _duration(field: str, value: timedelta) -> timedelta:
    check_type(field, value, timedelta)
    return value


def sends(cls: _C) -> _C:
    """Check text, numbers and durations that public methods of ``cls`` get, by their names."""
    for name, method in list(vars(cls).items()):
        if not name.startswith("_") and inspect.isfunction(method):
            setattr(cls, name, _checked(method))
    return cls


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(method)
    checks: dict[str, Callable[[str, Any], Any]] = {}
    may_be_none = set()
    for each in signature.parameters.values():
        if each.annotation in _TEXT:
            checks[each.name] = sendable
        elif each.annotation in _NUMBERS:
            checks[each.name] = sendable_number
        elif each.annotation in _DURATIONS:
            checks[each.name] = _duration
        if each.default is None:
            may_be_none.add(each.name)
    if not checks:
        return method

    def check(args: Any, kwargs: Any) -> inspect.BoundArguments:  # noqa: ANN401  # the signature is that of what it wraps
        given = signature.bind(*args, **kwargs)
        for name, value in given.arguments.items():
            if name in checks and not (value is None and name in may_be_none):
                given.arguments[name] = checks[name](name, value)
        return given

    @functools.wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # the signature is that of what it wraps
        given = check(args, kwargs)
        return method(*given.args, **given.kwargs)

    @functools.wraps(method)
    async def awaited(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # the signature is that of what it wraps
        given = check(args, kwargs)
        return await method(*given.args, **given.kwargs)

    return awaited if inspect.iscoroutinefunction(method) else called
