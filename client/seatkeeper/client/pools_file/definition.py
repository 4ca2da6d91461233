"""What may be in ``pools.yaml``: its tables, their keys, and what each key takes.

The reader, the JSON Schema and the reference page are made from this, so they cannot differ. What more
than one key decides, such as a sum of guarantees, is in ``seatkeeper.core.projects``.
"""

from __future__ import annotations

from dataclasses import dataclass

from seatkeeper.core.borrowing import BORROW_MAX, BORROW_MIN, SKEW_DEFAULT, SKEW_MAX
from seatkeeper.core.burst_rule import HOURS_MAX
from seatkeeper.core.count_once import NAMED_MAX
from seatkeeper.core.counting import COST_MAX, COSTS_MAX
from seatkeeper.core.hold import HOLD_MAX, IDLE_MIN, LONGEST_MIN
from seatkeeper.core.lots import LOT_SEATS_MAX, LOTS_MAX, OWNER_MAX
from seatkeeper.core.pool_rule_faults import GROUPS_MAX, NAMES_MAX
from seatkeeper.core.projects import (
    POLICY_TIME_MAX,
    POLICY_TIME_MIN,
    PROJECTS_MAX,
    WEIGHT_MAX,
)
from seatkeeper.core.reclaim import (
    HOURLY_DEFAULT,
    HOURLY_MAX,
    MINIMUM_HOLD_DEFAULT,
    MINIMUM_HOLD_MAX,
    NOTICE_MAX,
    NOTICE_MIN,
)
from seatkeeper.core.recurrence import PARTS
from seatkeeper.core.reservations import RESERVATIONS_MAX
from seatkeeper.core.stay import LINGER_MAX, LOSS_MAX, STAY_MIN
from seatkeeper.core.validate import DESCRIPTION_MAX, SEATS_MAX

VERSION = 1
POOLS_MAX = 1_000
"""Most pools in one file: what one transaction of the store takes."""


@dataclass(frozen=True)
class Whole:
    """A whole number, in plain digits."""

    least: int
    most: int


@dataclass(frozen=True)
class Length:
    """A length of time: a number of seconds, or as ``8h``."""

    least: float
    most: float


@dataclass(frozen=True)
class Words:
    """Text for people, of at most so many characters."""

    most: int


@dataclass(frozen=True)
class Name:
    """The name of a pool or a project."""


@dataclass(frozen=True)
class Flag:
    """``true`` or ``false``."""


@dataclass(frozen=True)
class Numbers:
    """Names, each once, at most ``count``, and a whole number for each."""

    least: int
    most: int
    count: int


@dataclass(frozen=True)
class Patterns:
    """A list of names, in each of which one `*` may stand for any text; at most so many."""

    most: int


@dataclass(frozen=True)
class Common(Patterns):
    """A list of what grants have in common: ``holder``, ``host``, ``label:KEY``."""


@dataclass(frozen=True)
class Day:
    """A day, the whole of it in UTC, or a time with its offset; ``is_end``: where a day ends."""

    is_end: bool


@dataclass(frozen=True)
class Money:
    """A price, in a currency, for a unit."""


@dataclass(frozen=True)
class Span:
    """A length of time, such as 45m, 2h or 1d12h."""


@dataclass(frozen=True)
class Amount:
    """An amount of money, in a currency."""


@dataclass(frozen=True)
class Said:
    """Text in a form of its own, which is looked at with the rest of its table."""

    form: str
    """What it is, for people."""
    pattern: str
    """A regular expression for editors."""


@dataclass(frozen=True)
class Named:
    """Names, each once, and a table for each."""

    table: Table
    most: int


@dataclass(frozen=True, kw_only=True)
class Field:
    """A key of a table."""

    takes: (
        Whole
        | Words
        | Length
        | Name
        | Patterns
        | Flag
        | Numbers
        | Day
        | Money
        | Said
        | Span
        | Amount
        | Named
        | Table
    )
    meaning: str
    required: bool = False
    default: int | str | None = None
    """What it is where it is left out; None: nothing."""


@dataclass(frozen=True)
class Table:
    """A mapping with these keys, and no others."""

    what: str
    fields: dict[str, Field]


PROJECT = Table(
    "a project",
    {
        "guaranteed": Field(
            takes=Whole(0, SEATS_MAX),
            meaning="Seats that it gets before others do. While it does not use them they are "
            "lent, and called back where `reclaim` says so. Guarantees sum to at most the pool's "
            "seats, and those of parts to at most their parent's, where it has one.",
            default=0,
        ),
        "limit": Field(
            takes=Whole(0, SEATS_MAX),
            meaning="Most seats that it may hold, with its parts. Left out: all there are.",
        ),
        "weight": Field(
            takes=Whole(1, WEIGHT_MAX),
            meaning="Beyond guarantees, seats go to projects in proportion to their weights.",
            default=1,
        ),
        "parent": Field(
            takes=Name(),
            meaning="A project of the same pool that this one is a part of. At most 4 levels.",
        ),
    },
)
OVERTAKING = Table(
    "overtaking",
    {
        "seats": Field(
            takes=Whole(0, SEATS_MAX),
            meaning="Seats that are granted before any one request so, in all; 0: for `hold_back`.",
            required=True,
        ),
        "within": Field(
            takes=Length(POLICY_TIME_MIN.total_seconds(), POLICY_TIME_MAX.total_seconds()),
            meaning="How long a request waits before it is overtaken no more.",
            required=True,
        ),
        "hold_back": Field(
            takes=Length(POLICY_TIME_MIN.total_seconds(), POLICY_TIME_MAX.total_seconds()),
            meaning="How long, at most, seats are kept free for a gang that has waited for "
            "`within` in each of its pools that say this. Left out: others pass gangs.",
        ),
    },
)
RECLAIM = Table(
    "reclaim",
    {
        "notice": Field(
            takes=Length(NOTICE_MIN.total_seconds(), NOTICE_MAX.total_seconds()),
            meaning="How long a holder has at least, from when it learns of it.",
            required=True,
        ),
        "minimum_hold": Field(
            takes=Length(0, MINIMUM_HOLD_MAX.total_seconds()),
            meaning="Seats that were held for less are not called back.",
            default=int(MINIMUM_HOLD_DEFAULT.total_seconds()),
        ),
        "hourly": Field(
            takes=Whole(1, HOURLY_MAX),
            meaning="Grants that are called back in an hour, at most.",
            default=HOURLY_DEFAULT,
        ),
    },
)
HOLD = Table(
    "hold",
    {
        "longest": Field(
            takes=Length(LONGEST_MIN.total_seconds(), HOLD_MAX.total_seconds()),
            meaning="Seats are called back so that they end after so long, unless an administrator "
            "extends that. Left out: they are not.",
        ),
        "idle": Field(
            takes=Length(IDLE_MIN.total_seconds(), HOLD_MAX.total_seconds()),
            meaning="Seats are called back when their holder reports that it did nothing with them for "
            "so long. Left out: they are not; holders that report nothing keep them in any case.",
        ),
        "warning": Field(
            takes=Length(NOTICE_MIN.total_seconds(), NOTICE_MAX.total_seconds()),
            meaning="How long a holder has at least, from when it learns of it. Less than `longest`.",
            required=True,
        ),
    },
)
STAY = Table(
    "stay",
    {
        "linger": Field(
            takes=Length(STAY_MIN.total_seconds(), LINGER_MAX.total_seconds()),
            meaning="Released seats are kept for so long for the next request of the same holder and "
            "project, which is granted at once. Left out: they are free at once.",
        ),
        "resurrection": Field(
            takes=Length(STAY_MIN.total_seconds(), LOSS_MAX.total_seconds()),
            meaning="The seats of a session that was lost are kept for so long for its holder, who may "
            "take the same grant again in a new session, with a new fence. Left out: they are not.",
        ),
        "lock_delay": Field(
            takes=Length(STAY_MIN.total_seconds(), LOSS_MAX.total_seconds()),
            meaning="The seats of a session that was lost are granted to no other for so long, so that "
            "its program has that time to stop. Left out: they are at once.",
        ),
    },
)
GROUP = Table(
    "a group",
    {
        "holders": Field(
            takes=Patterns(NAMES_MAX),
            meaning="The holders in it. One `*` in a name stands for any text; what begins with it is "
            "put in quotes.",
            required=True,
        ),
    },
)
WHO = Table(
    "a choice of who asks",
    {
        "projects": Field(
            takes=Patterns(NAMES_MAX),
            meaning="By project. One `*` in a name stands for any text.",
        ),
        "holders": Field(
            takes=Patterns(NAMES_MAX),
            meaning="By holder, such as `alice@build-7`. One `*` in a name stands for any text: "
            '`"*@build-7"` is everybody on that host who says no other name.',
        ),
        "groups": Field(
            takes=Patterns(GROUPS_MAX),
            meaning="By group of holders, of the pool's `groups`.",
        ),
        "hosts": Field(
            takes=Patterns(NAMES_MAX),
            meaning="By host, as clients say it of themselves; in any case of letters. One `*` in a "
            "name stands for any text. A client that says none is of no host.",
        ),
    },
)
BORROW = Table(
    "borrow",
    {
        "longest": Field(
            takes=Length(BORROW_MIN.total_seconds(), BORROW_MAX.total_seconds()),
            meaning="For how long a seat is borrowed at most.",
            required=True,
        ),
        "seats": Field(
            takes=Whole(0, SEATS_MAX),
            meaning="Seats that are borrowed at once, at most. Left out: all.",
        ),
        "low_water": Field(
            takes=Whole(0, SEATS_MAX),
            meaning="Seats of those in force that are not borrowed. Left out: 0.",
        ),
        "skew": Field(
            takes=Length(0, SKEW_MAX.total_seconds()),
            meaning="A seat is freed so long after its day: as much as the clocks of nodes and "
            f"machines may differ. Left out: {SKEW_DEFAULT.total_seconds():g} s.",
        ),
        "per_project": Field(
            takes=Whole(0, SEATS_MAX),
            meaning="Seats that one project has borrowed at once, at most, listed or not, for itself. "
            "Left out: all.",
        ),
        "include": Field(
            takes=WHO,
            meaning="Who may borrow, of those who may use the pool. Groups are those of the pool's "
            f"`groups`; there are at most {NAMES_MAX} names in both lists. Left out: all may.",
        ),
        "exclude": Field(
            takes=WHO, meaning="Who may not borrow, also where they are included."
        ),
    },
)
AT_MOST = Table(
    "a limit",
    {
        "seats": Field(
            takes=Whole(1, SEATS_MAX),
            meaning="Most seats that each may hold at once. A request for more is refused; one that "
            "does not fit now waits, and others go before it. Left out: all there are.",
        ),
        "tickets": Field(
            takes=Whole(0, SEATS_MAX),
            meaning="Most requests that each may have in the queue; one more is refused. Left out: "
            "as many as the queue holds.",
        ),
    },
)
LOT = Table(
    "a lot",
    {
        "seats": Field(
            takes=Whole(1, LOT_SEATS_MAX),
            meaning="Seats that count while it is in force.",
            required=True,
        ),
        "from": Field(
            takes=Day(is_end=False),
            meaning="From when on. Left out: from when it is applied on.",
        ),
        "until": Field(
            takes=Day(is_end=True),
            meaning="Until when: a day is its last one, a time the first moment after it. Left out: "
            "without end.",
        ),
        "price": Field(takes=Money(), meaning="What a seat costs; for people."),
        "owner": Field(takes=Words(OWNER_MAX), meaning="Who answers for it.", default=""),
        "overdraft": Field(
            takes=Whole(0, LOT_SEATS_MAX),
            meaning="Seats that the contract allows beyond its own: granted while it is in force "
            "and no other seat is free, marked and counted.",
            default=0,
        ),
    },
)
WHEN = Table(
    "`when`",
    {
        "p95_wait": Field(
            takes=Span(),
            meaning="A long wait: 95 in 100 requests are to wait for less.",
            required=True,
        ),
        "for": Field(
            takes=Span(),
            meaning="How long more are to have waited for longer: in each eighth of this time, of "
            "those that were granted or given up in it, or waited at its end. At most 7d.",
            required=True,
        ),
    },
)
BURST = Table(
    "a burst",
    {
        "when": Field(takes=WHEN, meaning="When one is started.", required=True),
        "seats": Field(takes=Whole(1, LOT_SEATS_MAX), meaning="Its seats.", required=True),
        "length": Field(takes=Span(), meaning="How long it is, at most 31d.", required=True),
        "hours_per_month": Field(
            takes=Whole(1, HOURS_MAX),
            meaning="Hours of such bursts in a month in UTC, at most, by their planned ends. One that "
            "would pass this is not started.",
            required=True,
        ),
        "price": Field(takes=Money(), meaning="What a seat costs."),
        "budget": Field(
            takes=Amount(),
            meaning="What such bursts may cost in a month, likewise. Needs a `price` for a seat-hour, "
            "in the same currency.",
        ),
    },
)
RESERVATION = Table(
    "a reservation",
    {
        "seats": Field(
            takes=Whole(1, SEATS_MAX),
            meaning="Seats that are kept while a window is open, with those that they hold whom it is "
            "for. Of windows that overlap they sum to at most the pool's seats.",
            required=True,
        ),
        "for": Field(
            takes=WHO,
            meaning="Whom it is for. A project is meant without its parts.",
            required=True,
        ),
        "when": Field(
            takes=Said(
                "days, `daily`, `weekdays`, `weekends`, or `MO,TU`; or a recurrence rule of RFC 5545, "
                "`FREQ=MONTHLY;BYDAY=1MO`, of " + ", ".join(f"`{each}`" for each in PARTS),
                "^[A-Za-z0-9=;,:+ -]{1,200}$",
            ),
            meaning="On which days a window opens.",
            required=True,
        ),
        "at": Field(
            takes=Said(
                "times of a wall clock, `22:00-06:00`, or `18:00-06:00+3` to the third day after",
                "^[0-9]{2}:[0-9]{2}-[0-9]{2}:[0-9]{2}(\\+[0-9]{1,2})?$",
            ),
            meaning="When it opens, and when it closes: on the next day where that is not later. A "
            "time that clocks show twice is the first of the two; one that they do not show, since "
            "they are put forward, is the moment when they are.",
            required=True,
        ),
        "zone": Field(
            takes=Said(
                "IANA's name of a time zone, `Europe/Berlin`", "^[A-Za-z0-9/_+-]{1,64}$"
            ),
            meaning="Whose wall clock.",
            default="UTC",
        ),
        "from": Field(
            takes=Said("a day, `2026-12-01`", "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"),
            meaning="No window opens before this day. A rule with `INTERVAL` counts from it.",
        ),
        "notice": Field(
            takes=Length(NOTICE_MIN.total_seconds(), NOTICE_MAX.total_seconds()),
            meaning="Seats that others hold are called back with so long a notice, so that they are "
            "free when a window begins: it opens by this, and a minute, earlier. Left out: they are "
            "not called back.",
        ),
    },
)
POOL = Table(
    "a pool",
    {
        "seats": Field(
            takes=Whole(0, SEATS_MAX),
            meaning="How many seats it has, beside those of its `lots`. Where that is 0 in all, it is "
            "closed, and requests wait in the queue.",
            required=True,
        ),
        "description": Field(takes=Words(DESCRIPTION_MAX), meaning="For people.", default=""),
        "lots": Field(
            takes=Named(LOT, LOTS_MAX),
            meaning="Contracts, by name. Their seats count from when a node has written that they "
            "begin, until one has written that they end. Another `from` or `until` makes it a new one. "
            "Bursts are not in the file, and stay as they are.",
        ),
        "burst": Field(
            takes=BURST,
            meaning="When nodes start a burst by themselves. Left out: they start none; one that goes "
            "on ends on its time.",
        ),
        "advisory": Field(
            takes=Flag(),
            meaning="Whether it counts, and refuses nothing that can be granted: what would have "
            "waited or been refused is granted, and the grant is marked with the rule. `true` or "
            "`false`; left out: it is binding.",
        ),
        "costs": Field(
            takes=Numbers(1, COST_MAX, COSTS_MAX),
            meaning="Seats that one costs that is asked for as one of a class, by class. What is held "
            "or waits is not changed with it. `default` is for requests that name no class; where it "
            "is left out they cost 1.",
        ),
        "count_once": Field(
            takes=Common(NAMED_MAX),
            meaning="Grants of one project that have all of these in common count once: they take as "
            "many seats as the largest of them. Where one of them is not known, a grant counts by "
            "itself. Those that there are stay as they were granted. Left out, or empty: each counts. "
            "Where `per_holder`, or `per_host`, says how many seats each may hold, `holder`, or "
            "`host`, is among them.",
        ),
        "usage_half_life": Field(
            takes=Length(POLICY_TIME_MIN.total_seconds(), POLICY_TIME_MAX.total_seconds()),
            meaning="Time in which half of what a project has used is forgotten: who has used "
            "little for its weight comes first. Left out: only what is held counts. Needs "
            "`projects`.",
        ),
        "overtaking": Field(
            takes=OVERTAKING,
            meaning="How far smaller requests may go before one that wants more seats than are "
            "free. Left out: they wait with it.",
        ),
        "reclaim": Field(
            takes=RECLAIM,
            meaning="How seats that projects hold beyond their guarantees are called back for one "
            "that is under its own. Left out: they are not. Needs a project with a guarantee.",
        ),
        "hold": Field(
            takes=HOLD,
            meaning="How long seats may be held. Left out: as long as holders like.",
        ),
        "stay": Field(
            takes=STAY,
            meaning="For how long seats are kept that were released, or whose holder was lost. They "
            "count as held meanwhile. Left out: they are free at once. Needs one of its keys.",
        ),
        "borrow": Field(
            takes=BORROW,
            meaning="How seats leave with machines that are offline. Left out: they do not.",
        ),
        "groups": Field(
            takes=Named(GROUP, GROUPS_MAX),
            meaning="Groups of holders, by name, for `include` and `exclude`.",
        ),
        "include": Field(
            takes=WHO,
            meaning="Who may use the pool. Left out: all may. In all lists of a pool's rules together "
            f"there are at most {NAMES_MAX} names.",
        ),
        "exclude": Field(
            takes=WHO,
            meaning="Who may not, also where they are included. Seats that they hold stay theirs; "
            "requests that wait are refused.",
        ),
        "per_holder": Field(takes=AT_MOST, meaning="The most that each holder may have."),
        "per_host": Field(
            takes=AT_MOST,
            meaning="The most that each host may have, as clients say theirs; of those that say none "
            "nothing is counted.",
        ),
        "per_project": Field(
            takes=AT_MOST,
            meaning="The most that each project may have for itself, listed or not: what its parts "
            "have is not counted.",
        ),
        "reservations": Field(
            takes=Named(RESERVATION, RESERVATIONS_MAX),
            meaning="Seats that are kept for some in windows that come again and again, by name. While "
            "one is open, what they do not use of them is granted to no other.",
        ),
        "projects": Field(
            takes=Named(PROJECT, PROJECTS_MAX),
            meaning="The projects that share the pool, by name, in an order that is kept. Left "
            "out: requests are served by priority and arrival alone.",
        ),
    },
)
FILE = Table(
    "the file",
    {
        "version": Field(
            takes=Whole(VERSION, VERSION),
            meaning="What the rest means: 1.",
            required=True,
        ),
        "pools": Field(
            takes=Named(POOL, POOLS_MAX),
            meaning="The pools, by name. One that is not in the file stays as it is.",
            required=True,
        ),
    },
)
