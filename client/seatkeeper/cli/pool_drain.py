"""``seatkeeper pool drain`` and ``seatkeeper pool open``: whether anything is granted from a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli import completion
from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection
from seatkeeper.cli.render import iso, pool_json, say, write_json
from seatkeeper.core.amounts import count

if TYPE_CHECKING:
    from seatkeeper.v1 import pool_service_pb2 as pb

Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name of the pool.", autocompletion=completion.pools),
]


@connected
async def drain(
    at: Connection,
    name: Name,
    reason: Annotated[
        str,
        typer.Option(
            "--reason",
            metavar="TEXT",
            help="Why, for those who ask for seats and for the log: at most 200 characters.",
        ),
    ],
) -> None:
    """Grant nothing more from a pool until it is opened. For administrators.

    Holders keep their seats, waiting requests their places; new requests may wait, and those that do
    not are denied with the reason. Unlike `--seats 0`, it leaves the pool what it is: its seats and
    shares stay, also in files, and `pool apply` leaves it drained. Nodes of before this command do not
    serve a drained pool at all.
    """
    async with at.client() as client:
        pool = await client.pools.drain(name, reason=reason)
    if at.json:
        write_json(pool_json(pool, details=False))
    else:
        held = f"{count(pool.held, 'seat')} held, {count(pool.queued, 'request')} waiting"
        say(f"pool {name} is drained: nothing is granted until `seatkeeper pool open`; {held}")


@connected
async def open_(
    at: Connection,
    name: Name,
    reason: Annotated[
        str,
        typer.Option(
            "--reason", metavar="TEXT", help="Why, for the log: at most 200 characters."
        ),
    ] = "",
) -> None:
    """Open a pool that was drained: those who wait are served. For administrators."""
    async with at.client() as client:
        pool = await client.pools.open(name, reason=reason)
    if at.json:
        write_json(pool_json(pool, details=False))
    elif pool.spec.seats:
        say(f"pool {name} is open: {count(pool.spec.seats, 'seat')}, {pool.held} held")
    else:
        say(
            f"pool {name} is not drained, and has 0 seats: nothing is granted until "
            "`seatkeeper pool update` gives it some"
        )


def drain_facts(spec: pb.PoolSpec) -> list[tuple[str, str]]:
    """Return why a pool is drained, for people; nothing of one that is open."""
    if not spec.HasField("drain"):
        return []
    said = spec.drain
    return [("drained", f"since {iso(said.drained_at)}, by {said.by}: {said.reason}")]
