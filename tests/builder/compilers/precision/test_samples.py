"""Which files are samples of a model's inputs, and what is said of those that are not."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from seatkeeper.artifacts.errors import SamplesDamaged, SamplesInvalid
from seatkeeper.artifacts.plan import parse_profile
from seatkeeper.artifacts.precision import ImageInput
from seatkeeper.artifacts.summary import ModelValue
from seatkeeper.builder.conversion import pictures
from seatkeeper.builder.conversion import samples as module
from seatkeeper.builder.conversion.samples import held_out, random_samples, read_samples

Arrays = Mapping[str, npt.NDArray[np.generic]]
X = ModelValue(name="x", dims=(None, 3), dtype="FLOAT")
IDS = ModelValue(name="ids", dims=(1, 4), dtype="INT64")
FLOATS = np.zeros((5, 2, 3), np.float32)
NUMBERS = np.zeros((5, 1, 4), np.int64)


def written(folder: Path, arrays: Arrays) -> Path:
    path = folder / "samples.npz"
    np.savez(path, **dict(arrays))  # type: ignore[arg-type]  # its own options have other types
    return path


def test_an_array_with_one_dimension_more_has_a_sample_at_each_place(tmp_path: Path) -> None:
    path = written(tmp_path, {"x": FLOATS, "ids": NUMBERS})
    found = read_samples(path, [X, IDS])
    assert len(found) == 5
    assert {name: array.shape for name, array in found[0].items()} == {
        "x": (2, 3),
        "ids": (1, 4),
    }


def test_an_array_with_as_many_dimensions_has_them_along_the_batch(tmp_path: Path) -> None:
    found = read_samples(written(tmp_path, {"x": np.zeros((7, 3), np.float32)}), [X])
    assert [sample["x"].shape for sample in found] == [(1, 3)] * 7


def test_a_scalar_input_has_one_number_a_sample(tmp_path: Path) -> None:
    rate = ModelValue(name="rate", dims=(), dtype="INT64")
    found = read_samples(written(tmp_path, {"rate": np.array([8000, 16000])}), [rate])
    assert [int(sample["rate"]) for sample in found] == [8000, 16000]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": FLOATS}, "no array for input 'ids'; the file has 'x'"),
        ({"x": FLOATS, "ids": NUMBERS, "z": FLOATS}, "array 'z' is of no input"),
        ({"x": FLOATS.astype(np.float64), "ids": NUMBERS}, "'x' has type float32"),
        ({"x": FLOATS[:3], "ids": NUMBERS}, "different numbers of samples: 'ids' 5, 'x' 3"),
        ({"x": FLOATS[0, 0], "ids": NUMBERS}, "'x' has 2 dimensions, and its array 1"),
        ({"x": FLOATS[:, :, :2], "ids": NUMBERS}, r"'x' has the sizes \?x3, and a sample 2x2"),
        ({"x": FLOATS * np.nan, "ids": NUMBERS}, "'x': a sample has NaN or infinity"),
        ({"x": FLOATS[:0], "ids": NUMBERS[:0]}, "there are 0 samples"),
        ({"x": FLOATS[:, :0], "ids": NUMBERS}, "a sample 0x3"),
        ({}, "no array for input 'ids'; the file has none"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, arrays: Arrays, said: str) -> None:
    with pytest.raises(SamplesInvalid, match=said):
        read_samples(written(tmp_path, arrays), [X, IDS])


def test_an_input_of_a_type_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SamplesInvalid, match="type STRING"):
        read_samples(
            written(tmp_path, {"s": np.zeros(3)}),
            [ModelValue(name="s", dims=(), dtype="STRING")],
        )


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"\x93NUMPY", b"no archive at all" * 50, b"PK\x05\x06" + bytes(18)],
    ids=["empty", "begun", "an array", "text", "an empty archive"],
)
def test_what_is_no_file_of_arrays_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "samples.npz"
    path.write_bytes(content)
    with pytest.raises((SamplesDamaged, SamplesInvalid)):
        read_samples(path, [X])


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path, {"x": FLOATS}).read_bytes()
    cut = tmp_path / "cut.npz"
    for length in range(0, len(whole) - 1, 7):
        cut.write_bytes(whole[:length])
        with pytest.raises((SamplesDamaged, SamplesInvalid)):
            read_samples(cut, [X])


def test_a_file_damaged_anywhere_is_read_or_refused(tmp_path: Path) -> None:
    whole = written(tmp_path, {"x": FLOATS}).read_bytes()
    damaged, refused = tmp_path / "damaged.npz", 0
    places = range(0, len(whole), 3)
    for place in places:
        content = bytearray(whole)
        content[place] ^= 0xFF
        damaged.write_bytes(content)
        try:
            found = read_samples(damaged, [X])
        except (SamplesDamaged, SamplesInvalid):
            refused += 1
        else:  # what was damaged does not matter, such as a time
            assert all((each["x"] == 0).all() for each in found)
    assert refused > len(places) / 2


class Runs:
    """What pickle would run."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path("/nowhere").mkdir, ())


def test_objects_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    np.savez(path, x=np.array([Runs()], dtype=object))
    with pytest.raises(SamplesDamaged, match="'x' cannot be read"):
        read_samples(path, [X])
    array = io.BytesIO()
    pickle.dump(FLOATS, array)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", array.getvalue())
    with pytest.raises((SamplesDamaged, SamplesInvalid)):
        read_samples(path, [X])


def test_a_small_file_of_many_bytes_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "samples.npz"
    np.savez_compressed(path, x=np.zeros((1000, 2, 3), np.float32))
    monkeypatch.setattr(module, "UNPACKED_BYTES_MAX", 20_000)
    with pytest.raises(SamplesDamaged, match="bytes unpacked, over 20000"):
        read_samples(path, [X])


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {"x": FLOATS})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("x.npy", b"other")
    with pytest.raises(SamplesDamaged, match="one name twice"):
        read_samples(path, [X])


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMBERS_MAX", 1)
    with pytest.raises(SamplesDamaged, match="2 files, over 1"):
        read_samples(written(tmp_path, {"x": FLOATS, "ids": NUMBERS}), [X, IDS])


def test_noise_has_the_sizes_of_the_first_profile() -> None:
    profile = parse_profile("x=1x3:4x3:8x3")
    found = random_samples([X, IDS], [profile], seed=1)
    assert {sample["x"].shape for sample in found} == {(4, 3)}
    assert {sample["ids"].shape for sample in found} == {(1, 4)}
    assert all(set(sample["ids"].flat) <= {0, 1} for sample in found)
    again = random_samples([X, IDS], [profile], seed=1)
    assert all((a["x"] == b["x"]).all() for a, b in zip(found, again, strict=True))


@pytest.mark.parametrize("count", [1, 2, 5, 6, 100])
def test_what_is_measured_with_is_kept_out_of_calibration(count: int) -> None:
    samples = [{"x": np.full((1, 3), number)} for number in range(count)]
    calibration, measured = held_out(samples)
    assert calibration
    assert measured
    numbers = [{int(s["x"][0, 0]) for s in part} for part in (calibration, measured)]
    assert numbers[0] | numbers[1] == set(range(count))
    assert count == 1 or not numbers[0] & numbers[1]


def archive(folder: Path, **contents: bytes) -> Path:
    path = folder / "packed.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name, content in contents.items():
            file.writestr(name, content)
    return path


def npy(array: npt.NDArray[np.generic]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def png(colour: tuple[int, int, int], size: tuple[int, int] = (10, 20)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def test_a_folder_of_arrays_has_a_sample_in_each(tmp_path: Path) -> None:
    files = {f"x/{n}.npy": npy(FLOATS[n]) for n in range(3)}
    files |= {f"ids/{n}.npy": npy(NUMBERS[n]) for n in range(3)}
    found = read_samples(archive(tmp_path, **files), [X, IDS])
    assert len(found) == 3
    flat = {f"{n}.npy": npy(FLOATS[n]) for n in range(3)}
    assert len(read_samples(archive(tmp_path, **flat), [X])) == 3


def test_arrays_of_a_folder_have_one_size(tmp_path: Path) -> None:
    files = {"x/0.npy": npy(FLOATS[0]), "x/1.npy": npy(FLOATS[0, :1])}
    with pytest.raises(SamplesInvalid, match="'x' has samples of different sizes"):
        read_samples(archive(tmp_path, **files), [X])


def test_arrays_of_a_folder_have_one_type(tmp_path: Path) -> None:
    files = {"x/0.npy": npy(FLOATS[0].astype(np.float16)), "x/1.npy": npy(FLOATS[1])}
    with pytest.raises(SamplesInvalid, match="'x' has samples of different types: float16"):
        read_samples(archive(tmp_path, **files), [X])


PICTURE = ModelValue(name="image", dims=(None, 3, 4, 6), dtype="FLOAT")
TO = ImageInput(height=4, width=6, mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.125))


def test_pictures_are_resized_scaled_and_ordered(tmp_path: Path) -> None:
    files = {"b.png": png((0, 0, 0)), "a/a.png": png((255, 255, 0))}
    found = read_samples(archive(tmp_path, **files), [PICTURE], TO)
    assert [sample["image"].shape for sample in found] == [(1, 3, 4, 6)] * 2
    first = found[0]["image"]
    assert [float(first[0, channel].mean()) for channel in range(3)] == [1.0, 2.0, -4.0]
    bgr = read_samples(archive(tmp_path, **files), [PICTURE], replace(TO, order="bgr"))
    assert [float(bgr[0]["image"][0, c].mean()) for c in range(3)] == [-1.0, 2.0, 4.0]
    last = ModelValue(name="image", dims=(1, 4, 6, 1), dtype="FLOAT16")
    grey = ImageInput(height=4, width=6, layout="nhwc", order="grey")
    (one,) = read_samples(archive(tmp_path, **{"x.png": png((255, 255, 255))}), [last], grey)
    assert one["image"].shape == (1, 4, 6, 1)
    assert one["image"].dtype == np.float16
    assert float(one["image"].min()) == 1.0


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (b"no picture", SamplesDamaged, "'x.png' is no picture"),
        (png((1, 2, 3))[:50], SamplesDamaged, "'x.png' is no picture"),
        (b"", SamplesDamaged, "'x.png' is no picture"),
        (b"GIF89a" + bytes(50), SamplesDamaged, "'x.png' is no picture"),
    ],
    ids=["text", "cut", "empty", "another format"],
)
def test_what_is_no_picture_is_named(
    tmp_path: Path, content: bytes, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        read_samples(archive(tmp_path, **{"x.png": content}), [PICTURE], TO)


def test_a_picture_of_too_many_pixels_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "PIXELS_MAX", 100)
    with pytest.raises(SamplesDamaged, match="200 pixels, over 100"):
        read_samples(archive(tmp_path, **{"x.png": png((0, 0, 0))}), [PICTURE], TO)


@pytest.mark.parametrize(
    "inputs",
    [
        [PICTURE, X],
        [X],
        [ModelValue(name="image", dims=(1, 3, 4, 6), dtype="INT64")],
    ],
    ids=["two inputs", "no picture's rank", "whole numbers"],
)
def test_pictures_are_for_models_that_look_at_one(
    tmp_path: Path, inputs: list[ModelValue]
) -> None:
    with pytest.raises(SamplesInvalid, match="pictures"):
        read_samples(archive(tmp_path, **{"x.png": png((0, 0, 0))}), inputs, TO)


def test_pictures_of_another_size_than_the_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SamplesInvalid, match="sizes"):
        read_samples(
            archive(tmp_path, **{"x.png": png((0, 0, 0))}), [PICTURE], replace(TO, width=7)
        )
