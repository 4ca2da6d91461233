"""``seatkeeper grant``: the seats that are held."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli import completion
from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.render import facts, grant_json, iso, say, show, write_json
from seatkeeper.cli.requests import EXAMPLE_ID, PoolArgument, ReasonOption, grant_facts
from seatkeeper.cli.views import grants_table
from seatkeeper.core.amounts import count, span
from seatkeeper.core.instants import parse_length
from seatkeeper.v1 import pool_service_pb2 as pb

if TYPE_CHECKING:
    from seatkeeper.client import AsyncSeatClient

POOLS_MAX = 200
"""Most pools in use that are asked for one after another. Of more, name the pool."""

NOT_NOW = (
    "--now frees the seats at once, and two may then work with one seat; `seatkeeper grant revoke` "
    "calls them back with a notice"
)
WAIVED = (
    "warning: if its holder cannot be reached, it may go on until its lease has run out, beside the "
    "next holder; `--now` waives that two never believe in one seat"
)
LENT = (
    "warning: the machine that has borrowed it goes on until its day, beside the next holder; `--now` "
    "waives that two never believe in one seat"
)

app = typer.Typer(
    help="The seats that are held: list grants, show one, call it back, extend it, free its seats.",
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
        typer.Option("--now", help="Free them at once; required: `grant revoke` warns before."),
    ] = False,
) -> None:
    """Free the seats of a grant whose holder does not give them back. For administrators.

    `grant revoke` calls them back with a notice instead, and keeps all promises. With --now the holder
    is notified, with the reason, and the next in the queue gets the seats at once. A holder that cannot
    be reached goes on until it is, or until its lease has run out, and a machine that has borrowed the
    seats until its day: meanwhile two may work with one seat. Nothing is published under the grant from
    then on. The other grants of the same client stay.
    """
    if not now:
        fail(Exit.USAGE, NOT_NOW)
    async with at.client() as client:
        await _free(at, client, pool, grant_id, reason)


@app.command(
    "revoke",
    epilog=examples(
        f'seatkeeper grant revoke tensorrt {EXAMPLE_ID} --notice 10m --reason "needed for the release"',
        f'seatkeeper grant revoke tensorrt {EXAMPLE_ID} --withdraw --reason "not needed after all"',
    ),
)
@connected
async def revoke(
    at: Connection,
    pool: PoolArgument,
    grant_id: Grant,
    reason: Annotated[str, ReasonOption],
    notice: Annotated[
        str,
        typer.Option(
            "--notice",
            metavar="LENGTH",
            help="How long its holder has, such as 60s, 10m or 2h; from 1s to 1d.",
        ),
    ] = "60s",
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Take back that the grant was called back.")
    ] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Without a notice: as `grant release --now`.")
    ] = False,
) -> None:
    """Call the seats of a grant back: its holder is warned, and has the notice. For administrators.

    The holder is notified as where a pool calls lent seats back: `seatkeeper run` says so and signals
    its command, the library calls back. It may finish and release; when the notice is over it is
    stopped, and the next in the queue gets the seats. The notice begins when the holder's client has
    said that it knows. One that does not know of such calls cannot be called back, and is said so.
    """
    if now and withdraw:
        fail(
            Exit.USAGE, "--now frees the seats, and --withdraw leaves them: give one of the two"
        )
    async with at.client() as client:
        if now:
            await _free(at, client, pool, grant_id, reason)
            return
        if withdraw:
            grant = await client.pools.withdraw_revoke(pool, grant_id, reason=reason)
        else:
            time = _length("--notice", notice)
            grant = await client.pools.revoke(pool, grant_id, notice=time, reason=reason)
    if at.json:
        write_json({"pool": pool, **grant_json(grant)})
        return
    seats = count(grant.seats, "seat")
    if withdraw:
        say(f"{seats} of {pool} stay with {grant.holder}: no administrator calls them back")
    else:
        say(f"{seats} of {pool} called back from {grant.holder}, with a notice of {span(time)}")


@app.command(
    "extend",
    epilog=examples(
        f'seatkeeper grant extend tensorrt {EXAMPLE_ID} --for 2h --reason "nearly done"'
    ),
)
@connected
async def extend(
    at: Connection,
    pool: PoolArgument,
    grant_id: Grant,
    length: Annotated[
        str,
        typer.Option(
            "--for", metavar="LENGTH", help="How much longer, such as 45m, 2h or 1d12h."
        ),
    ],
    reason: Annotated[str, ReasonOption],
) -> None:
    """Let a grant be held for longer than its pool's longest hold. For administrators.

    What was added before stays. A grant that is called back for being held too long is not called back
    any more, unless it still is; `pool update --hold` changes the longest hold for all.
    """
    by = _length("--for", length)
    async with at.client() as client:
        held = await client.pools.get(pool)
        seen = next(
            (each.hold.extended for each in held.grants if each.grant_id == grant_id), None
        )
        grant = await client.pools.extend(
            pool,
            grant_id,
            by=by,
            reason=reason,
            seen=timedelta(0) if seen is None else seen.ToTimedelta(),
        )
    if at.json:
        write_json({"pool": pool, **grant_json(grant)})
        return
    until = f", until {iso(grant.hold.ends_at)}" if grant.hold.HasField("ends_at") else ""
    say(
        f"{grant.holder} may hold {count(grant.seats, 'seat')} of {pool} for {span(by)} longer{until}"
    )


def _length(flag: str, text: str) -> timedelta:
    """Return what an option says of a length of time. One that cannot be read ends the command."""
    try:
        return parse_length(text)
    except ValueError as error:
        fail(Exit.USAGE, f"{flag}: {error}")


async def _free(
    at: Connection, client: AsyncSeatClient, pool: str, grant_id: str, reason: str
) -> None:
    """Free the seats of a grant at once, and say so."""
    grant = await client.pools.release_now(pool, grant_id, reason=reason)
    if at.json:
        freed = {"released": grant_id, "pool": pool, "holder": grant.holder}
        was_kept = {"was_kept": True} if grant.HasField("kept") else {}
        write_json(freed | was_kept | {"seats": grant.seats, "fence": grant.fence})
        return
    if grant.HasField("kept"):
        say(f"{count(grant.seats, 'seat')} of {pool} kept for {grant.holder} no more")
        return
    say(f"{count(grant.seats, 'seat')} of {pool} taken back from {grant.holder}")
    say(LENT if grant.HasField("borrowed") else WAIVED, stderr=True)


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
