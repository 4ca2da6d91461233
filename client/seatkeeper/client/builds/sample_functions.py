"""Samples that a function of the user's makes, packed into one file. Everything here blocks.

The function runs in the process that asks for the build, never on an agent: an agent gets arrays.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from seatkeeper.core.errors import InvalidArgument
from seatkeeper.core.text import printable

PREFIX = "python:"
"""Begins a source of samples that is a function: ``python:MODULE:FUNCTION``."""
SAMPLES_MAX = 10_000
"""Most samples that are taken of a function."""
ARRAYS_MAX = 20_000
"""Most arrays of all of them, which an agent would refuse more of."""
BYTES_MAX = 1 << 30
"""Most bytes of all its arrays: they are packed in memory."""
REASON_CHARS_MAX = 300


def is_function(source: str) -> bool:
    """Return whether a source of samples names a function."""
    return source.startswith(PREFIX)


def samples_from(source: str) -> bytes:
    """Return what the function at ``python:MODULE:FUNCTION`` yields, as a file of samples.

    It is called once, without arguments, and what it prints goes to standard error. ``MODULE`` is
    one that can be imported, from the working directory too, or a file: ``calibrate.py``. Raises
    `InvalidArgument` when there is no such function, when it fails, and for what is no sample.
    """
    with redirect_stdout(sys.stderr):
        function = _function(source)
        with _of_the_user(source, "the function raised"):
            made = function()
        return packed_samples(made, name=source)


def packed_samples(samples: Iterable[Mapping[str, Any]], *, name: str = "samples") -> bytes:
    """Return samples as a file of samples: each is a mapping from the model's inputs to arrays.

    Raises `InvalidArgument`, beginning with ``name``, for no sample or over 10,000, for over 1 GiB, and
    for what is no mapping of names to arrays of numbers, all with the inputs of the first.
    """
    if isinstance(samples, Mapping | str | bytes) or not isinstance(samples, Iterable):
        raise _invalid(
            name,
            f"{type(samples).__name__} is nothing that yields samples: yield dicts of arrays",
        )
    numpy = _numpy(name)
    archive, inputs, size_bytes = io.BytesIO(), frozenset[str](), 0
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as files:
        count = 0
        for sample in _each(samples, name):
            if count >= SAMPLES_MAX:
                raise _invalid(name, f"over {SAMPLES_MAX} samples: some hundreds are enough")
            arrays = _arrays(sample, count, name, numpy)
            if count and arrays.keys() != inputs:
                raise _invalid(
                    name,
                    f"sample {count} has {_listed(arrays)}, and the first {_listed(inputs)}",
                )
            inputs = frozenset(arrays)
            if (count + 1) * len(arrays) > ARRAYS_MAX:
                raise _invalid(name, f"over {ARRAYS_MAX} arrays: give fewer samples")
            for key, array in arrays.items():
                size_bytes += array.nbytes
                if size_bytes > BYTES_MAX:
                    raise _invalid(
                        name, f"over {BYTES_MAX} bytes: some hundred samples are enough"
                    )
                content = io.BytesIO()
                numpy.lib.format.write_array(content, array, allow_pickle=False)
                # Its time is always the same, as ``ZipInfo`` has it: equal samples make equal bytes.
                files.writestr(zipfile.ZipInfo(f"{key}/{count:06}.npy"), content.getvalue())
            count += 1
    if count == 0:
        raise _invalid(name, "there is no sample")
    return archive.getvalue()


def _function(source: str) -> Callable[[], Any]:
    module_name, colon, function_name = source.removeprefix(PREFIX).rpartition(":")
    if not colon or not module_name or not function_name:
        raise _invalid(source, "write python:MODULE:FUNCTION, or python:FILE.py:FUNCTION")
    with _of_the_user(source, f"{module_name} cannot be imported:"), _importing_from_here():
        module = (
            _module_of_file(Path(module_name))
            if module_name.endswith(".py")
            else importlib.import_module(module_name)
        )
    function = getattr(module, function_name, None)
    if not callable(function):
        what = "is not there" if function is None else "is no function"
        raise _invalid(source, f"{function_name} of {module_name} {what}")
    return function  # type: ignore[no-any-return]  # it is asked whether it can be called


def _module_of_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"_samples_of_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _importing_from_here() -> Iterator[None]:
    """Have modules found in the working directory, as `python -m` does; a program's are not."""
    here = os.getcwd()
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(here)


@contextmanager
def _of_the_user(name: str, what: str) -> Iterator[None]:
    """Have whatever the user's code raises be about the samples, also where it ends the program."""
    try:
        yield
    except Exception as error:
        raise _invalid(name, f"{what} {_said(error)}") from error
    except SystemExit as error:
        if type(error) is not SystemExit:  # raised by a signal, and not by that code
            raise
        raise _invalid(name, f"{what} SystemExit({error.code!r})") from error


def _each(samples: Iterable[Any], name: str) -> Iterator[Any]:
    """Yield the samples; what a generator raises on the way is the user's to see."""
    with _of_the_user(name, "the function raised"):
        yield from samples


def _arrays(sample: object, number: int, name: str, numpy: ModuleType) -> dict[str, Any]:
    if not isinstance(sample, Mapping) or not sample:
        raise _invalid(
            name,
            f"sample {number} is no dict of arrays but {type(sample).__name__}: {{input: array}}",
        )
    arrays: dict[str, Any] = {}
    for key, value in sample.items():
        if not isinstance(key, str) or not key or not key.isprintable():
            raise _invalid(name, f"sample {number}: {key!r} is no name of an input")
        with _of_the_user(name, f"sample {number}, {key!r}:"):
            array = numpy.asarray(value)
        if array.dtype.kind not in "biuf":
            raise _invalid(
                name, f"sample {number}, {key!r}: an array of {array.dtype}, not of numbers"
            )
        arrays[key] = array
    return arrays


def _numpy(name: str) -> ModuleType:
    try:
        return importlib.import_module("numpy")
    except ImportError as error:
        raise _invalid(name, "numpy is not installed, which packs the arrays") from error


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name[:100]) for name in sorted(names)[:5])


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:REASON_CHARS_MAX]


def _invalid(source: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"samples {printable(source)}: {printable(why)}", field="samples")
