"""``seatkeeper borrow``: a seat for a machine that will be offline."""

from __future__ import annotations

import json
import os
import secrets
import socket
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seatkeeper.cli import completion
from seatkeeper.cli.command import claiming, connected
from seatkeeper.cli.connection import Claimant, Connection, Json
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.files import bytes_of
from seatkeeper.cli.render import facts, say, show, table, words, write_json
from seatkeeper.core.amounts import span
from seatkeeper.core.instants import instant_shown, parse_length

if TYPE_CHECKING:
    from seatkeeper.client import AsyncSeatClient
    from seatkeeper.client.borrowing.folder import BorrowedSeat, BorrowFolder
    from seatkeeper.core.tokens import TokenClaims

BRING_MAX = 64 * 1024
"""Most bytes of a file with a return."""

app = typer.Typer(
    help="A seat for a machine that will be offline: borrow it, verify it there, give it back.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Folder = Annotated[
    Path | None,
    typer.Option(
        "--folder",
        metavar="FOLDER",
        envvar="SEATKEEPER_BORROW_FOLDER",
        help="Where the machine's key and its seats are kept. "
        "[default: ~/.local/state/seatkeeper/borrow]",
        show_default=False,
    ),
]
Pool = Annotated[
    str,
    typer.Argument(metavar="POOL", help="Name of the pool.", autocompletion=completion.pools),
]
HereArgument = Annotated[
    str, typer.Argument(metavar="POOL", help="The pool whose seat is borrowed here.")
]


@app.command(
    "take",
    epilog=examples(
        "seatkeeper borrow take tensorrt --days 3",
        "seatkeeper borrow take tensorrt --for 12h --wait 600",
    ),
)
@claiming
async def take(
    at: Claimant,
    pool: Pool,
    days: Annotated[
        int | None, typer.Option("--days", min=1, max=366, help="For how many days.")
    ] = None,
    length: Annotated[
        str | None,
        typer.Option("--for", metavar="LENGTH", help="For how long, such as 12h or 2d12h."),
    ] = None,
    folder: Folder = None,
) -> None:
    """Borrow a seat of a pool: this machine has it until its day, on or off, online or offline.

    The request waits as others do; what the pool does not allow is refused before it is made. The
    first time, a key is made for this machine, in a file that only you can read: who has that file is
    this machine. A seat that was asked for here before, and whose answer was lost, is given back first.
    """
    kept, time = _kept(folder), _time(days, length)
    async with at.claiming_client("borrow") as client:
        await _make_room(client, kept, pool)
        await _check_allowed(client, pool, time, at)
        seat = await _borrow(client, kept, pool, time, at)
    until = instant_shown(seat.until_millis)
    if at.json:
        write_json(_seat_json(seat))
    else:
        say(f"a seat of {pool} is borrowed until {until}; `seatkeeper borrow verify` proves it")


@app.command("status", epilog=examples("seatkeeper borrow status"))
def status(folder: Folder = None, as_json: Json = False) -> None:
    """List what this machine has borrowed. Needs no service."""
    seats = _kept(folder).seats()
    if as_json:
        write_json({"seats": [_seat_json(seat) for seat in seats]})
        return
    if not seats:
        show(words("this machine has borrowed nothing"))
        return
    rows = [(seat.pool, str(seat.seats), _state(seat), _until(seat)) for seat in seats]
    show(table(("pool", ">seats", "state", "until"), rows))


@app.command(
    "verify",
    epilog=examples(
        "seatkeeper borrow verify tensorrt",
        "seatkeeper borrow verify tensorrt && ./nightly-build",
    ),
)
def verify(
    pool: HereArgument,
    challenge: Annotated[
        str,
        typer.Option(
            "--challenge", metavar="TEXT", help="Sign this, for who wants proof of the key."
        ),
    ] = "",
    folder: Folder = None,
    as_json: Json = False,
) -> None:
    """Verify offline that this machine has a seat now; exit 65 with the reason if it has not.

    The token's signature and day, that the machine's key is here and signs, and that the clock is not
    behind what it has shown before. Not seen is a clock that is set back to a time that was never over,
    a copied folder, and that an administrator freed the seat.
    """
    from seatkeeper.client.borrowing.offline import prove

    kept = _kept(folder)
    seat = _here(kept, pool)
    claims = _verified(kept, seat)
    proof = prove(kept.key(), challenge.encode()) if challenge else None
    if as_json:
        write_json({"valid": True, **_seat_json(seat), "proof": proof, "token": seat.token})
        return
    left = timedelta(milliseconds=seat.until_millis) - timedelta(seconds=_now().timestamp())
    rows = [("pool", seat.pool), ("valid for", span(left)), ("until", _until(seat))]
    rows += [("holder", claims.holder), ("machine", claims.machine or "-")]
    rows += [("proof", proof)] if proof else []
    show(facts(rows))


@app.command(
    "return",
    epilog=examples(
        "seatkeeper borrow return tensorrt",
        "seatkeeper borrow return tensorrt --write back.json   # offline",
        "seatkeeper borrow return --from back.json             # on another machine",
    ),
)
@connected
async def return_(
    at: Connection,
    pool: Annotated[
        str, typer.Argument(metavar="[POOL]", help="The pool whose seat is borrowed here.")
    ] = "",
    write: Annotated[
        Path | None,
        typer.Option(
            "--write",
            metavar="FILE",
            help="Write what gives the seat back to a file, for another machine to bring.",
        ),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="Bring what another machine has written."),
    ] = None,
    folder: Folder = None,
) -> None:
    """Give a borrowed seat back before its day. This machine does not use it from then on."""
    if bool(pool) == (from_ is not None) or (from_ is not None and write is not None):
        fail(Exit.USAGE, "give a POOL, or --from FILE; --write goes with a POOL")
    if from_ is not None:
        said = _read_return(from_)
        async with at.client() as client:
            await _bring(at, client, said)
        return
    kept = _kept(folder)
    seat = _here(kept, pool)
    said = _given_up(kept, seat)
    if write is not None:
        write.write_text(json.dumps(said) + "\n", encoding="utf-8")
        done = {"written": str(write), "pool": pool}
        write_json(done) if at.json else say(
            f"written to {write}: bring it with `seatkeeper borrow return --from`"
        )
        return
    async with at.client() as client:
        await _bring(at, client, said)
    kept.forget(pool)


def _kept(folder: Path | None) -> BorrowFolder:
    from seatkeeper.client.borrowing.folder import BorrowFolder, default_folder

    return BorrowFolder(default_folder(os.environ) if folder is None else folder)


def _time(days: int | None, length: str | None) -> timedelta:
    if (days is None) == (length is None):
        fail(Exit.USAGE, "for how long? give --days N, or --for LENGTH")
    try:
        return timedelta(days=days or 0) if length is None else parse_length(length)
    except ValueError as error:
        fail(Exit.USAGE, f"--for: {error}")


def _now() -> datetime:
    from seatkeeper.core.clock import wall_time

    return wall_time()


def _here(kept: BorrowFolder, pool: str) -> BorrowedSeat:
    seat = kept.seat(pool)
    if seat is None:
        fail(
            Exit.NOT_FOUND,
            f"no seat of {pool} is borrowed here; see `seatkeeper borrow status`",
        )
    return seat


def _verified(kept: BorrowFolder, seat: BorrowedSeat) -> TokenClaims:
    from seatkeeper.client.borrowing.offline import verify_borrowed

    now, challenge = _now(), secrets.token_bytes(32)
    latest = kept.latest_millis()
    claims = verify_borrowed(
        seat, kept.key(), now=now, latest_millis=latest, challenge=challenge
    )
    kept.see(int(now.timestamp() * 1000))
    return claims


async def _make_room(client: AsyncSeatClient, kept: BorrowFolder, pool: str) -> None:
    """End what was begun here before. A seat that is borrowed still ends the command."""
    from seatkeeper.client.borrowing.folder import SeatState

    seat = kept.seat(pool)
    if seat is None:
        return
    if seat.state is SeatState.BORROWED and _now().timestamp() * 1000 < seat.until_millis:
        so = f"a seat of {pool} is borrowed here until {_until(seat)}"
        fail(Exit.USAGE, f"{so}; `seatkeeper borrow return {pool}` gives it back")
    if seat.state is not SeatState.BORROWED:
        said = _given_up(kept, seat)
        await client.borrowing.return_grant(pool, seat.grant_id, statement=said["statement"])
    kept.forget(pool)


async def _check_allowed(
    client: AsyncSeatClient, pool: str, time: timedelta, at: Claimant
) -> None:
    """Ask the pool's rule before a seat is asked for. Raises `BorrowRefused`."""
    from seatkeeper.client.admin.borrows import borrow_rule
    from seatkeeper.client.aio import default_holder
    from seatkeeper.core.borrowing import Borrower, borrow_refusal
    from seatkeeper.core.errors import BorrowRefused
    from seatkeeper.core.pool_rules import HolderGroup

    found = await client.pools.get(pool)
    policy = found.spec.policy
    rule = borrow_rule(policy.borrow) if policy.HasField("borrow") else None
    project, theirs = at.project, (each for each in found.grants if each.HasField("borrowed"))
    who = Borrower(
        at.holder or default_holder(),
        project,
        "" if at.program == "-" else socket.gethostname(),
        sum(each.seats for each in theirs if each.project == project),
    )
    groups = [HolderGroup(each.name, tuple(each.holders)) for each in policy.rules.groups]
    known = {"borrowed": found.borrowed, "capacity": found.spec.seats}
    refusal = borrow_refusal(rule, time, 1, **known, who=who, groups=groups)
    if refusal is not None:
        raise BorrowRefused(str(refusal))


async def _borrow(
    client: AsyncSeatClient, kept: BorrowFolder, pool: str, time: timedelta, at: Claimant
) -> BorrowedSeat:
    from seatkeeper.client.borrowing.folder import BorrowedSeat, SeatState
    from seatkeeper.core.errors import SeatError, UsageError
    from seatkeeper.core.machine_statement import BORROW_KIND, signed_statement
    from seatkeeper.v1 import seat_service_pb2

    key = kept.key(make=True)
    grant = await client.acquire(pool, **at.terms())
    try:
        seat = BorrowedSeat(
            pool=pool, grant_id=grant.grant_id, fence=grant.fence, seats=grant.seats
        )
        kept.keep(seat)  # before it may be borrowed: it can be given back whatever happens
        answer = await client.borrowing.borrow(
            await client.session(),
            seat_service_pb2.GrantRef(pool=pool, grant_id=grant.grant_id),
            length=time,
            machine_key=key.public_key().public_bytes_raw(),
            proof=signed_statement(key, BORROW_KIND, pool, grant.grant_id, grant.fence),
        )
    except BaseException as error:
        with suppress(SeatError):  # also where it is borrowed by now, and not ours to release
            await grant.release()
        if isinstance(error, UsageError):
            kept.forget(pool)
        raise
    borrowed = answer.grant.borrowed
    seat = BorrowedSeat(
        pool=pool,
        grant_id=grant.grant_id,
        fence=grant.fence,
        seats=grant.seats,
        state=SeatState.BORROWED,
        until_millis=borrowed.until.ToMilliseconds(),
        token=answer.token,
        jwks=answer.jwks,
    )
    kept.keep(seat)
    kept.see(borrowed.borrowed_at.ToMilliseconds())
    return seat


def _given_up(kept: BorrowFolder, seat: BorrowedSeat) -> dict[str, str]:
    """Stop using a seat, and return what gives it back."""
    from seatkeeper.client.borrowing.folder import SeatState
    from seatkeeper.core.machine_statement import RETURN_KIND, signed_statement

    statement = signed_statement(kept.key(), RETURN_KIND, seat.pool, seat.grant_id, seat.fence)
    kept.keep(seat.after(SeatState.RETURNING))
    return {"pool": seat.pool, "grant_id": seat.grant_id, "statement": statement}


async def _bring(at: Connection, client: AsyncSeatClient, said: dict[str, str]) -> None:
    pool = said["pool"]
    grant = await client.borrowing.return_grant(
        pool, said["grant_id"], statement=said["statement"]
    )
    if at.json:
        write_json(
            {"returned": said["grant_id"], "pool": pool, "was_borrowed": grant is not None}
        )
    elif grant is None:
        say(f"the seat of {pool} was free already")
    else:
        say(f"the seat of {pool} is given back")


def _read_return(file: Path) -> dict[str, str]:
    data = bytes_of(file, "--from", BRING_MAX)
    try:
        said = json.loads(data)
        return {name: str(said[name]) for name in ("pool", "grant_id", "statement")}
    except (ValueError, KeyError, TypeError):
        fail(Exit.REFUSED, f"{file} is not what `seatkeeper borrow return --write` writes")


def _state(seat: BorrowedSeat) -> str:
    """Return what became of a seat, as far as this machine knows."""
    from seatkeeper.client.borrowing.folder import SeatState

    is_over = _now().timestamp() * 1000 >= seat.until_millis
    return "over" if seat.state is SeatState.BORROWED and is_over else str(seat.state)


def _until(seat: BorrowedSeat) -> str:
    return instant_shown(seat.until_millis) if seat.until_millis else "-"


def _seat_json(seat: BorrowedSeat) -> dict[str, Any]:
    return {
        "pool": seat.pool,
        "grant_id": seat.grant_id,
        "seats": seat.seats,
        "fence": seat.fence,
        "state": _state(seat),
        "until": _until(seat) if seat.until_millis else None,
    }
