"""The table of contents of the command line."""

from __future__ import annotations

import typer

from seatkeeper.cli.serve import serve

app = typer.Typer(
    name="seatkeeper",
    help="Floating-licence seats that survive the loss of a node.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(serve)


@app.callback()
def _commands() -> None:
    """Floating-licence seats that survive the loss of a node."""


def main() -> None:
    """Run the command line."""
    app()
