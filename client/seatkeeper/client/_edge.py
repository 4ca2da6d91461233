"""The edge of the library: text that cannot be sent is refused by name before anybody is asked.

Protobuf takes UTF-8 only, and raises deep inside of a call what looks like a service that does not
answer. Python has text that is not UTF-8: names of files, arguments and variables of the environment.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from seatkeeper.client.errors import InvalidArgument
from seatkeeper.text import as_text

_C = TypeVar("_C", bound=type)
_TEXT = frozenset({"str", "str | None"})


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


def sends_text(cls: _C) -> _C:
    """Check the text that is given to the public methods of ``cls``, by the parameters' names."""
    for name, method in list(vars(cls).items()):
        if not name.startswith("_") and inspect.isfunction(method):
            setattr(cls, name, _checked(method))
    return cls


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(method)
    texts = [each.name for each in signature.parameters.values() if each.annotation in _TEXT]
    if not texts:
        return method

    def check(args: Any, kwargs: Any) -> inspect.BoundArguments:  # noqa: ANN401
        given = signature.bind(*args, **kwargs)
        for name in texts:
            if given.arguments.get(name) is not None:
                given.arguments[name] = sendable(name, given.arguments[name])
        return given

    @functools.wraps(method)
    def called(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        given = check(args, kwargs)
        return method(*given.args, **given.kwargs)

    @functools.wraps(method)
    async def awaited(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        given = check(args, kwargs)
        return await method(*given.args, **given.kwargs)

    return awaited if inspect.iscoroutinefunction(method) else called
