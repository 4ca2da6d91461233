"""Whether what came is what a script expects. Pure. See README.md, "Patterns"."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tests.conformance.tokens import TokenRefused, claims_of
from tests.conformance.values import Bindings, Json, ScriptError, fill

_MISSING: Any = object()


class Mismatch(Exception):
    """What came is not what was expected; says where and what."""


def match(pattern: Json, value: Json, bindings: Bindings, where: str = "answer") -> None:
    """Compare; what the pattern binds is added to ``bindings``, only when all of it matched.

    Raises `Mismatch`.
    """
    trial = {k: list(v) if isinstance(v, list) else v for k, v in bindings.items()}
    _match(pattern, value, trial, where)
    bindings.update(trial)


def matches(pattern: Json, value: Json, bindings: Bindings) -> bool:
    """Return whether it matches, and bind what it binds if so."""
    try:
        match(pattern, value, bindings)
    except Mismatch:
        return False
    return True


def _match(pattern: Json, value: Json, bindings: Bindings, where: str) -> None:
    if isinstance(pattern, dict):
        operators = [key for key in pattern if key.startswith("$")]
        for key in operators:
            if key not in _OPERATORS:
                raise ScriptError(f"{where}: there is no pattern {key}")
            _OPERATORS[key](pattern[key], value, bindings, where)
        fields = [key for key in pattern if not key.startswith("$")]
        if fields:
            _match_fields({k: pattern[k] for k in fields}, value, bindings, where)
        elif not operators and not isinstance(value, dict):
            raise Mismatch(f"{where} is {_shown(value)}, not an object")
        return
    pattern = fill(pattern, bindings) if isinstance(pattern, str) else pattern
    if isinstance(pattern, list):
        _match_list(pattern, value, bindings, where)
    elif not _equal(pattern, value):
        raise Mismatch(f"{where} is {_shown(value)}, not {_shown(pattern)}")


def _match_fields(
    pattern: Mapping[str, Json], value: Json, bindings: Bindings, where: str
) -> None:
    if not isinstance(value, dict):
        raise Mismatch(f"{where} is {_shown(value)}, without {', '.join(pattern)}")
    for name, inner in pattern.items():
        _match(inner, value.get(name, _MISSING), bindings, f"{where}.{name}")


def _match_list(pattern: list[Json], value: Json, bindings: Bindings, where: str) -> None:
    if not isinstance(value, list) or len(value) != len(pattern):
        raise Mismatch(f"{where} is {_shown(value)}, not {len(pattern)} items")
    for index, (inner, item) in enumerate(zip(pattern, value, strict=True)):
        _match(inner, item, bindings, f"{where}[{index}]")


def _equal(pattern: Json, value: Json) -> bool:
    if isinstance(pattern, bool) or isinstance(value, bool) or pattern is None:
        return pattern is value
    if isinstance(pattern, int | float) or isinstance(value, int | float):
        # Proto's JSON writes 64-bit numbers as text.
        left, right = _number(pattern), _number(value)
        return left is not None and left == right
    return bool(pattern == value)


def _number(value: Json) -> float | None:
    """Return a number, or the number that a text or a duration ("1.5s") writes."""
    if isinstance(value, bool) or value is _MISSING:
        return None
    try:
        return float(value.removesuffix("s") if isinstance(value, str) else value)
    except (TypeError, ValueError):
        return None


def _shown(value: Json) -> str:
    if value is _MISSING:
        return "absent"
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}..."


# Operators --------------------------------------------------------------------------------------


def _compare(name: str, test: Callable[[float, float], bool]) -> _Operator:
    def compare(bound: Json, value: Json, bindings: Bindings, where: str) -> None:
        limit, number = _number(fill(bound, bindings)), _number(value)
        if limit is None:
            raise ScriptError(f"{where}: {name} needs a number, not {bound!r}")
        if number is None or not test(number, limit):
            raise Mismatch(f"{where} is {_shown(value)}, not {name} {limit:g}")

    return compare


def _absent(_: Json, value: Json, bindings: Bindings, where: str) -> None:
    if value is not _MISSING:
        raise Mismatch(f"{where} is {_shown(value)}, and should be absent")


def _any(_: Json, value: Json, bindings: Bindings, where: str) -> None:
    if value is _MISSING:
        raise Mismatch(f"{where} is absent")


def _bind(name: Json, value: Json, bindings: Bindings, where: str) -> None:
    _any(name, value, bindings, where)
    if name not in bindings:
        bindings[name] = value
    elif not _equal(bindings[name], value):
        raise Mismatch(f"{where} is {_shown(value)}, not ${{{name}}} {_shown(bindings[name])}")


def _increasing(name: Json, value: Json, bindings: Bindings, where: str) -> None:
    number, seen = _number(value), bindings.setdefault(name, [])
    if number is None or (seen and number <= seen[-1]):
        raise Mismatch(f"{where} is {_shown(value)}, not above {_shown(seen[-1:])}")
    seen.append(number)


def _distinct(name: Json, value: Json, bindings: Bindings, where: str) -> None:
    seen = bindings.setdefault(name, [])
    if value is _MISSING or value in seen:
        raise Mismatch(f"{where} is {_shown(value)}, which came before")
    seen.append(value)


def _one_of(choices: Json, value: Json, bindings: Bindings, where: str) -> None:
    for choice in choices:
        trial = {**bindings}
        try:
            _match(choice, value, trial, where)
        except Mismatch:
            continue
        bindings.update(trial)
        return
    raise Mismatch(f"{where} is {_shown(value)}, none of {_shown(choices)}")


def _not(pattern: Json, value: Json, bindings: Bindings, where: str) -> None:
    if matches(pattern, value, {**bindings}):
        raise Mismatch(f"{where} is {_shown(value)}, which it must not be")


def _regex(pattern: Json, value: Json, bindings: Bindings, where: str) -> None:
    if not isinstance(value, str) or not re.search(pattern, value):
        raise Mismatch(f"{where} is {_shown(value)}, without {pattern}")


def _length(pattern: Json, value: Json, bindings: Bindings, where: str) -> None:
    size = len(value) if isinstance(value, list | str) else _MISSING
    _match(pattern, size, bindings, f"the length of {where}")


def _contains(patterns: Json, value: Json, bindings: Bindings, where: str) -> None:
    """Each pattern matches an item of its own; other items do not count."""
    if not isinstance(value, list):
        raise Mismatch(f"{where} is {_shown(value)}, not a list")
    left = list(value)
    for pattern in patterns:
        found = next((item for item in left if matches(pattern, item, bindings)), _MISSING)
        if found is _MISSING:
            raise Mismatch(f"{where} is {_shown(value)}, without {_shown(pattern)}")
        left.remove(found)


def _unordered(patterns: Json, value: Json, bindings: Bindings, where: str) -> None:
    _contains(patterns, value, bindings, where)
    _length(len(patterns), value, bindings, where)


def _jwt(pattern: Json, value: Json, bindings: Bindings, where: str) -> None:
    try:
        claims = claims_of(value, fill(pattern["jwks"], bindings))
    except TokenRefused as error:
        raise Mismatch(f"{where}: {error}") from error
    _match(pattern.get("claims", {}), claims, bindings, f"{where}.claims")


_Operator = Callable[[Json, Json, Bindings, str], None]
_OPERATORS: Mapping[str, _Operator] = {
    "$ge": _compare("at least", lambda a, b: a >= b),
    "$gt": _compare("over", lambda a, b: a > b),
    "$le": _compare("at most", lambda a, b: a <= b),
    "$lt": _compare("below", lambda a, b: a < b),
    "$absent": _absent,
    "$any": _any,
    "$bind": _bind,
    "$increasing": _increasing,
    "$distinct": _distinct,
    "$in": _one_of,
    "$not": _not,
    "$regex": _regex,
    "$length": _length,
    "$contains": _contains,
    "$unordered": _unordered,
    "$jwt": _jwt,
}
