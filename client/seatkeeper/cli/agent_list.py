"""``seatkeeper agent list``: which agents there are, and what they build."""

from __future__ import annotations

import typer

from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection
from seatkeeper.cli.examples import examples
from seatkeeper.cli.render import agent_json, say, show, write_json
from seatkeeper.cli.views import agents_table, builds_table

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=examples("seatkeeper agent list", "seatkeeper agent list --json"))
@connected
async def list_agents(at: Connection) -> None:
    """List the build agents that are alive, and the builds that run on them.

    What an agent does is as it said last, at most some seconds ago. Memory is what is set aside for
    the builds that run, of what builds may have on that host.
    """
    async with at.client() as client:
        agents = await client.engines.agents()
    if at.json:
        write_json({"agents": [agent_json(agent) for agent in agents]})
        return
    if not agents:
        say("no build agent is alive; start one with `seatkeeper agent`")
        return
    show(agents_table(agents))
    if any(agent.load.builds for agent in agents):
        say("")
        show(builds_table(agents))
