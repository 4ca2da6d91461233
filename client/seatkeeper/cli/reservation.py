"""``seatkeeper reservation``: seats of a pool that are kept for some in windows that come again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli import completion
from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.render import say, show, write_json
from seatkeeper.cli.requests import PoolArgument
from seatkeeper.cli.reservations import reservations_json, reservations_table
from seatkeeper.client.admin.reservations import (
    ReservationChange,
    change_reservations,
    reservation_of,
)
from seatkeeper.core.errors import InvalidArgument, PoolsChanged
from seatkeeper.core.reservation_messages import decode_reservation
from seatkeeper.core.reservation_text import reservation_text
from seatkeeper.v1 import pool_service_pb2 as pb

if TYPE_CHECKING:
    from seatkeeper.client import AsyncSeatClient

ATTEMPTS_MAX = 5
"""How often a change is made anew when somebody else's came before it."""

app = typer.Typer(
    help="Reservations: seats of a pool that are kept for some in windows that come again and again.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Reason = Annotated[
    str,
    typer.Option(
        "--reason", metavar="TEXT", help="Why, for the nodes' log; at most 500 characters."
    ),
]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the reservation.")]


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What is kept, for whom and when: each field is an option."""

    seats: Annotated[
        int, typer.Option("--seats", metavar="N", min=1, max=100_000, help="Seats to keep.")
    ]
    whom: Annotated[
        list[str],
        typer.Option(
            "--for",
            metavar="WHO",
            help="Whom they are for: project:NAME, holder:NAME or group:NAME. May be repeated.",
        ),
    ]
    when: Annotated[
        str,
        typer.Option(
            "--when",
            metavar="DAYS",
            help="On which days a window opens: daily, weekdays, weekends, MO,TU, or a rule of RFC "
            "5545, such as FREQ=MONTHLY;BYDAY=1MO.",
        ),
    ]
    times: Annotated[
        str,
        typer.Option(
            "--at",
            metavar="TIMES",
            help="From when to when, as 22:00-06:00; 18:00-06:00+3 closes on the third day after.",
        ),
    ]
    zone: Annotated[
        str, typer.Option("--zone", metavar="ZONE", help="Time zone, such as Europe/Berlin.")
    ] = "UTC"
    first: Annotated[
        str, typer.Option("--from", metavar="DAY", help="No window opens before this day.")
    ] = ""
    notice: Annotated[
        str,
        typer.Option(
            "--notice",
            metavar="LENGTH",
            help="Call back what others hold, with so long a notice, such as 10m: so the seats are "
            "free when a window begins, and it opens by this and a minute earlier.",
        ),
    ] = ""


@app.command(
    epilog=examples(
        "seatkeeper reservation create tensorrt nightly --seats 1 --for project:ci --when weekdays "
        '--at 22:00-06:00 --zone Europe/Berlin --reason "the nightly builds"'
    )
)
@connected
async def create(
    at: Connection,
    pool: PoolArgument,
    name: Name,
    reason: Reason,
    kept: Kept,
) -> None:
    """Keep seats of a pool for some while a window is open.

    What they do not use of them is granted to no other then. Who has seats when it opens keeps them,
    unless --notice is given.
    """
    given = {"seats": str(kept.seats), "when": kept.when, "at": kept.times}
    given |= {"zone": kept.zone, "from": kept.first}
    given |= {"notice": kept.notice} if kept.notice else {}
    try:
        made = reservation_of(name, given, kept.whom)
    except InvalidArgument as error:
        fail(Exit.USAGE, str(error))

    def add(spec: pb.PoolSpec) -> None:
        if any(each.name == name for each in spec.policy.reservations):
            fail(Exit.USAGE, f"pool {pool} has a reservation {name} already: delete it first")
        change_reservations(spec, ReservationChange([made]))

    now = await _changed(at, pool, add, reason)
    if at.json:
        write_json(_one(now, name))
        return
    say(f"reservation {name} of pool {pool}: {reservation_text(decode_reservation(made))}")
    show(reservations_table([_only(now, name)]))


@app.command(
    epilog=examples('seatkeeper reservation delete tensorrt nightly --reason "they moved"')
)
@connected
async def delete(at: Connection, pool: PoolArgument, name: Name, reason: Reason) -> None:
    """Keep no more seats by a reservation, also where its window is open."""

    def take_out(spec: pb.PoolSpec) -> None:
        if all(each.name != name for each in spec.policy.reservations):
            fail(
                Exit.NOT_FOUND,
                f"pool {pool} has no reservation {name}; `seatkeeper reservation list` shows those "
                "there are",
            )
        change_reservations(spec, ReservationChange(without=[name]))

    await _changed(at, pool, take_out, reason)
    if at.json:
        write_json({"pool": pool, "deleted": name})
    else:
        say(f"reservation {name} of pool {pool} deleted")


@app.command("list", epilog=examples("seatkeeper reservation list"))
@connected
async def list_(
    at: Connection,
    pool: Annotated[
        str | None,
        typer.Argument(
            metavar="[POOL]",
            help="Name of the pool. Left out: all pools.",
            autocompletion=completion.pools,
        ),
    ] = None,
) -> None:
    """List reservations, with the window of each that is open, or comes next."""
    async with at.client() as client:
        pools = [await client.pools.get(pool)] if pool else await client.pools.list()
    found = [each for each in pools if each.spec.policy.reservations]
    if at.json:
        listed = [
            {"pool": each.spec.name, **one}
            for each in found
            for one in reservations_json(each)["reservations"]
        ]
        write_json({"reservations": listed})
    elif not found:
        say("there is no reservation")
    else:
        show(reservations_table(found, with_pools=True))


def _only(pool: pb.Pool, name: str) -> pb.Pool:
    """Return a pool as if it had one reservation."""
    change_reservations(
        pool.spec,
        ReservationChange(
            without=[each.name for each in pool.spec.policy.reservations if each.name != name]
        ),
    )
    return pool


def _one(pool: pb.Pool, name: str) -> dict[str, object]:
    (found,) = reservations_json(_only(pool, name))["reservations"]
    return {"pool": pool.spec.name, **found}


async def _changed(
    at: Connection, pool: str, change: Callable[[pb.PoolSpec], None], reason: str
) -> pb.Pool:
    """Change a pool's specification, with a reason; return the pool as it is then."""
    async with at.client() as client:
        await _apply(client, pool, change, reason)
        return await client.pools.get(pool)


async def _apply(
    client: AsyncSeatClient, pool: str, change: Callable[[pb.PoolSpec], None], reason: str
) -> None:
    for attempt in range(1, ATTEMPTS_MAX + 1):
        seen = await client.pools.get(pool)
        change(seen.spec)
        asked = pb.PoolChange(name=pool, seen_revision=seen.revision, spec=seen.spec)
        try:
            await client.pools.apply([asked], reason=reason)
        except PoolsChanged:
            if attempt == ATTEMPTS_MAX:
                raise
            continue
        return
