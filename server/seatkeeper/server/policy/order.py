"""The order of those who wait, and how it is asked for places."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Protocol

from seatkeeper.server.domain import PoolState, Ticket


class Order(Protocol):
    """The waiting tickets, in the order in which seats go to them as they become free."""

    def __iter__(self) -> Iterator[Ticket]:
        """Yield the tickets, the next one first."""
        ...

    def position(self, ticket: Ticket) -> int | None:
        """Return the place of a ticket, from 1; None: it is not in this order."""
        ...


class ListedOrder:
    """An order that is worked out when it is first asked for, and then kept."""

    def __init__(self, tickets: Callable[[], Iterable[Ticket]]) -> None:
        self._list = tickets

    def __iter__(self) -> Iterator[Ticket]:
        return iter(self._tickets)

    def position(self, ticket: Ticket) -> int | None:
        """Return the place of a ticket, from 1; None: it is not in this order."""
        return self._positions.get(ticket.grant_id)

    @cached_property
    def _tickets(self) -> list[Ticket]:
        return list(self._list())

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {ticket.grant_id: place for place, ticket in enumerate(self._tickets, start=1)}


class StoredOrder:
    """The tickets of a pool in its own order: its index answers, however many wait."""

    def __init__(self, state: PoolState) -> None:
        self._state = state

    def __iter__(self) -> Iterator[Ticket]:
        dead = self._state.dead_sessions
        return (ticket for ticket in self._state.queue() if ticket.session_id not in dead)

    def position(self, ticket: Ticket) -> int | None:
        """Return the place of a ticket, from 1; None: it is not in this order."""
        state = self._state
        if ticket.grant_id not in state.tickets or ticket.session_id in state.dead_sessions:
            return None
        rank = state.rank(ticket)
        return rank + 1 - bisect_left(self._dead, rank)

    @cached_property
    def _dead(self) -> list[int]:
        """The ranks of tickets that are in the index and are not served."""
        state = self._state
        if not state.dead_sessions:
            return []
        return [
            rank
            for rank, ticket in enumerate(state.queue())
            if ticket.session_id in state.dead_sessions
        ]
