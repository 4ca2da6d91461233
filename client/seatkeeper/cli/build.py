"""``seatkeeper build``: from a model to an engine."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Self

import typer
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn

from seatkeeper.artifacts.errors import ModelExternalData
from seatkeeper.artifacts.features import Feature
from seatkeeper.artifacts.plan import (
    OPTIMISATION_LEVEL_DEFAULT,
    OPTIMISATION_LEVEL_MAX,
    BuildPlan,
    parse_profile,
    plan_to_options,
)
from seatkeeper.artifacts.precision import (
    CalibrationMethod,
    Precision,
    PrecisionPlan,
    Samples,
    parse_images,
    parse_keep,
    parse_precision,
)
from seatkeeper.cli import completion
from seatkeeper.cli.command import claiming
from seatkeeper.cli.connection import Claimant
from seatkeeper.cli.engine_store import warn_if_unproven
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.files import outputs_at, written
from seatkeeper.cli.outlook import Outlook, Timing, compared, estimate_json
from seatkeeper.cli.render import (
    Json,
    console,
    engine_facts,
    engine_json,
    facts,
    show,
    words,
    write_event,
    write_json,
)
from seatkeeper.cli.waiting import outlook, queued_event
from seatkeeper.core.amounts import span
from seatkeeper.core.text import name_of_file, path_in_json, printable
from seatkeeper.v1 import build_service_pb2

if TYPE_CHECKING:
    from seatkeeper.client import AsyncSeatClient
    from seatkeeper.client.builds.builds import BuiltEngine
    from seatkeeper.client.session.requests import QueuePosition

SHA256 = "sha256:"
RANDOM = "random"
"""In the place of a file of samples: noise."""
STDERR_TAIL_LINES_SHOWN = 20
UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]iB|B|)", re.IGNORECASE)

app = typer.Typer(add_completion=False, rich_markup_mode=None)


Model = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The model.")]
Pool = Annotated[
    str | None,
    typer.Option(
        "--pool",
        metavar="NAME",
        help="Pool of the seat. [default: the build agents' own]",
        autocompletion=completion.pools,
    ),
]
Backend = Annotated[
    str, typer.Option("--backend", metavar="NAME", help="tensorrt_rtx or tensorrt.")
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="SM",
        help="GPU architecture: SM86, sm_86 or 8.6; may be repeated.",
        autocompletion=completion.targets,
    ),
]
Profiles = Annotated[
    list[str] | None,
    typer.Option(
        "--profile",
        metavar="INPUT=MIN:OPT:MAX,...",
        help="Sizes to optimise for, such as input=1x3x224x224:8x3x224x224:32x3x224x224; "
        "one for each use, may be repeated.",
    ),
]
Workspace = Annotated[
    str | None,
    typer.Option(
        "--workspace", metavar="SIZE", help="Most scratch memory of a layer: 1GiB, 512MiB."
    ),
]
Level = Annotated[
    int,
    typer.Option(
        "--optimisation-level",
        metavar="N",
        min=0,
        max=OPTIMISATION_LEVEL_MAX,
        help=f"Effort, from 0 to {OPTIMISATION_LEVEL_MAX}.",
    ),
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="NAME",
        help="model: as the file says; fp32, fp16, bf16, int8, int8+fp16, fp8; or auto: the first "
        "of int8+fp16, int8, fp16, bf16 and fp32 that the target has and that is accurate enough.",
        autocompletion=completion.precisions,
    ),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        help="Samples of the inputs that int8 and fp8 find their ranges with: an .npz file, or a "
        "folder of .npy files or of pictures; python:MODULE:FUNCTION: what that yields, dicts of "
        "arrays; random: noise, for trying only.",
    ),
]
Method = Annotated[
    CalibrationMethod,
    typer.Option("--calibration-method", help="How ranges are found in what was seen."),
]
AccuracySamples = Annotated[
    str | None,
    typer.Option(
        "--samples",
        metavar="FILE",
        help="Samples to measure accuracy with, likewise. [default: a fifth of --calibration]",
    ),
]
Images = Annotated[
    str | None,
    typer.Option(
        "--images",
        metavar="HEIGHTxWIDTH,...",
        help="What to make of pictures: 224x224,nchw,rgb,mean=0.485:0.456:0.406,"
        "std=0.229:0.224:0.225.",
    ),
]
Tolerance = Annotated[
    str,
    typer.Option(
        "--tolerance",
        metavar="PART",
        help="Most relative L2 error of an output: 1%, or 0.01.",
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        metavar="PRECISION:PATTERN",
        help="Nodes to leave in fp32 or fp16, such as fp32:/head/*; or to put in 8 bits, int8:/head/*, "
        "although they have few weights. In a pattern, * is any characters and ? is one; all others, "
        "[ and ] too, are themselves. May be repeated.",
    ),
]
Repair = Annotated[
    bool,
    typer.Option(
        "--repair", help="Keep the nodes that cost too much accuracy in a higher precision."
    ),
]
AcceptUnchecked = Annotated[
    bool,
    typer.Option(
        "--accept-unchecked",
        help="Take bf16 too, whose accuracy cannot be measured without a GPU.",
    ),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="Library of plugins that the model needs: this file, or sha256:HASH. The agent must "
        "list it; none is sent. May be repeated.",
    ),
]
VersionCompatible = Annotated[
    bool,
    typer.Option(
        "--version-compatible", help="An engine that later versions of the library run, too."
    ),
]
HardwareCompatible = Annotated[
    bool,
    typer.Option("--hardware-compatible", help="An engine that newer GPUs run, too."),
]
StripWeights = Annotated[
    bool,
    typer.Option("--strip-weights", help="An engine without its weights."),
]
Refit = Annotated[
    bool,
    typer.Option("--refit", help="An engine whose weights can be replaced without a build."),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Fetch the engine to this file; -: to standard output.",
        parser=written,
    ),
]


@dataclass(frozen=True)
class GivenSamples:
    """Samples as they are at hand: files, folders, or the bytes of a file."""

    calibration: str | bytes | None
    accuracy: str | bytes | None

    @property
    def files(self) -> list[str | bytes]:
        """Those that there are."""
        return [each for each in (self.calibration, self.accuracy) if each is not None]


def _hash_of_plugin(text: str) -> str:
    """Return the hash of a library: of a file, or as it is given."""
    if text.startswith(SHA256):
        return text.removeprefix(SHA256)
    try:
        with Path(text).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        fail(Exit.NOT_FOUND, f"--plugin {text}: {error.strerror}")


def _source(text: str | None) -> str | bytes | None:
    from seatkeeper.client.builds.sample_functions import is_function, samples_from

    if text is None:
        return None
    if is_function(text):
        return samples_from(text)
    if not Path(text).exists():
        fail(Exit.NOT_FOUND, f"{text}: no such file")
    return text


@dataclass(frozen=True, kw_only=True)
class CompileOptions:
    """What the engine is to be good for: each field is an option."""

    backend: Backend = "tensorrt_rtx"
    target: Targets = None
    profile: Profiles = None
    workspace: Workspace = None
    optimisation_level: Level = OPTIMISATION_LEVEL_DEFAULT

    plugin: Plugins = None
    version_compatible: VersionCompatible = False
    hardware_compatible: HardwareCompatible = False
    strip_weights: StripWeights = False
    refit: Refit = False

    precision: PrecisionOption = Precision.MODEL.value
    calibration: Calibration = None
    calibration_method: Method = CalibrationMethod.MINMAX
    samples: AccuracySamples = None
    images: Images = None
    tolerance: Tolerance = "1%"
    keep: Keep = None
    repair: Repair = False
    accept_unchecked: AcceptUnchecked = False

    def given(self) -> GivenSamples:
        """Return the samples that they name; fail where there is no such file.

        A function is called here, and only here: twice, it might yield something else. Raises
        ``InvalidArgument`` when it fails.
        """
        calibration = None if self.calibration == RANDOM else self.calibration
        return GivenSamples(*map(_source, (calibration, self.samples)))

    def plan(self, given: GivenSamples) -> BuildPlan:
        """Return the plan that they make. Raises ``PlanError``, and ``InvalidArgument`` for files."""
        return BuildPlan(
            backend=self.backend,
            targets=tuple(self.target or ()),
            profiles=tuple(parse_profile(text) for text in self.profile or ()),
            workspace_bytes=None if self.workspace is None else parse_size(self.workspace),
            optimisation_level=self.optimisation_level,
            precision=self._precision(given),
            features=self.features(),
            plugins=tuple(map(_hash_of_plugin, self.plugin or ())),
        )

    def features(self) -> frozenset[Feature]:
        """Return what the engine is to be beside fast."""
        asked = {
            Feature.VERSION_COMPATIBLE: self.version_compatible,
            Feature.HARDWARE_COMPATIBLE: self.hardware_compatible,
            Feature.STRIP_WEIGHTS: self.strip_weights,
            Feature.REFIT: self.refit,
        }
        return frozenset(feature for feature, is_asked in asked.items() if is_asked)

    def _precision(self, given: GivenSamples) -> PrecisionPlan:
        from seatkeeper.client import samples_of

        images = None if self.images is None else parse_images(self.images)
        calibration = Samples()
        if self.calibration == RANDOM:
            calibration = Samples(is_random=True)
        elif given.calibration is not None:
            calibration = samples_of(given.calibration, images)
        return PrecisionPlan(
            precision=parse_precision(self.precision),
            calibration=calibration,
            method=self.calibration_method,
            samples=Samples() if given.accuracy is None else samples_of(given.accuracy, images),
            tolerance=parse_part(self.tolerance),
            keep=tuple(map(parse_keep, self.keep or ())),
            repair=self.repair,
            accept_unchecked=self.accept_unchecked,
        )


@app.command(
    epilog=examples(
        "seatkeeper build model.onnx --target SM86 --output model.engine",
        "seatkeeper build model.onnx --target SM86 --target SM89 --workspace 1GiB",
        "seatkeeper build dynamic.onnx --target SM86 --profile x=1x8:4x8:16x8",
        "seatkeeper build model.onnx --target SM86 --precision auto --calibration inputs.npz",
    )
)
@claiming
async def build(
    at: Claimant,
    model: Model,
    *,
    pool: Pool = None,
    compile_options: CompileOptions,
    timing: Timing,
    output: Output = None,
) -> None:
    """Compile a model to an engine, or find the one that was compiled from it before.

    A seat is taken only to compile, and given back when the engine is published. What it is expected to
    take, by the builds before it, is said first.

    With --json, standard output is one object about the engine, and what the build is at is written
    to standard error, one object a line.
    """
    if not model.is_file():
        fail(Exit.NOT_FOUND, f"{model}: {'not a file' if model.exists() else 'no such file'}")
    given = compile_options.given()
    plan = compile_options.plan(given)
    places = outputs_at({"--output": output}, inputs=_inputs(model), as_json=at.json)
    from seatkeeper.core.errors import CompilerCrashed, DeadlineUnreachable

    async with at.claiming_client() as client:
        outlook = await Outlook.of(client, model, plan, as_json=at.json)
        outlook.show(plan)
        left = await outlook.until_start(client, pool, timing)
        with _Screen(name_of_file(model), as_json=at.json) as screen:
            try:
                async with asyncio.timeout(None if left is None else left.total_seconds()):
                    built = await client.build(
                        model,
                        plan_to_options(plan),
                        pool=pool,
                        sample_files=given.files,
                        **at.terms(),
                        on_queued=screen.queued,
                        on_progress=screen.progress,
                    )
            except CompilerCrashed as error:
                screen.stderr_tail(error.stderr_tail)
                raise
            except TimeoutError as error:
                raise DeadlineUnreachable(
                    "the deadline passed before the engine was there"
                ) from error
        if output is not None:
            built = await _fetch(client, built, output)
            warn_if_unproven(built.manifest, as_json=at.json)
    if at.json:
        write_json(_built_json(built) | {"estimate": estimate_json(outlook.estimate)})
    else:
        aside = any(place.is_standard_output for place in places.values())
        _summarise(built, outlook, aside=aside)


def _inputs(model: Path) -> dict[str, Path]:
    """Return the files that are read of a model, by what they are."""
    from seatkeeper.client.builds.external_data import needed_bytes

    try:
        weights = needed_bytes(model)
    except (ModelExternalData, OSError):
        weights = {}  # the build refuses it, and says why
    return {"model": model} | {f"model's {path}": model.parent / path for path in weights}


async def _fetch(client: AsyncSeatClient, built: BuiltEngine, output: Path) -> BuiltEngine:
    try:
        await client.fetch(built.key, output)
    except OSError as error:
        fail(
            Exit.FAILED,
            f"{output}: {error.strerror}; the engine is published, and "
            f"`seatkeeper engines get {built.key[:16]} --output FILE` fetches it",
        )
    return replace(built, path=output)


def parse_size(text: str) -> int:
    """Return the bytes that ``text`` means, such as ``1.5GiB``; fail when it means none."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        fail(Exit.USAGE, f"--workspace {text!r} is no size; write bytes, or 512MiB, or 1.5GiB")
    return round(float(match[1]) * UNITS[match[2].upper()])


def parse_part(text: str) -> float:
    """Return the part that ``text`` means, such as ``1%`` or ``0.01``; fail when it means none."""
    number, percent, rest = text.strip().partition("%")
    try:
        part = float(number) / (100 if percent else 1)
    except ValueError:
        part = math.nan
    if rest or not math.isfinite(part):
        fail(Exit.USAGE, f"--tolerance {text!r} is no part; write 1%, or 0.01")
    return part


def _built_json(built: BuiltEngine) -> Json:
    return engine_json(built.manifest) | {
        "cached": built.cached,
        "waited_seconds": round(built.waited.total_seconds(), 3),
        "upload_resumed": built.upload_resumed,
        "path": None if built.path is None else path_in_json(built.path),
    }


def _summarise(built: BuiltEngine, outlook: Outlook, *, aside: bool) -> None:
    how = "found: published before, nothing was built" if built.cached else "built now"
    rows = [("outcome", how), ("waited", span(built.waited)), *engine_facts(built.manifest)]
    if built.upload_resumed:
        rows.insert(2, ("upload", "interrupted, and went on where it had ended"))
    if not built.cached:
        rows += compared(outlook.estimate, built.manifest)
    if built.path is not None:
        rows.append(("file", str(built.path)))
    else:
        rows.append(("fetch it", f"seatkeeper engines get {built.key[:16]} --output FILE"))
    show(facts(rows), aside=aside)


def columns() -> tuple[ProgressColumn, ...]:
    """Return what the bar has beside itself. A model may be called ``[red]``, which is no markup."""
    return (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[steps]}", markup=False),
        TimeElapsedColumn(),
    )


class _Screen:
    """Shows on standard error what a build is at: a bar on a terminal, lines elsewhere.

    For a program each line is a JSON object.
    """

    def __init__(self, model_name: str, *, as_json: bool) -> None:
        self._as_json = as_json
        out = console(stderr=True)
        self._name = printable(model_name)
        self._last = ""
        self._live = None
        if out.is_terminal and not as_json:
            self._live = Progress(*columns(), console=out, transient=True)
            self._task = self._live.add_task(f"{self._name}: asking", total=None, steps="")

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def queued(self, place: QueuePosition) -> None:
        """Show the place in the queue."""
        if self._as_json:
            write_event(queued_event(place))
            return
        self._show(f"waiting for a seat: place {place.position}{outlook(place)}")

    def stderr_tail(self, text: str) -> None:
        """Show the end of what a compiler said while it died: they help its vendor."""
        out = console(stderr=True) if self._live is None else self._live.console
        for line in text.splitlines()[-STDERR_TAIL_LINES_SHOWN:]:
            # What controls a terminal is not for a compiler to write on one.
            shown = printable(line)
            if self._as_json:
                write_event({"event": "compiler_said", "line": shown})
                continue
            out.print(words(f"seatkeeper: {self._name}: the compiler said: {shown}"))

    def progress(self, progress: build_service_pb2.BuildProgress) -> None:
        """Show how far the build is."""
        phase = build_service_pb2.BuildPhase.Name(progress.phase)
        what = phase.removeprefix("BUILD_PHASE_").lower()
        if self._as_json:
            self._notify_phase(what, progress.elapsed_millis)
            return
        if self._live is None:
            # Steps go by too fast, and back too often, to be worth a line each.
            elapsed = span(timedelta(milliseconds=progress.elapsed_millis))
            self._show(what, f" after {elapsed}")
            return
        what = f"{what}: {printable(progress.step)}" if progress.step else what
        self._show(what, done=progress.steps_done, steps=progress.steps)

    def _notify_phase(self, phase: str, elapsed_millis: int) -> None:
        if phase != self._last:
            write_event({"event": "progress", "phase": phase, "elapsed_millis": elapsed_millis})
        self._last = phase

    def _show(self, what: str, more: str = "", *, done: int = 0, steps: int = 0) -> None:
        if self._live is None:
            if what != self._last:
                print_line = f"seatkeeper: {self._name}: {what}{more}"
                console(stderr=True).print(words(print_line))
            self._last = what
            return
        self._live.update(
            self._task,
            description=f"{self._name}: {what}",
            completed=done,
            total=steps or None,
            steps=f"{done}/{steps}" if steps else "",
        )
