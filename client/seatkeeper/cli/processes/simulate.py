"""``seatkeeper pool simulate``: try a pool on a demand before it is made or changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.files import outputs_at, written
from seatkeeper.cli.processes.common import installed
from seatkeeper.cli.processes.specification import Specification, has_dates, specified
from seatkeeper.core.extras import explain
from seatkeeper.v1 import pool_service_pb2 as pb

if TYPE_CHECKING:
    from seatkeeper.cli.processes.simulated_demand import Demand
    from seatkeeper.server.replay.outcome import Outcome

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(
    epilog=examples(
        "seatkeeper pool simulate --trace demand.csv --seats 4",
        "seatkeeper pool simulate --trace demand.csv --seats 3-6 "
        "--project vision:guaranteed=2 --project speech:guaranteed=1",
        "seatkeeper pool simulate --trace demand.csv --like shared --picture shared.svg",
        "seatkeeper pool simulate --from shared.json --mean-hold 25m --project vision:weight=3",
        "seatkeeper pool simulate --trace demand.csv --find-seats --p95-wait 5m --json",
    )
)
@connected
async def simulate(
    at: Connection,
    of: Specification,
    *,
    trace: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv",
            help="What was asked for, a row each: arrival,hold,project,seats at its head; arrival "
            "in seconds or as 2026-03-02T09:00:00Z, hold in seconds or as 1h30m. Columns wait, "
            "priority, holder, work, host and class may be added. `-` is standard input. Needed but "
            "for --from with --mean-hold.",
        ),
    ] = None,
    mean_hold: Annotated[
        str | None,
        typer.Option(
            metavar="LENGTH",
            help="With --from: how long all hold that held or waited then, such as 25m. "
            "[default: as those of their project in the trace]",
            show_default=False,
        ),
    ] = None,
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
    about half a minute for 100,000 of them. Contracts, bursts and reservations begin and end by their
    dates, unless --seats or --find-seats takes the place of all seats. Nothing is changed, and without
    --like no service is asked. A request that is refused does not come again.
    """
    if not installed("seatkeeper.server.replay", "seatkeeper.server.wire"):
        fail(Exit.CONFIG, explain("this command", "server"))
    from seatkeeper.cli.processes.simulate_picture import drawn
    from seatkeeper.cli.processes.simulate_views import show_outcomes, write_outcomes
    from seatkeeper.cli.processes.simulated_demand import demanded, is_piped

    numbers = of.numbers()
    bound = _bound(p95_wait, find_seats=find_seats, has_seats=bool(numbers))
    file = None if of.file is None else Path(of.file)
    if is_piped(trace) and is_piped(file):
        fail(Exit.USAGE, "--trace and --file: one of them can be standard input, not both")
    given = {"--trace": trace, "--file": file, "--from": of.from_}
    inputs = {
        flag: path for flag, path in given.items() if path is not None and not is_piped(path)
    }
    places = outputs_at({"--picture": picture}, inputs=inputs, as_json=at.json)
    taken = of.taken()
    message = await of.message(at, taken)
    if not (find_seats or numbers or of.like or of.file or taken):
        ways = "--seats, --file, --like, --from or --find-seats"
        fail(Exit.USAGE, f"give {ways}: how many seats has it?")
    demand = demanded(trace, taken, mean_hold, begin=of.begin, has_dates=has_dates(message))
    tried: list[int | None] = list(numbers) or [None]
    specs = [] if find_seats else [specified(message, n, at=demand.begins) for n in tried]
    outcomes = [demand.play(spec) for spec in specs] or [_enough(message, demand, bound)]
    if (place := places.get("--picture")) is not None:
        place.write(drawn(outcomes).encode())
    report = write_outcomes if at.json else show_outcomes
    report(outcomes, bound_seconds=bound / 1000 if find_seats else None)


def _bound(text: str | None, *, find_seats: bool, has_seats: bool) -> int:
    """Return --p95-wait in milliseconds; 0: none. A wrong combination ends the command."""
    from seatkeeper.cli.processes.simulated_demand import length

    if find_seats != (text is not None):
        fail(Exit.USAGE, "--find-seats and --p95-wait go together: give both or neither")
    if find_seats and has_seats:
        fail(Exit.USAGE, "--seats and --find-seats: give one of them")
    return length("--p95-wait", text) if text is not None else 0


def _enough(message: pb.PoolSpec, demand: Demand, wait_millis: int) -> Outcome:
    from seatkeeper.server.replay.demand import SEATS_MAX
    from seatkeeper.server.replay.fewest import WaitBound, fewest_seats, seats_at_once

    policy = specified(message, 0, at=demand.begins).policy
    if policy.counting.is_advisory:
        fail(Exit.USAGE, "in an advisory pool none waits: give --binding with --find-seats")
    least = max(1, sum(policy.guaranteed[name] for name in policy.parts.get("", ())))
    if least > SEATS_MAX:
        fail(Exit.USAGE, f"guarantees sum to {least}; no pool has over {SEATS_MAX} seats")
    most = min(SEATS_MAX, max(least, seats_at_once(demand.everyone())))
    found = fewest_seats(
        lambda seats: demand.play(specified(message, seats, at=demand.begins)),
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
