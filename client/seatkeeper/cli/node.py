"""``seatkeeper node``: the nodes, and taking one out of service."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated

import typer

from seatkeeper.cli import completion
from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.render import Json, iso, say, show, write_json
from seatkeeper.cli.views import nodes_table
from seatkeeper.v1 import cluster_service_pb2

GONE_POLL_SECONDS = 0.2

app = typer.Typer(
    help="The nodes: list them, take one out of service.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command("list", epilog=examples("seatkeeper node list"))
@connected
async def list_nodes(at: Connection) -> None:
    """List the nodes that are alive."""
    async with at.client() as client:
        nodes = await client.cluster.nodes()
    if at.json:
        write_json({"nodes": [_node_json(node) for node in nodes]})
    else:
        show(nodes_table(nodes))


@app.command(epilog=examples("seatkeeper node drain dev-2"))
@connected
async def drain(
    at: Connection,
    node_id: Annotated[
        str,
        typer.Argument(metavar="NODE", help="Id of the node.", autocompletion=completion.nodes),
    ],
) -> None:
    """Have a node stop as on SIGTERM, and wait until it has left.

    It accepts no new work, asks its clients to move to other nodes, completes calls in progress, and
    exits with 0. Seats, places in the queue and tokens stay. The node is called at its own
    address, as `seatkeeper node list` shows it.
    """
    async with at.client() as client:
        addresses = {node.node_id: node.address for node in await client.cluster.nodes()}
        if node_id not in addresses:
            known = ", ".join(addresses) or "none"
            fail(Exit.NOT_FOUND, f"there is no node {node_id!r}; alive: {known}")
        async with replace(at, nodes=addresses[node_id]).client() as direct:
            await direct.cluster.drain(node_id)
        if len(addresses) > 1:
            await _until_gone(at, addresses, node_id)
    if at.json:
        write_json({"event": "draining", "node_id": node_id})
    else:
        say(f"node {node_id} has left; it ends when its clients have gone")
        if len(addresses) == 1:
            say("it was the only node: no request is served until another starts")


async def _until_gone(at: Connection, addresses: dict[str, str], node_id: str) -> None:
    others = ",".join(address for node, address in addresses.items() if node != node_id)
    async with replace(at, nodes=others).client() as client, asyncio.timeout(at.time_limit):
        while True:
            nodes = await client.cluster.nodes()
            if node_id not in {node.node_id for node in nodes}:
                return
            await asyncio.sleep(GONE_POLL_SECONDS)


def _node_json(node: cluster_service_pb2.Node) -> Json:
    return {
        "node_id": node.node_id,
        "address": node.address,
        "version": node.version,
        "started_at": iso(node.started_at),
    }
