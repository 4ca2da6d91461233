"""``seatkeeper queue``: the requests that wait for a pool."""

from __future__ import annotations

from typing import Annotated

import typer

from seatkeeper.cli import completion
from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.render import Json, facts, say, show, ticket_json, write_json
from seatkeeper.cli.requests import EXAMPLE_ID, PoolArgument, ReasonOption, ticket_facts
from seatkeeper.cli.views import queue_table
from seatkeeper.v1 import pool_service_pb2 as pools_pb

app = typer.Typer(
    help="The requests that wait for a pool: list them, see why one waits, move one, take one out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Ticket = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="Id of the request, as `queue list` shows it.",
        autocompletion=completion.tickets,
    ),
]

Before = typer.Option(
    "--before",
    metavar="ID",
    help="Right before this request.",
    autocompletion=completion.tickets,
)
MoveReason = typer.Option(
    "--reason",
    metavar="TEXT",
    help="Why, for the log and for who asks why a request waits: at most 200 characters.",
)


@app.command("list", epilog=examples("seatkeeper queue list tensorrt"))
@connected
async def list_(at: Connection, pool: PoolArgument) -> None:
    """List the requests that wait for a pool, the next one first; at most 1,000."""
    async with at.client() as client:
        found = await client.pools.get(pool)
    if at.json:
        tickets = [ticket_json(ticket) for ticket in found.tickets]
        write_json({"pool": pool, "queued": found.queued, "queue": tickets})
        return
    show(queue_table(found, with_ids=True))
    if (more := found.queued - len(found.tickets)) > 0:
        show(f"and {more} more")


@app.command("show", epilog=examples(f"seatkeeper queue show tensorrt {EXAMPLE_ID}"))
@connected
async def show_(at: Connection, pool: PoolArgument, request: Ticket) -> None:
    """Show one request that waits."""
    async with at.client() as client:
        found = await client.pools.get(pool)
    ticket = next((each for each in found.tickets if each.grant_id == request), None)
    if ticket is None:
        if any(each.grant_id == request for each in found.grants):
            holds = f"request {request} holds seats of {pool} by now"
            fail(Exit.NOT_FOUND, f"{holds}; `seatkeeper grant show` shows it")
        among = ", or not among the first 1,000" if found.queued > len(found.tickets) else ""
        waits_not = f"no request {request} waits for {pool}{among}"
        fail(Exit.NOT_FOUND, f"{waits_not}; `seatkeeper queue list {pool}` shows those that do")
    if at.json:
        write_json({"pool": pool, **ticket_json(ticket)})
    else:
        show(facts([("pool", pool), *ticket_facts(ticket)]))


@app.command("why", epilog=examples(f"seatkeeper queue why tensorrt {EXAMPLE_ID}"))
@connected
async def why(at: Connection, pool: PoolArgument, request: Ticket) -> None:
    """Say which rule keeps a request waiting now, as the pool's policy decides it.

    The rules, as `rule` has them with --json: next (it is granted by the next decision), closed,
    drained, draining, session (its session has ended), work, gang, limit, per_holder, per_host,
    per_project, reservation (what is free is kept for others), seats (it is next, and too few are
    free), large (a larger request is next), priority, arrival, moved, guarantee and weight (the next
    seat is for another, by this rule). Where seats would help, it also says what may bring some: seats
    that are called back, a contract that begins, a burst of the pool's rule, or why it starts none.
    """
    async with at.client() as client:
        found = await client.pools.explain(pool, request)
    ticket, reason = found.ticket, found.reason
    if at.json:
        write_json({"pool": pool, **_reason_json(reason), "request": ticket_json(ticket)})
        return
    place = f", at position {ticket.position}" if ticket.position else ""
    say(f"request {request} of {ticket.holder} waits for {pool}{place}")
    say(f"{reason.message} (rule `{reason.rule}`)")


@app.command(
    "move",
    epilog=examples(
        f'seatkeeper queue move tensorrt {EXAMPLE_ID} --first --reason "the release waits for it"'
    ),
)
@connected
async def move(
    at: Connection,
    pool: PoolArgument,
    request: Ticket,
    reason: Annotated[str, MoveReason],
    before: Annotated[str | None, Before] = None,
    first: Annotated[bool, typer.Option("--first", help="Before all others.")] = False,
    last: Annotated[bool, typer.Option("--last", help="Behind all others.")] = False,
) -> None:
    """Give a request another place in the queue. For administrators.

    It moves among the requests of its priority; in a pool that lists projects, among those of its
    project. Between priorities, and between projects, the order stays as it is. It keeps the place
    until it is granted or moved again; those who wait are notified of their new positions. Nodes of
    before this command do not serve the pool while a request waits that was moved.
    """
    if [before is not None, first, last].count(True) != 1:
        fail(Exit.USAGE, "say where to: --before ID, --first or --last")
    async with at.client() as client:
        ticket = await client.pools.move(
            pool, request, reason=reason, before=before or "", first=first, last=last
        )
    if at.json:
        write_json({"moved": request, "pool": pool, **ticket_json(ticket)})
    else:
        place = f", at position {ticket.position} now" if ticket.position else ""
        say(f"request {request} of {ticket.holder} waits for {pool}{place}")


@app.command(
    "remove",
    epilog=examples(f'seatkeeper queue remove tensorrt {EXAMPLE_ID} --reason "a runaway job"'),
)
@connected
async def remove(
    at: Connection, pool: PoolArgument, request: Ticket, reason: Annotated[str, ReasonOption]
) -> None:
    """Take a request out of the queue. Its holder is notified, with the reason.

    A program that asks again joins the end of the queue. For administrators.
    """
    async with at.client() as client:
        ticket = await client.pools.remove(pool, request, reason=reason)
    if at.json:
        write_json({"removed": request, "pool": pool, "holder": ticket.holder})
    else:
        say(f"request {request} of {ticket.holder} waits for {pool} no more")


def _reason_json(reason: pools_pb.WaitReason) -> Json:
    return {
        "rule": reason.rule,
        "message": reason.message,
        "ahead": [
            {"rule": each.rule, "requests": each.requests, "seats": each.seats}
            for each in reason.ahead
        ],
    }
