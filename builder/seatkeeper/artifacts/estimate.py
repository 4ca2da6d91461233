"""What a build will take, from what builds before it took.

Durations and memory of builds spread over factors, so all is done on logarithms. In two steps:

1. A ridge regression on what is known of model and plan before a build: nodes, bytes of weights and of
   the file, precision, number of targets and profiles.
2. What that gets wrong of *like* builds is corrected: the residuals of past builds, weighted by how
   like they are, most of all those of the same model in other precisions or for other GPUs.

How far off that is, is measured on the history itself: each past build is predicted without it, and
the interval holds four of five of the errors found so (as split conformal prediction does). Where few
builds are known, it says so; where none is, and for a model without like ones that is far from all
that were built, there is no estimate: a law that was found among small models is none of large ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seatkeeper.artifacts.model_shape import ModelShape
from seatkeeper.artifacts.plan import BuildPlan
from seatkeeper.v1 import build_pb2

COVERAGE = 0.8
"""Part of the builds that the interval is to hold."""
HISTORY_MAX = 400
"""Builds that are looked at, the newest: the work grows with their square."""
LITTLE = 8
"""With fewer builds the interval cannot be measured: it is a factor of `UNKNOWN_FACTOR` each way."""
UNKNOWN_FACTOR = 3.0
RIDGE = 0.5
SHRINKAGE = 0.2
"""Weight of a like build that had no residual: one that is only a little like corrects a little."""
LIKE = 0.2
"""Sum of weights from which a build counts as one of which like ones are known."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A build as far as it is known before it runs."""

    model_sha256: str
    shape: ModelShape
    precision: str
    targets: int
    profiles: int


@dataclass(frozen=True, kw_only=True)
class PastBuild:
    """A build that ran."""

    planned: Planned
    seconds: float
    """From the start of the worker to the engine."""
    seat_seconds: float
    """From the claim of the seat until the engine was signed."""
    peak_memory_bytes: float
    got: str
    """The precision that it ended at; that asked for, unless it was ``auto``."""
    refused: tuple[str, ...]
    """Precisions that ``auto`` did not take."""
    error: float | None = None
    """Largest relative error of an output; None: it was not measured with samples that were given."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An amount, and between what it lies in four of five builds."""

    likely: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a build is expected to take."""

    seconds: Interval
    seat_seconds: Interval
    peak_memory_bytes: Interval
    builds: int
    """How many it follows from."""
    like: int
    """How many of them are of the same model, or of one of nearly the same size."""

    @property
    def is_little(self) -> bool:
        """Whether it follows from too few builds to be worth much."""
        return self.builds < LITTLE


def planned_build(model_sha256: str, shape: ModelShape, plan: BuildPlan) -> Planned:
    """Return a build as it is estimated."""
    return Planned(
        model_sha256=model_sha256,
        shape=shape,
        precision=_conversion(plan.precision.precision.value),
        targets=len(plan.targets),
        profiles=len(plan.profiles),
    )


def past_build(manifest: build_pb2.EngineManifest) -> PastBuild | None:
    """Return what a manifest says of its build; None when it was built by an agent that did not say."""
    stats, options = manifest.stats, manifest.options
    if not manifest.HasField("stats") or manifest.build_millis <= 0 or stats.nodes <= 0:
        return None
    asked = options.precision.precision or "model"
    return PastBuild(
        planned=Planned(
            model_sha256=manifest.model_sha256,
            shape=ModelShape(
                nodes=stats.nodes,
                weight_bytes=stats.weight_bytes,
                model_bytes=stats.model_bytes,
            ),
            precision=_conversion(asked),
            targets=len(options.targets),
            profiles=len(options.profiles),
        ),
        seconds=manifest.build_millis / 1000,
        seat_seconds=max(stats.seat_millis, manifest.build_millis) / 1000,
        peak_memory_bytes=float(max(1, stats.peak_memory_bytes)),
        got=manifest.precision.precision or asked,
        refused=tuple(reason.partition(":")[0] for reason in manifest.precision.refused),
        error=_error(manifest.precision.accuracy),
    )


def _error(accuracy: build_pb2.Accuracy) -> float | None:
    if not accuracy.proven:
        return None
    return max((output.relative_l2 for output in accuracy.outputs), default=None)


def estimate(planned: Planned, history: Sequence[PastBuild]) -> Estimate | None:
    """Return what a build is expected to take; None when nothing is known.

    The history is of one backend, the newest first; what is over `HISTORY_MAX` is left out.
    """
    known = history[:HISTORY_MAX]
    if not known:
        return None
    predict = _Predictor([each.planned for each in known])
    asked = predict.of(planned)
    is_foreign = len(known) < LITTLE or not _is_among(planned, [each.planned for each in known])
    if is_foreign and asked.likeness < LIKE:
        return None

    def interval(amount: Callable[[PastBuild], float]) -> Interval:
        return asked.interval([math.log(amount(each)) for each in known])

    return Estimate(
        seconds=interval(lambda each: each.seconds),
        seat_seconds=interval(lambda each: each.seat_seconds),
        peak_memory_bytes=interval(lambda each: each.peak_memory_bytes),
        builds=len(known),
        like=asked.like,
    )


@dataclass(frozen=True, kw_only=True)
class PrecisionAdvice:
    """Where builds of like models ended."""

    precision: str
    of: int
    """Like models that were built with ``auto`` or in that precision."""
    ended_there: int


def advise_precision(
    planned: Planned, history: Sequence[PastBuild], tolerance: float
) -> PrecisionAdvice | None:
    """Return the first precision, as `auto` has them, that most like models were accurate enough in.

    None when no like model was converted and measured with samples of its own. Engines that differ by
    more than ``tolerance`` count against it, whatever was tolerated then. What was refused when a
    precision was asked for by name is in no manifest, so it counts only where ``auto`` tried it.
    """
    like = [each for each in history[:HISTORY_MAX] if _likeness(planned, each.planned) >= LIKE]
    for precision in ("int8+fp16", "int8", "fp16"):
        measured = [each for each in like if each.got == precision and each.error is not None]
        tried = {each.planned.model_sha256 for each in measured}
        tried |= {each.planned.model_sha256 for each in like if precision in each.refused}
        passed = {
            each.planned.model_sha256
            for each in measured
            if each.error is not None and each.error <= tolerance
        }
        if passed and 2 * len(passed) >= len(tried):
            return PrecisionAdvice(precision=precision, of=len(tried), ended_there=len(passed))
    return None


@dataclass(frozen=True)
class _Asked:
    """One build to predict: its features, and how like each known build is to it."""

    predictor: _Predictor
    features: Sequence[float]
    weights: Sequence[float]

    @property
    def likeness(self) -> float:
        return sum(self.weights)

    @property
    def like(self) -> int:
        return sum(weight >= LIKE for weight in self.weights)

    def interval(self, logs: Sequence[float]) -> Interval:
        fitted = self.predictor.fitted(logs)
        residuals = [log - fit for log, fit in zip(logs, fitted.values, strict=True)]
        correction = _mean(residuals, self.weights)
        likely = _dot(fitted.coefficients, self.features) + fitted.mean + correction
        spread = self.predictor.spread(residuals, has_like=self.likeness >= LIKE)
        return Interval(
            likely=math.exp(likely),
            low=math.exp(likely - spread),
            high=math.exp(likely + spread),
        )


@dataclass(frozen=True)
class _Fitted:
    coefficients: Sequence[float]
    mean: float
    values: Sequence[float]


class _Predictor:
    """The regression over a history; it is made once for all amounts."""

    def __init__(self, known: Sequence[Planned]) -> None:
        self._known = known
        raw = [_features(each) for each in known]
        self._means = [sum(column) / len(raw) for column in zip(*raw, strict=True)]
        self._rows = [self._centred(row) for row in raw]
        width = len(self._means)
        gram = [
            [
                sum(row[i] * row[j] for row in self._rows) + (RIDGE if i == j else 0.0)
                for j in range(width)
            ]
            for i in range(width)
        ]
        self._inverse = _inverted(gram)
        self._leverages = [
            1 / len(raw) + _dot(row, _times(self._inverse, row)) for row in self._rows
        ]
        self._weights = [
            [0.0 if i == j else _likeness(one, other) for j, other in enumerate(known)]
            for i, one in enumerate(known)
        ]

    def of(self, planned: Planned) -> _Asked:
        """Return what is known of a build before an amount is predicted."""
        weights = [_likeness(planned, each) for each in self._known]
        return _Asked(self, self._centred(_features(planned)), weights)

    def fitted(self, logs: Sequence[float]) -> _Fitted:
        """Fit one amount."""
        mean = sum(logs) / len(logs)
        moments = [
            sum(row[i] * (log - mean) for row, log in zip(self._rows, logs, strict=True))
            for i in range(len(self._means))
        ]
        coefficients = _times(self._inverse, moments)
        return _Fitted(
            coefficients, mean, [mean + _dot(coefficients, row) for row in self._rows]
        )

    def spread(self, residuals: Sequence[float], *, has_like: bool) -> float:
        """Return half the width of the interval, on logarithms."""
        if len(residuals) < LITTLE:
            return math.log(UNKNOWN_FACTOR)
        found = []
        for residual, leverage, weights in zip(
            residuals, self._leverages, self._weights, strict=True
        ):
            # The residual of a fit without this build, in closed form.
            without = residual / max(0.1, 1 - leverage)
            # Of a build without like ones only the regression is known, so its errors count.
            found.append(abs(without - (_mean(residuals, weights) if has_like else 0.0)))
        found.sort()
        place = math.ceil(COVERAGE * (len(found) + 1)) - 1
        return found[min(place, len(found) - 1)]

    def _centred(self, row: Sequence[float]) -> list[float]:
        return [value - mean for value, mean in zip(row, self._means, strict=True)]


def _is_among(planned: Planned, known: Sequence[Planned]) -> bool:
    """Return whether a build is within a factor of those that are known, and not of a new kind."""
    if planned.precision not in {each.precision for each in known}:
        return False
    columns = zip(*(_sizes(each) for each in known), strict=True)
    return all(
        min(sizes) / UNKNOWN_FACTOR <= size <= max(sizes) * UNKNOWN_FACTOR
        for size, sizes in zip(_sizes(planned), columns, strict=True)
    )


def _sizes(planned: Planned) -> tuple[int, int, int]:
    shape = planned.shape
    return 1 + shape.nodes, 1 + shape.weight_bytes, 1 + shape.model_bytes


def _conversion(precision: str) -> str:
    """Return what a model is converted to: the same for all that is compiled as it is."""
    return "model" if precision == "fp32" else precision


def _features(planned: Planned) -> list[float]:
    shape = planned.shape
    return [
        math.log(1 + shape.nodes),
        math.log(1 + shape.weight_bytes / 1e6),
        math.log(1 + shape.model_bytes / 1e6),
        float(planned.precision == "fp16"),
        float("int8" in planned.precision),
        float(planned.precision == "auto"),
        math.log(1 + planned.targets),
        math.log(1 + planned.profiles),
    ]


def _likeness(one: Planned, other: Planned) -> float:
    """Return how like two builds are: 1 for the same again, near 0 for strangers."""
    distance = 0.0
    if one.model_sha256 != other.model_sha256:
        pairs = (
            (one.shape.nodes, other.shape.nodes),
            (one.shape.weight_bytes, other.shape.weight_bytes),
            (one.shape.model_bytes, other.shape.model_bytes),
        )
        # A retrained model has the same sizes; one of a tenth more weights is like it, still.
        distance = 0.1 + sum((math.log((1 + a) / (1 + b)) / 0.3) ** 2 for a, b in pairs)
    # Conversion may take as long as compiling: what is known of the same precision counts most.
    distance += 1.5 * (one.precision != other.precision)
    distance += 0.2 * (one.targets != other.targets) + 0.2 * (one.profiles != other.profiles)
    return math.exp(-distance)


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    total = sum(weights) + SHRINKAGE
    return sum(w * value for w, value in zip(weights, values, strict=True)) / total


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _times(matrix: Sequence[Sequence[float]], vector: Sequence[float]) -> list[float]:
    return [_dot(row, vector) for row in matrix]


def _inverted(matrix: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return the inverse of a symmetric matrix that the ridge keeps far from singular."""
    size = len(matrix)
    work = [[*row, *(float(i == j) for j in range(size))] for i, row in enumerate(matrix)]
    for at in range(size):
        pivot = max(range(at, size), key=lambda row: abs(work[row][at]))
        work[at], work[pivot] = work[pivot], work[at]
        scale = work[at][at]
        work[at] = [value / scale for value in work[at]]
        for row in range(size):
            if row != at and (factor := work[row][at]):
                work[row] = [a - factor * b for a, b in zip(work[row], work[at], strict=True)]
    return [row[size:] for row in work]
