"""From a model as it was to the one that is compiled: converted, and shown to be accurate.

Theory of operation
-------------------
``Conversion`` reads the samples and runs the model once on those that accuracy is measured with. Each
precision of the plan is then a sequence of steps, and the result of the last is compared with what the
model computed. What is not accurate enough is refused, with the nodes to blame; with ``repair`` those
are kept in a higher precision until it is.

Blame. The nodes that were converted, in the order in which they run, are cut into groups. Each group is
converted alone, and the error that it makes by itself is measured. Groups that do most harm come first.
Repair looks by halving for the fewest of them that must be kept, which are four or five models more.
``auto`` does so for fp16 unasked, up to half of the nodes: otherwise only the model as it was is left.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import ModelProto

from seatkeeper.artifacts.errors import (
    AccuracyTooLow,
    ConversionFailed,
    ModelError,
    SamplesInvalid,
)
from seatkeeper.artifacts.plan import BuildPlan
from seatkeeper.artifacts.precision import QUANTISED, UNCHECKED, Precision
from seatkeeper.artifacts.precision_report import (
    OutputAccuracy,
    PrecisionReport,
    PrecisionShare,
    worst,
)
from seatkeeper.artifacts.summary import ModelSummary
from seatkeeper.builder.conversion.accuracy import Reference
from seatkeeper.builder.conversion.apart import Apart
from seatkeeper.builder.conversion.brain_float import BrainFloat
from seatkeeper.builder.conversion.clean import Clean
from seatkeeper.builder.conversion.float8 import Float8
from seatkeeper.builder.conversion.half import FP16_MAX, Half
from seatkeeper.builder.conversion.libraries import first_line
from seatkeeper.builder.conversion.magnitudes import beyond
from seatkeeper.builder.conversion.naming import elsewhere, in_eight_bits, matching, named
from seatkeeper.builder.conversion.quantise import (
    FEW_WEIGHTS,
    Quantise,
    quantisable,
    with_few_weights,
)
from seatkeeper.builder.conversion.regular import AsTheyAre
from seatkeeper.builder.conversion.samples import (
    Feeds,
    check_variety,
    held_out,
    random_samples,
    read_samples,
)
from seatkeeper.builder.conversion.scopes import put_in_order
from seatkeeper.builder.conversion.shares import shares
from seatkeeper.builder.conversion.step import BuildStep

GROUPS_MAX = 16
"""Groups of nodes that blame is divided among: most models that are converted to find it."""
NAMED_MAX = 5
"""Nodes to blame that a message names."""
FEW_WEIGHTS_AT_MOST = 1 << 16
"""Nodes with fewer weights are not quantised either where accuracy is too low otherwise."""
HALVED = frozenset({Precision.FP16, Precision.BF16})
"""Where what is kept is in 32 bits, since there is nothing between."""
EIGHT_BITS = frozenset({"int8", "fp8"})
LOWER = frozenset({"fp16", "bf16", "int8", "fp8", "int4"})
SEED = 20261129
SAMPLES_MIN = 2
"""Fewest samples that calibration and accuracy can share."""
OnStep = Callable[[str], None]
"""Is called with what is done next."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A model that may be compiled."""

    model: ModelProto
    precision: Precision
    shares: tuple[PrecisionShare, ...]
    errors: tuple[OutputAccuracy, ...] = ()
    """Empty: nothing was converted, so there is nothing to compare."""
    kept: tuple[str, ...] = ()
    """Nodes that stayed in a higher precision, but for those that have too few weights for 8 bits."""
    is_unchecked: bool = False
    """Whether it is converted, and cannot be compared."""


@dataclass(frozen=True)
class SampleFiles:
    """Where the samples of a plan are; None: there are none, or they are random."""

    calibration: Path | None = None
    accuracy: Path | None = None
    ranges: Path | None = None
    """Folder of the ranges that calibration finds, and found before; None: they are not kept."""


def unconverted(model: ModelProto, precision: Precision) -> PrecisionReport:
    """Return what is to be known of a model that is compiled as it is.

    Raises ``ConversionFailed`` when it is to be in ``fp32`` and is not.
    """
    found = shares(model)
    lower = [share for share in found if share.precision in LOWER and share.nodes]
    if precision is Precision.FP32 and lower:
        raise ConversionFailed(
            f"{lower[0].nodes} nodes of the model compute in {lower[0].precision} already; build it "
            "with precision `model`"
        )
    return PrecisionReport(precision=precision, shares=found)


def _check(model: ModelProto, precision: Precision) -> None:
    """Raise ``ConversionFailed`` for a model that is none. Those that are compared are run."""
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # it raises what its C++ throws
        raise ConversionFailed(
            f"it cannot be converted to {precision}: {first_line(error)}"
        ) from error


def _samples(
    summary: ModelSummary, plan: BuildPlan, files: SampleFiles
) -> tuple[Sequence[Feeds], Sequence[Feeds]]:
    """Return what to calibrate with, and what to measure accuracy with."""
    inputs, wanted = summary.inputs, plan.precision
    calibration: Sequence[Feeds] = ()
    if files.calibration is not None:
        calibration = read_samples(files.calibration, inputs, wanted.calibration.images)
    elif wanted.calibration.is_random:
        calibration = random_samples(inputs, plan.profiles, SEED)
    if files.calibration is not None:
        if files.accuracy is None and len(calibration) < SAMPLES_MIN:
            raise SamplesInvalid(
                f"{len(calibration)} sample is too few: one is calibrated with, and accuracy is "
                "measured with another; give some hundreds, or others to measure with"
            )
        check_variety(calibration)
    if files.accuracy is not None:
        return calibration, read_samples(files.accuracy, inputs, wanted.samples.images)
    if files.calibration is not None:
        return held_out(calibration)
    return calibration, random_samples(inputs, plan.profiles, SEED)


@dataclass
class Conversion:
    """Converts one model. Run it where a crash is harmless."""

    plan: BuildPlan
    folder: Path
    """For the libraries' files."""
    on_step: OnStep
    _original: ModelProto
    _clean: ModelProto
    _reference: Reference
    _calibration: Sequence[Feeds]
    is_proven: bool
    """Whether accuracy is measured with samples that were given."""
    _ranges: Path | None = None
    """Folder of the ranges that were found."""
    refused: list[str] = field(default_factory=list)
    """Precisions that were tried in vain, and why."""
    _large: frozenset[str] | None = None
    """Nodes that meet numbers which FP16 does not hold; None: not looked for yet."""

    @classmethod
    def of(
        cls,
        model: ModelProto,
        summary: ModelSummary,
        plan: BuildPlan,
        files: SampleFiles,
        folder: Path,
        on_step: OnStep,
    ) -> Conversion:
        """Read the samples and run the model on them. Raises a ``PlanError`` or a ``ModelError``."""
        calibration, measured = _samples(summary, plan, files)
        if plan.precision.precision in UNCHECKED:
            reference, cleaning = Reference(()), Clean()
        else:
            on_step("running the model on samples")
            reference = Reference.of(model, measured)
            cleaning = Clean(reference.is_same)
        on_step(Clean.name)
        clean = named(cleaning.apply(copy.deepcopy(model)))
        is_proven = files.calibration is not None or files.accuracy is not None
        return cls(
            plan, folder, on_step, model, clean, reference, calibration, is_proven, files.ranges
        )

    def results(self) -> Iterator[Converted]:
        """Yield what may be compiled, the best first: of ``auto`` there may be several.

        Raises the last reason where there is nothing at all.
        """
        trouble: Exception | None = None
        found = False
        for precision in self.plan.precision.candidates(self.plan.targets):
            try:
                converted = self.converted(precision)
            except (AccuracyTooLow, ConversionFailed) as error:
                trouble = error
                self.refused.append(f"{precision}: {error.message}")
                continue
            found = True
            yield converted
        if not found and trouble is not None:
            raise trouble

    def refuse(self, precision: Precision, error: ModelError) -> bool:
        """Note that the compiler refused a precision; return whether another may be tried."""
        self.refused.append(f"{precision}: {error.message}")
        return precision is not self.plan.precision.candidates(self.plan.targets)[-1]

    def report(self, converted: Converted) -> PrecisionReport:
        """Return what is to be known of one of the results."""
        return PrecisionReport(
            precision=converted.precision,
            shares=converted.shares,
            outputs=converted.errors,
            samples=len(self._reference.samples),
            is_proven=self.is_proven,
            refused=tuple(self.refused),
            kept=converted.kept,
            is_unchecked=converted.is_unchecked,
        )

    def converted(self, precision: Precision) -> Converted:
        """Return the model in one precision. Raises ``AccuracyTooLow`` or ``ConversionFailed``."""
        if precision is Precision.FP32:
            return self._as_it_is()
        keep = self._kept(precision)
        small = self._small(precision, keep)
        if precision in UNCHECKED:
            model = self._made(precision, keep)
            _check(model, precision)
            found, kept = shares(model), tuple(sorted(keep))
            return Converted(
                model=model, precision=precision, shares=found, kept=kept, is_unchecked=True
            )
        model, errors = self._tried(precision, keep | small)
        if not self._is_within(errors) and self._too_large(precision) - keep - small:
            # What 16 bits do not hold on these samples stays in 32.
            keep |= self._too_large(precision)
            small = self._small(precision, keep)
            model, errors = self._tried(precision, keep | small)
        few = self._small(precision, keep, FEW_WEIGHTS_AT_MOST) - small
        if not self._is_within(errors) and few:
            # Most of what 8 bits save is in nodes with many weights, and the least error.
            keep |= few
            model, errors = self._tried(precision, keep | small)
        if not self._is_within(errors):
            model, errors, keep = self._repaired(precision, keep | small, errors)
        found = shares(model)
        if precision in QUANTISED and not any(
            s.nodes for s in found if s.precision in EIGHT_BITS
        ):
            raise ConversionFailed(
                f"none of its nodes can be converted to {precision}: the types of their inputs are "
                "not known"
            )
        return Converted(
            model=model,
            precision=precision,
            shares=found,
            errors=errors,
            kept=tuple(sorted(keep - small)),
        )

    def _as_it_is(self) -> Converted:
        """Return the model as it was: in 32 bits, or quantised already."""
        found = shares(self._original)
        is_lower = any(share.precision in LOWER for share in found)
        precision = Precision.MODEL if is_lower else Precision.FP32
        return Converted(model=self._original, precision=precision, shares=found)

    def _rules(self) -> dict[str, str]:
        """Return in which precision nodes are to be kept. Raises ``OptionInvalid``."""
        others = elsewhere(self._original, self._clean)
        return matching(self._clean.graph.node, self.plan.precision.keep, others)

    def _kept(self, precision: Precision) -> frozenset[str]:
        """Return the nodes that the plan's rules keep out of a precision."""
        rules = self._rules()
        return frozenset(
            name
            for name, kind in rules.items()
            if kind == Precision.FP32 or (kind == Precision.FP16 and precision not in HALVED)
        )

    def _small(
        self, precision: Precision, kept: Collection[str], least: int = FEW_WEIGHTS
    ) -> frozenset[str]:
        """Return which other nodes are not worth 8 bits, but for those that rules put there."""
        if precision not in QUANTISED:
            return frozenset()
        ruled = in_eight_bits(
            self._clean.graph.node, quantisable(self._clean), self.plan.precision.keep
        )
        return with_few_weights(self._clean, least, kept) - ruled

    def _tried(
        self, precision: Precision, keep: Collection[str]
    ) -> tuple[ModelProto, tuple[OutputAccuracy, ...]]:
        model = self._made(precision, keep)
        self.on_step("comparing")
        return model, self._reference.compare(model)

    def _made(self, precision: Precision, keep: Collection[str]) -> ModelProto:
        model = copy.deepcopy(self._clean)
        apart = AsTheyAre.out_of(model.graph)
        for step in self._steps(precision, keep):
            self.on_step(step.name)
            model = step.apply(model)
        apart.put_back(model.graph)
        put_in_order(model.graph)
        return model

    def _steps(self, precision: Precision, keep: Collection[str]) -> list[BuildStep]:
        in_fp32 = self._in_fp32(precision) & {*keep}
        half = Half(in_fp32)
        if precision is Precision.FP16:
            return [half]
        if precision is Precision.BF16:
            return [BrainFloat(in_fp32)]
        is_half = precision is Precision.INT8_FP16
        steps: list[BuildStep] = [half, Apart(keep)] if is_half else [Apart(keep)]
        ranges = self._ranges_of(sorted(in_fp32) if is_half else None)
        method = self.plan.precision.method
        to = "fp8" if precision is Precision.FP8 else "int8"
        quantise = Quantise(
            self._calibration, self.folder, method=method, keep=keep, ranges=ranges, to=to
        )
        return [*steps, Float8(quantise) if precision is Precision.FP8 else quantise]

    def _ranges_of(self, kept_in_fp32: Sequence[str] | None) -> Path | None:
        """Return where the ranges of a model are: of one in 16 bits but for these nodes; None: in 32.

        They do not follow from the nodes that are quantised, so all tries of a repair have the same.
        """
        if self._ranges is None:
            return None
        digest = hashlib.sha256(json.dumps(kept_in_fp32).encode()).hexdigest()
        return self._ranges / f"{digest[:16]}.json"

    def _in_fp32(self, precision: Precision) -> set[str]:
        """Return the nodes that are in 32 bits if they are kept: in FP16, all of them."""
        if precision in HALVED:
            return {node.name for node in self._clean.graph.node}
        rules = self._rules()
        in_fp32 = {name for name, kind in rules.items() if kind == Precision.FP32}
        return in_fp32 | self._too_large(precision)

    def _too_large(self, precision: Precision) -> frozenset[str]:
        """Return the nodes that meet numbers on the samples which FP16 does not hold, or only just."""
        if precision not in {Precision.FP16, Precision.INT8_FP16}:
            return frozenset()
        if self._large is None:
            self.on_step("looking for large numbers")
            self._large = beyond(self._clean, self._reference.samples, FP16_MAX / 2)
        return self._large

    def _is_within(self, errors: Sequence[OutputAccuracy]) -> bool:
        return worst(errors).is_within(self.plan.precision.tolerance)

    # What is to blame --------------------------------------------------------------------------

    def _repaired(
        self, precision: Precision, keep: frozenset[str], errors: tuple[OutputAccuracy, ...]
    ) -> tuple[ModelProto, tuple[OutputAccuracy, ...], frozenset[str]]:
        wanted = self.plan.precision
        is_auto = wanted.precision is Precision.AUTO
        is_last = is_auto and precision is Precision.FP16  # after it nothing would be gained
        if not wanted.repair and is_auto and not is_last:
            raise AccuracyTooLow(self._complaint(precision, errors))  # the next one is tried
        groups = self._by_harm(precision, keep)
        if not wanted.repair and not is_last:
            raise AccuracyTooLow(self._complaint(precision, errors, groups))
        best: tuple[ModelProto, tuple[OutputAccuracy, ...], frozenset[str]] | None = None
        # Keeping all of them would convert nothing; unasked, no more than half are.
        low, high = 1, len(groups) - 1 if wanted.repair else len(groups) // 2
        while low <= high:
            count = (low + high) // 2
            kept = keep.union(*groups[:count])
            model, tried = self._tried(precision, kept)
            if worst(tried).is_within(wanted.tolerance):
                best, high = (model, tried, kept), count - 1
            else:
                low = count + 1
        if best is None:
            raise AccuracyTooLow(self._complaint(precision, errors, groups))
        return best

    def _convertible(self, precision: Precision) -> list[str]:
        """Return the nodes that a precision converts, in the order in which they run."""
        if precision in QUANTISED:
            return quantisable(self._clean)
        # Also those without weights: it is sums and powers that 16 bits do not hold.
        return [node.name for node in self._clean.graph.node if node.op_type != "Constant"]

    def _by_harm(self, precision: Precision, keep: frozenset[str]) -> list[list[str]]:
        """Return groups of nodes, those that do most harm by themselves first."""
        nodes = [name for name in self._convertible(precision) if name not in keep]
        size = math.ceil(len(nodes) / GROUPS_MAX) or 1
        groups = [nodes[start : start + size] for start in range(0, len(nodes), size)]
        harm: list[tuple[float, int]] = []
        for number, group in enumerate(groups):
            others = keep.union(*(each for each in groups if each is not group))
            _, errors = self._tried(precision, others)
            error = worst(errors).relative_l2
            harm.append((math.inf if math.isnan(error) else error, number))
        return [groups[number] for _, number in sorted(harm, key=lambda h: (-h[0], h[1]))]

    def _complaint(
        self,
        precision: Precision,
        errors: Sequence[OutputAccuracy],
        groups: Sequence[Sequence[str]] = (),
    ) -> str:
        error = worst(errors)
        what = (
            "has NaN or infinity"
            if math.isnan(error.relative_l2)
            else f"differs by {error.relative_l2:.2%}"
        )
        blamed = ", ".join(map(repr, groups[0][:NAMED_MAX])) if groups else ""
        how = (
            "on samples of noise"
            if not self.is_proven
            else f"on {len(self._reference.samples)} samples"
        )
        large = sorted(self._too_large(precision))
        met = f"; over what 16 bits hold go {', '.join(map(repr, large[:NAMED_MAX]))}"
        return (
            f"in {precision}, output {error.output!r} {what} {how}, and"
            f" {self.plan.precision.tolerance:.2%} is tolerated"
            + (f"; most harm is done by {blamed}" if blamed else "")
            + (met if large else "")
        )
