"""TensorRT and TensorRT-RTX: one class, two libraries.

The two modules have the same calls. TensorRT-RTX compiles ahead of time for architectures that
it is given, on a host without a GPU; TensorRT compiles for the GPU of its host, and its config
has no compute capabilities. What differs is asked of the module (``hasattr``), never its version.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from seatkeeper.artifacts.errors import (
    BackendMissing,
    BuildError,
    CompilerRefused,
    EngineDamaged,
    FeatureUnsupported,
    InputUnsupported,
    ModelInvalid,
    OperatorUnsupported,
    OutOfMemory,
)
from seatkeeper.artifacts.features import Feature
from seatkeeper.artifacts.plan import TARGETS, BuildPlan, check_targets
from seatkeeper.builder.backends._dimensions import Place, contradicted, without_names
from seatkeeper.builder.backends._driver import host_targets
from seatkeeper.builder.backends._tensorrt_listeners import (
    ErrorLog,
    about_model,
    make_logger,
    make_progress_monitor,
)
from seatkeeper.builder.backends._untyped import Untyped
from seatkeeper.builder.progress import BUILDING, PARSING, OnProgress, Progress

PARSER_ERRORS_MAX = 20
TIMINGS_NAME = "timings"
LAYERS_LOOKED_AT_MAX = 100_000
_ASSERTION = re.compile(
    r"Internal Error \(Assertion (.{1,200}?) failed.{1,300}? at (\S{1,200}?:[0-9]+)"
)
_OF_CONTROL_FLOW = frozenset(
    {"CONDITION", "CONDITIONAL_INPUT", "CONDITIONAL_OUTPUT", "TRIP_LIMIT"}
)

_OUT_OF_MEMORY_WORDS = (
    *("bad_alloc", "out of memory", "outofmemory", "failed to allocate"),
    "resource temporarily unavailable",  # no memory for another thread's stack
)
_RTX_MAGIC = b"vtrt"
_RTX_HEADER_BYTES = 28


def bindings(backend: str) -> Untyped:
    """Return the module of a backend. Raises ``BackendMissing``."""
    if backend != "tensorrt_rtx":
        return _import_or_explain("tensorrt", "pip install tensorrt")
    try:
        # Importing the first loads the native libraries that the second links against.
        importlib.import_module("onnxruntime_ep_nv_tensorrt_rtx")
        return importlib.import_module("tensorrt_rtx_bindings")
    except (ImportError, OSError):
        install = "pip install '.[tensorrt-rtx]' in a checkout"
        return _import_or_explain("tensorrt_rtx", install)


def load_tensorrt_rtx() -> TensorRtBackend:
    """Load TensorRT-RTX, whichever of its two packagings is installed."""
    return TensorRtBackend("tensorrt_rtx", bindings("tensorrt_rtx"))


def load_tensorrt() -> TensorRtBackend:
    """Load TensorRT, which needs a GPU host."""
    return TensorRtBackend("tensorrt", bindings("tensorrt"))


def check_rtx_engine(engine: bytes | memoryview) -> None:
    """Raise ``EngineDamaged`` unless the header is a TensorRT-RTX engine's of this size.

    Observed, not documented: ``vtrt`` at 0, the size in bytes as 64 bits at 16.
    """
    if len(engine) < _RTX_HEADER_BYTES or engine[:4] != _RTX_MAGIC:
        raise EngineDamaged(f"{len(engine)} bytes without an engine's header")
    if (size_bytes := int.from_bytes(engine[16:24], "little")) != len(engine):
        raise EngineDamaged(f"the engine has {len(engine)} bytes, its header says {size_bytes}")


class TensorRtBackend:
    """A ``Backend`` on the module ``tensorrt`` or ``tensorrt_rtx_bindings``."""

    def __init__(self, name: str, module: Untyped) -> None:
        self.name = name
        self.version = str(module.__version__)
        self._module = module
        self._plugins: tuple[Path, ...] = ()
        self._timings: Path | None = None
        self._compiles_ahead = hasattr(module.IBuilderConfig, "set_compute_capability")
        if self._compiles_ahead:
            known = module.ComputeCapability.__members__
            self.targets = tuple(target for target in TARGETS[name] if target in known)
        else:
            self.targets = tuple(target for target in TARGETS[name] if target in host_targets())

    @property
    def features(self) -> Mapping[str, str]:
        """Keep the promise of ``Backend.features``."""
        has_gpu = bool(host_targets())
        return {
            feature: _lack(self.name, feature, has_gpu=has_gpu, ahead=self._compiles_ahead)
            for feature in Feature
        }

    @property
    def module(self) -> Untyped:
        """The library's module."""
        return self._module

    def load_plugins(self, paths: Sequence[Path]) -> None:
        """Have all that is compiled from now on use these libraries."""
        self._plugins = tuple(paths)

    def use_timings(self, folder: Path) -> None:
        """Keep the promise of ``Backend.use_timings``."""
        # One that compiles ahead of time times nothing, and warns of a cache.
        if not self._compiles_ahead:
            self._timings = folder / TIMINGS_NAME

    def compile(self, model: Path, plan: BuildPlan, on_progress: OnProgress) -> memoryview:
        """Keep the promise of ``Backend.compile``."""
        check_targets(plan.targets, self.targets)
        log = ErrorLog()
        builder = self._module.Builder(make_logger(self._module, log))
        _load_plugins(builder, self._plugins, log)
        on_progress(Progress(phase=PARSING))
        # The parser must outlive the build: the network's weights are its.
        network, _parser = self._parsed(builder, model, log)
        if names := contradicted(_names_of_sizes(network), plan.profiles):
            renamed = _place_beside(model)
            renamed.write_bytes(without_names(model.read_bytes(), names))
            network, _parser = self._parsed(builder, renamed, log)
        config = self._config(builder, plan)
        if self._timings is not None:
            _begin_with_timings(config, self._timings)
        config.progress_monitor = make_progress_monitor(self._module, on_progress)
        on_progress(Progress(phase=BUILDING))
        serialised = builder.build_serialized_network(network, config)
        if serialised is None:
            raise self._build_error(log, network)
        if self._timings is not None:
            _leave_timings(config, self._timings)
        # The library's own memory, not a copy: an engine can be as large as its model.
        engine = memoryview(serialised).cast("B")
        if self._compiles_ahead:
            check_rtx_engine(engine)
        return engine

    def _parsed(self, builder: Untyped, model: Path, log: ErrorLog) -> tuple[Untyped, Untyped]:
        """Return the network of a model, and the parser that holds its weights."""
        network = builder.create_network(self._network_flags())
        parser = self._module.OnnxParser(network, builder.logger)
        if not parser.parse_from_file(str(model)):
            raise self._parse_error(parser, log)
        self._check_network(network)
        return network, parser

    def _network_flags(self) -> int:
        # Since 11 every network is strongly typed, and the flag is on its way out.
        if self._compiles_ahead or int(self.version.split(".")[0]) >= 11:
            return 0
        return 1 << int(self._module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)

    def _config(self, builder: Untyped, plan: BuildPlan) -> Untyped:
        config = builder.create_builder_config()
        if self._compiles_ahead:
            config.num_compute_capabilities = len(plan.targets)
            for index, target in enumerate(plan.targets):
                capability = getattr(self._module.ComputeCapability, target)
                config.set_compute_capability(capability, index)
        if plan.workspace_bytes is not None:
            pool = self._module.MemoryPoolType.WORKSPACE
            config.set_memory_pool_limit(pool, plan.workspace_bytes)
        flags = self._module.BuilderFlag
        if Feature.VERSION_COMPATIBLE in plan.features:
            config.set_flag(flags.VERSION_COMPATIBLE)
        if Feature.STRIP_WEIGHTS in plan.features:
            config.set_flag(flags.STRIP_PLAN)
        if Feature.REFIT in plan.features:
            config.set_flag(flags.REFIT)
        if Feature.HARDWARE_COMPATIBLE in plan.features:
            level = self._module.HardwareCompatibilityLevel.AMPERE_PLUS
            config.hardware_compatibility_level = level
        config.builder_optimization_level = plan.optimisation_level
        for number, profile in enumerate(plan.profiles):
            optimisation = builder.create_optimization_profile()
            for shape in profile.shapes:
                optimisation.set_shape(shape.input, shape.min, shape.opt, shape.max)
            if config.add_optimization_profile(optimisation) != number:
                raise CompilerRefused(f"the compiler refused profile {number} without a reason")
        return config

    def _check_network(self, network: Untyped) -> None:
        # Parsing says True of empty files and of models without outputs.
        if network.num_outputs == 0:
            raise ModelInvalid("the compiler found no outputs in the model")
        for index in range(network.num_inputs):
            tensor = network.get_input(index)
            if tensor.is_shape_tensor:
                raise InputUnsupported(f"input {tensor.name!r} is used as a shape")

    def _parse_error(self, parser: Untyped, log: ErrorLog) -> BuildError:
        errors = [
            _ParserError(parser.get_error(index))
            for index in range(min(parser.num_errors, PARSER_ERRORS_MAX))
        ]
        if _says_out_of_memory((*log.messages, *(error.text for error in errors))):
            return OutOfMemory("the compiler ran out of memory while it read the model")
        unsupported = [error for error in errors if error.is_about_support]
        if unsupported:
            listed = dict.fromkeys(error.where for error in unsupported)
            return OperatorUnsupported(
                f"{self.name} {self.version} does not have {'; '.join(listed)}"
            )
        if errors:
            return ModelInvalid(f"{errors[0].where}: {errors[0].text}".lstrip(": "))
        return ModelInvalid(log.last() or "the compiler could not read the model")

    def _build_error(self, log: ErrorLog, network: Untyped) -> BuildError:
        if _says_out_of_memory(log.messages):
            return OutOfMemory("the compiler ran out of memory")
        if _ASSERTION.search(said := log.last()):
            return CompilerRefused(_of_assertion(self.name, self.version, said, network))
        return CompilerRefused(log.last() or "the compiler gave no engine and no reason")


def _lack(name: str, feature: Feature, *, has_gpu: bool, ahead: bool) -> str:
    """Return why a library does not make such engines; empty: it does.

    Measured of TensorRT-RTX 1.7 on a host without a GPU: `STRIP_PLAN` and `REFIT` end in a check of its
    CUDA calls, `VERSION_COMPATIBLE` in "unable to load library: libnvinfer_lean.so.1", which its
    packages do not have; the level of hardware compatibility changes nothing.
    """
    if not ahead:
        return "" if has_gpu else f"{name} needs a GPU"
    match feature:
        case Feature.VERSION_COMPATIBLE:
            return f"{name} cannot load libnvinfer_lean.so.1, which its packages do not have"
        case Feature.HARDWARE_COMPATIBLE:
            return f"{name} builds for the GPUs that are named: name each with --target"
        case Feature.STRIP_WEIGHTS | Feature.REFIT:
            return "" if has_gpu else f"{name} calls CUDA for it, and this host has no GPU"


def _load_plugins(builder: Untyped, paths: Sequence[Path], log: ErrorLog) -> None:
    """Load libraries that the agent's administrator listed. Raises ``FeatureUnsupported``."""
    registry = builder.get_plugin_registry()
    for path in paths:
        try:
            handle = registry.load_library(str(path))
        except RuntimeError as error:
            raise FeatureUnsupported(
                f"the compiler cannot load {path.name}: {error}"
            ) from error
        if handle is None:
            why = log.last() or "it says no more"
            raise FeatureUnsupported(f"the compiler cannot load {path.name}: {why}")


def _begin_with_timings(config: Untyped, file: Path) -> None:
    """Give the compiler what it timed before; nothing where that was on another GPU or version."""
    kept = file.read_bytes() if file.exists() else b""
    if not config.set_timing_cache(config.create_timing_cache(kept), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _leave_timings(config: Untyped, file: Path) -> None:
    timing_cache = config.get_timing_cache()
    if timing_cache is not None:
        with suppress(OSError):  # it only helps later builds
            file.write_bytes(timing_cache.serialize())


def _place_beside(model: Path) -> Path:
    """Return a name in the model's folder that no file has: what it names lies there."""
    names = (model.with_name(f"{model.name}-{number}") for number in count(1))
    return next(place for place in names if not place.exists())


def _names_of_sizes(network: Untyped) -> dict[Place, str]:
    return {
        (tensor.name, axis): str(tensor.get_dimension_name(axis) or "")
        for tensor in map(network.get_input, range(network.num_inputs))
        for axis in range(max(0, len(tensor.shape)))
    }


def _of_assertion(library: str, version: str, said: str, network: Untyped) -> str:
    """Return what to say where the library found a fault in itself, and what may be the reason."""
    match = _ASSERTION.search(said)
    what = f"({match[1]}, {match[2].rpartition('/')[2]})" if match else f"({said})"
    layers = min(network.num_layers, LAYERS_LOOKED_AT_MAX)
    kinds = {str(network.get_layer(index).type).rpartition(".")[2] for index in range(layers)}
    why = (
        ". The model branches or loops, which the library does not always build: export it without "
        "`If` and `Loop`"
        if kinds & _OF_CONTROL_FLOW
        else ""
    )
    return f"{library} {version} fails on this model, by an assertion of its own {what}{why}"


class _ParserError:
    """What the parser says of one error, read with care: names may not be UTF-8."""

    def __init__(self, parser_error: Untyped) -> None:
        self.text = about_model(_text(parser_error.desc))
        operator, name = _text(parser_error.node_operator), _text(parser_error.node_name)
        self.where = f"operator {operator}" if operator else ""
        if operator and name:
            self.where += f" (node {name!r})"
        code = _text(lambda: parser_error.code().name)
        self.is_about_support = bool(operator) and (
            code.startswith("UNSUPPORTED_NODE")
            # The last resort for an unknown operator is a plug-in of that name.
            or "Plugin not found" in self.text
        )


def _text(read: Callable[[], Untyped]) -> str:
    try:
        return str(read() or "")
    except UnicodeDecodeError:
        return "(not UTF-8)"


def _says_out_of_memory(messages: tuple[str, ...]) -> bool:
    return any(word in message.lower() for message in messages for word in _OUT_OF_MEMORY_WORDS)


def _import_or_explain(module: str, command: str) -> Untyped:
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise BackendMissing(f"{module} does not load ({error}): {command}") from error
