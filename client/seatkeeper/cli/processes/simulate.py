"""``seatkeeper pool simulate``: try a pool on a demand before it is made or changed."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli import completion
from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.files import outputs_at, written
from seatkeeper.cli.pool import HalfLife, Project, WithoutProject, parsed_projects
from seatkeeper.cli.processes.common import installed
from seatkeeper.core.amounts import count
from seatkeeper.core.extras import explain
from seatkeeper.v1 import pool_service_pb2 as pb

if TYPE_CHECKING:
    from seatkeeper.server.domain import PoolSpec
    from seatkeeper.server.replay.demand import Arrival
    from seatkeeper.server.replay.outcome import Outcome

app = typer.Typer(add_completion=False, rich_markup_mode=None)
NAME = "simulated"
"""Of a pool that is described by options alone."""
SIMULATIONS_MAX = 50
"""Most numbers of seats of one command."""
STANDARD_INPUT = "-"
_SEATS = re.compile(r"(\d{1,6})(?:-(\d{1,6}))?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Specification:
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
            help="A pool of the service, which is only read: what it is, the other options change.",
            autocompletion=completion.pools,
        ),
    ] = None
    project: Annotated[list[str] | None, Project] = None
    without_project: Annotated[list[str] | None, WithoutProject] = None
    usage_half_life: Annotated[float | None, HalfLife] = None

    async def message(self, at: Connection) -> pb.PoolSpec:
        """Return the pool as the options describe it; its seats are those of ``like``, if given."""
        from seatkeeper.client.admin.projects import with_projects
        from seatkeeper.core.errors import InvalidArgument

        found = pb.PoolSpec(name=NAME, seats=0)
        if self.like is not None:
            async with at.client() as client:
                found = (await client.pools.get(self.like)).spec
        half_life = self.usage_half_life
        try:
            policy = with_projects(
                found.policy,
                parsed_projects(self.project or []),
                self.without_project or [],
                None if half_life is None else timedelta(seconds=half_life),
            )
        except InvalidArgument as error:
            fail(Exit.USAGE, str(error))
        if policy.projects or policy.HasField("usage_half_life"):
            found.policy.CopyFrom(policy)
        else:
            found.ClearField("policy")
        return found

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


@app.command(
    epilog=examples(
        "seatkeeper pool simulate --trace demand.csv --seats 4",
        "seatkeeper pool simulate --trace demand.csv --seats 3-6 "
        "--project vision:guaranteed=2 --project speech:guaranteed=1",
        "seatkeeper pool simulate --trace demand.csv --like shared --picture shared.svg",
        "seatkeeper pool simulate --trace demand.csv --find-seats --p95-wait 5m --json",
    )
)
@connected
async def simulate(
    at: Connection,
    of: Specification,
    *,
    trace: Annotated[
        Path,
        typer.Option(
            metavar="FILE.csv",
            help="What was asked for, a row each: arrival,hold,project,seats at its head; arrival "
            "in seconds or as 2026-03-02T09:00:00Z, hold in seconds or as 1h30m. Columns wait, "
            "priority, holder and work may be added. `-` is standard input.",
        ),
    ],
    find_seats: Annotated[
        bool,
        typer.Option("--find-seats", help="Find the fewest seats that keep --p95-wait."),
    ] = False,
    p95_wait: Annotated[
        str | None,
        typer.Option(
            metavar="LENGTH",
            help="The wait that 95 % of each project's requests are to have at most, such as 5m.",
        ),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.svg",
            parser=written,
            help="Draw the seats held by each project over time, and the seats waited for; of several "
            "numbers of seats, the first 8.",
        ),
    ] = None,
) -> None:
    """Try a pool on a demand: who would wait, for how long, and for whom.

    The requests of the file are decided as nodes decide, by the same code, in virtual time. It takes
    about half a minute for 100,000 of them. Nothing is changed, and without --like no service is asked.
    A request that is refused does not come again.
    """
    if not installed("seatkeeper.server.replay", "seatkeeper.server.wire"):
        fail(Exit.CONFIG, explain("this command", "server"))
    from seatkeeper.cli.processes.simulate_picture import drawn
    from seatkeeper.cli.processes.simulate_views import show_outcomes, write_outcomes

    numbers = of.numbers()
    bound = _bound(p95_wait, find_seats=find_seats, has_seats=bool(numbers))
    files = {"--picture": picture}
    is_piped = str(trace) == STANDARD_INPUT
    inputs = {} if is_piped else {"--trace": trace}
    places = outputs_at(files, inputs=inputs, as_json=at.json)
    message = await of.message(at)
    if not (find_seats or numbers or of.like):
        fail(
            Exit.USAGE, "say how many seats it has with --seats, or give --like or --find-seats"
        )
    numbers = numbers or [message.seats]
    specs = [] if find_seats else [_specified(message, each) for each in numbers]
    arrivals = _read(trace)
    outcomes = (
        [_enough(message, arrivals, bound)] if find_seats else list(_played(specs, arrivals))
    )
    if (place := places.get("--picture")) is not None:
        place.write(drawn(outcomes).encode())
    if at.json:
        write_outcomes(outcomes, bound_seconds=bound / 1000 if find_seats else None)
    else:
        show_outcomes(outcomes, bound_seconds=bound / 1000 if find_seats else None)


def _bound(text: str | None, *, find_seats: bool, has_seats: bool) -> int:
    """Return --p95-wait in milliseconds; 0: none. A wrong combination ends the command."""
    from seatkeeper.cli.processes.trace import millis_of

    if find_seats != (text is not None):
        fail(Exit.USAGE, "--find-seats and --p95-wait go together: give both or neither")
    if find_seats and has_seats:
        fail(Exit.USAGE, "--seats and --find-seats: give one of them")
    try:
        return millis_of(text) if text is not None else 0
    except ValueError as error:
        fail(Exit.USAGE, f"--p95-wait: {error}")


def _specified(message: pb.PoolSpec, seats: int) -> PoolSpec:
    """Return the specification with so many seats, checked as a node checks it."""
    from seatkeeper.core.validate import Malformed
    from seatkeeper.server.store.formats import FormatUnsupported, check_format
    from seatkeeper.server.wire.validate import check_spec

    tried = pb.PoolSpec()
    tried.CopyFrom(message)
    tried.seats = seats
    try:
        check_format(f"pool {message.name}", message)
        return check_spec(tried)
    except Malformed as error:
        fail(Exit.USAGE, f"with {count(seats, 'seat')}: {error}")
    except FormatUnsupported as error:
        fail(Exit.FAILED, str(error))


def _read(trace: Path) -> list[Arrival]:
    from seatkeeper.cli.processes.trace import BYTES_MAX, TraceError, read_trace

    is_piped = str(trace) == STANDARD_INPUT
    try:
        if is_piped:
            data = sys.stdin.buffer.read(BYTES_MAX + 1)
        else:
            with trace.open("rb") as file:
                data = file.read(BYTES_MAX + 1)
        return read_trace("standard input" if is_piped else str(trace), data)
    except FileNotFoundError:
        fail(Exit.NOT_FOUND, f"--trace {trace}: there is no such file")
    except OSError as error:
        fail(Exit.USAGE, f"--trace {trace}: {error.strerror}")
    except TraceError as error:
        fail(Exit.REFUSED, str(error))


def _played(specs: list[PoolSpec], arrivals: list[Arrival]) -> Iterator[Outcome]:
    from seatkeeper.server.replay.replay import replay

    return (replay(spec, arrivals) for spec in specs)


def _enough(message: pb.PoolSpec, arrivals: list[Arrival], wait_millis: int) -> Outcome:
    from seatkeeper.server.replay.demand import SEATS_MAX
    from seatkeeper.server.replay.fewest import WaitBound, fewest_seats, seats_at_once
    from seatkeeper.server.replay.replay import replay

    policy = _specified(message, 0).policy
    least = max(1, sum(policy.guaranteed[name] for name in policy.parts.get("", ())))
    if least > SEATS_MAX:
        fail(Exit.USAGE, f"guarantees sum to {least}; no pool has over {SEATS_MAX} seats")
    most = min(SEATS_MAX, max(least, seats_at_once(arrivals)))
    found = fewest_seats(
        lambda seats: replay(_specified(message, seats), arrivals),
        WaitBound(percent=95, wait_millis=wait_millis),
        least=least,
        most=most,
    )
    if found is None:
        fail(
            Exit.FAILED,
            f"no number of seats keeps that wait: with {most}, as many as are ever wanted at once, "
            "what waits or is refused has reached its project's limit; "
            f"--seats {most} shows which",
        )
    return found
