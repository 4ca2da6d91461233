"""``seatkeeper trtexec``: the command lines that people already have."""

from __future__ import annotations

from typing import Annotated

import typer

from seatkeeper.artifacts.errors import OptionInvalid
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.render import say, write_event
from seatkeeper.cli.trtexec_words import translate

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog=examples(
        "seatkeeper trtexec --target SM86 --onnx=model.onnx --fp16 --saveEngine=model.engine",
        "seatkeeper trtexec --target SM86 --onnx=model.onnx --int8 --fp16 --calibration inputs.npz",
    ),
)
def trtexec(
    options: Annotated[
        list[str],
        typer.Argument(
            metavar="OPTIONS",
            help="Options of trtexec, and of `seatkeeper build`, in any order.",
        ),
    ],
) -> None:
    """Build as a command line of trtexec says: an option of it is mapped, or ignored, or refused.

    What is no option of trtexec is one of `seatkeeper build`, such as --target, which says for which
    GPU, and --calibration. An option that changes nothing of the engine is ignored with a warning.
    One that would change it and cannot be followed is refused by name, and nothing is built.
    The engine is not timed: only its GPU could.
    """
    from typer.main import get_command

    from seatkeeper.cli import build

    try:
        translation = translate(options)
    except OptionInvalid as error:
        fail(Exit.USAGE, error.message)
    as_json = "--json" in translation.words
    for warning in translation.warnings:
        if as_json:
            write_event({"event": "ignored", "warning": warning})
        else:
            say(f"seatkeeper: {warning}", stderr=True)
    get_command(build.app).main(
        translation.words, prog_name="seatkeeper build", standalone_mode=False
    )
