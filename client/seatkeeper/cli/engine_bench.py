"""``seatkeeper engines bench``: how fast an engine is, on the GPU that it is for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from seatkeeper.artifacts.errors import BackendMissing, error_from_fields
from seatkeeper.cli.connection import Json
from seatkeeper.cli.engine_process import SECONDS_MAX, said_by
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.render import facts, show, write_json
from seatkeeper.core.extras import explain, missing

MODULE = "seatkeeper.builder.timing"
RUNS_DEFAULT = 200
RUNS_MAX = 100_000
BENCH_EXAMPLES = examples("seatkeeper engines bench model.engine --runs 1000")


def bench(
    *,
    engine: Annotated[Path, typer.Argument(metavar="FILE", help="The engine.")],
    backend: Annotated[
        str, typer.Option("--backend", metavar="NAME", help="tensorrt_rtx or tensorrt.")
    ] = "tensorrt_rtx",
    runs: Annotated[
        int, typer.Option("--runs", metavar="N", min=1, max=RUNS_MAX, help="How often it runs.")
    ] = RUNS_DEFAULT,
    json: Json = False,
) -> None:
    """Time an engine on this machine's GPU: median, fastest and 99th percentile.

    Inputs are zeros in the sizes that its first profile is fastest at. Needs the engine's library and
    a GPU; without, the exit code is 78. It runs in a process of its own.
    """
    if not engine.is_file():
        fail(Exit.NOT_FOUND, f"{engine}: {'not a file' if engine.exists() else 'no such file'}")
    if missing("builder"):
        fail(Exit.CONFIG, explain("timing an engine", "builder"))
    found = _timed(backend, engine.absolute(), runs)
    if "error" in found:
        error = error_from_fields(found["error"])
        code = Exit.CONFIG if isinstance(error, BackendMissing) else Exit.REFUSED
        fail(code, error.message)
    timing = found["timing"]
    if json:
        write_json(timing)
        return
    shapes = ", ".join(f"{k}={'x'.join(map(str, v))}" for k, v in timing["shapes"].items())
    rows = [
        ("run by", f"{timing['library']} on {timing['gpu']}"),
        ("inputs", shapes),
        ("median", f"{timing['median_ms']:.3f} ms over {timing['runs']} runs"),
        ("fastest", f"{timing['min_ms']:.3f} ms"),
        ("99 %", f"{timing['p99_ms']:.3f} ms"),
    ]
    show(facts(rows))


def _timed(backend: str, engine: Path, runs: int) -> dict[str, Any]:
    try:
        said = said_by(MODULE, [backend, os.fspath(engine), str(runs)])
    except TimeoutError:
        fail(Exit.FAILED, f"{engine.name}: did not end within {SECONDS_MAX:g} s")
    if said.found is None:
        last = said.err.strip().splitlines()[-1:] or ["it said nothing"]
        fail(
            Exit.FAILED,
            f"{engine.name}: what runs it ended with code {said.code}: {last[0]}",
        )
    return said.found
