"""The tables of pools, nodes and agents that several commands show."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from seatkeeper.cli.render import seconds, since, span, table
from seatkeeper.v1 import build_service_pb2, cluster_service_pb2
from seatkeeper.v1 import pool_service_pb2 as pools_pb


def nodes_table(nodes: Sequence[cluster_service_pb2.Node]) -> RenderableType:
    """Return the live nodes."""
    return table(
        ("node", "address", "version", "up for"),
        [(node.node_id, node.address, node.version, since(node.started_at)) for node in nodes],
    )


def agents_table(agents: Sequence[build_service_pb2.AgentInfo]) -> RenderableType:
    """Return the live agents, one line a backend."""
    return table(
        ("agent", "address", "pool", ">builds", "backend", "version", "targets"),
        [
            (
                agent.agent_id,
                agent.address,
                agent.pool,
                str(agent.builds_max),
                backend.name,
                backend.version,
                " ".join(backend.targets),
            )
            for agent in agents
            for backend in agent.backends
        ],
    )


def pools_table(pools: Sequence[pools_pb.Pool]) -> RenderableType:
    """Return how full pools are."""
    return table(
        ("pool", ">seats", ">held", ">free", ">queued", "owner", "description"),
        [
            (
                pool.spec.name,
                str(pool.spec.seats),
                str(pool.held),
                str(pool.free),
                str(pool.queued),
                pool.owner,
                pool.spec.description,
            )
            for pool in pools
        ],
    )


def grants_table(pool: pools_pb.Pool) -> RenderableType:
    """Return who holds seats of a pool."""
    if not pool.grants:
        return Text("nobody holds a seat")
    return table(
        ("holder", "project", ">seats", ">fence", ">held for", "agent"),
        [
            (
                grant.holder,
                grant.project,
                str(grant.seats),
                str(grant.fence),
                since(grant.granted_at),
                grant.agent_id or "-",
            )
            for grant in pool.grants
        ],
    )


def queue_table(pool: pools_pb.Pool) -> RenderableType:
    """Return who waits for seats of a pool."""
    if not pool.tickets:
        return Text("nobody waits")
    return table(
        (">position", "waits", "project", ">seats", ">waiting for", ">estimate"),
        [
            (
                str(ticket.position),
                ticket.holder,
                ticket.project,
                str(ticket.seats),
                since(ticket.queued_at),
                span(seconds(ticket.estimate)) if ticket.HasField("estimate") else "unknown",
            )
            for ticket in pool.tickets
        ],
    )
