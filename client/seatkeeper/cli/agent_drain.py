"""``seatkeeper agent drain``: takes a build agent out of service."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from seatkeeper.cli import completion
from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.render import say, write_json
from seatkeeper.core.amounts import count

POLL_SECONDS = 0.5

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=examples("seatkeeper agent drain agent-1"))
@connected
async def drain(
    at: Connection,
    agent_id: Annotated[
        str,
        typer.Argument(
            metavar="AGENT", help="Id of the agent.", autocompletion=completion.agents
        ),
    ],
    *,
    wait: Annotated[bool, typer.Option("--wait", help="Return only once it has left.")] = False,
) -> None:
    """Have a build agent finish what it builds, take nothing new, leave, and exit with 0.

    Returns once the agent has begun to; builds that run may take as long as they take. On SIGTERM an
    agent does the same, but ends builds after its `stop_grace`.
    """
    async with at.client() as client:
        known = [agent.agent_id for agent in await client.engines.agents()]
        if agent_id not in known:
            fail(
                Exit.NOT_FOUND,
                f"there is no agent {agent_id!r}; alive: {', '.join(known) or 'none'}",
            )
        await client.engines.drain_agent(agent_id)
        running = 0
        async with asyncio.timeout(None if wait else at.time_limit):
            while True:
                found = {agent.agent_id: agent for agent in await client.engines.agents()}
                agent = found.get(agent_id)
                if agent is None or (agent.draining and not wait):
                    break
                await asyncio.sleep(POLL_SECONDS)
        running = 0 if agent is None else agent.load.running
    if at.json:
        write_json({"event": "draining", "agent_id": agent_id, "running": running})
    elif agent is None:
        say(f"agent {agent_id} has left")
    else:
        left = f"once its {count(running, 'build')} ended" if running else "now"
        say(f"agent {agent_id} takes no more builds, and leaves {left}")
