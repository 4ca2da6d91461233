"""``seatkeeper pool``: administer pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict

from seatkeeper.cli import completion
from seatkeeper.cli.command import connected
from seatkeeper.cli.connection import Connection
from seatkeeper.cli.counting import counting_facts, counting_json
from seatkeeper.cli.examples import examples
from seatkeeper.cli.exits import Exit, fail
from seatkeeper.cli.lent import pool_facts
from seatkeeper.cli.lots import (
    ChangedLots,
    NewLots,
    lots_json,
    lots_table,
    rule_facts,
    seats_text,
    warn_of_shortfall,
)
from seatkeeper.cli.pool_drain import drain, drain_facts, open_
from seatkeeper.cli.pool_edit import edit
from seatkeeper.cli.pool_plan import apply, plan
from seatkeeper.cli.pool_policy import PolicyOptions
from seatkeeper.cli.render import (
    Json,
    facts,
    pool_json,
    say,
    show,
    speaks_utf8,
    write_json,
    write_text,
)
from seatkeeper.cli.reservations import (
    ChangedReservations,
    NewReservations,
    reservations_json,
    reservations_table,
)
from seatkeeper.cli.sharing import (
    half_life_of,
    parsed_borrow,
    parsed_hold,
    parsed_overtaking,
    parsed_reclaim,
    parsed_stay,
    sharing_facts,
)
from seatkeeper.cli.views import (
    grants_table,
    kept_of,
    pools_table,
    projects_table,
    queue_table,
    rules_facts,
    seats_of,
)
from seatkeeper.client.admin.projects import parse_project
from seatkeeper.core.amounts import count, size
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.v1 import pool_service_pb2 as pb

app = typer.Typer(
    help="Create, change, delete and list pools: named sets of interchangeable seats. "
    "`seatkeeper pool simulate` tries one on a demand.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Name of the pool.", autocompletion=completion.pools),
]
Seats = typer.Option(
    "--seats",
    metavar="N",
    min=0,
    max=100_000,
    help="How many seats it has; 0: it is closed, and requests wait in the queue.",
)
Description = typer.Option("--description", metavar="TEXT", help="For people.")
Project = typer.Option(
    "--project",
    metavar="NAME:KEY=VALUE,...",
    help="A project's part: guaranteed=N seats that it gets before others, limit=N seats at most, "
    "weight=N (1) of what is left, parent=NAME that it is a part of. May be repeated.",
)
AsYaml = typer.Option(
    "--yaml", help="Write it as a file of pools, which `pool apply` reads; without its state."
)
WithoutProject = typer.Option(
    "--without-project", metavar="NAME", help="A project to list no longer. May be repeated."
)


@dataclass(frozen=True)
class ChangedProjects:
    """What is to become of a pool's projects."""

    project: Annotated[list[str] | None, Project] = None
    without_project: Annotated[list[str] | None, WithoutProject] = None


@app.command(
    epilog=examples('seatkeeper pool create tensorrt --seats 2 --description "engine builds"')
)
@connected
async def create(
    at: Connection,
    name: Name,
    lots: NewLots,
    kept: NewReservations,
    seats: Annotated[int | None, Seats] = None,
    description: Annotated[str, Description] = "",
    project: Annotated[list[str] | None, Project] = None,
    *,
    how: PolicyOptions,
) -> None:
    """Create a pool.

    With --project, its seats are shared: the next one goes to a project under its guarantee, then by
    weight. Idle guarantees are lent; with --reclaim, lent seats are called back when they are needed.
    With --lot, it has seats for a time, beside those of --seats. With --reserve, seats are kept for
    some in windows that come again.
    """
    shares, rule = parsed_projects(project or []), parsed_overtaking(how.overtaking)
    change, (may_borrow, may_not) = how.rules_change(), how.borrowers()
    given, reserved = lots.given, kept.given
    if seats is None and not given:
        fail(Exit.USAGE, "how many seats? Give --seats, or --lot")
    async with at.client() as client:
        pool = await client.pools.create(
            name,
            seats=seats or 0,
            lots=given,
            burst_rule=lots.rule,
            description=description,
            projects=shares,
            usage_half_life=half_life_of(how.usage_half_life) or None,
            overtaking=rule,
            reclaim=parsed_reclaim(how.reclaim),
            hold=parsed_hold(how.hold),
            stay=parsed_stay(how.stay),
            borrow=parsed_borrow(how.borrow),
            borrow_include=may_borrow,
            borrow_exclude=may_not,
            rules=None if change.is_empty else change.applied_to,
            reservations=reserved,
            advisory=how.advisory,
            costs=how.costs(),
            count_once=how.counted_once(),
        )
    _done(at, "created", pool)


@app.command(
    epilog=examples(
        "seatkeeper pool update tensorrt --seats 4",
        "seatkeeper pool update tensorrt --project vision:guaranteed=2,weight=2",
        "seatkeeper pool update tensorrt --exclude 'holder:*@build-7' --per-holder seats=2,tickets=10",
    )
)
@connected
async def update(
    at: Connection,
    name: Name,
    lots: ChangedLots,
    kept: ChangedReservations,
    projects: ChangedProjects,
    seats: Annotated[int | None, Seats] = None,
    description: Annotated[str | None, Description] = None,
    *,
    how: PolicyOptions,
) -> None:
    """Change the given values of a pool, and no others.

    Lowering the seats revokes none: no seat is granted until the surplus is released. With 0 the
    pool is closed, for maintenance: the queue stays, and is served when there are seats again.
    --project adds a project, or takes the place of what the pool says of it; --lot does the same for a
    lot. Of a pool with lots, --seats are those beside them.
    """
    project, without_project = projects.project, projects.without_project
    given = (seats, description, project, without_project)
    others = (how.is_given, lots.change, lots.burst_rule is not None, kept.change)
    if all(each is None for each in given) and not any(others):
        fail(
            Exit.USAGE,
            "nothing to change: give --seats, --description, --project, --without-project, "
            "--usage-half-life, --overtaking, --reclaim, --hold, --stay, --borrow, --borrow-include, "
            "--borrow-exclude, --include, --exclude, --group, --per-holder, --per-project, "
            "--per-host, --advisory, --binding, --cost, --count-once, --lot, --without-lot, "
            "--burst-rule, --reserve or --without-reservation",
        )
    shares, rule = parsed_projects(project or []), parsed_overtaking(how.overtaking)
    change, (may_borrow, may_not) = how.rules_change(), how.borrowers()
    async with at.client() as client:
        pool = await client.pools.update(
            name,
            seats=seats,
            description=description,
            projects=shares,
            without_projects=without_project or [],
            usage_half_life=half_life_of(how.usage_half_life),
            overtaking=rule,
            reclaim=parsed_reclaim(how.reclaim),
            hold=parsed_hold(how.hold),
            stay=parsed_stay(how.stay),
            borrow=parsed_borrow(how.borrow),
            borrow_include=may_borrow,
            borrow_exclude=may_not,
            rules=None if change.is_empty else change.applied_to,
            advisory=how.advisory,
            costs=how.costs(),
            count_once=how.counted_once(),
            lots=lots.change,
            burst_rule=lots.rule,
            reservations=kept.change,
        )
    _done(at, "updated", pool)


@app.command(epilog=examples("seatkeeper pool delete tensorrt"))
@connected
async def delete(at: Connection, name: Name) -> None:
    """Delete a pool without holders and waiting requests."""
    async with at.client() as client:
        await client.pools.delete(name)
    if at.json:
        write_json({"deleted": name})
    else:
        say(f"pool {name} deleted")


@app.command(
    "list", epilog=examples("seatkeeper pool list --json", "seatkeeper pool list --yaml")
)
@connected
async def list_(at: Connection, yaml: Annotated[bool, AsYaml] = False) -> None:
    """List all pools."""
    _only_one(at, yaml)
    async with at.client() as client:
        pools = await client.pools.list()
    if yaml:
        _write_yaml(pools)
    elif at.json:
        write_json({"pools": [_json(pool, details=False) for pool in pools]})
    elif not pools:
        say("there is no pool yet; `seatkeeper pool create NAME --seats N` makes one")
    else:
        show(pools_table(pools))


@app.command("show", epilog=examples("seatkeeper pool show tensorrt"))
@connected
async def show_(at: Connection, name: Name, yaml: Annotated[bool, AsYaml] = False) -> None:
    """Show one pool: what it is, who holds its seats, who waits."""
    _only_one(at, yaml)
    async with at.client() as client:
        pool = await client.pools.get(name)
    if yaml:
        _write_yaml([pool])
        return
    if at.json:
        write_json(_json(pool, details=True))
        return
    show(
        facts(
            [
                ("pool", pool.spec.name),
                ("description", pool.spec.description or "-"),
                (
                    "seats",
                    f"{seats_of(pool)} ({pool.held} held, {kept_of(pool)}{pool.free} free)",
                ),
                *drain_facts(pool.spec),
                *([("of these", seats_text(pool))] if pool.spec.lots.lots else []),
                *rule_facts(pool),
                ("queued", str(pool.queued)),
                *sharing_facts(pool),
                *counting_facts(pool),
                *pool_facts(pool),
                *rules_facts(pool.spec.policy.rules),
                ("last fence", str(pool.fence)),
                ("revision", str(pool.revision)),
            ]
        ),
        *(["", lots_table(pool)] if pool.spec.lots.lots else []),
        *(["", reservations_table([pool])] if pool.spec.policy.reservations else []),
        *(["", projects_table(pool)] if pool.projects else []),
        "",
        grants_table(pool),
        "",
        queue_table(pool),
    )


@app.command(epilog=examples("seatkeeper pool snapshot tensorrt > tensorrt.json"))
@connected
async def snapshot(at: Connection, name: Name) -> None:
    """Write a pool as it stands, in JSON: what it is, who holds its seats, who waits.

    `seatkeeper pool simulate --from FILE` goes on from there. It has the names of holders and programs.
    Always JSON, with and without --json.
    """
    async with at.client() as client:
        pool = await client.pools.get(name)
    taken_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    write_json({"taken_at": taken_at, "pool": MessageToDict(pool)})


app.command("edit", epilog=examples('seatkeeper pool edit tensorrt --reason "a new quarter"'))(
    edit
)
app.command(
    "drain",
    epilog=examples('seatkeeper pool drain tensorrt --reason "the licence server is moved"'),
)(drain)
app.command("open", epilog=examples("seatkeeper pool open tensorrt"))(open_)
app.command("plan", epilog=examples("seatkeeper pool list --yaml | seatkeeper pool plan -f -"))(
    plan
)
app.command(
    "apply",
    epilog=examples(
        'seatkeeper pool list --yaml | seatkeeper pool apply -f - --reason "as it is"'
    ),
)(apply)


def _json(pool: pb.Pool, *, details: bool) -> Json:
    """Return a pool for programs; ``details``: also its grants and queue."""
    of_time = lots_json(pool) | reservations_json(pool)
    return pool_json(pool, details=details) | of_time | counting_json(pool)


def _only_one(at: Connection, yaml: bool) -> None:
    if at.json and yaml:
        fail(Exit.USAGE, "--yaml and --json: give one of them")


def _write_yaml(pools: Sequence[pb.Pool]) -> None:
    from seatkeeper.client.pools_file import FILE_BYTES_MAX, write_pools
    from seatkeeper.client.pools_file.definition import POOLS_MAX

    for pool in pools:
        if not pool.revision:  # the node could not read it, and says so in its description
            fail(Exit.FAILED, f"pool {pool.spec.name}: {pool.spec.description}")
    text = write_pools((pool.spec for pool in pools), as_ascii=not speaks_utf8())
    if len(pools) > POOLS_MAX or len(text) > FILE_BYTES_MAX:
        fail(
            Exit.FAILED,
            f"{count(len(pools), 'pool')}, {size(len(text))}, are too much for one file of at most "
            f"{POOLS_MAX} pools and {size(FILE_BYTES_MAX)}: write some with `pool show NAME --yaml`",
        )
    write_text(text)


def parsed_projects(texts: list[str]) -> list[pb.ProjectShare]:
    """Return what options say of projects. One that cannot be read ends the command."""
    try:
        return [parse_project(text) for text in texts]
    except InvalidArgument as error:
        fail(Exit.USAGE, str(error))


def _done(at: Connection, what: str, pool: pb.Pool) -> None:
    warn_of_shortfall(pool)
    if at.json:
        write_json(_json(pool, details=False))
    else:
        closed = "closed, nothing is granted until it has seats again"
        advisory = ", advisory" if pool.spec.policy.counting.advisory else ""
        say(
            f"pool {pool.spec.name} {what}: "
            f"{count(pool.spec.seats, 'seat') if pool.spec.seats else closed}{advisory}"
        )
