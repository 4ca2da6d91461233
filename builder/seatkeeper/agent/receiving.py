"""Receives the files of a build: the model, its weights, and samples.

A client says which files there are, by their hashes. One that can go on after a lost connection is
answered which bytes are missing, and sends those; others send everything in order. Nothing of a
client's paths is used but under the rules of ``artifacts.bundle``, in a folder that only this build
has.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from seatkeeper.agent.progress_feed import ProgressFeed
from seatkeeper.agent.uploads import Part
from seatkeeper.artifacts.bundle import ExternalFile, check_files, free_name, model_hash
from seatkeeper.artifacts.errors import DiskFull, ModelTruncated, SamplesTooLarge
from seatkeeper.artifacts.plan import BuildPlan
from seatkeeper.artifacts.store import DISK_FULL_ERRNOS
from seatkeeper.artifacts.summary import (
    ModelLimits,
    check_conversion_size,
    check_file_size,
    check_model_size,
)
from seatkeeper.builder.progress import RECEIVING, Progress
from seatkeeper.core.validate import Malformed
from seatkeeper.v1 import build_service_pb2

MODEL_NAME_CHARS_MAX = 255
MIB = 1 << 20
Chunks = Callable[[], Awaitable[bytes | None]]
"""Returns the next bytes; None: there are no more."""


@dataclass(frozen=True)
class Offer:
    """What a client is going to send, checked as far as that goes before it comes."""

    header: build_service_pb2.BuildHeader
    external_files: tuple[ExternalFile, ...]

    @classmethod
    def of(cls, header: build_service_pb2.BuildHeader) -> Offer:
        """Return what the header offers. Raises ``Malformed`` or ``ModelExternalData``."""
        _check_header(header)
        files = tuple(
            ExternalFile(path=each.path, sha256=each.sha256, size_bytes=each.size_bytes)
            for each in header.external_files
        )
        check_files(files)
        return cls(header, files)

    @property
    def model_bytes(self) -> int:
        """Bytes of the model, with its weights."""
        return self.header.model_size_bytes + sum(
            file.size_bytes for file in self.external_files
        )

    @property
    def model_hash(self) -> str:
        """What stands for the model in an engine's key."""
        return model_hash(self.header.model_sha256, self.external_files)

    @property
    def files(self) -> dict[str, int]:
        """The sizes of all files by their hashes, each once, in the order in which they come."""
        header = self.header
        offered = [(header.model_sha256, header.model_size_bytes)]
        offered += [(each.sha256, each.size_bytes) for each in header.attachments]
        offered += [(each.sha256, each.size_bytes) for each in self.external_files]
        sizes: dict[str, int] = {}
        for sha256, size_bytes in offered:
            sizes.setdefault(sha256, size_bytes)
        return sizes

    def field_of(self, sha256: str) -> str:
        """Return the header's field that names a file."""
        if sha256 == self.header.model_sha256:
            return "model_sha256"
        is_sample = any(each.sha256 == sha256 for each in self.header.attachments)
        return "attachments" if is_sample else "external_files"

    def check(self, plan: BuildPlan, limits: ModelLimits) -> None:
        """Check sizes and samples.

        Raises ``ModelTooLarge``, ``ConversionFailed``, ``SamplesTooLarge`` or ``Malformed``.
        """
        check_file_size(self.header.model_size_bytes, limits)
        check_model_size(self.model_bytes, limits)
        check_conversion_size(plan.precision, self.model_bytes)
        _check_attachments(self.header, plan, limits.bytes_max)
        sizes = self.files
        for file in self.external_files:
            if sizes[file.sha256] != file.size_bytes:
                raise Malformed("external_files", f"{file.sha256[:12]} has two sizes")


@dataclass(frozen=True)
class Received:
    """The files of a build, laid out."""

    model: Path
    external_files: Mapping[str, int]
    """Sizes of the files of weights, by their paths in the model's folder."""
    samples: Mapping[str, Path]
    """By hash."""

    def remove(self) -> None:
        """Remove them: what comes next may need the room. Blocks."""
        shutil.rmtree(self.model.parent, ignore_errors=True)
        for path in self.samples.values():
            path.unlink(missing_ok=True)


def wanted(parts: Mapping[str, Part]) -> build_service_pb2.Wanted:
    """Return which bytes are missing."""
    return build_service_pb2.Wanted(
        files=[
            build_service_pb2.WantedFile(sha256=sha256, offset=part.received)
            for sha256, part in parts.items()
            if part.missing_bytes
        ]
    )


async def receive(
    offer: Offer, parts: Mapping[str, Part], chunks: Chunks, folder: Path, feed: ProgressFeed
) -> Received:
    """Complete the parts with what comes, and lay the files out in ``folder``.

    Raises ``ModelTruncated`` when the bytes end early, ``Malformed`` when a file is longer or other
    than the header says, and ``DiskFull``.
    """
    progress = _ReceivingProgress(parts, feed)
    try:
        for sha256, part in parts.items():
            await _complete(part, chunks, progress, sha256, offer.field_of(sha256))
        while (rest := await chunks()) is not None:
            if rest:
                raise Malformed("model_chunk", "over the bytes that the header announces")
        return await asyncio.to_thread(_laid_out, offer, parts, folder)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise DiskFull("no room for the model") from error
        raise


class _ReceivingProgress:
    """Says how many of the bytes are here, in MiB."""

    def __init__(self, parts: Mapping[str, Part], feed: ProgressFeed) -> None:
        self._feed = feed
        self._total = sum(part.size_bytes for part in parts.values())
        self._received = sum(part.received for part in parts.values())

    def add(self, size_bytes: int) -> None:
        before = self._received // MIB
        self._received += size_bytes
        if self._received // MIB > before:
            done, steps = self._received // MIB, -(-self._total // MIB)
            self._feed.notify(Progress(phase=RECEIVING, steps_done=done, steps=steps))


async def _complete(
    part: Part, chunks: Chunks, progress: _ReceivingProgress, sha256: str, field: str
) -> None:
    what = "the model" if field == "model_sha256" else f"the file {sha256[:12]}"
    while part.missing_bytes > 0 and (chunk := await chunks()) is not None:
        if len(chunk) > part.missing_bytes:
            raise Malformed("model_chunk", f"over the {part.size_bytes} bytes of {what}")
        await asyncio.to_thread(part.write, chunk)
        progress.add(len(chunk))
    if part.missing_bytes:
        raise ModelTruncated(f"{part.received} bytes of {what} came, of {part.size_bytes}")
    if not part.size_bytes:
        await asyncio.to_thread(part.write, b"")
    if part.digest.hexdigest() != sha256:
        raise Malformed(field, "is not that of the bytes that came")


def _laid_out(offer: Offer, parts: Mapping[str, Part], folder: Path) -> Received:
    """Give the files their names, in folders that are made here and hold nothing else."""
    header, files = offer.header, offer.external_files
    home = folder / "model"
    home.mkdir(mode=0o700)
    model = home / free_name(file.path for file in files)
    os.link(parts[header.model_sha256].path, model)
    for file in files:
        path = home / file.path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.link(parts[file.sha256].path, path)
    samples: dict[str, Path] = {}
    for number, each in enumerate(header.attachments):
        samples[each.sha256] = folder / f"samples-{number}"
        os.link(parts[each.sha256].path, samples[each.sha256])
    return Received(model, {file.path: file.size_bytes for file in files}, samples)


def _check_attachments(
    header: build_service_pb2.BuildHeader, plan: BuildPlan, bytes_max: int
) -> None:
    """Raise ``Malformed`` or ``SamplesTooLarge`` unless what is sent along is what the plan names."""
    named = [
        samples.sha256
        for samples in (plan.precision.calibration, plan.precision.samples)
        if samples.sha256
    ]
    sent = [each.sha256 for each in header.attachments]
    if sent != list(dict.fromkeys(named)):
        raise Malformed(
            "attachments", "are not the samples that the options name, in that order"
        )
    for each in header.attachments:
        if each.sha256 == header.model_sha256:
            raise Malformed("attachments", "name the model itself")
        if each.size_bytes <= 0:
            raise Malformed("attachments", f"{each.sha256[:12]} is empty")
        if each.size_bytes > bytes_max:
            raise SamplesTooLarge(
                f"the samples have {each.size_bytes} bytes, more than {bytes_max}"
            )


def _check_header(header: build_service_pb2.BuildHeader) -> None:
    if len(header.model_sha256) != 64 or set(header.model_sha256) - set("0123456789abcdef"):
        raise Malformed("model_sha256", "is not 64 lower-case hexadecimal digits")
    if header.model_size_bytes < 0:
        raise Malformed("model_size_bytes", "is negative")
    name = re.split(r"[/\\]", header.model_name)[-1]
    if not 0 < len(name) <= MODEL_NAME_CHARS_MAX or not name.isprintable():
        raise Malformed(
            "model_name", f"must have 1 to {MODEL_NAME_CHARS_MAX} characters, all printable"
        )
