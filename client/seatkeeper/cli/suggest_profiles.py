"""``seatkeeper build suggest-profiles``: profiles from a log of the sizes that were asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seatkeeper.artifacts.errors import ProfileInvalid
from seatkeeper.artifacts.plan import PROFILES_MAX, format_profile
from seatkeeper.artifacts.profile_advice import read_requests, suggest_profiles
from seatkeeper.cli.connection import Json
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.render import say, show, table, write_json

app = typer.Typer(add_completion=False, rich_markup_mode=None)
PROFILES_DEFAULT = 4


@app.command(
    epilog=examples(
        "seatkeeper build suggest-profiles requests.csv",
        "seatkeeper build suggest-profiles requests.csv --profiles 2 --json",
    )
)
def suggest(
    requests: Annotated[
        Path,
        typer.Argument(
            metavar="REQUESTS.csv",
            help="A row for each request, or each size: input,count at its head, 8x3x224x224,40 below.",
        ),
    ],
    *,
    profiles: Annotated[
        int, typer.Option(metavar="N", min=1, max=PROFILES_MAX, help="Most profiles.")
    ] = PROFILES_DEFAULT,
    json: Json = False,
) -> None:
    """Suggest profiles for a model from the sizes that it was asked for.

    They serve every request of the file. Waste is the part of their work that would be padding if each
    request were padded to the largest sizes of its profile; more profiles waste less, and take
    about as much longer to build.
    """
    try:
        with requests.open(encoding="utf-8-sig", newline="") as lines:  # spreadsheets mark it
            advice = suggest_profiles(read_requests(lines), profiles)
    except OSError as error:
        fail(Exit.NOT_FOUND, f"{requests}: {error.strerror}")
    except UnicodeDecodeError:
        fail(Exit.REFUSED, f"{requests}: not a text in UTF-8")
    except ProfileInvalid as error:
        fail(Exit.REFUSED, f"{requests}: {error.message}")
    total = sum(each.requests for each in advice)
    if json:
        found = [
            {
                "profile": format_profile(each.profile),
                "requests": each.requests,
                "waste": round(each.waste, 4),
            }
            for each in advice
        ]
        write_json({"requests": total, "profiles": found})
        return
    rows = [
        (
            format_profile(each.profile),
            f"{each.requests} ({each.requests / total:.0%})",
            f"{each.waste:.0%}",
        )
        for each in advice
    ]
    show(table(("profile", ">requests", ">waste"), rows))
    options = " ".join(f"--profile {format_profile(each.profile)}" for each in advice)
    say(f"seatkeeper build MODEL.onnx {options}")
