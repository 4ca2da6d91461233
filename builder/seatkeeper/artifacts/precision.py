"""In which precision an engine computes, and how it is seen that this does no harm.

Pure, as ``plan`` is: a value that exists is valid and normal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from seatkeeper.artifacts.errors import OptionInvalid, PrecisionUnsupported

TOLERANCE_DEFAULT = 0.01
"""Most relative L2 error of an output."""
TOLERANCE_MAX = 1.0
KEEP_MAX = 64
IMAGE_SIZE_MAX = 8_192
PATTERN_CHARS_MAX = 512
_IMAGE_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})", re.ASCII)
_SHA256_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Precision(StrEnum):
    """What a model is converted to before it is compiled."""

    MODEL = "model"
    """Nothing: the engine computes as the file says."""
    FP32 = "fp32"
    """Nothing, and the file must compute in 32 bits."""
    FP16 = "fp16"
    BF16 = "bf16"
    """16 bits with the range of 32."""
    INT8 = "int8"
    """Convolutions and matrix products with many weights in 8 bits, the rest in 32."""
    INT8_FP16 = "int8+fp16"
    """The same, the rest in 16."""
    FP8 = "fp8"
    """The same as ``INT8``, in floating point of 8 bits."""
    AUTO = "auto"
    """The first of ``AUTO_ORDER`` that the target has and that is accurate enough."""


AUTO_ORDER = (
    *(Precision.INT8_FP16, Precision.INT8, Precision.FP16, Precision.BF16, Precision.FP32),
)
"""The order in which they are tried: fewer bits first. How fast they are is not measured."""
CONVERTED = (
    *(Precision.FP16, Precision.BF16, Precision.INT8, Precision.INT8_FP16, Precision.FP8),
)
"""What this version converts to."""
UNCHECKED = frozenset({Precision.BF16})
"""What ONNX Runtime does not compute on a processor, so that accuracy cannot be measured."""
QUANTISED = frozenset({Precision.INT8, Precision.INT8_FP16, Precision.FP8})
"""What needs calibration data."""
_FIRST_SM: Mapping[Precision, int] = {Precision.BF16: 80, Precision.FP8: 89}
"""The first architecture that has it; those not named here are on all that TensorRT knows."""
_INT8_FIRST_SM = 75


class CalibrationMethod(StrEnum):
    """How the range of a value is found in what it takes during calibration."""

    MINMAX = "minmax"
    """All that was seen."""
    ENTROPY = "entropy"
    """The range whose histogram of 8 bits loses least of the whole one (Kullback-Leibler)."""
    PERCENTILE = "percentile"
    """All but 0.001 %."""


LOWEST_FIRST = ("int8", "fp16", "fp32")
"""Where rules for a node differ, the last of these holds."""


@dataclass(frozen=True, kw_only=True, order=True)
class KeepRule:
    """Nodes that stay in a higher precision; with ``int8``, that get 8 bits though they are small."""

    pattern: str
    """Of their names: ``*`` stands for any characters and ``?`` for one, all others for themselves."""
    precision: str = "fp32"

    def __post_init__(self) -> None:
        if self.precision not in LOWEST_FIRST:
            raise OptionInvalid(
                f"nodes are kept in fp32, fp16 or int8, not in {self.precision!r}"
            )
        if not 0 < len(self.pattern) <= PATTERN_CHARS_MAX or not self.pattern.isprintable():
            raise OptionInvalid(
                f"a pattern of nodes to keep has 1 to {PATTERN_CHARS_MAX} printable characters"
            )


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """How pictures become samples of a model's only input.

    A picture is resized to the given size as a whole, bilinearly. A channel's value is
    ``(pixel / 255 - mean) / std``, with the pixel from 0 to 255.
    """

    height: int
    width: int
    layout: str = "nchw"
    """``nchw`` or ``nhwc``."""
    order: str = "rgb"
    """``rgb``, ``bgr``, or ``grey`` for one channel."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Of each channel, in the order of the channels."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if not (1 <= self.height <= IMAGE_SIZE_MAX and 1 <= self.width <= IMAGE_SIZE_MAX):
            raise OptionInvalid(f"pictures are resized to 1 to {IMAGE_SIZE_MAX} each way")
        if self.layout not in {"nchw", "nhwc"}:
            raise OptionInvalid(f"a layout is nchw or nhwc, not {self.layout[:100]!r}")
        if self.order not in {"rgb", "bgr", "grey"}:
            raise OptionInvalid(f"channels are rgb, bgr or grey, not {self.order[:100]!r}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(set(values)) == 1:  # one for all
                values = values[:1] * self.channels
            if len(values) != self.channels:
                raise OptionInvalid(
                    f"{name} has {len(values)} values for {self.channels} channels"
                )
            if not all(map(math.isfinite, values)):
                raise OptionInvalid(f"{name} is not finite")
            object.__setattr__(self, name, values)
        if not all(self.std):
            raise OptionInvalid("std is 0 for a channel")

    @property
    def channels(self) -> int:
        """How many channels a sample has."""
        return 1 if self.order == "grey" else 3


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Inputs of a model, as a file that goes with it."""

    sha256: str = ""
    """Of the file's bytes; empty: none are given."""
    is_random: bool = False
    """Made of noise by the agent: good for trying, and proof of nothing."""
    images: ImageInput | None = None
    """What to make of the pictures in the file; None: it has arrays."""

    def __post_init__(self) -> None:
        if self.sha256 and not _SHA256_HEX.fullmatch(self.sha256):
            raise OptionInvalid("the hash of samples is not 64 lower-case hexadecimal digits")
        if self.sha256 and self.is_random:
            raise OptionInvalid("samples are either given or random")
        if self.images is not None and not self.sha256:
            raise OptionInvalid("there are no pictures to make samples of")

    @property
    def are_there(self) -> bool:
        """Whether there are any."""
        return bool(self.sha256) or self.is_random


NO_SAMPLES = Samples()


@dataclass(frozen=True, kw_only=True)
class PrecisionPlan:
    """What precision is wanted, and what must hold of the result. Part of an engine's key."""

    precision: Precision = Precision.MODEL
    calibration: Samples = NO_SAMPLES
    """What ranges are found with, for ``QUANTISED``."""
    method: CalibrationMethod = CalibrationMethod.MINMAX
    samples: Samples = NO_SAMPLES
    """What accuracy is measured with. None: a part of the calibration's, kept apart; or noise."""
    tolerance: float = TOLERANCE_DEFAULT
    """Most relative L2 error of each output against the model as it was."""
    keep: tuple[KeepRule, ...] = ()
    """Sorted, each once."""
    repair: bool = False
    """Whether nodes that cost too much accuracy are kept in a higher precision by themselves."""
    accept_unchecked: bool = False
    """Whether one of ``UNCHECKED`` may be taken."""

    def __post_init__(self) -> None:
        if not 0 < self.tolerance <= TOLERANCE_MAX:
            raise OptionInvalid(
                f"a tolerance of {self.tolerance:g} is not over 0 and up to {TOLERANCE_MAX:g}"
            )
        if len(self.keep) > KEEP_MAX:
            raise OptionInvalid(
                f"{len(self.keep)} patterns of nodes to keep are over {KEEP_MAX}"
            )
        object.__setattr__(self, "keep", tuple(sorted(set(self.keep))))
        if self.precision not in _FIRST_SM:
            self.check_needs()
        self._check_unchecked()
        is_measured = self.repair or self.calibration.are_there or self.samples.are_there
        asks_more = self.keep or self.accept_unchecked or is_measured
        if not self.is_conversion and asks_more:
            raise OptionInvalid(
                f"precision {self.precision} converts nothing, so there is nothing to calibrate, to "
                "measure or to keep: ask for another precision, such as auto"
            )
        kept_in_fp16 = any(rule.precision == Precision.FP16 for rule in self.keep)
        if kept_in_fp16 and self.precision not in {Precision.INT8_FP16, Precision.AUTO}:
            raise OptionInvalid(f"nothing can be kept in fp16 of a model in {self.precision}")
        kept_in_int8 = any(rule.precision == Precision.INT8 for rule in self.keep)
        if kept_in_int8 and self.precision not in {*QUANTISED, Precision.AUTO}:
            raise OptionInvalid(f"nothing can be kept in int8 of a model in {self.precision}")

    def check_needs(self) -> None:
        """Raise ``OptionInvalid`` or ``PrecisionUnsupported`` for what a precision cannot do without.

        Where some architectures do not have the precision at all, that is the better reason, so it is
        looked for first, with the targets.
        """
        if self.precision in QUANTISED and not self.calibration.are_there:
            raise OptionInvalid(
                f"{self.precision} needs calibration data: give samples of the model's inputs, or "
                "ask for random ones, whose engine is good for trying only"
            )
        if self.precision in UNCHECKED and not self.accept_unchecked:
            raise PrecisionUnsupported(
                f"ONNX Runtime cannot run {self.precision} on a processor, so its accuracy cannot "
                "be checked: accept that with --accept-unchecked (`accept_unchecked`)"
            )

    def _check_unchecked(self) -> None:
        if self.precision in UNCHECKED:
            if self.repair or self.calibration.are_there or self.samples.are_there:
                raise OptionInvalid(
                    f"the accuracy of {self.precision} is not measured, so samples and repairs are of "
                    "no use to it"
                )
        elif (
            self.accept_unchecked
            and self.is_conversion
            and self.precision is not Precision.AUTO
        ):
            raise OptionInvalid(
                f"the accuracy of {self.precision} is checked, so there is nothing unchecked to accept"
            )

    @property
    def is_conversion(self) -> bool:
        """Whether the model may be changed."""
        return self.precision not in {Precision.MODEL, Precision.FP32}

    @property
    def is_default(self) -> bool:
        """Whether nothing was asked for but the model as it is."""
        return self == AS_THE_MODEL_IS

    def is_offered(self, precisions: Iterable[str]) -> bool:
        """Return whether an agent that names these precisions can do it.

        One that names none is older, and compiles every model as it is.
        """
        known = frozenset(precisions)
        is_known = not self.accept_unchecked or known.issuperset(UNCHECKED)
        return self.is_default or (self.precision in known and is_known)

    def candidates(self, targets: Iterable[str]) -> tuple[Precision, ...]:
        """Return what is to be tried for these targets, in that order; at least one."""
        if self.precision is not Precision.AUTO:
            return (self.precision,)
        return tuple(
            precision
            for precision in AUTO_ORDER
            if (precision not in QUANTISED or self.calibration.are_there)
            and (precision not in UNCHECKED or self.accept_unchecked)
            and not lacking(precision, targets)
        )


AS_THE_MODEL_IS = PrecisionPlan()


def parse_precision(text: str) -> Precision:
    """Return the precision called that. Raises ``OptionInvalid``."""
    try:
        return Precision(text.strip().lower())
    except ValueError:
        known = ", ".join(Precision)
        raise OptionInvalid(
            f"no precision is called {text[:100]!r}; there are {known}"
        ) from None


def parse_keep(text: str) -> KeepRule:
    """Return the rule that ``text`` writes, such as ``fp32:/head/*``. Raises ``OptionInvalid``."""
    precision, colon, pattern = text.partition(":")
    if not colon:
        raise OptionInvalid(f"{text[:100]!r} is not PRECISION:PATTERN, such as fp32:/head/*")
    return KeepRule(pattern=pattern, precision=precision.strip().lower())


def parse_images(text: str) -> ImageInput:
    """Return what ``text`` says of pictures: ``224x224,nchw,rgb,mean=0.485:0.456:0.406,std=0.229``.

    The size, height first, comes first; the rest may be left out. Raises ``OptionInvalid``.
    """
    size, *rest = text.strip().split(",")
    match = _IMAGE_SIZE.fullmatch(size)
    if match is None:
        raise OptionInvalid(f"{size[:100]!r} is no size of pictures, such as 224x224")
    fields: dict[str, Any] = {"height": int(match[1]), "width": int(match[2])}
    for part in rest:
        name, equals, values = part.strip().partition("=")
        name = name.lower()
        if equals and name in {"mean", "std"}:
            try:
                fields[name] = tuple(map(float, values.split(":", 3)))
            except ValueError:
                raise OptionInvalid(
                    f"{part[:100]!r} is not {name}=NUMBER:NUMBER:NUMBER"
                ) from None
        elif name in {"nchw", "nhwc"} and not equals:
            fields["layout"] = name
        elif name in {"rgb", "bgr", "grey"} and not equals:
            fields["order"] = name
        else:
            raise OptionInvalid(
                f"{part[:100]!r} is none of nchw, nhwc, rgb, bgr, grey, mean=..., std=..."
            )
    return ImageInput(**fields)


def check_precision(wanted: PrecisionPlan, targets: Iterable[str]) -> None:
    """Raise ``PrecisionUnsupported`` where a target does not have it, and as ``check_needs`` does."""
    precision, targets = wanted.precision, tuple(targets)
    if lacks := lacking(precision, targets):
        first = _FIRST_SM[precision]
        raise PrecisionUnsupported(
            f"{precision} needs SM{first} or newer, which {', '.join(lacks)} is not"
        )
    wanted.check_needs()


def lacking(precision: Precision, targets: Iterable[str]) -> tuple[str, ...]:
    """Return those of ``targets`` that do not have a precision."""
    first = _FIRST_SM.get(precision, _INT8_FIRST_SM)
    return tuple(target for target in targets if int(target.removeprefix("SM")) < first)
