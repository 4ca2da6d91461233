"""Measure what precisions real models can be built in, how accurate that is, and what it saves.

Models with trained weights (``bench.models``), on samples of theirs that calibration has not seen.
Builds are an agent's: in a worker, with the accuracy gate at 1 %, for SM86. No engine is run.

- ``auto_gain_pct``: of the models that build as they are, how many ``auto`` ends at fp16 or better.
- ``gate_failures``: engines among those with an output that differs by more than the gate allows.
- ``fp16_size_over_fp32``, ``int8_size_over_fp32``: medians over the convolutional models, of engines;
  whether they are accurate does not count here.
- ``repaired``: models that are too inaccurate in int8, and accurate enough with ``--repair``.
- ``estimate_error_pct``, ``coverage_80_pct``: the time of each build here, estimated from all others:
  the median error, and how many were within the interval that is to hold 80 %. ``unseen_...``: the
  same, from the builds of other models only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.estimates import leave_model_out, leave_one_out, past_build_of
from bench.models.building import (
    ACCURACY_SAMPLES,
    CALIBRATION_SAMPLES,
    Outcome,
    Subject,
    built,
    subject,
)
from bench.models.catalog import RealModel, by_name
from bench.report import median, notify, parser, progress, run
from seatkeeper.artifacts.errors import AccuracyTooLow
from seatkeeper.artifacts.estimate import PastBuild
from seatkeeper.artifacts.precision import Precision
from seatkeeper.artifacts.precision_report import worst

GATE = 0.01
ANYTHING = 1.0
"""A tolerance that lets nearly everything through: for sizes."""
GAINS = {"fp16", "int8", "int8+fp16"}
CACHE = Path(".tools/models")


async def main() -> None:
    """Measure, and print the result."""
    options = parser(__doc__)
    options.add_argument("--only", default="", help="names of models, separated by commas")
    arguments = options.parse_args()
    builds: list[PastBuild] = []
    found = [await one_model(model, builds) for model in by_name(arguments.only)]
    seen, unseen = leave_one_out(builds), leave_model_out(builds)
    known = [each for each in found if each["fp32_bytes"]]
    gained = [each for each in known if each["auto"] in GAINS]
    convolutional = [each for each in known if each["is_convolutional"]]
    notify(
        {
            "models": len(known),
            "auto_gain_pct": 100 * len(gained) / len(known) if known else 0.0,
            "gate_failures": sum(each["auto_error"] > GATE for each in gained),
            "fp16_size_over_fp32": _ratio(convolutional, "fp16_bytes"),
            "int8_size_over_fp32": _ratio(convolutional, "int8_bytes"),
            "repaired": sum(each["is_repaired"] for each in known),
            "estimated": seen.estimated,
            "estimate_error_pct": seen.error_pct,
            "coverage_80_pct": seen.coverage_pct,
            "unseen_error_pct": unseen.error_pct,
            "unseen_coverage_80_pct": unseen.coverage_pct,
            "each": {each["name"]: each for each in found},
        },
        arguments.json,
    )


async def one_model(model: RealModel, builds: list[PastBuild]) -> dict[str, Any]:
    """Build one model in every way that is looked at; add what each build took to ``builds``."""
    count = CALIBRATION_SAMPLES + ACCURACY_SAMPLES
    what = subject(model.name, model.model(CACHE), model.profile, model.arrays(CACHE, count))
    plain = await _said(builds, what, Precision.FP32)
    auto = await _said(builds, what, Precision.AUTO)
    sizes = {
        f"{name}_bytes": _size(await _said(builds, what, precision, tolerance=ANYTHING))
        for name, precision in (("fp16", Precision.FP16), ("int8", Precision.INT8))
    }
    eight = await _said(builds, what, Precision.INT8)
    is_repaired = False
    if isinstance(eight.error, AccuracyTooLow):
        is_repaired = (
            await _said(builds, what, Precision.INT8, repair=True)
        ).engine is not None
    report = auto.engine.precision if auto.engine else None
    return {
        "name": model.name,
        "is_convolutional": model.is_convolutional,
        "fp32_bytes": _size(plain),
        "fp32_error": plain.error.message if plain.error else "",
        "auto": report.precision if report else "",
        "auto_error": worst(report.outputs).relative_l2 if report and report.outputs else 0.0,
        "auto_refused": list(report.refused) if report else [],
        **sizes,
        "int8": eight.error.message if eight.error else "",
        "is_repaired": is_repaired,
    }


async def _said(
    builds: list[PastBuild],
    what: Subject,
    precision: Precision,
    *,
    tolerance: float = GATE,
    repair: bool = False,
) -> Outcome:
    progress(f"{what.name}: {precision}{' with repair' if repair else ''}")
    outcome = await built(what, precision, tolerance=tolerance, repair=repair)
    if outcome.engine is not None and not repair:
        past = past_build_of(what, outcome.engine, precision.value)
        builds += [] if past is None else [past]
    return outcome


def _size(outcome: Outcome) -> int:
    return outcome.engine.size_bytes if outcome.engine else 0


def _ratio(models: list[dict[str, Any]], size: str) -> float:
    ratios = [each[size] / each["fp32_bytes"] for each in models if each[size]]
    return median(ratios) if ratios else 0.0


if __name__ == "__main__":
    run(main)
