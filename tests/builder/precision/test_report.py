"""What is known of a model's precision, from the worker to the manifest."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from seatkeeper.artifacts.precision_report import (
    KEPT_MAX,
    OutputAccuracy,
    PrecisionReport,
    PrecisionShare,
    report_from_fields,
    report_message,
)

REPORT = PrecisionReport(
    precision="int8",
    shares=(
        PrecisionShare(precision="fp32", nodes=3, weight_bytes=40),
        PrecisionShare(precision="int8", nodes=2, weight_bytes=90),
    ),
    outputs=(
        OutputAccuracy(output="y", relative_l2=0.004, max_abs=0.1, cosine_error=1e-6),
        OutputAccuracy(
            output="z", relative_l2=0.0, max_abs=0.0, cosine_error=0.0, top1_agreement=0.5
        ),
    ),
    samples=12,
    is_proven=True,
    refused=("int8+fp16: too inaccurate",),
    kept=("/head",),
)


def test_a_report_goes_through_json() -> None:
    assert report_from_fields(json.loads(json.dumps(asdict(REPORT)))) == REPORT


def test_a_manifest_says_all_of_it() -> None:
    message = report_message(REPORT)
    assert (message.precision, list(message.refused), list(message.kept)) == (
        "int8",
        ["int8+fp16: too inaccurate"],
        ["/head"],
    )
    assert (message.accuracy.samples, message.accuracy.proven) == (12, True)
    first, second = message.accuracy.outputs
    assert not first.HasField("top1_agreement")
    assert second.top1_agreement == 0.5
    nothing = PrecisionReport(precision="fp32", shares=())
    assert not report_message(nothing).HasField("accuracy")


@pytest.mark.parametrize(
    "wrong",
    [
        {"shares": [{}]},
        {"outputs": [{"output": "y"}]},
        {"samples": "many"},
        {"precision": None, "shares": 7},
    ],
)
def test_what_a_worker_makes_up_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        report_from_fields(asdict(REPORT) | wrong)


def test_what_a_worker_says_at_length_is_cut() -> None:
    long = asdict(REPORT) | {"kept": ["n" * 5_000] * 5_000, "precision": "p" * 5_000}
    found = report_from_fields(long)
    assert len(found.kept) == KEPT_MAX
    assert len(found.kept[0]) == len(found.precision) == 1_000
