"""Options that say how a pool is shared, beside its projects: the same for all commands.

Annotations are evaluated here: a class elsewhere that extends these options could not evaluate them.
"""

from dataclasses import dataclass
from typing import Annotated

import typer

from seatkeeper.cli.exits import Exit, fail
from seatkeeper.client.admin.counting import parse_costs, parse_count_once
from seatkeeper.client.admin.rules import RulesChange, parse_group, parse_most, parse_who
from seatkeeper.core.errors import InvalidArgument
from seatkeeper.v1 import pool_service_pb2 as pb

HalfLife = typer.Option(
    "--usage-half-life",
    metavar="SECONDS",
    min=0,
    max=90 * 24 * 3600,
    help="A project that has used little for its weight comes first; half of what was used is "
    "forgotten in this time. 0: only what is held counts.",
)
Overtake = typer.Option(
    "--overtaking",
    metavar="RULE",
    help="seats=N,within=LENGTH: while a request wants more seats than are free, smaller ones behind "
    "it may be granted N seats in all, until it has waited so long. With hold_back=LENGTH seats are "
    "kept free for a gang that has waited so long, for that long at most. none: they wait with "
    "it, as in every pool that says nothing.",
)
Reclaim = typer.Option(
    "--reclaim",
    metavar="RULE",
    help="notice=LENGTH,minimum_hold=LENGTH,hourly=N: seats that projects hold beyond their "
    "guarantees are called back for one under its own. Their holders have at least the notice; seats "
    "held for less than the minimum (60) stay, and at most N (60) grants are called back in an hour. "
    "none: no seat is called back, as in every pool that says nothing.",
)
Hold = typer.Option(
    "--hold",
    metavar="RULE",
    help="longest=LENGTH,idle=LENGTH,warning=LENGTH, such as longest=8h,warning=10m: seats are called "
    "back so that they end after the longest hold, and when their holder reports that it did nothing "
    "with them for so long. Their holders have at least the warning. none: they are held as long as "
    "holders like, as in every pool that says nothing.",
)
Stay = typer.Option(
    "--stay",
    metavar="RULE",
    help="linger=LENGTH,resurrection=LENGTH,lock_delay=LENGTH, or some of them. Released seats are "
    "kept for the next request of the same holder and project (linger). Those of a session that was "
    "lost are kept for its holder, in a new session (resurrection), or granted to no other for a while "
    "(lock_delay). none: they are free at once, as in every pool that says nothing.",
)
Borrow = typer.Option(
    "--borrow",
    metavar="RULE",
    help="longest=LENGTH,seats=N,low_water=N,skew=LENGTH, such as longest=30d,seats=5: machines that "
    "will be offline may borrow seats for so long, N of them at once, while as many as low_water are "
    "left, and each project has per_project; they are freed at their day and the skew (10m). none: no "
    "seat is borrowed, as in every pool that says nothing.",
)
BorrowInclude = typer.Option(
    "--borrow-include",
    metavar="WHO",
    help="Who may borrow, of those who may use the pool, written as for --include. May be repeated; "
    "what is given takes the place of all. none: all may.",
)
BorrowExclude = typer.Option(
    "--borrow-exclude",
    metavar="WHO",
    help="Who may not, also where they are included. none: no one.",
)
Include = typer.Option(
    "--include",
    metavar="WHO",
    help="Who may use the pool: project:NAME, holder:NAME, group:NAME or host:NAME. May be repeated; "
    "what is given takes the place of all that were included. One * in a NAME stands for any text. "
    "none: all may.",
)
Exclude = typer.Option(
    "--exclude",
    metavar="WHO",
    help="Who may not, written as for --include, and also where they are included. none: no one.",
)
Group = typer.Option(
    "--group",
    metavar="NAME:HOLDER,...",
    help="A group of holders for --include and --exclude. May be repeated. NAME: alone removes it.",
)
PerHolder = typer.Option(
    "--per-holder",
    metavar="RULE",
    help="seats=N,tickets=N, or one of them: the most seats that each holder may hold, and requests "
    "that each may have in the queue. none: all there are.",
)
PerProject = typer.Option(
    "--per-project", metavar="RULE", help="The same for each project, listed or not."
)
PerHost = typer.Option(
    "--per-host", metavar="RULE", help="The same for each host, as clients say theirs."
)


Advisory = typer.Option(
    "--advisory/--binding",
    help="Whether the pool counts and refuses nothing that can be granted: what would have waited or "
    "been refused is granted, and the grant is marked with the rule. [default: it is binding]",
    show_default=False,
)
Cost = typer.Option(
    "--cost",
    metavar="CLASS=N",
    help="Seats that one costs which is asked for with --as CLASS; `default` is for requests that name "
    "no class. May be repeated; what is given takes the place of all costs. none: each seat costs 1. "
    "What is held or waits stays as it is.",
)

CountOnce = typer.Option(
    "--count-once",
    metavar="ATTRIBUTE",
    help="holder, host or label:KEY: grants of one project that have all that are given in common take "
    "as many seats as the largest of them, such as several processes of one user on one host. May be "
    "repeated; what is given takes the place of all. none: each grant counts. Those that there are "
    "stay as they were granted.",
)


@dataclass(frozen=True, kw_only=True)
class PolicyOptions:
    """How a pool is shared: each field is an option; None: it is not given."""

    usage_half_life: Annotated[float | None, HalfLife] = None
    overtaking: Annotated[str | None, Overtake] = None
    reclaim: Annotated[str | None, Reclaim] = None
    hold: Annotated[str | None, Hold] = None
    stay: Annotated[str | None, Stay] = None
    borrow: Annotated[str | None, Borrow] = None
    borrow_include: Annotated[list[str] | None, BorrowInclude] = None
    borrow_exclude: Annotated[list[str] | None, BorrowExclude] = None
    include: Annotated[list[str] | None, Include] = None
    exclude: Annotated[list[str] | None, Exclude] = None
    group: Annotated[list[str] | None, Group] = None
    per_holder: Annotated[str | None, PerHolder] = None
    per_project: Annotated[str | None, PerProject] = None
    per_host: Annotated[str | None, PerHost] = None
    advisory: Annotated[bool | None, Advisory] = None
    cost: Annotated[list[str] | None, Cost] = None
    count_once: Annotated[list[str] | None, CountOnce] = None

    @property
    def is_given(self) -> bool:
        """Whether any of them is given."""
        values = (self.usage_half_life, self.overtaking, self.include, self.exclude)
        more = (self.reclaim, self.hold, self.group, self.per_holder, self.per_project)
        counting = (self.per_host, self.advisory, self.cost, self.stay, self.borrow)
        lent = (self.count_once, self.borrow_include, self.borrow_exclude)
        return any(each is not None for each in (*values, *more, *counting, *lent))

    def counted_once(self) -> list[str] | None:
        """Return what they say of grants that count once; None: nothing."""
        return None if self.count_once is None else parse_count_once(self.count_once)

    def costs(self) -> dict[str, int] | None:
        """Return what they say of costs; None: nothing. What cannot be read ends the command."""
        try:
            return None if self.cost is None else parse_costs(self.cost)
        except InvalidArgument as error:
            fail(Exit.USAGE, str(error))

    def borrowers(self) -> tuple[pb.Who | None, pb.Who | None]:
        """Return who may borrow, and who may not; None: it is not said."""
        try:
            said = self.borrow_include, self.borrow_exclude
            include, exclude = (None if each is None else parse_who(each) for each in said)
        except InvalidArgument as error:
            fail(Exit.USAGE, str(error))
        return include, exclude

    def rules_change(self) -> RulesChange:
        """Return what they say of the rules. What cannot be read ends the command."""
        try:
            return RulesChange(
                include=None if self.include is None else parse_who(self.include),
                exclude=None if self.exclude is None else parse_who(self.exclude),
                groups=dict(map(parse_group, self.group or [])),
                per_holder=None if self.per_holder is None else parse_most(self.per_holder),
                per_project=None if self.per_project is None else parse_most(self.per_project),
                per_host=None if self.per_host is None else parse_most(self.per_host),
            )
        except InvalidArgument as error:
            fail(Exit.USAGE, str(error))
