"""``seatkeeper engines check``: what an engine computes, on the machine that it is for."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seatkeeper.artifacts.errors import (
    CompilerCrashed,
    EngineNotFound,
    RunnerUnavailable,
    error_from_fields,
)
from seatkeeper.artifacts.precision import TOLERANCE_DEFAULT
from seatkeeper.artifacts.trust import check_signer, trusted_key
from seatkeeper.cli.connection import Json
from seatkeeper.cli.engine_process import SECONDS_MAX, said_by
from seatkeeper.cli.engine_store import (
    Key,
    Store,
    Trust,
    copy_from_store,
    full_key,
    opened_store,
)
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.files import outputs_at, written
from seatkeeper.cli.render import engine_json, facts, say, show, write_json
from seatkeeper.core.extras import explain, missing
from seatkeeper.core.text import path_in_json

if TYPE_CHECKING:
    from seatkeeper.artifacts.stores.artifact_store import ArtifactStore

MODULE = "seatkeeper.builder.running.check"
STDERR_CHARS_MAX = 3_000

CHECK_EXAMPLES = examples(
    "seatkeeper engines check 0123456789ab --store /var/lib/engines -o /srv/model.engine",
    "seatkeeper engines check 0123456789ab --store /var/lib/engines --in-its-place model.onnx",
)


def check(
    *,
    key: Key,
    store: Store,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Put the engine there, if it is accurate enough; otherwise FILE stays.",
            parser=written,
        ),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="ERROR",
            min=0,
            max=1,
            help="Most relative L2 error of an output; default: what it was built with, or 0.01.",
        ),
    ] = None,
    in_its_place: Annotated[
        Path | None,
        typer.Option(
            "--in-its-place",
            metavar="MODEL.onnx",
            help="Run this model by ONNX Runtime in the engine's place: to try samples without a GPU. "
            "Not with --output.",
        ),
    ] = None,
    trust: Trust = None,
    json: Json = False,
) -> None:
    """Run an engine of a store on the samples that came with it, and compare its outputs.

    The store has samples of engines that were imported from a bundle with some. An engine whose outputs
    differ by more than the gate is refused with exit code 65, and not put into use. Where the library
    or a GPU for it is missing, the exit code is 78, and nothing has been checked. It runs in a process
    of its own.
    """
    _refuse_what_cannot_be(in_its_place, output)
    places = outputs_at({"--output": output}, inputs={}, as_json=json)
    opened = opened_store(store)
    signed, manifest = opened.manifest(full_key(opened, key))
    trusted = [trusted_key(each) for each in trust or ()]
    if trusted:
        check_signer(signed, trusted)
    gate = manifest.options.precision.tolerance or TOLERANCE_DEFAULT
    gate = gate if tolerance is None else tolerance
    with tempfile.TemporaryDirectory(prefix="seatkeeper-check-") as folder:
        inputs = _samples(opened, "inputs", manifest.key, Path(folder))
        expected = _samples(opened, "expected", manifest.key, Path(folder))
        runner, file = "onnxruntime", in_its_place
        if file is None:
            from seatkeeper.client.builds.output import Output

            runner, file = manifest.options.backend, Path(folder) / "engine"
            copy_from_store(opened, signed, manifest, Output.at(file))
        found = _run(runner, file, inputs, expected, gate)
    if "--output" in places:
        # What was checked, also if the key has another engine by now.
        copy_from_store(opened, signed, manifest, places["--output"])
    if json:
        path = {"path": path_in_json(output) if output else None, "tolerance": gate}
        write_json(engine_json(manifest) | found | path)
    else:
        _show(manifest.key, found, gate, output)


def _refuse_what_cannot_be(in_its_place: Path | None, output: Path | None) -> None:
    if in_its_place is not None and output is not None:
        fail(Exit.USAGE, "--in-its-place checks no engine, so --output puts none into use")
    if in_its_place is not None and not in_its_place.is_file():
        fail(Exit.NOT_FOUND, f"{in_its_place}: no such file")
    if missing("builder"):
        fail(Exit.CONFIG, explain("checking an engine", "builder"))


def _show(key: str, found: dict[str, Any], gate: float, output: Path | None) -> None:
    rows = [("engine", key), ("run by", found["runner"])]
    rows += [
        (f"output {each['output']}", f"differs by {each['relative_l2']:.4%}")
        for each in found["outputs"]
    ]
    show(facts([*rows, ("gate", f"{gate:.4%}: passed")]))
    if output is not None:
        say(f"{output} is this engine now")


def _samples(store: ArtifactStore, kind: str, key: str, folder: Path) -> Path:
    chunks = store.objects.read(f"{kind}/{key}.npz")
    if chunks is None:
        raise EngineNotFound(
            f"{store.shown} has no samples of engine {key}; `engines export --samples` puts them "
            "into a bundle"
        )
    path = folder / kind
    with path.open("xb") as file:
        for chunk in chunks:
            file.write(chunk)
    return path


def check_samples(inputs: Path, expected: Path) -> None:
    """Raise ``SamplesInvalid`` for samples, or expected outputs, that no engine could be checked with.

    Nothing is looked at where the extra `builder` is not installed; `engines check` will.
    """
    if missing("builder"):
        return
    with tempfile.TemporaryDirectory(prefix="seatkeeper-samples-") as folder:
        _said([*map(os.fspath, (inputs.absolute(), expected.absolute()))], Path(folder))


def _run(runner: str, file: Path, inputs: Path, expected: Path, gate: float) -> dict[str, Any]:
    arguments = [runner, os.fspath(file.absolute()), str(inputs), str(expected), str(gate)]
    return _said(arguments, inputs.parent)


def _said(arguments: list[str], folder: Path) -> dict[str, Any]:
    try:
        said = said_by(MODULE, arguments, folder=folder)
    except TimeoutError:
        raise RunnerUnavailable(f"the check did not end within {SECONDS_MAX:g} s") from None
    if (found := said.found) is None:
        raise CompilerCrashed(
            f"the process that runs the engine ended with code {said.code} and said nothing",
            stderr_tail=said.err[-STDERR_CHARS_MAX:],
        )
    if "error" in found:
        raise error_from_fields(found["error"])
    return found
