"""What statements mean, and what becomes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import Enum

from seatkeeper.client.imports.statement import Statement


class Became(Enum):
    """What became of a statement."""

    TRANSLATED = "translated"
    """It is in the file of pools, all of it."""
    PARTLY = "partly translated"
    """It is in the file of pools, but for what the reasons say."""
    NONE = "no counterpart"
    """It decides who gets a seat, and pools have nothing for it."""
    NOT_NEEDED = "not needed"
    """It says nothing of seats, or nothing that is in force."""
    UNREADABLE = "not understood"
    """It is not what its keyword takes, or its keyword is not known."""


@dataclass
class Outcome:
    """A statement, what became of it, and why."""

    statement: Statement
    became: Became = Became.TRANSLATED
    reasons: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    """What it became part of: ``pools.f1.seats``."""

    def partly(self, reason: str) -> None:
        """Note what of it is not translated."""
        if self.became is Became.TRANSLATED:
            self.became = Became.PARTLY
        if reason not in self.reasons:
            self.reasons.append(reason)

    def ends_as(self, became: Became, reason: str) -> None:
        """Say that nothing of it is translated."""
        self.became = became
        self.reasons = [reason]


@dataclass(frozen=True)
class Licence:
    """Seats of a feature."""

    feature: str
    vendor: str
    version: str
    seats: int | None
    """None: they are not counted."""
    expires: date | None = None
    """The last day on which they are in force; None: without limit."""
    starts: date | None = None
    issued: date | None = None
    supersedes: tuple[str, ...] = ()
    """The features of which it takes the place of what was issued before it."""
    is_first_only: bool = False
    """Of several such lines of a feature the server uses the first."""
    order: int = 100
    """Where the server sorts it."""
    signature: str = ""
    contract: str = ""
    """What its contract is called; empty: it does not say."""
    overdraft: int = 0
    """Seats that it allows beyond its own."""
    losses: tuple[str, ...] = ()
    """What else it says that pools have nothing for."""
    multiple: int = 1
    """As part of a package: how many for each seat of the package."""
    borrow: timedelta | None = None
    """For how long its seats may be borrowed; None: they may not."""
    borrow_seats: int | None = None
    """How many of them at once; None: all."""
    count_once: tuple[str, ...] = ()
    """What requests have in common that share its seats; empty: each takes its own."""


@dataclass(frozen=True)
class Package:
    """Features that are licensed together, under a name of their own."""

    name: str
    vendor: str
    components: tuple[tuple[str, str, int], ...]
    """Name, version (empty: that of the package) and how many for each seat of the package."""
    is_suite: bool
    """A seat of a component takes one of the package, too."""


@dataclass(frozen=True)
class Claim:
    """Seats that somebody is sure of, or may have at most."""

    is_limit: bool
    seats: int
    feature: str
    qualifier: str
    """Which licences of the feature: ``VERSION=2.0``; empty: all."""
    kind: str
    """``PROJECT``, ``GROUP``, ``USER`` and so on."""
    who: str
    losses: tuple[str, ...] = ()


@dataclass(frozen=True)
class Access:
    """Who may use a feature, or may not."""

    is_exclusion: bool
    feature: str
    """Empty: all features of the vendor."""
    qualifier: str
    kind: str
    """``USER``, ``GROUP``, ``HOST`` and so on."""
    who: str
    losses: tuple[str, ...] = ()
    is_of_borrowing: bool = False
    """Who may borrow its seats, or may not."""


@dataclass(frozen=True)
class Lending:
    """How seats of a feature may be borrowed."""

    feature: str
    qualifier: str = ""
    longest: timedelta | None = None
    """For no longer; None: it does not say."""
    seats: int | None = None
    """No more at once; None: it does not say."""
    low_water: int = 0
    """So many are not borrowed."""


@dataclass(frozen=True)
class Group:
    """Users or hosts under one name."""

    name: str
    members: tuple[str, ...]
    kind: str = "GROUP"
    """``GROUP`` or ``HOST_GROUP``."""


@dataclass(frozen=True)
class Linger:
    """For how long a released seat of a feature is kept."""

    feature: str
    qualifier: str
    seconds: int


@dataclass(frozen=True)
class IdleTime:
    """After what time without use a seat is taken back."""

    feature: str
    """Empty: all features of the vendor."""
    qualifier: str
    seconds: int


@dataclass(frozen=True)
class MostOverdraft:
    """How many seats a feature may be overdrawn by at most, of those that its licences allow."""

    feature: str
    qualifier: str
    seats: int


@dataclass(frozen=True)
class Aside:
    """What has no part in a file of pools."""

    became: Became
    reason: str


Parsed = (
    Licence
    | Package
    | Claim
    | Access
    | Lending
    | Group
    | Linger
    | IdleTime
    | MostOverdraft
    | Aside
)


class Unreadable(Exception):
    """A statement is not what its keyword takes. Says why."""


Attributes = Mapping[str, str]
"""Attributes of a licence, by name, each with what is lost without it; empty: nothing is."""
