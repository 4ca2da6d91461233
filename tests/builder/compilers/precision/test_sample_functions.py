"""Samples that a function of the user's yields: called once, bounded, and refused by name."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seatkeeper.artifacts.summary import ModelValue
from seatkeeper.builder.conversion.samples import read_samples
from seatkeeper.client import packed_samples
from seatkeeper.client.builds import sample_functions
from seatkeeper.client.builds.sample_functions import samples_from
from seatkeeper.core.errors import InvalidArgument

SAMPLE = {"x": np.ones((1, 3), np.float32), "ids": np.zeros((1, 2), np.int64)}
INPUTS = [
    ModelValue(name="x", dims=(None, 3), dtype="FLOAT"),
    ModelValue(name="ids", dims=(1, 2), dtype="INT64"),
]
SOURCE = """
import sys
import numpy as np
calls = []
constant = 3

def batches():
    print("reading the data set")
    calls.append(1)
    for number in range(4):
        yield {"x": np.full((1, 3), number, np.float32), "ids": np.zeros((1, 2), np.int64)}

def fails():
    raise FileNotFoundError("no data set")

def ends_the_program():
    sys.exit(0)

def fails_on_the_way():
    yield next(batches())
    raise OSError("the disk is gone")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_calibration.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_calibration", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    "source", ["python:my_calibration:batches", "python:my_calibration.py:batches"]
)
def test_a_function_s_dicts_are_samples(
    here: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path_before = list(sys.path)
    content = samples_from(source)
    (here / "s.npz").write_bytes(content)
    found = read_samples(here / "s.npz", INPUTS)
    assert [float(sample["x"][0, 0]) for sample in found] == [0, 1, 2, 3]
    assert samples_from(source) == content, "equal samples have one hash"
    printed = capsys.readouterr()
    assert (printed.out, "reading the data set" in printed.err) == ("", True)
    assert sys.path == path_before


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("python:", "write python:MODULE:FUNCTION"),
        ("python:my_calibration", "write python:MODULE:FUNCTION"),
        ("python:my_calibration:", "write python:MODULE:FUNCTION"),
        ("python:no_such_module:f", "no_such_module cannot be imported: ModuleNotFoundError"),
        ("python:none.py:f", "none.py cannot be imported: FileNotFoundError"),
        ("python:my_calibration:nothing", "nothing of my_calibration is not there"),
        ("python:my_calibration:constant", "constant of my_calibration is no function"),
        ("python:my_calibration:fails", "raised FileNotFoundError: no data set"),
        ("python:my_calibration:ends_the_program", r"raised SystemExit\(0\)"),
        ("python:my_calibration:fails_on_the_way", "raised OSError: the disk is gone"),
    ],
)
def test_a_function_that_is_none_is_refused_by_name(here: Path, source: str, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said) as caught:
        samples_from(source)
    assert source in str(caught.value)


def endless() -> Iterator[dict[str, Any]]:
    while True:
        yield SAMPLE


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([], "there is no sample"),
        (SAMPLE, "yield dicts of arrays"),
        (7, "yield dicts of arrays"),
        (b"bytes", "yield dicts of arrays"),
        ([SAMPLE["x"]], "sample 0 is no dict of arrays but ndarray"),
        ([{}], "sample 0 is no dict of arrays"),
        ([{3: SAMPLE["x"]}], "3 is no name of an input"),
        ([{"x": object()}], "'x': an array of object, not of numbers"),
        ([{"x": ["a"]}], "'x': an array of <U1, not of numbers"),
        ([{"x": [[1], [1, 2]]}], "'x': ValueError"),
        ([SAMPLE, {"x": SAMPLE["x"]}], "sample 1 has 'x', and the first 'ids', 'x'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_sample_is_refused_by_its_number(samples: Any, said: str) -> None:
    with pytest.raises(InvalidArgument, match=said):
        packed_samples(samples)


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("SAMPLES_MAX", "over 9 samples"),
        ("BYTES_MAX", "over 9 bytes"),
        ("ARRAYS_MAX", "over 9 a"),
    ],
)
def test_what_never_ends_is_ended(
    monkeypatch: pytest.MonkeyPatch, limit: str, said: str
) -> None:
    monkeypatch.setattr(sample_functions, limit, 9)
    with pytest.raises(InvalidArgument, match=said):
        packed_samples(endless())


def test_without_numpy_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(InvalidArgument, match="numpy is not installed"):
        packed_samples(endless())


def test_the_archive_is_that_of_a_folder_of_arrays() -> None:
    with zipfile.ZipFile(io.BytesIO(packed_samples([SAMPLE, SAMPLE]))) as archive:
        assert archive.namelist() == [
            *("x/000000.npy", "ids/000000.npy"),
            *("x/000001.npy", "ids/000001.npy"),
        ]
