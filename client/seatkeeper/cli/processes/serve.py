"""``seatkeeper serve``: one node."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seatkeeper.cli.exits import Exit, fail, fail_in_json
from seatkeeper.cli.processes.common import run_loop, settings_app
from seatkeeper.core.extras import explain

if TYPE_CHECKING:
    from pydantic import BaseModel

    from seatkeeper.server.config import NodeConfig


def _settings() -> type[BaseModel] | None:
    try:
        from seatkeeper.server.config import NodeConfig
    except ModuleNotFoundError:
        return None
    return NodeConfig


def _serve(config: Path | None, flags: dict[str, Any]) -> None:
    """Run one node until it is stopped (SIGTERM, SIGINT, SIGQUIT).

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


_serve.__name__ = "serve"
app = settings_app(_serve, _settings())
