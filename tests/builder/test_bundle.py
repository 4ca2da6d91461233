"""Which files a model may have outside its own, and what they are to an engine's key."""

from __future__ import annotations

import pytest

from seatkeeper.artifacts.bundle import (
    DEPTH_MAX,
    FILES_MAX,
    PATH_BYTES_MAX,
    ExternalFile,
    check_files,
    check_location,
    free_name,
    model_hash,
)
from seatkeeper.artifacts.errors import ModelExternalData

MODEL = "ab" * 32


def file(path: str, sha256: str = "cd" * 32, size_bytes: int = 8) -> ExternalFile:
    return ExternalFile(path=path, sha256=sha256, size_bytes=size_bytes)


@pytest.mark.parametrize(
    "path",
    ["weights.bin", "a/b/c.data", "model.onnx_data", "..data", "a/.hidden", "gewichte-ü.bin"],
)
def test_a_path_below_the_model_is_taken(path: str) -> None:
    assert check_location(path) == path


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "no name"),
        ("/etc/passwd", "absolute"),
        ("//etc/passwd", "absolute"),
        ("..", "out of the model's folder"),
        ("../weights.bin", "out of the model's folder"),
        ("a/../../weights.bin", "out of the model's folder"),
        ("./weights.bin", "shortest form"),
        ("a//b", "shortest form"),
        ("a/", "shortest form"),
        ("a/./b", "shortest form"),
        ("a\\b", "characters"),
        ("C:weights.bin", "characters"),
        ("*/_ORT_MEM_ADDR_/*", "characters"),
        ("a\0b", "characters"),
        ("a\nb", "characters"),
        ("a\u202eb", "characters"),
        ("x" * (PATH_BYTES_MAX + 1), "bytes"),
        ("/".join("x" * (DEPTH_MAX + 1)), "parts"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_path_that_could_mean_anything_else_is_refused(path: str, why: str) -> None:
    with pytest.raises(ModelExternalData, match=why):
        check_location(path)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ([file("../x")], "out of the model's folder"),
        ([file("x", sha256="AB" * 32)], "hexadecimal"),
        ([file("x", sha256="")], "hexadecimal"),
        ([file("x", size_bytes=-1)], "negative"),
        ([file("x"), file("x")], "one path"),
        ([file("x"), file("y", size_bytes=9)], "another size"),
        ([file("x"), file("x/y")], "a file itself"),
        ([file("x/y/z"), file("x")], "a file itself"),
        ([file(f"{number}") for number in range(FILES_MAX + 1)], "more than"),
    ],
    ids=range(9),
)
def test_files_that_cannot_lie_together_are_refused(
    files: list[ExternalFile], why: str
) -> None:
    with pytest.raises(ModelExternalData, match=why):
        check_files(files)


def test_as_many_files_as_may_be_are_taken() -> None:
    check_files([file(f"a/{number}") for number in range(FILES_MAX)])
    check_files([])


def test_a_model_without_files_keeps_its_hash() -> None:
    assert model_hash(MODEL, ()) == MODEL


def test_the_hash_follows_paths_and_contents_and_no_order() -> None:
    files = [file("a"), file("b", sha256="ef" * 32)]
    hashed = model_hash(MODEL, files)
    assert len(hashed) == 64
    assert hashed == model_hash(MODEL, reversed(files))
    others = [
        model_hash("00" * 32, files),
        model_hash(MODEL, files[:1]),
        model_hash(MODEL, [file("a"), file("b")]),
        model_hash(MODEL, [file("a"), file("c", sha256="ef" * 32)]),
        model_hash(MODEL, [file("b"), file("a", sha256="ef" * 32)]),
        MODEL,
    ]
    assert len({hashed, *others}) == len(others) + 1


def test_the_hash_stays_what_it_is() -> None:
    """Engines are found by it: a change of it would build all of them again."""
    known = "57e70f17919b3f6aa83f3fc0db3d0f62430129ee0d512088796843283703c89d"
    assert model_hash(MODEL, [file("a"), file("b/c", sha256="ef" * 32)]) == known


def test_the_model_s_own_name_is_no_file_s() -> None:
    assert free_name([]) == "model.onnx"
    assert free_name(["model.onnx/x", "model-1.onnx"]) == "model-2.onnx"
