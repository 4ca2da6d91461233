"""``seatkeeper doctor``: whether a running service is well, and what to do where it is not."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import typer
from rich.console import RenderableType
from rich.text import Text

from seatkeeper.cli.connection import Connection, connected
from seatkeeper.cli.diagnosis import Finding, Level, Seen, diagnose
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit
from seatkeeper.cli.render import count, show, table, words, write_json

if TYPE_CHECKING:
    from seatkeeper.client import AsyncSeatClient

REACH_SECONDS_MAX = 3.0
"""How long an address may take to answer from here."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=examples("seatkeeper doctor", "seatkeeper doctor --json"))
@connected
async def doctor(at: Connection) -> None:
    """Check a running service: nodes, clocks, certificates, ports, etcd and pools.

    One node is asked, and asks the others; then every node's and agent's address is tried from here.
    It changes nothing, and works also while etcd does not. The exit code is 0 where nothing worse
    than warnings was found, 1 where a problem was, and 69 where no node answered.
    """
    findings = diagnose(await _look(at))
    levels = Counter(finding.level for finding in findings)
    problems, warnings = levels[Level.PROBLEM], levels[Level.WARNING]
    if at.json:
        told = {"problems": problems, "warnings": warnings}
        write_json(told | {"findings": [asdict(finding) for finding in findings]})
    else:
        summary = f"{count(problems, 'problem')}, {count(warnings, 'warning')}"
        show(_table(findings), Text(), words(summary))
    if problems:
        raise SystemExit(int(Exit.FAILED))


async def _look(at: Connection) -> Seen:
    from seatkeeper.client.transport.nodes import parse_addresses
    from seatkeeper.core.errors import SeatError

    async with at.client() as client:
        asked_at, began = datetime.now(UTC), time.monotonic()
        report = await client.cluster.report()
        took = timedelta(seconds=time.monotonic() - began)
        agents, pools = None, None
        try:
            agents = await client.engines.agents()
            pools = await client.pools.list()
        except SeatError:
            pass  # without a quorum; the report says so
        given = parse_addresses(at.nodes)
        nodes = [*(node.address for node in report.nodes), *given]
        deployments: dict[str, tuple[str, str]] = {}
        addresses = [agent.address for agent in agents or ()]
        unreached = await _unreached(at, client, nodes, addresses, deployments)
    return Seen(
        report=report,
        here=asked_at + took / 2,
        took=took,
        given=given,
        unreached=unreached,
        deployments=deployments,
        agents=agents,
        pools=pools,
    )


async def _unreached(
    at: Connection,
    client: AsyncSeatClient,
    nodes: Sequence[str],
    agents: Sequence[str],
    deployments: dict[str, tuple[str, str]],
) -> dict[str, str]:
    """Try every address; return why some cannot be reached from here.

    Puts into ``deployments`` which service each node is of.
    """
    from seatkeeper.core.errors import SeatError

    async def try_node(address: str) -> None:
        direct = replace(at, nodes=address, timeout=min(at.patience, REACH_SECONDS_MAX))
        async with direct.client(is_there=False) as one:
            version = await one.cluster.version()
            deployments[address] = (version.deployment_id, version.prefix)

    async def try_agent(address: str) -> None:
        async with asyncio.timeout(REACH_SECONDS_MAX), client.agent(address) as one:
            await one.capabilities()

    tries = {
        **{address: try_node(address) for address in dict.fromkeys(nodes)},
        **{address: try_agent(address) for address in dict.fromkeys(agents)},
    }
    results = await asyncio.gather(*tries.values(), return_exceptions=True)
    unreached: dict[str, str] = {}
    for address, result in zip(tries, results, strict=True):
        if isinstance(result, TimeoutError):
            unreached[address] = f"no answer within {REACH_SECONDS_MAX:g} s"
        elif isinstance(result, SeatError):
            unreached[address] = str(result)
        elif isinstance(result, BaseException):
            raise result
    return unreached


def _table(findings: Sequence[Finding]) -> RenderableType:
    rows: list[tuple[str, str, str]] = []
    for finding in findings:
        rows.append((finding.level.value, finding.about, finding.what))
        if finding.advice:
            rows.append(("", "", f"→ {finding.advice}"))
    return table(("", "about", "finding"), rows)
