"""What a session has completed in a pool."""

from __future__ import annotations

from dataclasses import dataclass, field

from seatkeeper.server.domain.commands import Denied, Forced, Refusal
from seatkeeper.server.domain.completed import Span


@dataclass(slots=True)
class Watermark:
    """What a session has completed."""

    lease_id: int
    highest: str
    """The highest of their ids; `finished` on the wire."""
    unrecorded: list[str] = field(default_factory=list)
    """Ids that this decision completed and that had no ticket or grant, whose end other nodes
    would see."""
    denied: list[Denied] = field(default_factory=list)
    """Tickets that this decision denied, and why: for the node that has their client."""
    spans: tuple[Span, ...] = ()
    """Stretches of ids that cover all that the session has completed; see ``completed``."""
    lost: list[Forced] = field(default_factory=list)
    """Grants that this decision ended by force: likewise."""
    kept: bytes = field(default=b"", repr=False, compare=False)
    """The watermark before, where that says more than this version knows."""


def is_forced(denied: Denied) -> bool:
    """Return whether an administrator took the request out of the queue."""
    return denied.reason is Refusal.REMOVED
