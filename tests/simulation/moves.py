"""Moves in queues, by etcd's history: each was asked for, and puts one ticket where it was to be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from tests.simulation.cluster import KEYS

from seatkeeper.oracle.stored import StoredTicket, located, read_shares, read_ticket
from seatkeeper.server.store import Change

FIRST, LAST = "first", "last"


@dataclass(frozen=True, slots=True)
class MoveAct:
    """A move that an administrator asked for."""

    pool: str
    grant_id: str
    to: str
    """``FIRST``, ``LAST``, or the id of the request that it is to be before."""
    move_id: str
    asked_at: float
    done_at: float | None = None
    """When the service said that it is done; None: it did not say so."""


@dataclass(slots=True)
class _Queue:
    """The tickets of a pool at some revision."""

    is_shared: bool = False
    tickets: dict[str, StoredTicket] = field(default_factory=dict)

    def mates(self, of: StoredTicket) -> list[str]:
        """Return those that a ticket may be moved among, itself included, in their order."""
        found = [
            each
            for each in self.tickets.values()
            if each.priority == of.priority
            and (not self.is_shared or each.project == of.project)
        ]
        return [each.grant_id for each in sorted(found, key=_place)]


def check_moves(
    changes: list[Change], changed_at: Mapping[int, float], acts: Iterable[MoveAct]
) -> Iterator[str]:
    """Yield moves not asked for, moves to elsewhere, and those said to be done that were not (I14)."""
    acts = list(acts)
    by_id = {act.move_id: act for act in acts}
    queues: dict[str, _Queue] = {}
    made: set[str] = set()
    for revision, together in groupby(changes, key=lambda change: change.revision):
        at = changed_at[revision]
        now = list(located(together, KEYS.prefix))
        for pool in dict.fromkeys(pool for pool, *_ in now):
            queue = queues.setdefault(pool, _Queue())
            before = _Queue(queue.is_shared, dict(queue.tickets))
            moved = _apply(queue, [each for each in now if each[0] == pool])
            for ticket in moved:
                act = by_id.get(ticket.move_id)
                if act is None or (act.pool, act.grant_id) != (pool, ticket.grant_id):
                    yield f"I14 {ticket} was moved, and no administrator asked for that"
                    continue
                made.add(act.move_id)
                if len(moved) == 1 and (fault := _went_elsewhere(before, queue, act)):
                    yield f"I14 {act} at revision {revision}: {fault}"
        for act in acts:
            held = queues.get(act.pool)
            if held and act.asked_at <= at <= (act.done_at or 0) and _is_there(held, act):
                made.add(act.move_id)
    for act in acts:
        is_missing = act.done_at is not None and act.move_id not in made
        if is_missing and not _was_there_before(changes, changed_at, act):
            yield f"I14 {act} was said to be done, and was not"


def _apply(queue: _Queue, now: Sequence[tuple[str, str, str, Change]]) -> list[StoredTicket]:
    """Bring a revision's changes of one pool into its queue; return what was moved."""
    moved: list[StoredTicket] = []
    for _, kind, name, change in now:
        if kind == "spec":
            queue.is_shared = bool(change.entry and read_shares(change.entry.value))
        elif kind == "queue" and change.entry is None:
            queue.tickets.pop(name, None)
        elif kind == "queue" and change.entry is not None:
            ticket = read_ticket(name, change.entry.value)
            earlier = queue.tickets.get(name)
            if ticket.move_id != (earlier.move_id if earlier else ""):
                moved.append(ticket)
            queue.tickets[name] = ticket
    return moved


def _went_elsewhere(before: _Queue, after: _Queue, act: MoveAct) -> str:
    """Return how a queue differs from what a move makes of it; empty: it does not.

    What came or went at the same revision is left out.
    """
    stayed = [
        each
        for each in before.mates(before.tickets[act.grant_id])
        if each in after.tickets and each != act.grant_id
    ]
    if act.to == FIRST:
        at = 0
    elif act.to == LAST:
        at = len(stayed)
    elif act.to in stayed:
        at = stayed.index(act.to)
    else:
        return (
            "" if act.to not in after.tickets else "is not among those that it was moved among"
        )
    expected = [*stayed[:at], act.grant_id, *stayed[at:]]
    found = [
        each for each in after.mates(after.tickets[act.grant_id]) if each in before.tickets
    ]
    return "" if found == expected else f"the order is {found}, not {expected}"


def _is_there(queue: _Queue, act: MoveAct) -> bool:
    """Return whether a ticket is where a move was to bring it."""
    ticket = queue.tickets.get(act.grant_id)
    if ticket is None:
        return False
    mates = queue.mates(ticket)
    at = mates.index(act.grant_id)
    if act.to == FIRST:
        return at == 0
    return at == len(mates) - 1 if act.to == LAST else mates[at + 1 : at + 2] == [act.to]


def _was_there_before(
    changes: list[Change], changed_at: Mapping[int, float], act: MoveAct
) -> bool:
    """Return whether a ticket was at its place when the move was asked for, so that none was made."""
    queue = _Queue()
    for each in located(changes, KEYS.prefix):
        if each[0] == act.pool and changed_at[each[3].revision] <= act.asked_at:
            _apply(queue, [each])
    return _is_there(queue, act)


def _place(ticket: StoredTicket) -> tuple[float, str]:
    place = ticket.number if ticket.moved_to is None else ticket.moved_to
    return place, ticket.grant_id  # type: ignore[return-value]  # a fraction compares as well
