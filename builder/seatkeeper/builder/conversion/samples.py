"""Samples of a model's inputs: read from a file that a stranger sent, or made of noise.

A file is a ZIP archive. Of arrays it is an ``.npz``, as ``numpy.savez`` writes it: for each input an
array of its name. An array with one dimension more than its input has one sample at each place of the
first; one with as many has them along the first, which is the batch. Every array has as many samples.
Arrays in folders (``x/0001.npy``) are each a sample of the input that the folder is called after, or,
where there is no folder, of the only input. Of pictures, each is a sample of the only input.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from seatkeeper.artifacts.errors import SamplesDamaged, SamplesInvalid
from seatkeeper.artifacts.plan import Profile, ProfileShape
from seatkeeper.artifacts.precision import ImageInput
from seatkeeper.artifacts.summary import ModelValue
from seatkeeper.builder.conversion.pictures import picture

Array = npt.NDArray[np.generic]
Feeds = Mapping[str, Array]
"""One sample: an array for each input."""

SAMPLES_MAX = 10_000
RANDOM_SAMPLES = 8
HELD_OUT = 5
"""Where none are given to measure with, every fifth of the calibration's is kept apart for that."""
UNPACKED_BYTES_MAX = 8 << 30
"""Most bytes of all arrays of a file, however small they are packed."""
MEMBERS_MAX = 20_000

_DTYPES: Mapping[str, np.dtype[np.generic]] = {
    "FLOAT": np.dtype(np.float32),
    "FLOAT16": np.dtype(np.float16),
    "DOUBLE": np.dtype(np.float64),
    **{
        name.upper(): np.dtype(name)
        for name in (
            "int8",
            "int16",
            "int32",
            "int64",
            "uint8",
            "uint16",
            "uint32",
            "uint64",
            "bool",
        )
    },
}


def read_samples(
    path: Path, inputs: Sequence[ModelValue], images: ImageInput | None = None
) -> list[Feeds]:
    """Return the samples in a file, one at a time and each checked.

    ``images`` says what to make of pictures; None: the file has arrays. Raises ``SamplesDamaged`` for
    what is no such file, and ``SamplesInvalid``, naming the input, for what does not fit the model.
    """
    arrays = read_arrays(path) if images is None else _pictures(path, inputs, images)
    arrays = _gathered(arrays, inputs)
    names = {value.name for value in inputs}
    if missing := names - arrays.keys():
        raise SamplesInvalid(
            f"there is no array for input {min(missing)!r}; the file has {_listed(arrays)}"
        )
    if unknown := arrays.keys() - names:
        raise SamplesInvalid(
            f"array {min(unknown)!r} is of no input; the model's inputs are {_listed(names)}"
        )
    split = {value.name: _split(value, arrays[value.name]) for value in inputs}
    counts = {name: len(samples) for name, samples in split.items()}
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name!r} {count}" for name, count in sorted(counts.items()))
        raise SamplesInvalid(f"inputs have different numbers of samples: {said}")
    count = next(iter(counts.values()), 0)
    if not 0 < count <= SAMPLES_MAX:
        raise SamplesInvalid(f"there are {count} samples, not 1 to {SAMPLES_MAX}")
    return [
        {name: samples[number] for name, samples in split.items()} for number in range(count)
    ]


def check_variety(samples: Sequence[Feeds]) -> None:
    """Raise ``SamplesInvalid`` for samples that are one value throughout, or the same again and again.

    Calibration would find ranges of nothing, and any model would be accurate on them.
    """
    first = samples[0]
    has_arrays = sum(array.size for array in first.values()) > len(first)
    if has_arrays and all(_is_constant([each[name] for each in samples]) for name in first):
        raise SamplesInvalid(
            "the samples are one value throughout; give some that the model will meet"
        )
    if len(samples) > 1 and all(
        np.array_equal(sample[name], first[name]) for sample in samples for name in first
    ):
        raise SamplesInvalid(
            f"all {len(samples)} samples are the same; give some hundreds that differ"
        )


def _is_constant(arrays: Sequence[Array]) -> bool:
    value = arrays[0].flat[0]
    return all((array == value).all() for array in arrays)


def random_samples(
    inputs: Sequence[ModelValue], profiles: Sequence[Profile], seed: int
) -> list[Feeds]:
    """Return samples of noise, in the sizes that the first profile is to be fastest at.

    Numbers are drawn evenly from -1 to 1, whole ones from 0 and 1, which are in every range of indexes.
    """
    random = np.random.default_rng(seed)
    shapes = {shape.input: shape for shape in profiles[0].shapes} if profiles else {}
    return [
        {value.name: _noise(random, value, shapes.get(value.name)) for value in inputs}
        for _ in range(RANDOM_SAMPLES)
    ]


def held_out(samples: Sequence[Feeds]) -> tuple[list[Feeds], list[Feeds]]:
    """Return what to calibrate with, and what is kept apart to measure with: both have at least one.

    One sample alone serves for both.
    """
    if len(samples) == 1:
        return [*samples], [*samples]
    apart = [sample for number, sample in enumerate(samples) if number % HELD_OUT == 1]
    return [s for number, s in enumerate(samples) if number % HELD_OUT != 1], apart


def read_arrays(path: Path) -> dict[str, Array]:
    """Return the arrays of an ``.npz`` file, by name. Raises ``SamplesDamaged``."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive)
            for member in archive.infolist():
                _check_array(archive, member)
        with np.load(path, allow_pickle=False) as file:
            return {name: _array(name, file) for name in file.files}
    except SamplesDamaged:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        zipfile.BadZipFile,
        NotImplementedError,
    ) as error:
        raise SamplesDamaged(f"the samples are no readable .npz file: {error}") from error


def _gathered(arrays: dict[str, Array], inputs: Sequence[ModelValue]) -> dict[str, Array]:
    """Return arrays by input: those of one folder are its samples, put together in their order."""
    names = {value.name for value in inputs}
    if arrays.keys() <= names:
        return arrays
    groups: dict[str, list[Array]] = {}
    for name in sorted(arrays):
        folder = name.rpartition("/")[0]
        if name in names:
            folder = name
        elif not folder and len(inputs) == 1 and arrays[name].ndim == len(inputs[0].dims):
            folder = inputs[0].name
        groups.setdefault(folder or name, []).append(arrays[name])
    gathered: dict[str, Array] = {}
    for folder, samples in groups.items():
        shapes = {sample.shape for sample in samples}
        types = {str(sample.dtype) for sample in samples}
        if folder in arrays and len(samples) == 1:
            gathered[folder] = samples[0]
        elif len(types) > 1:  # numpy would make one type of them
            raise SamplesInvalid(
                f"input {folder!r} has samples of different types: "
                f"{', '.join(sorted(types)[:3])}"
            )
        elif len(shapes) > 1:
            raise SamplesInvalid(
                f"input {folder!r} has samples of different sizes: "
                f"{', '.join(sorted(map(str, shapes))[:3])}"
            )
        else:
            gathered[folder] = np.stack(samples)
    return gathered


def _pictures(path: Path, inputs: Sequence[ModelValue], images: ImageInput) -> dict[str, Array]:
    """Return the pictures in a file as an array of the model's only input."""
    if len(inputs) != 1:
        raise SamplesInvalid(
            f"pictures are samples of one input, and the model has {len(inputs)}"
        )
    (value,) = inputs
    dtype = _DTYPES.get(value.dtype)
    if dtype is None or dtype.kind != "f" or len(value.dims) != 4:
        raise SamplesInvalid(f"input {value.name!r} is none that pictures are samples of")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive)
            samples = [
                picture(archive.read(name), name, images).astype(dtype)
                for name in sorted(archive.namelist())
                if not name.endswith("/")
            ]
    except (OSError, RuntimeError, zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise SamplesDamaged(f"the pictures are no readable archive: {error}") from error
    if not samples:
        raise SamplesInvalid("there is no picture among the samples")
    return {value.name: np.stack(samples)}


def _check_members(archive: zipfile.ZipFile) -> None:
    members = archive.infolist()
    if len(members) > MEMBERS_MAX:
        raise SamplesDamaged(f"the samples are {len(members)} files, over {MEMBERS_MAX}")
    unpacked = sum(member.file_size for member in members)
    if unpacked > UNPACKED_BYTES_MAX:
        raise SamplesDamaged(
            f"the samples have {unpacked} bytes unpacked, over {UNPACKED_BYTES_MAX}"
        )
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise SamplesDamaged("the samples have one name twice")


def _check_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raise ``SamplesDamaged`` where an array says that it has other bytes than there are.

    Memory is taken for what it says, before any of it is read.
    """
    if not member.filename.endswith(".npy"):
        return
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"{member.filename[:100]!r} is an array of version {version}")
        there = member.file_size - file.tell()
    said = math.prod(shape) * dtype.itemsize
    if said != there and not dtype.hasobject:
        name = member.filename.removesuffix(".npy")
        raise SamplesDamaged(f"array {name[:100]!r} says it has {said} bytes, and has {there}")


def _array(name: str, file: Mapping[str, Array]) -> Array:
    try:
        array = file[name]
    except ValueError as error:  # objects, which only pickle could read
        raise SamplesDamaged(f"array {name[:100]!r} cannot be read: {error}") from error
    if not isinstance(array, np.ndarray):  # it gives files of other kinds as bytes
        raise SamplesDamaged(f"{name[:100]!r} is no array")
    return array


def _split(value: ModelValue, array: Array) -> list[Array]:
    """Return the samples of one input."""
    where = f"input {value.name!r}"
    expected = _DTYPES.get(value.dtype)
    if expected is None:
        raise SamplesInvalid(f"{where} has type {value.dtype}, of which no samples can be read")
    rank = len(value.dims)
    if array.dtype != expected:
        raise SamplesInvalid(f"{where} has type {expected}, and its array {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise SamplesInvalid(f"{where}: a sample has NaN or infinity")
    if array.ndim == rank + 1:
        samples = [array[number] for number in range(len(array))]
    elif array.ndim == rank and rank > 0 and value.dims[0] in (None, 1):
        samples = [array[number : number + 1] for number in range(len(array))]
    elif array.ndim == rank:
        samples = [array]
    else:
        raise SamplesInvalid(
            f"{where} has {rank} dimensions, and its array {array.ndim}; it should have {rank + 1}, "
            "the first for the samples"
        )
    for sample in samples[:1]:
        wrong = [
            axis
            for axis, (dim, size) in enumerate(zip(value.dims, sample.shape, strict=True))
            if dim not in (None, size) or size == 0
        ]
        if wrong:
            shape = "x".join(map(str, sample.shape))
            wanted = "x".join("?" if dim is None else str(dim) for dim in value.dims)
            raise SamplesInvalid(f"{where} has the sizes {wanted}, and a sample {shape}")
    return [np.array(sample, order="C") for sample in samples]


def _noise(random: np.random.Generator, value: ModelValue, shape: ProfileShape | None) -> Array:
    dims = shape.opt if shape else tuple(dim or 1 for dim in value.dims)
    dtype = _DTYPES.get(value.dtype)
    if dtype is None:
        raise SamplesInvalid(f"input {value.name!r} has type {value.dtype}, which has no noise")
    if dtype.kind == "f":
        noise: Array = random.uniform(-1, 1, dims).astype(dtype)
    else:
        noise = random.integers(0, 2, dims).astype(dtype)
    return noise


def _listed(names: Mapping[str, Array] | set[str]) -> str:
    return ", ".join(repr(name[:100]) for name in sorted(names)[:10]) or "none"
