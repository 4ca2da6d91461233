"""What a shell offers when Tab is pressed: names that the service knows.

The service is asked with what the line has so far (``--nodes``, the options for TLS) and the
environment, for at most a second. Without an answer nothing is offered, and nothing is printed: a
user who types has not asked for anything yet.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from seatkeeper.core import environment as variables
from seatkeeper.core.text import hidden_in

if TYPE_CHECKING:
    from seatkeeper.client import AsyncSeatClient

ANSWER_SECONDS = 1.0
OFFERED_MAX = 200
"""Most names that are offered: a shell asks before it shows more than a screen of them."""
KEY_CHARS = 16

_Ask = Callable[["AsyncSeatClient"], Awaitable[Sequence[str]]]


def pools(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the names of pools."""

    async def ask(client: AsyncSeatClient) -> Sequence[str]:
        return [pool.spec.name for pool in await client.pools.list()]

    return _offer(ctx.params, incomplete, ask)


def tickets(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the ids of the requests that wait for the pool that the line names."""

    async def ask(client: AsyncSeatClient) -> Sequence[str]:
        return [each.grant_id for each in (await client.pools.get(_pool(ctx))).tickets]

    return _offer(ctx.params, incomplete, ask)


def grants(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the ids of the grants of the pool that the line names."""

    async def ask(client: AsyncSeatClient) -> Sequence[str]:
        return [each.grant_id for each in (await client.pools.get(_pool(ctx))).grants]

    return _offer(ctx.params, incomplete, ask)


def _pool(ctx: typer.Context) -> str:
    return str(ctx.params.get("pool") or "")


def nodes(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the ids of nodes."""

    async def ask(client: AsyncSeatClient) -> Sequence[str]:
        return [node.node_id for node in await client.cluster.nodes()]

    return _offer(ctx.params, incomplete, ask)


def agents(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the ids of build agents."""

    async def ask(client: AsyncSeatClient) -> Sequence[str]:
        return [agent.agent_id for agent in await client.engines.agents()]

    return _offer(ctx.params, incomplete, ask)


def engines(ctx: typer.Context, incomplete: str) -> list[str]:
    """Offer the beginnings of engines' keys."""

    async def ask(client: AsyncSeatClient) -> Sequence[str]:
        from seatkeeper.v1 import build_pb2

        keys = []
        async for engine in client.engines.list():
            manifest = build_pb2.EngineManifest.FromString(engine.manifest.manifest)
            keys.append(manifest.key[:KEY_CHARS])
            if len(keys) == OFFERED_MAX:
                break
        return keys

    return _offer(ctx.params, incomplete, ask)


def targets(incomplete: str) -> list[str]:
    """Offer GPU architectures, in the letters that were begun with."""
    from seatkeeper.artifacts.plan import TARGETS

    known = dict.fromkeys(target for each in TARGETS.values() for target in each)
    begun_small = incomplete != incomplete.upper()
    named = [target.lower() if begun_small else target for target in known]
    return [target for target in named if target.startswith(incomplete)]


def precisions(incomplete: str) -> list[str]:
    """Offer what a model can be converted to."""
    from seatkeeper.artifacts.precision import Precision

    return [name for name in Precision if name.startswith(incomplete)]


def _offer(given: Mapping[str, Any], incomplete: str, ask: _Ask) -> list[str]:
    # gRPC's own lines on standard error would end up in the middle of what is being typed.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        names = asyncio.run(_asked(given, ask))
    except Exception:
        return []
    fitting = {name for name in names if name.startswith(incomplete) and not hidden_in(name)}
    return sorted(fitting)[:OFFERED_MAX]


async def _asked(given: Mapping[str, Any], ask: _Ask) -> Sequence[str]:
    from seatkeeper.client import AsyncSeatClient, ClientConfig, TlsConfig
    from seatkeeper.client.transport.nodes import parse_addresses
    from seatkeeper.client.transport.reach import check_reachable

    def value(option: str, variable: str) -> str:
        return str(given.get(option) or os.environ.get(variable) or "")

    files: Any = {
        name: Path(path)
        for name, option, variable in (
            ("ca", "tls_ca", variables.TLS_CA),
            ("cert", "tls_cert", variables.TLS_CERT),
            ("key", "tls_key", variables.TLS_KEY),
        )
        if (path := value(option, variable))
    }
    addresses = parse_addresses(value("nodes", variables.NODES) or variables.DEFAULT_NODES)
    check_reachable(addresses, seconds=0.0)
    time_limit = timedelta(seconds=ANSWER_SECONDS)
    config = ClientConfig(
        call_timeout=time_limit,
        attempt_timeout=time_limit,
        connect_timeout=time_limit,
        keeper="process",
    )
    tls = TlsConfig(**files) if files else None
    async with (
        asyncio.timeout(ANSWER_SECONDS),
        AsyncSeatClient(addresses, tls=tls, config=config) as client,
    ):
        return await ask(client)
