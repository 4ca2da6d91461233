"""``seatkeeper status``: how things stand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli import completion
from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection
from seatkeeper.cli.examples import examples
from seatkeeper.cli.render import (
    Json,
    agent_json,
    console,
    holders_json,
    pool_json,
    report_json,
    say,
    show,
    stacked,
    store_json,
    words,
    write_json,
)
from seatkeeper.cli.views import (
    agents_table,
    grants_table,
    pools_table,
    queue_table,
    reports_view,
    store_view,
)
from seatkeeper.v1 import build_service_pb2, cluster_service_pb2
from seatkeeper.v1 import pool_service_pb2 as pools_pb

if TYPE_CHECKING:
    from rich.console import RenderableType

if TYPE_CHECKING:
    from seatkeeper.client import AsyncSeatClient

POOLS_IN_DETAIL_MAX = 200
"""Pools in use whose holders are asked for. Of more, ask for one at a time: `status POOL`."""
CALLS_AT_ONCE_MAX = 8
POLL_SECONDS = 1.0
"""Time between two looks at everything. One pool is streamed instead."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@dataclass(frozen=True)
class Overview:
    """Everything, as one node sees it."""

    report: cluster_service_pb2.GetReportResponse
    agents: tuple[build_service_pb2.AgentInfo, ...]
    pools: tuple[pools_pb.Pool, ...]
    holders: Mapping[str, pools_pb.Pool] = field(default_factory=dict)
    """Pools that are in use, by name, with who holds their seats; not all where there are many."""

    def json(self) -> Json:
        """Return it for programs."""
        return {
            "store": store_json(self.report.store),
            "nodes": [report_json(node) for node in self.report.nodes],
            "agents": [agent_json(agent) for agent in self.agents],
            "pools": [self._pool_json(pool) for pool in self.pools],
        }

    def _pool_json(self, pool: pools_pb.Pool) -> Json:
        found = self.holders.get(pool.spec.name)
        holders = [] if not pool.held else None if found is None else holders_json(found)
        return pool_json(pool, details=False) | {"holders": holders}

    def view(self) -> RenderableType:
        """Return it for people."""
        none_yet = words("no pool yet; `seatkeeper pool create NAME --seats N` makes one")
        parts: list[RenderableType] = [
            *(reports_view(self.report.nodes), words(""), store_view(self.report.store)),
            *(words(""), pools_table(self.pools) if self.pools else none_yet),
        ]
        if self.agents:
            parts += [words(""), agents_table(self.agents)]
        return stacked(*parts)

    def lines(self) -> list[str]:
        """Return it for a log: what is worth a line when it changes."""
        members = f"nodes={len(self.report.nodes)} agents={len(self.agents)}"
        return [members, *(_line(pool) for pool in self.pools)]


@dataclass(frozen=True)
class OnePool:
    """One pool with who holds and who waits."""

    pool: pools_pb.Pool

    def json(self) -> Json:
        """Return it for programs."""
        return pool_json(self.pool, details=True)

    def view(self) -> RenderableType:
        """Return it for people."""
        holders, waiters = grants_table(self.pool), queue_table(self.pool)
        return stacked(pools_table([self.pool]), words(""), holders, words(""), waiters)

    def lines(self) -> list[str]:
        """Return it for a log: what is worth a line when it changes."""
        holders = ",".join(grant.holder for grant in self.pool.grants) or "-"
        waiters = ",".join(ticket.holder for ticket in self.pool.tickets) or "-"
        return [f"{_line(self.pool)} holders={holders} waiting={waiters}"]


@dataclass(frozen=True)
class Silence:
    """No node answers, or the store does not."""

    why: str

    def json(self) -> Json:
        """Return it for programs."""
        return {"event": "unavailable", "error": self.why}

    def view(self) -> RenderableType:
        """Return it for people."""
        return words(f"no answer, asking again: {self.why}")

    def lines(self) -> list[str]:
        """Return it for a log."""
        return ["unavailable"]


Shown = Overview | OnePool | Silence


@app.command(epilog=examples("seatkeeper status", "seatkeeper status tensorrt --watch"))
@connected
async def status(
    at: Connection,
    pool: Annotated[
        str | None,
        typer.Argument(
            metavar="[POOL]",
            help="Show only this pool, in detail.",
            autocompletion=completion.pools,
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on showing it as it changes, until Ctrl-C.")
    ] = False,
) -> None:
    """Show nodes, agents and pools; or of one pool, who holds its seats and who waits.

    With --watch on a terminal the tables are kept up to date in place; elsewhere a line, or with
    --json an object, is written for each change.
    """
    # Who watches waits for the service to come, too.
    async with at.client(is_there=not watch) as client:
        if watch:
            changes: (
                AsyncGenerator[OnePool, None] | AsyncGenerator[Overview | Silence, None]
            ) = _pool_changes(client, pool) if pool else _all_changes(client, at.json)
            async with aclosing(changes):  # before the client, however it ends
                await _watch(at, changes)
            return
        state = (
            OnePool(await client.pools.get(pool)) if pool else await _overview(client, at.json)
        )
    if at.json:
        write_json(state.json())
    else:
        show(state.view())


async def _overview(client: AsyncSeatClient, with_holders: bool) -> Overview:
    report, agents, pools = await asyncio.gather(
        client.cluster.report(),
        client.engines.agents(),
        client.pools.list(),
    )
    holders = await _holders(client, pools) if with_holders else {}
    return Overview(report, tuple(agents), tuple(pools), holders)


async def _holders(
    client: AsyncSeatClient, pools: Iterable[pools_pb.Pool]
) -> dict[str, pools_pb.Pool]:
    """Return the pools that are in use with who holds; a listing of pools does not say that."""
    from seatkeeper.core.errors import PoolNotFound

    used = [pool.spec.name for pool in pools if pool.held][:POOLS_IN_DETAIL_MAX]
    limit = asyncio.Semaphore(CALLS_AT_ONCE_MAX)

    async def look(name: str) -> pools_pb.Pool | None:
        async with limit:
            try:
                return await client.pools.get(name)
            except PoolNotFound:
                return None  # deleted since

    found = await asyncio.gather(*map(look, used))
    return {pool.spec.name: pool for pool in found if pool is not None}


async def _all_changes(
    client: AsyncSeatClient,
    with_holders: bool,
) -> AsyncGenerator[Overview | Silence, None]:
    from seatkeeper.core.errors import ServiceUnavailable

    while True:
        try:
            state = await _overview(client, with_holders)
            for pool in state.holders.values():
                for grant in pool.grants:
                    # It moves with every renewal, and would make a change of each look.
                    grant.ClearField("expires_at")
            yield state
        except ServiceUnavailable as error:
            yield Silence(str(error))
        await asyncio.sleep(POLL_SECONDS)


async def _pool_changes(client: AsyncSeatClient, name: str) -> AsyncGenerator[OnePool, None]:
    async with aclosing(client.pools.watch(name)) as pools:
        async for pool in pools:
            yield OnePool(pool)


async def _watch(
    at: Connection, changes: AsyncIterator[Overview | Silence] | AsyncIterator[OnePool]
) -> None:
    out = console()
    if at.json or not out.is_terminal:
        await _write_changes(at, changes)
        return
    latest: list[Shown] = []

    def view() -> RenderableType:
        # Made anew at each refresh, so that "held for" goes on while nothing changes.
        return latest[-1].view() if latest else words("")

    from rich.live import Live

    with Live(get_renderable=view, console=out, refresh_per_second=2) as live:
        async for state in changes:
            latest[:] = [state]
            live.refresh()


async def _write_changes(
    at: Connection, changes: AsyncIterator[Overview | Silence] | AsyncIterator[OnePool]
) -> None:
    before: Json | list[str] | None = None
    async for state in changes:
        now: Json | list[str] = state.json() if at.json else state.lines()
        if now == before:
            continue
        if isinstance(now, dict):
            write_json(now)
        else:
            moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            for line in now:
                if before is None or line not in before:
                    say(f"{moment} {line}")
        before = now


def _line(pool: pools_pb.Pool) -> str:
    return (
        f"pool={pool.spec.name} seats={pool.spec.seats} held={pool.held} free={pool.free} "
        f"queued={pool.queued}"
    )
