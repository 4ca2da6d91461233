"""What the options of trtexec mean to ``seatkeeper build``.

Each is *mapped* to an option of ours, *ignored* with a warning, because it changes nothing of the
engine or is done otherwise here, or *refused* by name, because leaving it out would give another
engine than the command line asks for. What is none of trtexec's goes on to ``build``.

Pure: words in, words out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from seatkeeper.artifacts.errors import OptionInvalid

MAPPED = (
    *(
        "onnx",
        "saveEngine",
        "fp16",
        "bf16",
        "int8",
        "fp8",
        "best",
        "stronglyTyped",
        "minShapes",
    ),
    *(
        "optShapes",
        "maxShapes",
        "shapes",
        "memPoolSize",
        "workspace",
        "builderOptimizationLevel",
    ),
    *("plugins", "dynamicPlugins", "versionCompatible", "vc", "hardwareCompatibilityLevel"),
    *("stripWeights", "stripAllWeights", "refit"),
)
IGNORED: Mapping[str, str] = {
    **dict.fromkeys(
        ("verbose", "dumpLayerInfo", "dumpProfile", "exportLayerInfo", "profilingVerbosity"),
        "engines are built with the library's usual detail, and the log is the agent's",
    ),
    **dict.fromkeys(
        (
            *(
                "iterations",
                "warmUp",
                "duration",
                "sleepTime",
                "idleTime",
                "streams",
                "infStreams",
            ),
            *(
                "useSpinWait",
                "threads",
                "useCudaGraph",
                "timeDeserialize",
                "timeRefit",
                "avgRuns",
            ),
            *("separateProfileRun", "percentile", "noDataTransfers", "exposeDMA", "loadInputs"),
            *("useManagedMemory", "dumpOutput", "dumpRawBindingsToFile", "exportTimes"),
            *(
                "exportOutput",
                "exportProfile",
                "useProfile",
                "persistentCacheRatio",
                "asyncFileReader",
            ),
            *("setOptProfile", "saveDebugTensors", "saveAllDebugTensors", "monitorMemory"),
        ),
        "the engine is built and not timed here",
    ),
    "skipInference": "nothing is timed here in any case",
    "avgTiming": "TensorRT-RTX times no tactics ahead of time",
    "timingCacheFile": "an agent keeps timing caches by itself, where the library honours them",
    "noBuilderCache": "an agent decides on its caches",
    "disableCompilationCache": "an agent decides on its caches",
    "buildOnly": "nothing is timed here in any case",
    "explicitBatch": "every model is built so",
    "noDataTransfer": "the engine is built and not timed here",
    "device": "the agent's host decides; --target names the GPU architecture",
    "tempdir": "an agent builds in an empty folder of its own",
    "tempfileControls": "an agent builds in an empty folder of its own",
}
"""By option, why it is left out."""
REFUSED: Mapping[str, str] = {
    "loadEngine": "it runs an engine; here one is built",
    "calib": (
        "a calibration cache is of the old calibrators, which TensorRT no longer has; give samples "
        "with --calibration FILE.npz"
    ),
    **dict.fromkeys(
        ("deploy", "model", "uff", "uffInput", "batch", "maxBatch"),
        "models of Caffe and UFF are no longer read; export to ONNX and give it with --onnx",
    ),
    "output": "it names a layer of a Caffe model; the engine's file is --saveEngine=FILE",
    **dict.fromkeys(
        ("precisionConstraints", "layerPrecisions", "layerOutputTypes", "layerDeviceTypes"),
        "networks are strongly typed now; keep nodes out of a precision with --keep fp32:PATTERN",
    ),
    **dict.fromkeys(
        ("inputIOFormats", "outputIOFormats", "directIO"),
        "inputs and outputs keep the types and layouts of the model",
    ),
    **dict.fromkeys(
        ("minShapesCalib", "optShapesCalib", "maxShapesCalib"),
        "calibration runs in the sizes of its samples",
    ),
    **dict.fromkeys(
        ("weightless", "allowWeightStreaming"),
        "engines whose weights are streamed later are not built; see --strip-weights",
    ),
    **dict.fromkeys(
        (*("leanDLLPath", "useRuntime", "excludeLeanRuntime", "runtimePlatform"),),
        "the agent does not choose runtimes; --version-compatible is for later versions",
    ),
    **dict.fromkeys(
        (
            *("staticPlugins", "setPluginsToSerialize"),
            *("ignoreParsedPluginLibs", "safetyPlugins", "pluginInstanceNorm"),
        ),
        "an agent loads only what its administrator lists; name it with --plugin",
    ),
    **dict.fromkeys(
        ("useDLACore", "allowGPUFallback", "safe", "consistency", "restricted"),
        "engines for DLA and for the safety runtime are not built",
    ),
    **dict.fromkeys(
        (
            *("sparsity", "noTF32", "tacticSources", "preview", "maxTactics", "maxAuxStreams"),
            *("tilingOptimizationLevel", "l2LimitForTiling", "errorOnTimingCacheMiss"),
            *("markDebug", "markUnfusedTensorsAsDebugTensors", "decomposableAttentions"),
            *("allocationStrategy", "weightStreamingBudget", "remoteAutoTuningConfig"),
        ),
        "the agent does not set this of the library yet",
    ),
    **dict.fromkeys(
        ("int4", "getPlanVersionOnly"),
        "this has no counterpart here",
    ),
}
"""By option, why it cannot be left out."""
_FEATURES: Mapping[str, str] = {
    "versionCompatible": "--version-compatible",
    "vc": "--version-compatible",
    "stripWeights": "--strip-weights",
    "stripAllWeights": "--strip-weights",
    "refit": "--refit",
}
_SWITCHES = frozenset({"fp16", "bf16", "int8", "fp8", "best", "stronglyTyped", *_FEATURES})
_REPEATED = frozenset({"plugins", "dynamicPlugins"})
_HARDWARE: Mapping[str, tuple[str, ...]] = {
    "none": (),
    "ampere+": ("--hardware-compatible",),
}
_ONCE = frozenset(
    {"--precision", "--profile", "--workspace", "--optimisation-level", "--output"}
)
"""Options of ours that trtexec has another word for."""
_LONG = {"-o": "--output"}
_UNITS = {"": 1 << 20, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
"""Of sizes: without a unit they are MiB."""


@dataclass(frozen=True)
class Translation:
    """A command line of ``build``."""

    words: list[str]
    """What stands behind ``seatkeeper build``."""
    warnings: list[str]
    """What was left out, and why."""
    saves: bool
    """Whether the engine is written to a file."""


@dataclass
class _Read:
    """What has been read of trtexec's words."""

    values: dict[str, str] = field(default_factory=dict)
    ours: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    plugins: list[str] = field(default_factory=list)


def translate(words: Sequence[str]) -> Translation:
    """Return the command line of ``build`` that does what trtexec's ``words`` ask for.

    Raises ``OptionInvalid`` for what cannot be done, naming the option and what to do instead.
    """
    read = _read(words)
    values = read.values
    if "onnx" not in values:
        raise OptionInvalid("--onnx=FILE is missing: the model to build")
    made = [values["onnx"], *_precision(values), *_profile(values), *_workspace(values)]
    made += dict.fromkeys(option for name, option in _FEATURES.items() if name in values)
    made += [*_hardware(values), *(f"--plugin={each}" for each in read.plugins)]
    if level := values.get("builderOptimizationLevel"):
        made += ["--optimisation-level", level]
    if to := values.get("saveEngine"):
        made += ["--output", to]
    _check_once(made, read.ours)
    return Translation([*made, *read.ours], read.warnings, saves="saveEngine" in values)


def _check_once(made: Sequence[str], ours: Sequence[str]) -> None:
    """Raise ``OptionInvalid`` where trtexec's words and ours ask for the same: one would not count."""
    asked = {_LONG.get(word, word.partition("=")[0]) for word in ours}
    for option in made[1:]:
        if option in asked and option in _ONCE:
            raise OptionInvalid(
                f"{option} is there, and an option of trtexec that means it: give one"
            )


def _read(words: Sequence[str]) -> _Read:
    read = _Read()
    rest = iter(words)
    for word in rest:
        name, equals, value = word.removeprefix("--").partition("=")
        is_known = name in {*MAPPED, *IGNORED, *REFUSED}
        if (
            not word.startswith("--") or not is_known or word == "--output"
        ):  # with a blank: ours
            read.ours.append(word)
        elif name in REFUSED:
            raise OptionInvalid(f"--{name} of trtexec: {REFUSED[name]}")
        elif name in IGNORED:
            read.warnings.append(f"--{name} is ignored: {IGNORED[name]}")
        elif name in _SWITCHES:
            if equals:
                raise OptionInvalid(f"--{name} of trtexec takes no value, and has {value!r}")
            read.values[name] = ""
        elif not value:
            raise OptionInvalid(f"--{name} of trtexec needs a value: --{name}=...")
        elif name in _REPEATED:
            read.plugins.append(value)
        elif name in read.values:
            raise OptionInvalid(f"--{name} of trtexec is there twice")
        else:
            read.values[name] = value
    return read


def _precision(values: Mapping[str, str]) -> list[str]:
    asked = [name for name in ("fp16", "bf16", "int8", "fp8") if name in values]
    if "stronglyTyped" in values and (asked or "best" in values):
        raise OptionInvalid(
            "--stronglyTyped of trtexec builds what the model says: name no precision"
        )
    if "best" in values:
        return ["--precision", "auto"]
    if not asked:
        return []
    precision = "+".join(sorted(asked, reverse=True)) if len(asked) > 1 else asked[0]
    if precision not in {"fp16", "bf16", "int8", "fp8", "int8+fp16"}:
        raise OptionInvalid(
            f"{' '.join(f'--{name}' for name in asked)} of trtexec: choose --int8 --fp16, or one "
            "alone, or --best for the first of these that is accurate enough"
        )
    return ["--precision", precision]


def _hardware(values: Mapping[str, str]) -> tuple[str, ...]:
    level = values.get("hardwareCompatibilityLevel", "none")
    if level.lower() not in _HARDWARE:
        raise OptionInvalid(
            f"--hardwareCompatibilityLevel of trtexec: {level[:100]!r} is not none or ampere+; name "
            "each GPU with --target"
        )
    return _HARDWARE[level.lower()]


def _profile(values: Mapping[str, str]) -> list[str]:
    """Return one profile. Where not all three sizes are given, those that are stand for the rest."""
    given = {kind: values.get(f"{kind}Shapes", "") for kind in ("min", "opt", "max")}
    if shapes := values.get("shapes"):
        if any(given.values()):
            raise OptionInvalid("--shapes of trtexec is for timing; give --optShapes alone")
        given = dict.fromkeys(given, shapes)
    if not any(given.values()):
        return []
    best = given["opt"] or given["max"] or given["min"]
    low, high = given["min"] or best, given["max"] or best
    read = [_shapes(text) for text in (low, best, high)]
    if not read[0].keys() == read[1].keys() == read[2].keys():
        raise OptionInvalid("--minShapes, --optShapes and --maxShapes name different inputs")
    sizes = (f"{name}={':'.join(each[name] for each in read)}" for name in read[1])
    return ["--profile", ",".join(sizes)]


def _shapes(text: str) -> dict[str, str]:
    shapes: dict[str, str] = {}
    for part in text.split(","):
        name, colon, sizes = part.rpartition(":")
        if not colon or not sizes:
            raise OptionInvalid(f"{part[:100]!r} is not INPUT:SIZES, such as input:1x3x224x224")
        shapes[name.strip("'\"")] = sizes
    return shapes


def _workspace(values: Mapping[str, str]) -> list[str]:
    sizes = set()
    if (mib := values.get("workspace")) is not None:
        sizes.add(_bytes("workspace", mib))
    for part in filter(None, values.get("memPoolSize", "").split(",")):
        pool, _, size = part.partition(":")
        if pool != "workspace":
            raise OptionInvalid(
                f"--memPoolSize of trtexec: pool {pool!r} is not set here, only workspace"
            )
        sizes.add(_bytes("memPoolSize", size))
    if len(sizes) > 1:
        raise OptionInvalid(
            "--workspace and --memPoolSize of trtexec name two sizes: give one of them"
        )
    return ["--workspace", str(sizes.pop())] if sizes else []


def _bytes(option: str, text: str) -> int:
    number, unit = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    try:
        size = float(number) * _UNITS[unit]
    except (KeyError, ValueError):
        raise OptionInvalid(f"--{option} of trtexec: {text[:100]!r} is no size") from None
    return round(size)
