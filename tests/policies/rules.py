"""What a policy promises, said without its code: rules that a history of grants keeps or breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from seatkeeper.server.domain import Grant, PoolState, Ticket
from seatkeeper.server.policy.plan import Policy


@dataclass(frozen=True)
class Step:
    """One revision at which grants were made."""

    before: PoolState
    """The pool, without what this revision wrote."""
    after: PoolState
    made: Sequence[Grant]
    """In the order of their fences."""
    unseen: Sequence[Grant | Ticket] = ()
    """What ended with its session and the decision may not have known of, the earliest first."""
    has_refused: bool = False
    """Whether the decision refused requests that are not in the pool."""


def place_of(ticket: Ticket) -> int | Fraction:
    """Return the number that a ticket is served by: its own, or that which a move gave it."""
    return ticket.number if ticket.move is None else ticket.move.place


class Rule(Protocol):
    """Looks at every step of a history, in order."""

    def broken_by(self, step: Step) -> Iterator[str]:
        """Yield what is wrong with a step."""
        ...


@dataclass(frozen=True)
class Tried:
    """A policy, and what is promised of it."""

    name: str
    policy: Callable[[], Policy]
    rule: Callable[[], Rule]
