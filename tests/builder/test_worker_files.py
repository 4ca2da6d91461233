"""What an agent keeps of its workers' files: by what they follow from, few, small, and plain."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seatkeeper.agent import worker_files
from seatkeeper.agent.worker_files import WorkerFiles, calibration_key, timings_key
from seatkeeper.artifacts.plan import BuildPlan, parse_profile
from seatkeeper.artifacts.precision import (
    CalibrationMethod,
    ImageInput,
    KeepRule,
    Precision,
    PrecisionPlan,
    Samples,
)

MODEL = "ab" * 32
KEY = "cd" * 32
SENT = Samples(sha256="ef" * 32)
PLAN = BuildPlan(
    backend="tensorrt_rtx",
    targets=("SM86",),
    precision=PrecisionPlan(precision=Precision.INT8, calibration=SENT),
)
NAME = "0123456789abcdef.json"


def ranges_key(model: str, plan: BuildPlan, conversion: str = "1 onnx-1") -> str:
    return calibration_key(model, plan, conversion)


def with_precision(**changes: Any) -> BuildPlan:
    return replace(PLAN, precision=replace(PLAN.precision, **changes))


@pytest.mark.parametrize(
    "plan",
    [
        replace(PLAN, targets=("SM89", "SM120")),
        replace(PLAN, workspace_bytes=1 << 30),
        with_precision(tolerance=0.5),
        with_precision(keep=(KeepRule(pattern="*"),)),
        with_precision(precision=Precision.AUTO, repair=True),
    ],
)
def test_what_changes_no_range_shares_them(plan: BuildPlan) -> None:
    assert ranges_key(MODEL, plan) == ranges_key(MODEL, PLAN) != ""


@pytest.mark.parametrize(
    ("model", "plan"),
    [
        ("00" * 32, PLAN),
        (MODEL, with_precision(calibration=Samples(sha256="00" * 32))),
        (MODEL, with_precision(calibration=Samples(is_random=True))),
        (
            MODEL,
            with_precision(calibration=replace(SENT, images=ImageInput(height=2, width=2))),
        ),
        (MODEL, with_precision(method=CalibrationMethod.ENTROPY)),
        (MODEL, with_precision(samples=Samples(sha256="11" * 32))),
    ],
)
def test_what_changes_ranges_has_its_own(model: str, plan: BuildPlan) -> None:
    assert ranges_key(model, plan) != ranges_key(MODEL, PLAN)


def test_noise_is_of_a_profile_s_sizes() -> None:
    noise = with_precision(calibration=Samples(is_random=True))
    keys = {
        ranges_key(MODEL, replace(noise, profiles=(parse_profile(text),)))
        for text in ("x=1x4", "x=2x4")
    }
    assert len(keys) == 2


def test_what_calibrates_nothing_has_no_key() -> None:
    half = PrecisionPlan(precision=Precision.FP16)
    assert ranges_key(MODEL, replace(PLAN, precision=half)) == ""
    assert ranges_key(MODEL, PLAN, "2 onnx-1") != ranges_key(MODEL, PLAN)
    assert ranges_key(MODEL, replace(PLAN, precision=PrecisionPlan())) == ""


def found(folder: Path, **contents: bytes) -> Path:
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def kept(cache: WorkerFiles, key: str, tmp_path: Path) -> dict[str, bytes]:
    into = tmp_path / f"out-{len(list(tmp_path.iterdir()))}"
    cache.lay_out(key, into)
    return {path.name: path.read_bytes() for path in into.iterdir()}


def test_what_was_kept_is_there_for_its_key_alone(tmp_path: Path) -> None:
    cache = WorkerFiles.of_ranges(tmp_path / "cache")
    assert kept(cache, KEY, tmp_path) == {}
    cache.keep(KEY, found(tmp_path / "found", **{NAME: b"ranges"}))
    assert kept(cache, KEY, tmp_path) == {NAME: b"ranges"}
    assert kept(cache, "ab" * 32, tmp_path) == {}
    assert kept(WorkerFiles.of_ranges(tmp_path / "cache"), KEY, tmp_path) == {NAME: b"ranges"}


def test_what_a_worker_should_not_leave_is_left_alone(
    tmp_path: Path,
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"the agent's key")
    left = found(tmp_path / "found", **{"0" * 16 + ".json": bytes(11), "other.json": b"x"})
    (left / NAME).symlink_to(secret)
    os.mkfifo(left / ("1" * 16 + ".json"))
    (left / ("2" * 16 + ".json")).mkdir()
    cache = replace(WorkerFiles.of_ranges(tmp_path / "cache"), file_bytes_max=10)
    cache.keep(KEY, left)
    assert kept(cache, KEY, tmp_path) == {}


def test_many_files_of_one_build_are_not_all_kept(tmp_path: Path) -> None:
    names = {f"{number:016x}.json": b"x" for number in range(50)}
    cache = WorkerFiles.of_ranges(tmp_path / "cache")
    cache.keep(KEY, found(tmp_path / "found", **names))
    assert len(kept(cache, KEY, tmp_path)) == worker_files.FILES_OF_A_BUILD_MAX


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = replace(WorkerFiles.of_ranges(tmp_path / "cache"), files_max=2)
    for number, key in enumerate(("aa" * 32, "bb" * 32)):
        cache.keep(key, found(tmp_path / f"found-{number}", **{NAME: b"x"}))
        (path,) = (tmp_path / "cache").glob(f"{key}-*")
        os.utime(path, (number, number))
    kept(cache, "aa" * 32, tmp_path)  # is used now
    cache.keep("cc" * 32, found(tmp_path / "found-9", **{NAME: b"x"}))
    assert kept(cache, "bb" * 32, tmp_path) == {}
    assert kept(cache, "aa" * 32, tmp_path)
    assert kept(cache, "cc" * 32, tmp_path)


def test_a_disk_without_room_fails_no_build(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"no folder")
    cache = WorkerFiles.of_ranges(tmp_path / "cache")
    cache.keep(KEY, found(tmp_path / "found", **{NAME: b"x"}))
    assert kept(cache, KEY, tmp_path) == {}


def test_timings_are_of_a_library_and_its_version(tmp_path: Path) -> None:
    cache, key = WorkerFiles.of_timings(tmp_path / "cache"), timings_key("tensorrt", "10.16")
    cache.keep(key, found(tmp_path / "found", timings=b"timed", other=b"x"))
    assert kept(cache, key, tmp_path) == {"timings": b"timed"}
    for other in (timings_key("tensorrt", "11.4"), timings_key("tensorrt_rtx", "10.16")):
        assert kept(cache, other, tmp_path) == {}
