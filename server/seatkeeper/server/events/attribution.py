"""Who is to be named for a use of seats."""

from __future__ import annotations

from dataclasses import dataclass

from seatkeeper.server.domain import Acquire, Grant, Ticket


@dataclass(frozen=True, slots=True)
class Attribution:
    """Who holds or asked, who is charged, and how urgent it was."""

    holder: str
    project: str
    priority: int = 0

    def facts(self) -> dict[str, object]:
        """Return what logs say of it."""
        return {"holder": self.holder, "project": self.project, "priority": self.priority}


NOT_ATTRIBUTED = Attribution("", "")
"""Of a request that was refused before it was known whose it is."""


def attribution_of(subject: Acquire | Grant | Ticket) -> Attribution:
    """Return the attribution of a request, a ticket or a grant."""
    return Attribution(subject.holder, subject.project, subject.priority)
