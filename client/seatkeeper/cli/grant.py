"""``seatkeeper grant``: the seats that are held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli import completion
from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.render import facts, grant_json, say, show, write_json
from seatkeeper.cli.requests import EXAMPLE_ID, PoolArgument, ReasonOption, grant_facts
from seatkeeper.cli.views import grants_table
from seatkeeper.core.amounts import count
from seatkeeper.v1 import pool_service_pb2 as pb

if TYPE_CHECKING:
    from seatkeeper.client import AsyncSeatClient

POOLS_MAX = 200
"""Most pools in use that are asked for one after another. Of more, name the pool."""

NOT_NOW = (
    "a release that warns the holder and waits for it does not exist yet: wait until it gives its "
    "seats back or its lease has run out, or free them with --now; two may then work with one seat"
)
WAIVED = (
    "warning: if its holder cannot be reached, it may go on until its lease has run out, beside the "
    "next holder; `--now` waives that two never believe in one seat"
)

app = typer.Typer(
    help="The seats that are held: list grants, show one, free its seats by force.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Grant = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="Id of the grant, as `grant list` shows it.",
        autocompletion=completion.grants,
    ),
]


@app.command("list", epilog=examples("seatkeeper grant list", "seatkeeper grant list tensorrt"))
@connected
async def list_(
    at: Connection,
    pool: Annotated[
        str | None,
        typer.Argument(
            metavar="[POOL]", help="List only this pool's.", autocompletion=completion.pools
        ),
    ] = None,
) -> None:
    """List the grants of a pool, or of all, the oldest first; of each pool at most 1,000."""
    async with at.client() as client:
        found = [await client.pools.get(pool)] if pool else await _in_use(client)
    if at.json:
        grants = [
            {"pool": each.spec.name, **grant_json(grant)}
            for each in found
            for grant in each.grants
        ]
        write_json({"grants": grants})
        return
    if pool is None and not found:
        show("no seat is held")
    for number, each in enumerate(found):
        if pool is None:
            heading = f"{each.spec.name}: {each.held} of {each.spec.seats} seats held"
            show(*([""] if number else []), heading)
        show(grants_table(each, with_ids=True))


@app.command("show", epilog=examples(f"seatkeeper grant show tensorrt {EXAMPLE_ID}"))
@connected
async def show_(at: Connection, pool: PoolArgument, grant_id: Grant) -> None:
    """Show one grant."""
    async with at.client() as client:
        found = await client.pools.get(pool)
    grant = next((each for each in found.grants if each.grant_id == grant_id), None)
    if grant is None:
        if any(each.grant_id == grant_id for each in found.tickets):
            waits = f"request {grant_id} waits for {pool}, and holds no seat"
            fail(Exit.NOT_FOUND, f"{waits}; `seatkeeper queue show` shows it")
        is_none = f"there is no grant {grant_id} of {pool}"
        fail(Exit.NOT_FOUND, f"{is_none}; `seatkeeper grant list {pool}` shows those there are")
    if at.json:
        write_json({"pool": pool, **grant_json(grant)})
    else:
        show(facts([("pool", pool), *grant_facts(grant)]))


@app.command(
    "release",
    epilog=examples(
        f'seatkeeper grant release tensorrt {EXAMPLE_ID} --now --reason "its host is gone"'
    ),
)
@connected
async def release(
    at: Connection,
    pool: PoolArgument,
    grant_id: Grant,
    reason: Annotated[str, ReasonOption],
    now: Annotated[
        bool,
        typer.Option("--now", help="Free them at once; required, as there is no other way."),
    ] = False,
) -> None:
    """Free the seats of a grant whose holder does not give them back. For administrators.

    With --now its holder is notified, with the reason, and the next in the queue gets the seats at
    once. A holder that cannot be reached goes on until it is, or until its lease has run out: meanwhile
    two may work with one seat. Nothing is published under the grant from then on. The other
    grants of the same client stay.
    """
    if not now:
        fail(Exit.USAGE, NOT_NOW)
    async with at.client() as client:
        grant = await client.pools.release_now(pool, grant_id, reason=reason)
    if at.json:
        freed = {"released": grant_id, "pool": pool, "holder": grant.holder}
        write_json(freed | {"seats": grant.seats, "fence": grant.fence})
        return
    say(f"{count(grant.seats, 'seat')} of {pool} taken back from {grant.holder}")
    say(WAIVED, stderr=True)


async def _in_use(client: AsyncSeatClient) -> list[pb.Pool]:
    """Return the pools whose seats are held, with their grants."""
    from seatkeeper.core.errors import PoolNotFound

    used = [pool.spec.name for pool in await client.pools.list() if pool.held]
    if len(used) > POOLS_MAX:
        fail(
            Exit.USAGE, f"{len(used)} pools are in use; name one: `seatkeeper grant list POOL`"
        )
    found: list[pb.Pool] = []
    for name in used:
        try:
            found.append(await client.pools.get(name))
        except PoolNotFound:
            continue  # deleted since
    return found
