"""For which gangs seats are kept free, and from when on. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from seatkeeper.server.domain import Instant, PoolState, Ticket
from seatkeeper.server.domain.gang import Gang, GangMember, is_choice


class Seen(Protocol):
    """A pool as this node sees it."""

    @property
    def state(self) -> PoolState:
        """What is stored."""
        ...


MILLI = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Keeping:
    """Seats to be kept free for a gang."""

    at: Instant
    """From when on."""
    millis: int
    """For how long at most."""
    tickets: Mapping[str, Ticket]
    """The gang's, in the pools that keep seats for gangs."""


def due_at(member: GangMember, ticket: Ticket) -> Instant:
    """Return when a member may be granted that is one of several alternatives."""
    return Instant(ticket.queued_at + (member.after_millis or 0))


def keeping_at(gang: Gang, loops: Mapping[str, Seen], now: Instant) -> Keeping | None:
    """Return when seats are to be kept free for a gang, as its pools stand; None: never.

    That is when it has waited for as long as each of its pools states that keep seats for gangs. No
    pool keeps seats for two gangs, nor for as long again after it did; so gangs cannot hold each other
    up, and at least half of the time others are served. For alternatives the first pool keeps seats
    that says so, of those whose time has come.
    """
    at, millis = Instant(0), None
    tickets: dict[str, Ticket] = {}
    for member in gang:
        loop = loops.get(member.pool)
        ticket = loop.state.tickets.get(member.grant_id) if loop is not None else None
        if loop is None or ticket is None or ticket.gang != gang:
            return None
        rule = loop.state.spec.policy.overtaking if loop.state.spec is not None else None
        if rule is None or rule.hold_back is None:
            continue
        if is_choice(gang) and (tickets or due_at(member, ticket) > now):
            continue  # seats of one of them are enough
        tickets[member.pool] = ticket
        span = rule.hold_back // MILLI
        millis = span if millis is None else min(millis, span)
        at = Instant(max(at, ticket.queued_at + rule.within // MILLI))
        if (before := loop.state.guard.hold_back) is not None:
            at = Instant(max(at, before.next_from))
    return None if millis is None else Keeping(at, millis, tickets)
