"""Where an administrator's move puts a ticket. Pure.

A ticket moves among its *mates*: those of its priority, and in a pool that lists projects, of its
project. Between priorities and between projects other rules decide, which a move leaves alone. Grants
of the same decision are made by the order as it was.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction

from seatkeeper.server.decide.forced import NOTHING_THERE
from seatkeeper.server.domain.commands import Denied, Moved, MoveTicket, Refusal, To
from seatkeeper.server.domain.move import Move, place_before
from seatkeeper.server.domain.state import Grant, Instant, PoolState, Ticket, queue_key

NO_ROOM = (
    "too many requests were moved right before that one, and none fits between them any more; move it "
    "before another one, or to the first or last place"
)


@dataclass(slots=True)
class Moves:
    """The tickets that a decision moves."""

    pool: PoolState
    tickets: dict[str, Ticket] = field(default_factory=dict)
    """As they will be, by grant id."""
    _asked: list[tuple[MoveTicket, Denied | None]] = field(default_factory=list)

    def take(
        self, command: MoveTicket, gone: Collection[str], number: int, now: Instant
    ) -> bool:
        """Move a ticket, or note why it stays; return whether it has taken a number.

        ``gone``: what the decision has ended so far; ``number``: that which the next new ticket gets.
        A ticket that is moved to the last place takes it.
        """
        moved = self._moved(command, gone, number, now)
        self._asked.append((command, moved if isinstance(moved, Denied) else None))
        return not isinstance(moved, Denied) and moved.place == number

    def outcomes(
        self, served: Mapping[str, Grant], gone: Collection[str]
    ) -> Iterator[tuple[MoveTicket, Moved | Denied]]:
        """Yield what became of each move. What this decision grants or ends is moved no more."""
        for command, denied in self._asked:
            grant_id = command.grant_id
            if denied is None and grant_id in served:
                denied = _holds(served[grant_id])
            elif denied is None and grant_id in gone:
                denied = Denied(grant_id, Refusal.FINISHED, NOTHING_THERE)
            if denied is not None:
                self.tickets.pop(grant_id, None)
            yield command, denied or Moved(self._now(grant_id))

    def _moved(
        self, command: MoveTicket, gone: Collection[str], number: int, now: Instant
    ) -> Ticket | Denied:
        grant_id = command.grant_id
        found = self._waiting(grant_id, gone)
        if isinstance(found, Grant):
            return _holds(found)
        if found is None or found.session_id != command.session_id:
            return Denied(grant_id, Refusal.FINISHED, NOTHING_THERE)
        if found.move is not None and found.move.move_id == command.move_id:
            return found
        if isinstance(command.to, str):
            before = self._waiting(command.to, gone)
            if (why := self._no_mate(found, command.to, before)) is not None:
                return Denied(grant_id, Refusal.OTHER_TERMS, why)
        place = self._place(found, command.to, gone, number)
        if place is None:
            return Denied(grant_id, Refusal.OTHER_TERMS, NO_ROOM)
        if place == found.place:
            return found
        move = Move(Fraction(place), command.move_id, command.reason, now)
        self.tickets[grant_id] = moved = replace(found, move=move)
        return moved

    def _place(
        self, ticket: Ticket, to: To | str, gone: Collection[str], number: int
    ) -> int | Fraction | None:
        """Return the place to give a ticket: its own, where it is there already; None: no room."""
        mates = sorted(
            (each for each in self._tickets() if self._is_mate(each, ticket, gone)),
            key=queue_key,
        )
        at = mates.index(ticket)
        if to is To.LAST:
            return ticket.place if at == len(mates) - 1 else number
        before = mates[0] if to is To.FIRST else self._now(str(to))
        if before is ticket or mates[at + 1 : at + 2] == [before]:
            return ticket.place
        others = [each.place for each in self._tickets() if each is not ticket]
        return place_before(before.place, others)

    def _is_mate(self, each: Ticket, ticket: Ticket, gone: Collection[str]) -> bool:
        """Return whether a ticket is moved among those of another, or is that one."""
        spec = self.pool.spec
        is_shared = spec is not None and bool(spec.policy.projects)
        return (
            each.priority == ticket.priority
            and (not is_shared or each.project == ticket.project)
            and each.grant_id not in gone
            and each.session_id not in self.pool.dead_sessions
        )

    def _no_mate(self, ticket: Ticket, to: str, before: Ticket | Grant | None) -> str | None:
        """Return why a ticket cannot be moved before another one."""
        if isinstance(before, Grant):
            return f"request {to} holds seats by now, so there is no place before it"
        if before is None:
            return f"request {to} does not wait for this pool, so there is no place before it"
        if before.priority != ticket.priority:
            return (
                f"it has priority {ticket.priority}, and request {to} has {before.priority}: a request "
                "is moved among those of its own priority"
            )
        if not self._is_mate(before, ticket, ()):
            return (
                f"it is of project {ticket.project}, and request {to} of {before.project}: where a "
                "pool lists projects, a request is moved among those of its own"
            )
        return None

    def _waiting(self, grant_id: str, gone: Collection[str]) -> Ticket | Grant | None:
        """Return a ticket that waits still, or a grant, as the decision has it so far."""
        if grant_id in gone:
            return None
        if (grant := self.pool.grants.get(grant_id)) is not None:
            return grant
        if grant_id not in self.pool.tickets:
            return None
        ticket = self._now(grant_id)
        return None if ticket.session_id in self.pool.dead_sessions else ticket

    def _now(self, grant_id: str) -> Ticket:
        return self.tickets.get(grant_id) or self.pool.tickets[grant_id]

    def _tickets(self) -> list[Ticket]:
        return [self._now(grant_id) for grant_id in self.pool.tickets]


def _holds(grant: Grant) -> Denied:
    message = f"it holds seats by now, under fence {grant.fence}"
    return Denied(grant.grant_id, Refusal.OTHER_TERMS, message)
