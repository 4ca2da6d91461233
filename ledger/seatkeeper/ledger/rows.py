"""What the ledger has of grants, waits and gaps, and where each stands in a history. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from seatkeeper.core.lot_use import LotSeats
from seatkeeper.server.domain import Instant
from seatkeeper.server.domain.attribution import Attribution
from seatkeeper.server.events.usage import UsageKind

GAP = "GAP"
"""Reason of an end that was not seen: it was between two moments, and why is not known."""


class Position(NamedTuple):
    """Where an event stands: no other event of any ledger's history has the same."""

    history: int
    revision: int
    operation: int
    """Its number among the events of the revision."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a grant, or a wait, ended."""

    position: Position
    kind: UsageKind
    at: Instant
    reason: str = ""
    hint: str = ""
    after: Instant | None = None
    """The time is not known but for being later than this, and ``at`` at the latest; None: it is."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: whose it is, and for what."""

    pool: str
    grant_id: str
    session_id: str
    attribution: Attribution
    seats: int


@dataclass(slots=True)
class GrantRow:
    """Seats that were granted."""

    began: Position
    asked: Asked
    fence: int
    asked_at: Instant | None
    granted_at: Instant
    counts_from: Instant
    """From when it counts in reports: later than ``granted_at`` where what was before is unknown, or in
    another row."""
    lots: tuple[LotSeats, ...]
    """From which lots the seats come, and how many of each."""
    rule: str
    """Of an advisory pool: why another would not have granted them."""
    record: bytes
    """The record of the grant, which a ledger that starts reads again while the grant is open."""
    was_found: bool = False
    """It was there when the ledger began, or after a gap: its begin was not seen."""
    ended: Ending | None = None


@dataclass(slots=True)
class WaitRow:
    """A request that waits, or that ended without a seat."""

    began: Position
    asked: Asked
    asked_at: Instant
    record: bytes
    """As of a grant; empty: it never waited."""
    was_found: bool = False
    ended: Ending | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """What the ledger could not read."""

    history: int
    cause: str
    from_revision: int
    to_revision: int
    from_at: Instant
    to_at: Instant
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """Up to where a history is written down."""

    history: int
    revision: int
    """Every change up to this one."""
    marked: int
    """The last revision that changed anything of ours; 0: none yet."""
    digest: bytes
    """Of the changes of that revision."""
    at: Instant
    """The latest time that the history has."""


@dataclass(slots=True)
class Page:
    """What is to be written in one transaction."""

    before: Standing
    """What has to be written down already, or nothing is written."""
    after: Standing
    grants: dict[Position, GrantRow] = field(default_factory=dict)
    """Those that begin, with their end where that is in the page as well."""
    waits: dict[Position, WaitRow] = field(default_factory=dict)
    grants_ended: dict[Position, Ending] = field(default_factory=dict)
    """Those that began earlier."""
    waits_ended: dict[Position, Ending] = field(default_factory=dict)
    waits_served: list[Position] = field(default_factory=list)
    """Those that began earlier, and have their seats now: they are taken out."""
    gaps: list[Gap] = field(default_factory=list)

    @property
    def size(self) -> int:
        """How many rows it writes."""
        begun = len(self.grants) + len(self.waits) + len(self.gaps)
        return begun + len(self.grants_ended) + len(self.waits_ended) + len(self.waits_served)
