"""Which files are read for a model that keeps its weights outside, and which are not."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from seatkeeper.artifacts.errors import ModelExternalData
from seatkeeper.client import ModelRejected
from seatkeeper.client.builds.bundle import open_beneath, weights_of
from seatkeeper.client.builds.external_data import needed_bytes
from seatkeeper.client.builds.model import Model

WEIGHTS = bytes(range(64))


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def message(number: int, content: bytes) -> bytes:
    """One field of bytes, as Protocol Buffers have it."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def tensor(location: str, **entries: object) -> bytes:
    said = {"location": location, **entries}
    places = [
        message(13, message(1, key.encode()) + message(2, str(text).encode()))
        for key, text in said.items()
    ]
    # Its size, its type, its name, and that its data is elsewhere.
    return varint(8) + varint(4) + message(8, b"w") + b"".join(places) + varint(14 << 3) + b"\1"


def model(*tensors: bytes, before: bytes = b"") -> bytes:
    """A model of ir_version 10 with these tensors as constants of its graph."""
    graph = b"".join(message(5, each) for each in tensors)
    return before + varint(8) + varint(10) + message(7, message(2, b"graph") + graph)


def written(folder: Path, content: bytes) -> Model:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return Model.read(path, None)


# What a model says ---------------------------------------------------------------------------


def test_what_a_model_needs_of_each_file_is_the_end_of_its_last_tensor() -> None:
    said = model(
        tensor("a", offset=0, length=16),
        tensor("a", offset=16, length=4),
        tensor("b/c", length=8),
        tensor("d"),
    )
    assert needed_bytes(said) == {"a": 20, "b/c": 8, "d": 0}


@pytest.mark.parametrize(
    "path",
    [
        (7, 1, 5, 5),  # a node's attribute
        (7, 1, 5, 10),  # one of several tensors of it
        (7, 1, 5, 6, 5),  # a constant of a graph within a node
        (7, 1, 5, 11, 1, 5, 5),  # deeper
        (7, 15, 1),  # the values of a sparse constant
        (7, 1, 5, 22, 2),  # the indices of a sparse attribute
        (25, 7, 5, 5),  # a node of a function
        (25, 11, 5),  # a default of one
    ],
)
def test_tensors_are_found_wherever_they_are(path: tuple[int, ...]) -> None:
    content = tensor("w.bin")
    for number in reversed(path):
        content = message(number, content)
    assert needed_bytes(content) == {"w.bin": 0}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"location",
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfflocation",
        model(before=message(2, b"location")),
        model(tensor("w.bin"))[:20] + b"location",
        b"\x0b" + model(tensor("w.bin")),
    ],
    ids=range(6),
)
def test_what_is_no_model_needs_nothing(content: bytes) -> None:
    assert needed_bytes(content) == {}


def test_what_is_as_deep_as_can_be_ends() -> None:
    content = tensor("w.bin")
    for _ in range(20_000):
        content = message(7, message(1, message(5, message(6, content))))[: 1 << 20]
        if len(content) > 1 << 16:
            break
    assert needed_bytes(content) == {}


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ({"offset": -1}, "offset '-1'"),
        ({"length": "many"}, "length 'many'"),
        ({"length": "9" * 20}, "length"),
        ({"offset": "\N{SUPERSCRIPT TWO}"}, "offset"),
    ],
)
def test_places_that_are_no_numbers_are_refused(entries: dict[str, object], why: str) -> None:
    with pytest.raises(ModelExternalData, match=why):
        needed_bytes(model(tensor("a", **entries)))


def test_too_many_files_are_refused() -> None:
    with pytest.raises(ModelExternalData, match="more than 4096"):
        needed_bytes(model(*(tensor(f"w{number}") for number in range(4_097))))


# What is read of it --------------------------------------------------------------------------


def test_the_files_of_a_model_are_known_by_their_hashes(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "w.bin").write_bytes(WEIGHTS)
    (tmp_path / "first").write_bytes(WEIGHTS[:8])
    said = model(tensor("a/b/w.bin", length=64), tensor("first"))
    first, second = weights_of(written(tmp_path, said))[::-1]
    assert first.file.path == "first"
    assert (second.file.path, second.size_bytes) == ("a/b/w.bin", 64)
    assert second.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert b"".join(second.chunks()) == WEIGHTS
    assert b"".join(second.chunks(60)) == WEIGHTS[60:]
    assert weights_of(written(tmp_path, model())) == ()


def test_a_file_that_has_more_than_is_needed_is_sent_whole(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHTS)
    (file,) = weights_of(written(tmp_path, model(tensor("w.bin", offset=8, length=8))))
    assert file.size_bytes == len(WEIGHTS)


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("missing.bin", "there is no such file"),
        ("folder/missing.bin", "there is no such file"),
        ("folder", "not a file"),
        ("short.bin", "has 8 bytes, and the model needs 64"),
        ("link.bin", "symbolic link"),
        ("linked/w.bin", "symbolic link"),
        ("deep/linked/w.bin", "symbolic link"),
        ("dangling", "symbolic link"),
        ("pipe", "not a file"),
        ("short.bin/w.bin", "Not a directory|symbolic link"),
        ("../secret/w.bin", "out of the model's folder"),
        ("/etc/passwd", "absolute"),
    ],
)
def test_what_is_no_file_below_the_model_is_not_read(
    tmp_path: Path, location: str, why: str
) -> None:
    secret, folder = tmp_path / "secret", tmp_path / "net"
    for each in (secret, folder / "folder", folder / "deep"):
        each.mkdir(parents=True)
    (secret / "w.bin").write_bytes(WEIGHTS)
    (folder / "short.bin").write_bytes(WEIGHTS[:8])
    (folder / "link.bin").symlink_to(secret / "w.bin")
    (folder / "linked").symlink_to(secret)
    (folder / "deep" / "linked").symlink_to(secret)
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "pipe")
    with pytest.raises(ModelRejected, match=why) as caught:
        weights_of(written(folder, model(tensor(location, length=64))))
    assert str(caught.value).startswith("model.onnx: ")


def test_a_model_that_is_given_as_bytes_has_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match="only its own bytes were given"):
        weights_of(Model.read(model(tensor("w.bin")), None))


def test_a_link_that_comes_after_the_hash_is_not_followed_either(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHTS)
    (file,) = weights_of(written(tmp_path, model(tensor("w.bin"))))
    (tmp_path / "w.bin").unlink()
    (tmp_path / "w.bin").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic"):
        next(file.chunks())


def test_nothing_stays_open(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "w").write_bytes(WEIGHTS)
    before = len(os.listdir("/proc/self/fd"))
    for path in ("a/w", "a", "a/missing", "missing/w"):
        try:
            open_beneath(tmp_path, path).close()
        except OSError:
            continue
    assert len(os.listdir("/proc/self/fd")) == before
