"""``seatkeeper serve``: one node."""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib.util
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from seatkeeper.cli.exits import Exit, fail, fail_in_json
from seatkeeper.core.extras import MODULES, explain

if TYPE_CHECKING:
    from pydantic import BaseModel

    from seatkeeper.server.config import NodeConfig

SERVER_NEEDS = tuple(MODULES["server"])


def with_settings(
    command: Callable[[Path | None, dict[str, Any]], None], settings: type[BaseModel] | None
) -> Callable[..., None]:
    """Give ``command`` a ``--flag`` for each field of ``settings``, described by the field itself.

    So a setting, its environment variable, its flag and its help cannot drift apart.
    """

    def parsed(config: Path | None = None, **flags: Any) -> None:  # noqa: ANN401
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
        told = field.default_factory is not None or "default:" in (field.description or "")
        default = "" if told else f" [default: {_shown(field.default)}]"
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
    parsed.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
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
    return kinds.get(annotation, "PATH")  # type: ignore[call-overload, no-any-return]


def _shown(default: object) -> str:
    return "none" if default in {None, ""} else str(default)


def _settings() -> type[BaseModel] | None:
    try:
        from seatkeeper.server.config import NodeConfig
    except ModuleNotFoundError:
        return None
    return NodeConfig


def _serve(config: Path | None, flags: dict[str, Any]) -> None:
    """Run one node until it is told to stop (SIGTERM, SIGINT, SIGQUIT).

    SIGHUP has it read its settings and certificates again; the log says what has changed.

    Every setting can also be given in the file as its name, or in the environment as
    SEATKEEPER_NAME; a flag wins over the environment, and that over the file.
    """
    try:
        from seatkeeper.core.serving.logs import configure_logs
        from seatkeeper.core.serving.signals import shield
        from seatkeeper.server.config import ConfigError, load_config
    except ModuleNotFoundError:
        fail(Exit.CONFIG, explain("this command", "server"))
    shield()
    load = functools.partial(load_config, config, flags)
    try:
        settings = load()
    except ConfigError as error:
        fail(Exit.CONFIG, str(error))
    # Like every other line of the log.
    fail_in_json(settings.log_format == "json")
    configure_logs(settings.log_level, settings.log_format)
    run_loop(_serve_until_stopped(settings, load))


async def _serve_until_stopped(settings: NodeConfig, load: Callable[[], NodeConfig]) -> None:
    from seatkeeper.core.serving.listening import ListenError
    from seatkeeper.core.serving.reload import Reloader
    from seatkeeper.core.serving.signals import Signals
    from seatkeeper.server.node import Node, StartError
    from seatkeeper.server.telemetry.metrics import MetricsObserver
    from seatkeeper.server.telemetry.metrics_http import MetricsServer
    from seatkeeper.server.tokens.signer import SigningKeyError

    signals = Signals()
    observer = MetricsObserver()
    metrics = MetricsServer(observer.registry)
    if settings.metrics_listen:
        try:
            address = await metrics.start(settings.metrics_listen)
            logging.getLogger(__name__).info("metrics_serving", extra={"address": address})
        except OSError as error:
            fail(
                Exit.CONFIG,
                f"cannot serve metrics on {settings.metrics_listen}: {error.strerror}; choose "
                "another address with --metrics-listen",
            )
    try:
        node = await Node.start(settings, tally=observer)
    except ListenError as error:
        fail(Exit.CONFIG, str(error))
    except SigningKeyError as error:
        fail(Exit.CONFIG, f"token_key_file: {error}")
    except StartError as error:
        fail(Exit.UNAVAILABLE, str(error))
    metrics.readiness = node.why_not_ready
    signals.ready(Reloader(settings, load, node))
    gc.freeze()  # what was imported lives as long as the node: not to be looked through again
    reasons = [asyncio.create_task(event.wait()) for event in (signals.drain, node.drained)]
    await asyncio.wait(reasons, return_when=asyncio.FIRST_COMPLETED)
    for reason in reasons:
        reason.cancel()
    await node.stop()
    await metrics.stop()
    signals.done()


def run_loop(main: Any) -> None:  # noqa: ANN401
    """Run on uvloop where it is installed: a third less CPU for each message."""
    try:
        import uvloop
    except ModuleNotFoundError:
        asyncio.run(main)
    else:
        uvloop.run(main)


_serve.__name__ = "serve"
app = settings_app(_serve, _settings())
