"""Looks whether samples fit their model, by the headers of their arrays: before a seat is asked for.

Neither ONNX nor numpy is needed. What cannot be said from here is left to the agent, which reads every
array: sizes, NaN, how many there are. Everything here blocks.
"""

from __future__ import annotations

import ast
import io
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from seatkeeper.artifacts.errors import PlanError, SamplesDamaged, SamplesInvalid
from seatkeeper.artifacts.model_inputs import ModelInput, inputs_of
from seatkeeper.client.builds.model import Model

MEMBERS_MAX = 20_000
"""Most arrays that are looked at; an agent takes no more."""
HEADER_BYTES_MAX = 64 << 10
_MAGIC = b"\x93NUMPY"
_TYPES: Mapping[int, tuple[str, str]] = {
    1: ("<f4", "float32"),
    10: ("<f2", "float16"),
    11: ("<f8", "float64"),
    3: ("|i1", "int8"),
    5: ("<i2", "int16"),
    6: ("<i4", "int32"),
    7: ("<i8", "int64"),
    2: ("|u1", "uint8"),
    4: ("<u2", "uint16"),
    12: ("<u4", "uint32"),
    13: ("<u8", "uint64"),
    9: ("|b1", "bool"),
}
"""By ONNX's number of a type, how ``.npy`` files write it, and its name."""


@dataclass(frozen=True)
class _Header:
    descr: str
    shape: tuple[int, ...]


def check_headers(model: Model, file: Model) -> None:
    """Raise a `PlanError` for arrays that are of no input, or of other types or dimensions.

    Says nothing of a model that cannot be read here: the agent will.
    """
    inputs = inputs_of(model.source)
    if not inputs or any(each.element not in _TYPES for each in inputs):
        return
    headers = _headers(file)
    known = {each.name: each for each in inputs}
    given = {name: _input_of(name, header, inputs) for name, header in headers.items()}
    if missing := sorted(known.keys() - set(given.values())):
        raise SamplesInvalid(
            f"there is no array for input {missing[0]!r}; the file has {_listed(headers)}"
        )
    for name, header in headers.items():
        if (found := known.get(given[name])) is None:
            raise SamplesInvalid(
                f"array {name[:100]!r} is of no input; the model's inputs are {_listed(known)}"
            )
        _check(found, header, is_one=name != found.name)


def _input_of(name: str, header: _Header, inputs: Sequence[ModelInput]) -> str:
    """Return the input that an array is of, by its name or its folder's; as agents do."""
    if any(each.name == name for each in inputs):
        return name
    folder = name.rpartition("/")[0]
    if not folder and len(inputs) == 1 and inputs[0].rank in (None, len(header.shape)):
        return inputs[0].name
    return folder or name


def _check(known: ModelInput, header: _Header, *, is_one: bool) -> None:
    where = f"input {known.name!r}"
    descr, name = _TYPES[known.element]
    if header.descr != descr:
        shown = next((each for code, each in _TYPES.values() if code == header.descr), None)
        raise SamplesInvalid(
            f"{where} has type {name}, and its array {shown or repr(header.descr)[:50]}"
        )
    if known.rank is None:
        return
    count, ranks = len(header.shape), (known.rank, known.rank + 1 - 2 * is_one)
    if count not in ranks:
        raise SamplesInvalid(
            f"{where} has {known.rank} dimensions, and its array {count}; it should have "
            f"{max(ranks)}" + ("" if is_one else ", the first for the samples")
        )


def _headers(file: Model) -> dict[str, _Header]:
    source = io.BytesIO(file.source) if isinstance(file.source, bytes) else file.source
    try:
        with zipfile.ZipFile(source) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if len(names) > MEMBERS_MAX:
                raise SamplesDamaged(f"the samples are {len(names)} files, over {MEMBERS_MAX}")
            found = {}
            for name in names:
                with archive.open(name) as member:
                    found[name.removesuffix(".npy")] = _header(name, member)
            return found
    except PlanError:
        raise
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, NotImplementedError) as error:
        raise SamplesDamaged(f"the samples are no readable .npz file: {error}") from error


def _header(name: str, member: IO[bytes]) -> _Header:
    begin = member.read(8)
    version = begin[6] if len(begin) == 8 and begin.startswith(_MAGIC) else 0
    if version not in (1, 2, 3):
        raise SamplesDamaged(f"{name[:100]!r} is no array")
    form = "<H" if version == 1 else "<I"
    try:
        (size,) = struct.unpack(form, member.read(struct.calcsize(form)))
        read = ast.literal_eval(
            member.read(min(size, HEADER_BYTES_MAX)).decode("latin-1").strip()
        )
        descr, shape = read["descr"], read["shape"]
        if not all(isinstance(each, int) for each in shape):
            raise ValueError("a size is no number")
        return _Header(descr if isinstance(descr, str) else repr(descr), tuple(shape))
    except (
        *(ValueError, KeyError, TypeError, SyntaxError),
        *(MemoryError, RecursionError, struct.error),
    ) as error:
        raise SamplesDamaged(f"array {name[:100]!r} has no readable header: {error}") from error


def _listed(names: Mapping[str, object]) -> str:
    return ", ".join(repr(name[:100]) for name in sorted(names)[:10]) or "none"
