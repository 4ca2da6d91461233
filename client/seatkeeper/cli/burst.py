"""``seatkeeper burst``: extra seats of a pool, for a while."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli import completion
from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.lots import left_text, lot_json, lots_rows, now_millis, rule_json
from seatkeeper.cli.render import say, show, write_json
from seatkeeper.cli.requests import PoolArgument
from seatkeeper.client.admin.lots import LotChange, change_lots
from seatkeeper.core.amounts import count, span
from seatkeeper.core.errors import PoolsChanged
from seatkeeper.core.instants import instant_shown, parse_length, parse_price
from seatkeeper.core.lot_messages import decode_lot, decode_lots, encode_lot
from seatkeeper.core.lots import Lot, LotKind, Price
from seatkeeper.v1 import pool_service_pb2 as pb

if TYPE_CHECKING:
    from seatkeeper.client import AsyncSeatClient

ATTEMPTS_MAX = 5
"""How often a change is made anew when somebody else's came before it."""
BURST_SECONDS_MAX = 90 * 86_400

app = typer.Typer(
    help="Bursts: extra seats of a pool for a while. They end on time, and nothing that runs is ended.",
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
BurstName = Annotated[
    str | None,
    typer.Argument(metavar="BURST", help="Name of the burst. Left out: the only one there is."),
]


@app.command(
    epilog=examples(
        'seatkeeper burst start tensorrt --seats 4 --for 2h --reason "release build is late"'
    )
)
@connected
async def start(
    at: Connection,
    pool: PoolArgument,
    seats: Annotated[
        int, typer.Option("--seats", metavar="N", min=1, max=100_000, help="Extra seats.")
    ],
    length: Annotated[
        str,
        typer.Option(
            "--for", metavar="LENGTH", help="How long, such as 45m, 2h or 1d12h; at most 90d."
        ),
    ],
    reason: Reason,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", metavar="NAME", help="Its name. Left out: burst-1, burst-2, ..."
        ),
    ] = None,
    price: Annotated[
        str | None,
        typer.Option(
            "--price", metavar="PRICE", help="Such as 0.80 EUR/seat-hour; for people."
        ),
    ] = None,
    owner: Annotated[
        str, typer.Option("--owner", metavar="TEXT", help="Who answers for it; for people.")
    ] = "",
) -> None:
    """Give a pool extra seats for a while, at once.

    They end by themselves, as a lowered capacity does: what is held then goes on, and nothing is
    granted until the surplus is given back. The end is counted by this machine's clock.
    """
    ends = now_millis() + 1000 * _seconds(length)
    cost = _price(price)

    def add(spec: pb.PoolSpec) -> str:
        there = {
            lot.name
            for lot in spec.lots.lots
            if lot.state != pb.LOT_STATE_ENDED or lot.kind != pb.LOT_KIND_BURST
        }
        chosen = name or next(
            free for n in range(1, len(there) + 2) if (free := f"burst-{n}") not in there
        )
        if chosen in there:
            fail(Exit.USAGE, f"pool {pool} has a lot {chosen} already; give another --name")
        lot = Lot(
            name=chosen,
            seats=seats,
            ends=ends,
            price=cost,
            kind=LotKind.BURST,
            owner=owner,
        )
        change_lots(spec, LotChange([encode_lot(lot)]))
        return chosen

    async with at.client() as client:
        chosen = await _changed(client, pool, add, reason)
        now = await client.pools.get(pool)
    if at.json:
        (lot,) = (lot for lot in now.spec.lots.lots if lot.name == chosen)
        write_json({"pool": pool, "seats": now.spec.seats, **lot_json(lot)})
        return
    say(
        f"burst {chosen} of pool {pool}: {count(seats, 'seat')} until {instant_shown(ends)}; "
        f"{count(now.spec.seats, 'seat')} in force"
    )


@app.command(
    epilog=examples('seatkeeper burst stop tensorrt burst-1 --reason "the release is out"')
)
@connected
async def stop(
    at: Connection, pool: PoolArgument, reason: Reason, name: BurstName = None
) -> None:
    """End a burst before its time. Nothing that runs is ended: the surplus drains."""

    def take_out(spec: pb.PoolSpec) -> str:
        bursts = [
            lot.name
            for lot in spec.lots.lots
            if lot.kind == pb.LOT_KIND_BURST and lot.state != pb.LOT_STATE_ENDED
        ]
        if name is None and len(bursts) > 1:
            fail(Exit.USAGE, f"pool {pool} has several bursts; name one of {', '.join(bursts)}")
        chosen = name or (bursts[0] if bursts else "")
        if chosen not in bursts:
            what = f"burst {chosen} now" if chosen else "burst now"
            fail(
                Exit.NOT_FOUND,
                f"pool {pool} has no {what}; `seatkeeper burst list` shows those there are",
            )
        change_lots(spec, LotChange(without=[chosen]))
        return chosen

    async with at.client() as client:
        chosen = await _changed(client, pool, take_out, reason)
        now = await client.pools.get(pool)
    if at.json:
        write_json({"pool": pool, "stopped": chosen, "seats": now.spec.seats})
        return
    surplus = max(0, now.held - now.spec.seats)
    drains = f"; {count(surplus, 'seat')} over that drain" if surplus else ""
    say(
        f"burst {chosen} of pool {pool} stopped: {count(now.spec.seats, 'seat')} in force{drains}"
    )


@app.command("list", epilog=examples("seatkeeper burst list"))
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
    """List bursts, also those that have ended and are not forgotten yet, and what rules have left.

    The owner of a burst says who started it: `rule burst` is the pool's rule.
    """
    async with at.client() as client:
        pools = [await client.pools.get(pool)] if pool else await client.pools.list()
    found = [
        (each.spec.name, lot)
        for each in pools
        for lot in each.spec.lots.lots
        if lot.kind == pb.LOT_KIND_BURST
    ]
    ruled = [(each.spec.name, rule) for each in pools if (rule := rule_json(each)) is not None]
    if at.json:
        bursts = [{"pool": name, **lot_json(lot)} for name, lot in found]
        write_json(
            {"bursts": bursts, "rules": [{"pool": name, **rule} for name, rule in ruled]}
        )
        return
    if not found:
        say("there is no burst")
    else:
        show(lots_rows([(name, decode_lot(lot)) for name, lot in found], with_pools=True))
    for each in pools:
        if (lots := decode_lots(each.spec.lots)).rule:
            say(f"rule of pool {each.spec.name}: left this month {left_text(lots)}")


async def _changed(
    client: AsyncSeatClient, pool: str, change: Callable[[pb.PoolSpec], str], reason: str
) -> str:
    """Change a pool's specification, with a reason; return what ``change`` does."""
    for attempt in range(1, ATTEMPTS_MAX + 1):
        seen = await client.pools.get(pool)
        chosen = change(seen.spec)
        asked = pb.PoolChange(name=pool, seen_revision=seen.revision, spec=seen.spec)
        try:
            await client.pools.apply([asked], reason=reason)
        except PoolsChanged:
            if attempt == ATTEMPTS_MAX:
                raise
            continue
        return chosen
    raise AssertionError("the loop returns or raises")


def _seconds(text: str) -> int:
    try:
        seconds = int(parse_length(text).total_seconds())
    except ValueError as error:
        fail(Exit.USAGE, f"--for: {error}")
    if not 1 <= seconds <= BURST_SECONDS_MAX:
        fail(Exit.USAGE, f"--for: {text[:40]} is not from 1s to {span(BURST_SECONDS_MAX)}")
    return seconds


def _price(text: str | None) -> Price | None:
    try:
        return None if text is None else parse_price(text)
    except ValueError as error:
        fail(Exit.USAGE, f"--price: {error}")
