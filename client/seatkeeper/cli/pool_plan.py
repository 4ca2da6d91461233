"""``seatkeeper pool plan`` and ``seatkeeper pool apply``: pools from a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.lots import now_millis
from seatkeeper.cli.render import Json, say, write_event, write_json
from seatkeeper.core.amounts import count
from seatkeeper.core.errors import PoolsChanged
from seatkeeper.core.text import name_of_file

if TYPE_CHECKING:
    from seatkeeper.client.pools_file import Change, Plan
    from seatkeeper.v1 import pool_service_pb2 as pb

File = Annotated[
    str,
    typer.Option(
        "--file", "-f", metavar="FILE", help="The file of pools; - is standard input."
    ),
]
DeleteMissing = Annotated[
    bool,
    typer.Option(
        "--delete-missing",
        help="Delete the pools that are not in the file. One that is in use is not deleted.",
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        help="Apply also what breaks a promise that stands now: seats that an open window keeps, or "
        "guarantees that were covered.",
    ),
]


@connected
async def plan(
    at: Connection,
    file: File,
    delete_missing: DeleteMissing = False,
    exit_code: Annotated[
        bool,
        typer.Option("--exit-code", help="Exit with 3 where the file would change something."),
    ] = False,
) -> None:
    """Show what a file would change of the pools, and change nothing.

    Every fault of the file is listed with its line. Pools that are not in the file are left as they
    are, unless --delete-missing is given.
    """
    wanted = pools_in(at, file)
    async with at.client() as client:
        live = await client.pools.list()
    planned = planned_for(wanted, live, delete_missing)
    if at.json:
        write_json(_plan_json(planned))
    else:
        show_plan(planned)
    stop_at_obstacles(planned)
    if exit_code and planned.changes_anything:
        raise SystemExit(int(Exit.DIFFERS))


@connected
async def apply(
    at: Connection,
    file: File,
    delete_missing: DeleteMissing = False,
    reason: Annotated[
        str,
        typer.Option(
            "--reason", metavar="TEXT", help="Why, for the nodes' log; at most 500 characters."
        ),
    ] = "",
    force: Force = False,
) -> None:
    """Make the pools what a file says: all changes, or none.

    What changes is shown as by `plan`. What would break a promise that stands now, such as seats that
    an open window keeps, is refused unless --force is given. When a pool is changed by somebody else
    meanwhile, nothing is applied, and what they changed is shown.
    """
    wanted = pools_in(at, file)
    async with at.client() as client:
        live = await client.pools.list()
        planned = planned_for(wanted, live, delete_missing)
        if not at.json:
            show_plan(planned)
        stop_at_obstacles(planned)
        stop_at_promises(planned, force=force)
        revision = 0
        if planned.changes_anything:
            try:
                revision = await client.pools.apply(planned.messages(), reason=reason)
            except PoolsChanged as error:
                show_meanwhile(at, live, await client.pools.list(), error)
    if at.json:
        write_json(_plan_json(planned) | {"revision": revision or None})
    elif revision:
        say(f"applied at revision {revision}")


def pools_in(at: Connection, file: str) -> dict[str, pb.PoolSpec]:
    """Return the pools of a file; end the command where anything in it is wrong."""
    from seatkeeper.client.pools_file import FILE_BYTES_MAX, read_pools

    if file == "-":
        name = "standard input"
        try:
            data = sys.stdin.buffer.read(FILE_BYTES_MAX + 1) if sys.stdin is not None else b""
        except OSError as error:  # it was closed before we were started
            fail(Exit.USAGE, f"{name}: {error.strerror}")
    else:
        with Path(file).open("rb") as opened:
            data = opened.read(FILE_BYTES_MAX + 1)
        name = name_of_file(file)
    found = read_pools(data, now_millis=now_millis())
    for fault in found.faults:
        if at.json:
            place = {"file": name, "line": fault.line, "column": fault.column}
            what = {"path": fault.path or None, "reason": fault.reason}
            write_event({"event": "fault"} | place | what)
        else:
            say(f"{name}:{fault}", stderr=True)
    if found.faults:
        fail(
            Exit.REFUSED, f"{name} has {count(len(found.faults), 'fault')}; nothing was changed"
        )
    return dict(found.pools)


def planned_for(
    wanted: dict[str, pb.PoolSpec], live: Sequence[pb.Pool], delete_missing: bool
) -> Plan:
    """Return what a file would change of the pools that there are."""
    from seatkeeper.client.pools_file import plan as plan_of

    return plan_of(wanted, live, delete_missing=delete_missing, now_millis=now_millis())


def show_plan(planned: Plan) -> None:
    """Write a plan for people."""
    from seatkeeper.client.pools_file import Kind

    for change in planned.changes:
        for line in _lines(change, "is to be"):
            say(line)
    if left := planned.of(Kind.LEFT):
        names = ", ".join(change.name for change in left)
        say(
            f"not in the file, and left as {'it is' if len(left) == 1 else 'they are'}: {names}"
        )
    counts = {kind: len(planned.of(kind)) for kind in Kind}
    say(
        f"{counts[Kind.CREATE]} to create, {counts[Kind.CHANGE]} to change, "
        f"{counts[Kind.DELETE]} to delete, {counts[Kind.UNCHANGED]} unchanged"
    )


def _lines(change: Change, how: str) -> Iterator[str]:
    """Yield what becomes, or became, of a pool."""
    from seatkeeper.client.pools_file import Kind

    verbs = {Kind.CREATE: "created", Kind.CHANGE: "changed", Kind.DELETE: "deleted"}
    if change.kind not in verbs:
        return
    yield f"pool {change.name} {how} {verbs[change.kind]}"
    for value in change.values:
        yield f"  {value}"
    for note in (*change.notes, *filter(None, [change.obstacle])):
        yield f"  ! {note}"
    for promise in change.breaks:
        yield f"  ! breaks a promise: {promise}"


def stop_at_obstacles(planned: Plan) -> None:
    """End the command where the service would refuse the plan."""
    stopped = [change for change in planned.changes if change.obstacle]
    if stopped:
        first, more = stopped[0], len(stopped) - 1
        others = f" (and {count(more, 'more pool')})" if more else ""
        fail(
            Exit.FAILED,
            f"pool {first.name} cannot be {first.kind.value}d: {first.obstacle}{others}; nothing "
            "was applied",
        )


def stop_at_promises(planned: Plan, *, force: bool) -> None:
    """End the command where the plan would break a promise, unless an administrator insists."""
    stopped = [change for change in planned.changes if change.breaks]
    if not stopped or force:
        return
    first, more = stopped[0], sum(len(each.breaks) for each in stopped) - 1
    others = f" (and {count(more, 'more promise')})" if more else ""
    fail(
        Exit.FAILED,
        f"pool {first.name} would break a promise: {first.breaks[0]}{others}; nothing was applied; "
        "wait, or give --force",
    )


def show_meanwhile(
    at: Connection, seen: Sequence[pb.Pool], now: Sequence[pb.Pool], error: PoolsChanged
) -> None:
    """Show what others changed since the plan, and end the command."""
    from seatkeeper.client.pools_file import plan as plan_of

    names = set(error.pools)
    since = plan_of(
        {pool.spec.name: pool.spec for pool in now if pool.spec.name in names},
        [pool for pool in seen if pool.spec.name in names],
        delete_missing=True,
    )
    for found in since.changes:
        # What would stand in its way, or follow from it, is of a plan, not of what has happened.
        change = replace(found, notes=(), obstacle="", breaks=())
        if at.json:
            write_event({"event": "changed_meanwhile"} | _change_json(change))
            continue
        for line in _lines(change, "was"):
            say(line, stderr=True)
    fail(Exit.FAILED, f"{error}; `seatkeeper pool plan` shows what the file would change now")


def _plan_json(planned: Plan) -> Json:
    return {
        "changes_anything": planned.changes_anything,
        "pools": [_change_json(change) for change in planned.changes],
    }


def _change_json(change: Change) -> Json:
    return {
        "name": change.name,
        "action": change.kind.value,
        "seen_revision": change.seen_revision or None,
        "values": [
            {"field": value.field, "before": value.before, "after": value.after}
            for value in change.values
        ],
        "notes": list(change.notes),
        "obstacle": change.obstacle or None,
        "breaks": list(change.breaks),
    }
