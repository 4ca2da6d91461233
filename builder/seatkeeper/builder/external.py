"""The weights that a model keeps outside its file, as the worker finds them.

The agent has laid the files out in a private folder, under checked names. Here each tensor's place in
them is checked: a file that was sent, and bytes that are there. So nothing else can be meant when a
library opens what the model names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from seatkeeper.artifacts.bundle import check_location
from seatkeeper.artifacts.errors import ModelExternalData

_KEYS = frozenset({"location", "offset", "length", "checksum"})
_DIGITS_MAX = 19


@dataclass(frozen=True)
class Place:
    """Where the bytes of a tensor are."""

    path: Path
    offset: int
    length: int

    def values(self, dtype: np.dtype[np.generic]) -> npt.NDArray[np.generic]:
        """Return the bytes as numbers, read when they are looked at."""
        if not self.length:
            return np.empty(0, dtype)
        count = self.length // dtype.itemsize
        return np.memmap(self.path, dtype, mode="r", offset=self.offset, shape=(count,))

    def read(self) -> bytes:
        """Return the bytes."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


@dataclass(frozen=True)
class ExternalData:
    """The files beside a model."""

    folder: Path = Path()
    """The model's own."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Bytes of each file, by its path in there."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all of them."""
        return sum(self.sizes.values())

    def place(self, where: str, tensor: TensorProto) -> Place:
        """Return where a tensor's bytes are. Raises ``ModelExternalData``, naming the tensor."""
        said: dict[str, str] = {}
        for entry in tensor.external_data:
            if entry.key not in _KEYS or entry.key in said:
                raise ModelExternalData(f"{where} says {entry.key[:100]!r}, or says it twice")
            said[entry.key] = entry.value
        if tensor.data_location != TensorProto.EXTERNAL or tensor.raw_data:
            raise ModelExternalData(f"{where} has its data both in the model and outside")
        try:
            location = check_location(said.get("location", ""))
        except ModelExternalData as error:
            raise ModelExternalData(f"{where}: {error.message}") from error
        if location not in self.sizes:
            raise ModelExternalData(
                f"{where} keeps its data in {location!r}, which was not sent with the model"
            )
        size_bytes = self.sizes[location]
        offset = _number(where, "offset", said.get("offset", "0"))
        length = _number(where, "length", said.get("length", str(max(0, size_bytes - offset))))
        if offset + length > size_bytes:
            raise ModelExternalData(
                f"{where} ends at byte {offset + length} of {location!r}, which has {size_bytes}"
            )
        return Place(self.folder / location, offset, length)


NO_EXTERNAL_DATA = ExternalData()


def is_external(tensor: TensorProto) -> bool:
    """Return whether a tensor says that its bytes are elsewhere."""
    return tensor.data_location == TensorProto.EXTERNAL or bool(tensor.external_data)


def _number(where: str, key: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        raise ModelExternalData(f"{where} has the {key} {text[:100]!r}")
    return int(text)
