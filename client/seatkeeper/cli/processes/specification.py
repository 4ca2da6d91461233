"""The pool that `seatkeeper pool simulate` tries: from options, a live pool, or one as it stood."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli import completion
from seatkeeper.cli.connection import Connection
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.files import bytes_of
from seatkeeper.cli.pool import Project, WithoutProject, parsed_projects
from seatkeeper.cli.pool_plan import pools_in
from seatkeeper.cli.pool_policy import PolicyOptions
from seatkeeper.cli.render import say
from seatkeeper.cli.sharing import (
    half_life_of,
    parsed_hold,
    parsed_overtaking,
    parsed_reclaim,
)
from seatkeeper.core.amounts import count
from seatkeeper.core.lot_messages import decode_lots
from seatkeeper.core.lot_text import has_lots
from seatkeeper.core.lots import NO_LOTS, succeeding
from seatkeeper.core.reservation_messages import decode_reservations, decode_windows
from seatkeeper.core.reservations import succeeding as succeeding_windows
from seatkeeper.core.validate import SEATS_MAX
from seatkeeper.v1 import pool_service_pb2 as pb

if TYPE_CHECKING:
    from seatkeeper.cli.processes.pool_snapshot import Taken
    from seatkeeper.server.domain import PoolSpec

NAME = "simulated"
"""Of a pool that is described by options alone."""
SIMULATIONS_MAX = 50
"""Most numbers of seats of one command."""
_SEATS = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Specification(PolicyOptions):
    """The pool that is tried: each field is an option."""

    seats: Annotated[
        str | None,
        typer.Option(
            metavar="N,...",
            help="How many seats it has. Several, as 8,10,12 or 8-12, are compared.",
        ),
    ] = None
    like: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A pool of the service, which is only read, or of --file. The other options "
            "change it.",
            autocompletion=completion.pools,
        ),
    ] = None
    file: Annotated[
        str | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="Of a file of pools, as `pool apply` reads it, - for standard input: its pool, or the "
            "one that --like names. The other options change it.",
        ),
    ] = None
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE.json",
            help="Go on from a pool as it stood, as `seatkeeper pool snapshot` wrote it; the other "
            "options change it. Of a trace with dates, rows of later times are arrivals; one in "
            "seconds begins when it was taken.",
        ),
    ] = None
    begin: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="When the first request of the trace comes, as 2026-03-02T09:00:00Z, and the others "
            "as much later: contracts, bursts and reservations are played by their dates. [default: as "
            "the trace says; of one in seconds now]",
            show_default=False,
        ),
    ] = None
    project: Annotated[list[str] | None, Project] = None
    without_project: Annotated[list[str] | None, WithoutProject] = None

    def taken(self) -> Taken | None:
        """Return the pool as it stood that is gone on from, if one is given."""
        from seatkeeper.cli.processes.pool_snapshot import (
            BYTES_MAX,
            SnapshotError,
            read_snapshot,
        )

        if self.from_ is None:
            return None
        if self.like is not None or self.file is not None:
            other = "--like" if self.file is None else "--file"
            fail(Exit.USAGE, f"{other} and --from: give one of them")
        try:
            return read_snapshot(str(self.from_), bytes_of(self.from_, "--from", BYTES_MAX))
        except SnapshotError as error:
            fail(Exit.REFUSED, str(error))

    async def message(self, at: Connection, taken: Taken | None) -> pb.PoolSpec:
        """Return the pool as the options describe it, with the seats of what it is like, if any.

        Of one with lots the lots stay, for `specified`.
        """
        from seatkeeper.client.admin.counting import with_counting
        from seatkeeper.client.admin.holds import with_hold
        from seatkeeper.client.admin.projects import with_projects
        from seatkeeper.client.admin.rules import with_rules
        from seatkeeper.core.errors import InvalidArgument

        found = pb.PoolSpec(name=NAME, seats=0)
        if self.file is not None:
            found = self._from_file(at, self.file)
        elif self.like is not None:
            async with at.client() as client:
                found = (await client.pools.get(self.like)).spec
        if taken is not None:
            found = taken.pool.spec
        try:
            policy = with_projects(
                found.policy,
                parsed_projects(self.project or []),
                self.without_project or [],
                half_life_of(self.usage_half_life),
                parsed_overtaking(self.overtaking),
                parsed_reclaim(self.reclaim),
            )
            with_rules(policy, self.rules_change().applied_to)
            with_hold(policy, parsed_hold(self.hold))
            with_counting(policy, self.advisory, self.costs())
        except InvalidArgument as error:
            fail(Exit.USAGE, str(error))
        if policy.ByteSize():
            found.policy.CopyFrom(policy)
        else:
            found.ClearField("policy")
        if found.policy.HasField("stay"):
            found.policy.ClearField("stay")
            say("`stay` is not played: released seats are free at once", stderr=True)
        if found.policy.HasField("borrow"):
            found.policy.ClearField("borrow")
            say("`borrow` is not played: no machine borrows seats in a trace", stderr=True)
        return found

    def _from_file(self, at: Connection, file: str) -> pb.PoolSpec:
        """Return the pool of a file that is meant; end the command where none is."""
        pools = pools_in(at, file)
        name = self.like or (next(iter(pools)) if len(pools) == 1 else None)
        if name is None:
            fail(Exit.USAGE, f"{count(len(pools), 'pool')} in the file: say with --like which")
        if name not in pools:
            fail(Exit.NOT_FOUND, f"there is no pool {name} in the file")
        return pools[name]

    def numbers(self) -> list[int]:
        """Return the numbers of seats that are asked for, each once; none: not said."""
        numbers: dict[int, None] = {}
        for part in self.seats.split(",") if self.seats is not None else ():
            match = _SEATS.fullmatch(part.strip())
            last = int(match[2] or match[1]) if match else 0
            if match is None or last < int(match[1]):
                fail(Exit.USAGE, f"--seats {self.seats}: write numbers such as 8,10,12 or 8-12")
            if last - int(match[1]) >= SIMULATIONS_MAX:
                fail(Exit.USAGE, f"--seats {self.seats}: at most {SIMULATIONS_MAX} numbers")
            numbers |= dict.fromkeys(range(int(match[1]), last + 1))
        if len(numbers) > SIMULATIONS_MAX:
            fail(Exit.USAGE, f"--seats {self.seats}: at most {SIMULATIONS_MAX} numbers")
        return list(numbers)


def has_dates(message: pb.PoolSpec) -> bool:
    """Return whether what a pool does depends on the date: it has lots or reservations."""
    return has_lots(message) or bool(message.policy.reservations)


def specified(message: pb.PoolSpec, seats: int | None = None, *, at: int = 0) -> PoolSpec:
    """Return the specification, checked as a node checks it at a time; nothing is written of its dates.

    ``seats``: so many in the place of all that it has, so that lots and bursts are left out; its
    guarantees may be more then, as they may be in nodes while a contract has not begun, or has ended.
    """
    from seatkeeper.core.validate import Malformed
    from seatkeeper.server.domain import Instant
    from seatkeeper.server.store.formats import RecordUnreadable, check_format
    from seatkeeper.server.wire.reservations import check_reservations
    from seatkeeper.server.wire.validate import check_spec

    tried = pb.PoolSpec()
    tried.CopyFrom(message)
    lots = has_lots(message) and (seats is None or seats <= SEATS_MAX)
    if lots:
        tried.ClearField("seats")
    elif seats is not None:
        tried.seats = seats
        tried.ClearField("lots")
    try:
        check_format(f"pool {message.name}", message)
        checked = check_spec(tried)
        if lots and seats is not None:
            checked = replace(checked, seats=seats, lots=NO_LOTS)
        check_reservations(checked, Instant(at))
    except Malformed as error:
        with_seats = "" if seats is None else f"with {count(seats, 'seat')}: "
        fail(Exit.USAGE, f"{with_seats}{error}")
    except RecordUnreadable as error:
        fail(Exit.FAILED, str(error))
    return checked


def gone_on(spec: PoolSpec, message: pb.PoolSpec) -> PoolSpec:
    """Return a specification with what nodes had written of its lots and windows, by a snapshot."""
    reservations = spec.policy.reservations
    before = decode_reservations(message.policy.reservations)
    windows = succeeding_windows(reservations, before, decode_windows(message.windows))
    spec = replace(spec, windows=windows)
    return (
        spec.with_lots(succeeding(spec.lots, decode_lots(message.lots))) if spec.lots else spec
    )
