"""What makes one agent's converted models differ from another's, for the keys of engines."""

from __future__ import annotations

import importlib.metadata
from contextlib import suppress

from seatkeeper.builder.conversion import libraries

VERSION = 1
"""Of our own conversions. Raise it with a change after which any model is converted otherwise."""
_DISTRIBUTIONS = {
    "numpy": ("numpy",),
    "onnx": ("onnx",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "onnxslim": ("onnxslim",),
    "pillow": ("pillow",),
}
"""What takes part, by name, and what it may be installed as."""


def conversion() -> str:
    """Return the version of our conversions and of the libraries; empty: nothing is converted."""
    if not libraries.are_there():
        return ""
    found = (f"{name}-{_version(names)}" for name, names in _DISTRIBUTIONS.items())
    return " ".join((str(VERSION), *found))


def _version(names: tuple[str, ...]) -> str:
    for name in names:
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return "none"
