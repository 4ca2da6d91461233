"""Files of samples that go with a model: found by their hash, and folders packed the same each time."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path

import pytest

from seatkeeper.artifacts.precision import ImageInput
from seatkeeper.client import samples_of
from seatkeeper.client.builds import sample_files
from seatkeeper.client.builds.sample_files import packed, sample_files_of
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.v1 import build_pb2


def archive_of(*names: str, content: bytes = b"") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for name in names:
            file.writestr(zipfile.ZipInfo(name), content)
    return packed.getvalue()


ZERO, ONE = archive_of("x.npy", content=b"zero"), archive_of("x.npy", content=b"one")
IMAGES = ImageInput(height=2, width=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "inputs"
    (made / "x").mkdir(parents=True)
    (made / ".git").mkdir()
    (made / "x" / "1.npy").write_bytes(b"one")
    (made / "x" / "0.npy").write_bytes(b"zero")
    (made / ".git" / "config").write_bytes(b"hidden")
    (made / ".DS_Store").write_bytes(b"hidden")
    return made


def options(*hashes: str) -> build_pb2.BuildOptions:
    made = build_pb2.BuildOptions()
    for samples, sha256 in zip(
        (made.precision.calibration, made.precision.samples), hashes, strict=False
    ):
        samples.sha256 = sha256
    return made


def test_a_folder_is_packed_the_same_each_time(folder: Path, tmp_path: Path) -> None:
    first = packed(folder)
    os.utime(folder / "x" / "0.npy", (1, 1))
    (folder / "x" / "0.npy").chmod(0o600)
    assert packed(folder) == first
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert archive.namelist() == ["x/0.npy", "x/1.npy"]
        assert archive.read("x/0.npy") == b"zero"


def test_names_that_are_not_utf8_are_packed_too(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/x/2\xe9.npy")).write_bytes(b"two")
    with zipfile.ZipFile(io.BytesIO(packed(folder))) as archive:
        assert archive.namelist()[-1] == r"x/2\xe9.npy"


def test_samples_are_known_by_their_hash(folder: Path) -> None:
    assert samples_of(folder).sha256 == hashlib.sha256(packed(folder)).hexdigest()
    file = folder / "zero.npz"
    file.write_bytes(ZERO)
    assert samples_of(file).sha256 == hashlib.sha256(ZERO).hexdigest()
    assert samples_of(ZERO) == samples_of(file)
    assert samples_of(archive_of("a.PNG", "b/c.jpg"), IMAGES).images == IMAGES


@pytest.mark.parametrize(
    ("source", "images", "said"),
    [
        (b"no archive", None, "neither a folder nor an .npz"),
        (archive_of("0.png"), None, "0.png: a picture; say how it is read, with --images"),
        (archive_of("x.npy", "notes.txt"), None, "notes.txt: no array"),
        (archive_of("x.npy"), IMAGES, "x.npy: an array, and how to read pictures is said"),
    ],
)
def test_what_is_no_sample_is_refused_before_anything_is_asked_for(
    tmp_path: Path, source: bytes, images: ImageInput | None, said: str
) -> None:
    for given in (source, tmp_path / "file.npz"):
        (tmp_path / "file.npz").write_bytes(source)
        with pytest.raises(InvalidArgument, match=said):
            samples_of(given, images)


def test_files_come_in_the_order_in_which_they_are_named(folder: Path) -> None:
    (folder / "one.npz").write_bytes(ONE)
    one, zero = samples_of(ONE).sha256, samples_of(ZERO).sha256
    files = sample_files_of(options(zero, one), [folder / "one.npz", ZERO])
    assert [file.sha256 for file in files] == [zero, one]
    assert len(sample_files_of(options(one, one), [ONE, folder / "one.npz"])) == 1
    assert sample_files_of(options(), []) == []


def test_a_file_that_is_missing_or_too_many_is_named() -> None:
    with pytest.raises(InvalidArgument, match="none of sample_files has that hash"):
        sample_files_of(options("ab" * 32), [])
    with pytest.raises(InvalidArgument, match=r"do not name the samples in samples\.npz"):
        sample_files_of(options(), [b"zero"])


@pytest.mark.parametrize("what", ["absent", "empty", "nothing"])
def test_what_cannot_be_read_is_the_callers_mistake(tmp_path: Path, what: str) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InvalidArgument, match=what) as caught:
        samples_of(tmp_path / what)
    assert caught.value.field == "samples"


def test_a_pipe_in_a_folder_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "x" / "2.npy")
    with pytest.raises(InvalidArgument, match="not a file"):
        samples_of(folder)


def test_a_folder_is_packed_up_to_a_limit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_files, "FOLDER_BYTES_MAX", 6)
    with pytest.raises(InvalidArgument, match="more than 6 bytes"):
        samples_of(folder)
