"""What to make of a model, and the key under which the result is found.

Pure: standard library and messages only, so that the client's bare install can use it. A
``BuildPlan`` that exists is valid and normal: its constructor checks it once and puts it into
the one form that everything of equal meaning shares, so equal plans have equal keys.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass
from typing import Any

from seatkeeper.artifacts.errors import (
    BackendUnknown,
    OptionInvalid,
    ProfileInvalid,
    TargetUnsupported,
)
from seatkeeper.artifacts.features import Feature, normal_plugins
from seatkeeper.artifacts.precision import (
    AS_THE_MODEL_IS,
    CalibrationMethod,
    ImageInput,
    KeepRule,
    Precision,
    PrecisionPlan,
    Samples,
    check_precision,
    parse_precision,
)
from seatkeeper.v1 import build_pb2

PROFILES_MAX = 16
SHAPES_MAX = 64
RANK_MAX = 8
DIM_MAX = 2**31 - 1
VOLUME_MAX = 2**34
"""Most elements of one input: 64 GiB of FP32. TensorRT itself builds for 2^40 and more."""
NAME_CHARS_MAX = 512
QUOTE_CHARS_MAX = 100
"""How much of what is wrong is quoted in a message."""
WORKSPACE_BYTES_MAX = 2**48
OPTIMISATION_LEVEL_MAX = 5
OPTIMISATION_LEVEL_DEFAULT = 3
"""The default of both libraries."""

TARGETS: Mapping[str, tuple[str, ...]] = {
    "tensorrt_rtx": ("SM75", "SM80", "SM86", "SM89", "SM120", "SM121"),
    "tensorrt": (
        *("SM75", "SM80", "SM86", "SM87", "SM89", "SM90"),
        *("SM100", "SM103", "SM110", "SM120", "SM121"),
    ),
}
"""GPU architectures that each backend knows. An agent may have fewer."""

_KEY_FORMAT = "seatkeeper-engine-key-1"
_KEY_FORMAT_WITH_PRECISION = "seatkeeper-engine-key-2"
_KEY_FORMAT_WITH_CONVERSION = "seatkeeper-engine-key-3"
_SHA256_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TARGET = re.compile(r"(?:sm_?)?([0-9]{1,2})\.?([0-9])", re.ASCII | re.IGNORECASE)
_DIMS = re.compile(r"-?[0-9]{1,20}(x-?[0-9]{1,20})*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class ProfileShape:
    """The sizes of one input for which an engine is optimised."""

    input: str
    """Name of the model's input."""
    min: tuple[int, ...]
    """Smallest size of each dimension, all at least 1."""
    opt: tuple[int, ...]
    """The size to be fastest at."""
    max: tuple[int, ...]
    """Largest size of each dimension."""

    def __post_init__(self) -> None:
        _check_name(self.input)
        if not len(self.min) == len(self.opt) == len(self.max):
            raise ProfileInvalid(f"input {self.input!r}: min, opt and max differ in rank")
        if not 1 <= len(self.min) <= RANK_MAX:
            raise ProfileInvalid(
                f"input {self.input!r}: has {len(self.min)} dimensions, not 1 to {RANK_MAX}"
            )
        for axis, (low, best, high) in enumerate(
            zip(self.min, self.opt, self.max, strict=True)
        ):
            where = f"input {self.input!r}, dimension {axis}"
            if low < 1:
                raise ProfileInvalid(f"{where}: min {low} is less than 1")
            if low > best:
                raise ProfileInvalid(f"{where}: min {low} is greater than opt {best}")
            if best > high:
                raise ProfileInvalid(f"{where}: opt {best} is greater than max {high}")
            if high > DIM_MAX:
                raise ProfileInvalid(f"{where}: max {high} is greater than {DIM_MAX}")
        if math.prod(self.max) > VOLUME_MAX:
            raise ProfileInvalid(
                f"input {self.input!r}: max has {math.prod(self.max)} elements,"
                f" more than {VOLUME_MAX}"
            )


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One optimisation profile: a shape for every input whose size is not fixed."""

    shapes: tuple[ProfileShape, ...]
    """One an input, in the order of their names."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.shapes) <= SHAPES_MAX:
            raise ProfileInvalid(
                f"a profile has {len(self.shapes)} shapes, not 1 to {SHAPES_MAX}"
            )
        ordered = tuple(sorted(self.shapes, key=lambda shape: shape.input))
        for one, next_one in itertools.pairwise(ordered):
            if one.input == next_one.input:
                raise ProfileInvalid(f"input {one.input!r} is twice in one profile")
        object.__setattr__(self, "shapes", ordered)


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """What to make of a model. Equal plans and equal models share an engine."""

    backend: str
    """``tensorrt_rtx`` or ``tensorrt``."""
    targets: tuple[str, ...]
    """GPU architectures such as ``SM86``; at least one. Sorted, each once."""
    profiles: tuple[Profile, ...] = ()
    """At most 16, in the caller's order, because engines are used by a profile's number."""
    workspace_bytes: int | None = None
    """Most memory that a layer may use as scratch space. None: the backend's default."""
    optimisation_level: int = OPTIMISATION_LEVEL_DEFAULT
    """Effort from 0 to 5."""
    precision: PrecisionPlan = AS_THE_MODEL_IS
    """What the model is converted to before, and how that is checked."""
    features: frozenset[Feature] = frozenset()
    """What the engine can be beside fast."""
    plugins: tuple[str, ...] = ()
    """Hashes of the libraries that the model's own operators are in. Sorted, each once."""

    def __post_init__(self) -> None:
        if self.backend not in TARGETS:
            raise BackendUnknown(f"no backend is called {self.backend[:QUOTE_CHARS_MAX]!r}")
        object.__setattr__(self, "targets", _normal_targets(self.backend, self.targets))
        if len(self.profiles) > PROFILES_MAX:
            raise ProfileInvalid(f"{len(self.profiles)} profiles are more than {PROFILES_MAX}")
        workspace_bytes = self.workspace_bytes
        if workspace_bytes is not None and not 1 <= workspace_bytes <= WORKSPACE_BYTES_MAX:
            raise OptionInvalid(
                f"workspace of {workspace_bytes} bytes is not 1 to {WORKSPACE_BYTES_MAX}"
            )
        if not 0 <= self.optimisation_level <= OPTIMISATION_LEVEL_MAX:
            raise OptionInvalid(
                f"optimisation level {self.optimisation_level} is not 0 to"
                f" {OPTIMISATION_LEVEL_MAX}"
            )
        check_precision(self.precision, self.targets)
        object.__setattr__(self, "plugins", normal_plugins(self.plugins))

    @property
    def needs_features(self) -> bool:
        """Whether it asks for what an older agent does not know."""
        return bool(self.features or self.plugins)


def parse_profile(text: str) -> Profile:
    """Return the profile that ``text`` writes, such as ``input=1x3:8x3:32x3,mask=1x4:8x4:32x4``.

    One shape alone stands for all three. A name may contain ``=`` and ``:``, but no comma.
    Raises ``ProfileInvalid``, quoting the part that is wrong.
    """
    shapes = []
    for part in text.split(",", SHAPES_MAX):
        name, equals, sizes = part.rpartition("=")
        if not equals:
            raise ProfileInvalid(f"{part[:QUOTE_CHARS_MAX]!r} has no `=`")
        triple = [_parse_dims(size, part) for size in sizes.split(":", 3)]
        if len(triple) == 1:
            triple *= 3
        if len(triple) != 3:
            raise ProfileInvalid(f"{part[:QUOTE_CHARS_MAX]!r} has not one or three shapes")
        shapes.append(ProfileShape(input=name, min=triple[0], opt=triple[1], max=triple[2]))
    return Profile(shapes=tuple(shapes))


def format_profile(profile: Profile) -> str:
    """Return the text that ``parse_profile`` reads as ``profile``."""
    return ",".join(
        f"{shape.input}={':'.join('x'.join(map(str, dims)) for dims in _triple(shape))}"
        for shape in profile.shapes
    )


def plan_to_options(plan: BuildPlan) -> build_pb2.BuildOptions:
    """Return the plan as it goes over the wire and into a manifest."""
    options = build_pb2.BuildOptions(
        backend=plan.backend,
        targets=plan.targets,
        profiles=[
            build_pb2.Profile(
                shapes=[
                    build_pb2.ProfileShape(
                        input=shape.input, min=shape.min, opt=shape.opt, max=shape.max
                    )
                    for shape in profile.shapes
                ]
            )
            for profile in plan.profiles
        ],
        workspace_bytes=plan.workspace_bytes or 0,
        optimisation_level=plan.optimisation_level,
        plugins=plan.plugins,
    )
    for feature in plan.features:
        setattr(options, feature, True)
    if not plan.precision.is_default:
        options.precision.CopyFrom(_precision_to_options(plan.precision))
    return options


def plan_from_options(options: build_pb2.BuildOptions) -> BuildPlan:
    """Return the plan that a caller sent, checked and normal.

    Raises a ``PlanError`` for whatever a constructor would refuse.
    """
    return BuildPlan(
        backend=options.backend,
        targets=tuple(options.targets),
        profiles=tuple(
            Profile(
                shapes=tuple(
                    ProfileShape(
                        input=shape.input,
                        min=tuple(shape.min),
                        opt=tuple(shape.opt),
                        max=tuple(shape.max),
                    )
                    for shape in profile.shapes
                )
            )
            for profile in options.profiles
        ),
        workspace_bytes=options.workspace_bytes if options.workspace_bytes != 0 else None,
        optimisation_level=(
            options.optimisation_level
            if options.HasField("optimisation_level")
            else OPTIMISATION_LEVEL_DEFAULT
        ),
        precision=_precision_from_options(options.precision),
        features=frozenset(each for each in Feature if getattr(options, each)),
        plugins=tuple(options.plugins),
    )


def engine_key(
    model_sha256: str, plan: BuildPlan, backend_version: str, conversion: str = ""
) -> str:
    """Return the key of the engine that this backend version makes of this model.

    ``conversion`` is what converts the model, as ``BackendInfo`` has it: it counts only for plans
    that may change the model, and is empty for agents and clients that do not say.

    The key is the SHA-256, in lower-case hexadecimal, of an ASCII JSON list without spaces:
    format name, model's SHA-256, backend, its version, targets, profiles (each a list of
    ``[input, min, opt, max]``), workspace in bytes (zero: the default), optimisation level.
    A plan that asks for a precision has format 2 and, after these: precision, calibration and
    samples (each ``[hash, random, [height, width, layout, order, mean, std]]``, the last only of
    pictures), calibration method, tolerance, patterns to keep (each
    ``[pattern, precision]``), repair; and, last, ``accept_unchecked`` where it is set.
    A plan that asks for features or plugins has a list of both, each sorted, after these.
    A key with a conversion has format 3, and that at the end.
    It is of the inputs, never of the engine: building the same twice may differ in a few bytes.
    Raises ``OptionInvalid`` when ``model_sha256`` is no such hash or the version is empty.
    """
    if not _SHA256_HEX.fullmatch(model_sha256):
        raise OptionInvalid("the model's hash is not 64 lower-case hexadecimal digits")
    if not backend_version:
        raise OptionInvalid("the backend's version is empty")
    wanted = plan.precision
    conversion = conversion if wanted.is_conversion else ""
    older_format = _KEY_FORMAT if wanted.is_default else _KEY_FORMAT_WITH_PRECISION
    canonical = [
        _KEY_FORMAT_WITH_CONVERSION if conversion else older_format,
        model_sha256,
        plan.backend,
        backend_version,
        plan.targets,
        [
            [[shape.input, *_triple(shape)] for shape in profile.shapes]
            for profile in plan.profiles
        ],
        plan.workspace_bytes or 0,
        plan.optimisation_level,
    ]
    if not wanted.is_default:
        canonical += [
            wanted.precision,
            *(_canonical_samples(each) for each in (wanted.calibration, wanted.samples)),
            wanted.method,
            wanted.tolerance,
            [[rule.pattern, rule.precision] for rule in wanted.keep],
            wanted.repair,
        ]
    if wanted.accept_unchecked:
        canonical.append("accept_unchecked")
    if plan.needs_features:
        canonical.append([sorted(plan.features), plan.plugins])
    if conversion:
        canonical.append(conversion)
    text = json.dumps(canonical, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _canonical_samples(samples: Samples) -> list[Any]:
    images = samples.images
    of_images = [] if images is None else [list(astuple(images))]
    return [samples.sha256, samples.is_random, *of_images]


def _precision_to_options(wanted: PrecisionPlan) -> build_pb2.PrecisionOptions:
    options = build_pb2.PrecisionOptions(
        precision=wanted.precision,
        calibration_method=wanted.method,
        tolerance=wanted.tolerance,
        keep=[
            build_pb2.KeepRule(pattern=rule.pattern, precision=rule.precision)
            for rule in wanted.keep
        ],
        repair=wanted.repair,
        accept_unchecked=wanted.accept_unchecked,
    )
    for field, samples in ("calibration", wanted.calibration), ("samples", wanted.samples):
        if samples.are_there:
            message = build_pb2.Samples(sha256=samples.sha256, random=samples.is_random)
            if (images := samples.images) is not None:
                message.images.CopyFrom(build_pb2.ImageInput(**asdict(images)))
            getattr(options, field).CopyFrom(message)
    return options


def _precision_from_options(options: build_pb2.PrecisionOptions) -> PrecisionPlan:
    if not options.precision:
        return AS_THE_MODEL_IS
    try:
        method = CalibrationMethod(options.calibration_method or CalibrationMethod.MINMAX)
    except ValueError:
        known = ", ".join(CalibrationMethod)
        said = options.calibration_method[:QUOTE_CHARS_MAX]
        raise OptionInvalid(
            f"no calibration method is called {said!r}; there are {known}"
        ) from None
    return PrecisionPlan(
        precision=parse_precision(options.precision),
        calibration=_samples(options.calibration),
        method=method,
        samples=_samples(options.samples),
        tolerance=options.tolerance or AS_THE_MODEL_IS.tolerance,
        keep=tuple(
            KeepRule(pattern=rule.pattern, precision=rule.precision or Precision.FP32)
            for rule in options.keep
        ),
        repair=options.repair,
        accept_unchecked=options.accept_unchecked,
    )


def _samples(message: build_pb2.Samples) -> Samples:
    images = None
    if message.HasField("images"):
        said = message.images
        images = ImageInput(
            height=said.height,
            width=said.width,
            layout=said.layout or "nchw",
            order=said.order or "rgb",
            mean=tuple(said.mean) or (0.0,),
            std=tuple(said.std) or (1.0,),
        )
    return Samples(sha256=message.sha256, is_random=message.random, images=images)


def canonical_target(target: str, available: Iterable[str]) -> str:
    """Return the one of ``available`` that is meant by ``sm86``, ``sm_86``, ``86`` or ``8.6``.

    What means none of them is returned as it is, so that it can be refused as it was written.
    """
    match = _TARGET.fullmatch(target.strip())
    meant = f"SM{match[1]}{match[2]}" if match else target
    return meant if meant in available else target


def check_targets(targets: Iterable[str], available: Iterable[str]) -> None:
    """Raise ``TargetUnsupported`` for a target that is not among the ``available`` ones."""
    known = tuple(available)
    for target in targets:
        if target not in known:
            raise TargetUnsupported(
                f"target {target[:QUOTE_CHARS_MAX]!r} is not one of {', '.join(known) or 'none'}"
            )


def _triple(shape: ProfileShape) -> tuple[tuple[int, ...], ...]:
    return (shape.min, shape.opt, shape.max)


def _normal_targets(backend: str, targets: tuple[str, ...]) -> tuple[str, ...]:
    if not targets:
        raise TargetUnsupported(
            f"no target is named: say --target (`targets`), of {', '.join(TARGETS[backend])}"
        )
    targets = tuple(canonical_target(target, TARGETS[backend]) for target in targets)
    check_targets(targets, TARGETS[backend])
    unique = tuple(sorted(set(targets), key=TARGETS[backend].index))
    if backend == "tensorrt" and len(unique) > 1:
        raise TargetUnsupported(
            "tensorrt compiles for one target at a time: its own host's GPU"
        )
    return unique


def _check_name(name: str) -> None:
    if not name:
        raise ProfileInvalid("an input's name is empty")
    if len(name) > NAME_CHARS_MAX:
        raise ProfileInvalid(f"an input's name is longer than {NAME_CHARS_MAX} characters")
    if not name.isprintable():
        raise ProfileInvalid(f"input {name!r}: the name has characters that cannot be printed")


def _parse_dims(text: str, part: str) -> tuple[int, ...]:
    if not _DIMS.fullmatch(text):
        raise ProfileInvalid(
            f"{part[:QUOTE_CHARS_MAX]!r}: {text[:QUOTE_CHARS_MAX]!r} is not sizes joined by `x`"
        )
    return tuple(map(int, text.split("x")))
