"""What commands that run processes share: flags from settings, what is installed, the event loop."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from seatkeeper.core.extras import MODULES

if TYPE_CHECKING:
    from pydantic import BaseModel

SERVER_NEEDS = tuple(MODULES["server"])
AGENT_NEEDS = ("server", "builder", "tensorrt-rtx")


def with_settings(
    command: Callable[[Path | None, dict[str, Any]], None], settings: type[BaseModel] | None
) -> Callable[..., None]:
    """Give ``command`` a ``--flag`` for each field of ``settings``, described by the field itself.

    So a setting, its environment variable, its flag and its help cannot drift apart.
    """

    def parsed(config: Path | None = None, **flags: Any) -> None:  # noqa: ANN401  # typer hands over options of any type
        command(config, flags)

    help_of_config = "File of settings, in TOML."
    parameters = [
        inspect.Parameter(
            "config",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[Path | None, typer.Option(help=help_of_config)],
        )
    ]
    for name, field in (settings.model_fields if settings else {}).items():
        is_stated = field.default_factory is not None or "default:" in (field.description or "")
        default = "" if is_stated else f" [default: {_shown(field.default)}]"
        option = typer.Option(
            f"--{name.replace('_', '-')}",
            help=f"{field.description}{default}",
            show_default=False,
            metavar=_kind(field.annotation),
        )
        parameters.append(
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[str | None, option],
            )
        )
    parsed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads the signature, which mypy does not know of a function
    parsed.__annotations__ = {p.name: p.annotation for p in parameters}
    parsed.__doc__ = command.__doc__
    parsed.__name__ = command.__name__
    return parsed


def settings_app(
    command: Callable[[Path | None, dict[str, Any]], None], settings: type[BaseModel] | None
) -> typer.Typer:
    """Return the app of one command that has a flag for each field of ``settings``.

    None: what it needs is not installed, so there are no flags. Then it takes whatever is given,
    so that its answer is what to install and not which option it does not know.
    """
    lenient = {"ignore_unknown_options": True, "allow_extra_args": True}
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(context_settings=None if settings else lenient)(
        with_settings(command, settings)
    )
    return app


def installed(*modules: str) -> bool:
    """Return whether all of them can be imported, without importing them."""
    try:
        return all(importlib.util.find_spec(module) is not None for module in modules)
    except ImportError:
        return False


def _kind(annotation: object) -> str:
    """Return what a value of a setting looks like, for people."""
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    kinds = {bool: "true|false", int: "INTEGER", float: "NUMBER", str: "TEXT"}
    return kinds.get(annotation, "PATH")  # type: ignore[call-overload, no-any-return]  # an annotation is any object


def _shown(default: object) -> str:
    return "none" if default in {None, ""} else str(default)


def run_loop(main: Any) -> None:  # noqa: ANN401  # a coroutine of any result
    """Run on uvloop where it is installed: a third less CPU for each message."""
    try:
        import uvloop
    except ModuleNotFoundError:
        asyncio.run(main)
    else:
        uvloop.run(main)
