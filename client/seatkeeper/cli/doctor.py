"""``seatkeeper doctor``: whether a running service is well, and what to do where it is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import typer

from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit
from seatkeeper.cli.render import show, table, words, write_json
from seatkeeper.core.amounts import count

if TYPE_CHECKING:
    from rich.console import RenderableType

if TYPE_CHECKING:
    from seatkeeper.client import AsyncSeatClient
    from seatkeeper.client.diagnosis.diagnosis import Finding, Seen

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=examples("seatkeeper doctor", "seatkeeper doctor --json"))
@connected
async def doctor(at: Connection) -> None:
    """Check a running service: nodes, clocks, certificates, ports, etcd and pools.

    One node is asked, and asks the others; then every node's and agent's address is tried from here.
    It changes nothing, and works also while etcd does not. The exit code is 0 where nothing worse
    than warnings was found, 1 where a problem was, and 69 where no node answered.
    """
    from seatkeeper.client.diagnosis.diagnosis import Level, diagnose

    findings = diagnose(await _look(at))
    levels = Counter(finding.level for finding in findings)
    problems, warnings = levels[Level.PROBLEM], levels[Level.WARNING]
    if at.json:
        reported = {"problems": problems, "warnings": warnings}
        write_json(reported | {"findings": [asdict(finding) for finding in findings]})
    else:
        summary = f"{count(problems, 'problem')}, {count(warnings, 'warning')}"
        show(_table(findings), words(""), words(summary))
    if problems:
        raise SystemExit(int(Exit.FAILED))


async def _look(at: Connection) -> Seen:
    from seatkeeper.client.diagnosis.observe import REACH_SECONDS_MAX, observe
    from seatkeeper.client.transport.nodes import parse_addresses

    def direct(address: str) -> AsyncSeatClient:
        one = replace(at, nodes=address, timeout=min(at.time_limit, REACH_SECONDS_MAX))
        return one.client(is_there=False)

    async with at.client() as client:
        return await observe(client, parse_addresses(at.nodes), direct)


def _table(findings: Sequence[Finding]) -> RenderableType:
    rows: list[tuple[str, str, str]] = []
    for finding in findings:
        rows.append((finding.level.value, finding.about, finding.what))
        if finding.advice:
            rows.append(("", "", f"→ {finding.advice}"))
    return table(("", "about", "finding"), rows)
