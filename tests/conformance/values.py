"""Values of a script: what ``${name}`` and ``{"$id": ...}`` stand for. See README.md, "Values"."""

from __future__ import annotations

import base64
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

Json = Any
Bindings = dict[str, Json]

_REFERENCE = re.compile(r"\$\{([a-zA-Z_][a-zA-Z0-9_.]*)\}")
_OFFSET = re.compile(r"([+-]?\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_FOR_MAX = 100_000
"""Most items that one ``$for`` makes."""


class ScriptError(Exception):
    """A script cannot be run: it is the script that is wrong, not who is under test."""


def fill(value: Json, bindings: Mapping[str, Json]) -> Json:
    """Return ``value`` with every reference and generator replaced by what it stands for.

    Raises `ScriptError` for a name that is not bound. Patterns (``$ge`` and so on) are kept, with
    what stands in them filled in.
    """
    if isinstance(value, str):
        return _fill_text(value, bindings)
    if isinstance(value, list):
        return [item for each in value for item in _items(each, bindings)]
    if not isinstance(value, dict):
        return value
    if "$for" in value:
        return _items(value, bindings)
    made = _generate(value, bindings)
    return {k: fill(v, bindings) for k, v in value.items()} if made is None else made


def offset_seconds(text: str) -> float:
    """Return the seconds in an offset such as ``+1h``, ``-250ms`` or ``now``."""
    if text == "now":
        return 0.0
    match = _OFFSET.fullmatch(text)
    if match is None:
        raise ScriptError(f"{text!r} is not an offset such as +1h, -30s or now")
    return float(match[1]) * _UNITS[match[2]]


def new_id(offset: float = 0.0) -> str:
    """Return a UUIDv7 of the time ``offset`` seconds from now (RFC 9562, 5.7)."""
    millis = int((time.time() + offset) * 1000)
    value = (millis & (1 << 48) - 1) << 80 | 0x7 << 76 | secrets.randbits(12) << 64
    text = f"{value | 0b10 << 62 | secrets.randbits(62):032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_secret(size: int = 32) -> str:
    """Return random bytes as proto's JSON writes them: base64."""
    return base64.b64encode(secrets.token_bytes(size)).decode()


def new_name(prefix: str) -> str:
    """Return a name that no other run uses."""
    return f"{prefix}-{secrets.token_hex(5)}"


def look_up(name: str, bindings: Mapping[str, Json]) -> Json:
    """Return what ``name`` is bound to; a dot steps into an object."""
    found: Json = bindings
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise ScriptError(f"${{{name}}} is not bound; there are {', '.join(bindings)}")
        found = found[part]
    return found


def _fill_text(text: str, bindings: Mapping[str, Json]) -> Json:
    whole = _REFERENCE.fullmatch(text)
    if whole is not None:
        return look_up(whole[1], bindings)
    return _REFERENCE.sub(lambda match: str(look_up(match[1], bindings)), text)


def _items(each: Json, bindings: Mapping[str, Json]) -> list[Json]:
    """Return the items that one entry of a list stands for: several for a ``$for``."""
    if not (isinstance(each, dict) and "$for" in each):
        return [fill(each, bindings)]
    first, last = int(fill(each["from"], bindings)), int(fill(each["to"], bindings))
    if last - first >= _FOR_MAX:
        raise ScriptError(f"$for makes at most {_FOR_MAX} items")
    return [
        fill(each["item"], {**bindings, each["$for"]: number})
        for number in range(first, last + 1)
    ]


def _generate(value: dict[str, Json], bindings: Mapping[str, Json]) -> Json | None:
    if "$id" in value:
        return new_id(offset_seconds(value["$id"]))
    if "$bytes" in value:
        return new_secret(value["$bytes"])
    if "$name" in value:
        return new_name(value["$name"])
    if "$repeat" in value:
        return str(fill(value["$repeat"], bindings)) * int(value["times"])
    if "$sum" in value:
        return sum(int(fill(each, bindings)) for each in value["$sum"])
    return None
