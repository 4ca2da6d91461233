"""The libraries that convert models, each imported when it is first needed, and only here.

An agent without them still compiles models as they are. Their own log is kept out of ours: what
matters of it is in what they raise.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from seatkeeper.artifacts.errors import BackendMissing, OutOfMemory

Untyped = Any
"""A library that comes without types, or an object that it made."""
_OUT_OF_MEMORY_WORDS = (
    "bad_alloc",
    "bad allocation",
    "failed to allocate",
    "unable to allocate",
)
INSTALL = "pip install '.[builder]' in a checkout"


def are_there() -> bool:
    """Return whether models can be converted here. Imports nothing."""
    return all(
        importlib.util.find_spec(name) is not None for name in ("onnxruntime", "onnxslim")
    )


def pillow() -> Untyped:
    """Return the library that reads pictures. Raises ``BackendMissing``."""
    return _imported("PIL.Image")


def onnxruntime() -> Untyped:
    """Return ONNX Runtime. Raises ``BackendMissing``."""
    module = _imported("onnxruntime")
    module.set_default_logger_severity(4)
    return module


def onnxslim() -> Untyped:
    """Return the library that simplifies graphs. Raises ``BackendMissing``."""
    return _imported("onnxslim")


def half_converter() -> Untyped:
    """Return ONNX Runtime's converter to 16 bits. Raises ``BackendMissing``."""
    return _imported("onnxruntime.transformers.float16")


def quantiser() -> Untyped:
    """Return ONNX Runtime's quantiser. Raises ``BackendMissing``."""
    return _imported("onnxruntime.quantization")


@contextmanager
def only_errors_logged() -> Iterator[None]:
    """Quiet a library that writes to the root logger, while the block runs and no longer."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def first_line(error: Exception) -> str:
    """Return the first line of what a library says. Raises ``OutOfMemory`` when it says that."""
    text = str(error).strip()
    if any(word in text.lower() for word in _OUT_OF_MEMORY_WORDS):
        raise OutOfMemory("memory ran out while the model was converted or run") from error
    lines = text.splitlines()
    return lines[0][:500] if lines else type(error).__name__


def _imported(name: str) -> Untyped:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise BackendMissing(f"{name} does not load ({error}): {INSTALL}") from error
