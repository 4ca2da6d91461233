"""The agent believes nothing of a worker's report that it has not checked."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.builder.strategies import plans

from seatkeeper.artifacts.errors import ModelTruncated
from seatkeeper.artifacts.plan import BuildPlan
from seatkeeper.artifacts.summary import ModelLimits
from seatkeeper.builder.job import (
    Done,
    WorkerJob,
    options_hex,
    report_from_line,
    report_to_line,
)
from seatkeeper.builder.progress import BUILDING, PARSING, Progress
from seatkeeper.builder.worker import PROGRESS_INTERVAL_SECONDS, thinned


@settings(deadline=None)
@given(plans())
def test_a_job_is_read_as_it_was_written(plan: BuildPlan) -> None:
    job = WorkerJob(
        parent_pid=1,
        backend=plan.backend,
        model_path="model",
        engine_path="engine",
        options_hex=options_hex(plan),
        memory_bytes=1,
        stack_bytes=2,
        engine_bytes_max=3,
        model_limits=ModelLimits(nodes_max=4),
    )
    again = WorkerJob.from_json(job.to_json())
    assert again == job
    assert again.plan() == plan


@pytest.mark.parametrize(
    "report",
    [
        Progress(phase=BUILDING, step="Optimizing graph", steps_done=3, steps=30),
        Done({"version": "1.7", "targets": ["SM86"]}, peak_memory_bytes=7),
    ],
)
def test_a_report_is_read_as_it_was_written(report: Progress | Done) -> None:
    assert report_from_line(report_to_line(report)) == report


def test_an_error_crosses_with_its_type() -> None:
    error = report_from_line(report_to_line(ModelTruncated("the model breaks off")))
    assert isinstance(error, ModelTruncated)
    assert error.message == "the model breaks off"


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"progress": 1}',
        b'{"progress": {"phase": 99, "step": "", "steps_done": 0, "steps": 0}}',
        b'{"progress": {"phase": [], "step": "", "steps_done": 0, "steps": 0}}',
        b'{"progress": {"phase": 4}}',
        b'{"error": {"code": "new_code", "message": ""}}',
        b'{"error": {}}',
        b'{"done": []}',
        b"[" * 100_000,
    ],
)
def test_a_report_that_makes_no_sense_is_no_report(line: bytes) -> None:
    with pytest.raises((ValueError, UnicodeDecodeError)):
        report_from_line(line)


def test_a_report_cannot_overflow_the_wire() -> None:
    fields = {"phase": 4, "step": "s" * 10**6, "steps_done": 10**30, "steps": -1}
    progress = report_from_line(json.dumps({"progress": fields}).encode())
    assert isinstance(progress, Progress)
    assert len(progress.step) == 200
    assert (progress.steps_done, progress.steps) == (2**31 - 1, 0)


def test_thousands_of_steps_become_a_few_reports() -> None:
    reported: list[object] = []
    now = 100.0
    report = thinned(reported.append, lambda: now)

    report(Progress(phase=PARSING))
    for step in range(1_000):
        report(Progress(phase=BUILDING, steps_done=step, steps=1_000))
    assert reported == [Progress(phase=PARSING), Progress(phase=BUILDING, steps=1_000)]

    now += 2 * PROGRESS_INTERVAL_SECONDS
    report(Progress(phase=BUILDING, steps_done=999, steps=1_000))
    assert reported[2:] == [Progress(phase=BUILDING, steps_done=999, steps=1_000)]


def test_the_first_steps_of_a_quick_build_are_reported() -> None:
    reported: list[object] = []
    report = thinned(reported.append, lambda: 100.0)

    began = Progress(phase=BUILDING)
    report(began)
    for step in range(1, 4):
        report(Progress(phase=BUILDING, steps_done=step, steps=3))
        report(began)
    assert reported == [began, Progress(phase=BUILDING, steps_done=1, steps=3)]


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_report_or_a_value_error(line: bytes) -> None:
    try:
        report = report_from_line(line)
    except ValueError:
        return
    assert isinstance(report, Progress | Done | Exception)
