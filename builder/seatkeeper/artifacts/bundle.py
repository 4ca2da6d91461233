"""The files that a model keeps its weights in, outside its own.

ONNX calls them external data: a tensor names a file by its path, and where in it its bytes are. A
model comes from a stranger, and so does its list of files. So a path is relative, names nothing above
the model's folder, and has one spelling only; no symbolic link is followed to open it.
Pure, so that the client and the agent check by one rule.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seatkeeper.artifacts.errors import ModelExternalData

FILES_MAX = 4096
"""Most files of one model. Their list fits into one message."""
PATH_BYTES_MAX = 512
DEPTH_MAX = 16
"""Most folders below each other, the file itself among them."""
QUOTE_CHARS_MAX = 100

_HASH_FORMAT = "seatkeeper-model-bundle-1"
_SHA256_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_FORBIDDEN = frozenset('\\:*?"<>|')
"""What a name cannot have on every system, and what libraries take for something else."""


@dataclass(frozen=True, kw_only=True)
class ExternalFile:
    """One file of weights."""

    path: str
    """Relative to the model's folder, with ``/`` between its parts."""
    sha256: str
    """Of its bytes, in lower-case hexadecimal."""
    size_bytes: int


def check_location(location: str) -> str:
    """Return the path, if it may name a file of a model. Raises ``ModelExternalData``.

    Says nothing about what is there.
    """
    shown = repr(location[:QUOTE_CHARS_MAX])
    if not location:
        raise ModelExternalData("a file of weights has no name")
    if len(location.encode(errors="replace")) > PATH_BYTES_MAX:
        raise ModelExternalData(f"the path {shown} has more than {PATH_BYTES_MAX} bytes")
    if location.startswith("/"):
        raise ModelExternalData(f"the path {shown} is absolute")
    if not location.isprintable() or _FORBIDDEN & {*location}:
        raise ModelExternalData(f"the path {shown} has characters that paths may not have")
    parts = location.split("/")
    if ".." in parts:
        raise ModelExternalData(f"the path {shown} leads out of the model's folder")
    if "" in parts or "." in parts:
        raise ModelExternalData(f"the path {shown} is not in its shortest form")
    if len(parts) > DEPTH_MAX:
        raise ModelExternalData(f"the path {shown} has more than {DEPTH_MAX} parts")
    return location


def check_files(files: Sequence[ExternalFile]) -> None:
    """Raise ``ModelExternalData`` unless the files can lie in one folder under their paths."""
    if len(files) > FILES_MAX:
        raise ModelExternalData(f"the model has {len(files)} files, more than {FILES_MAX}")
    paths = {file.path for file in files}
    sizes: dict[str, int] = {}
    for file in files:
        shown = repr(check_location(file.path)[:QUOTE_CHARS_MAX])
        if not _SHA256_HEX.fullmatch(file.sha256):
            raise ModelExternalData(
                f"the hash of {shown} is not 64 lower-case hexadecimal digits"
            )
        if file.size_bytes < 0:
            raise ModelExternalData(f"the size of {shown} is negative")
        if sizes.setdefault(file.sha256, file.size_bytes) != file.size_bytes:
            raise ModelExternalData(f"{shown} has the hash of a file of another size")
        parts = file.path.split("/")
        if any("/".join(parts[:count]) in paths for count in range(1, len(parts))):
            raise ModelExternalData(f"{shown} lies in what is a file itself")
    if len(paths) < len(files):
        raise ModelExternalData("two files of the model have one path")


def model_hash(model_sha256: str, files: Iterable[ExternalFile]) -> str:
    """Return the hash that stands for the model and its files in an engine's key.

    It is the model's own where there are none outside. Sizes follow from the hashes.
    """
    listed = sorted([file.path, file.sha256] for file in files)
    if not listed:
        return model_sha256
    text = json.dumps([_HASH_FORMAT, model_sha256, listed], separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def free_name(paths: Iterable[str], wanted: str = "model.onnx") -> str:
    """Return a name for the model's own file that no file of weights, or folder of some, has."""
    taken = {path.split("/")[0] for path in paths}
    name, number = wanted, 0
    while name in taken:  # ends: each round tries another name, and few are taken
        number += 1
        name = f"model-{number}.onnx"
    return name
