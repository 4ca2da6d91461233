"""The order of service: which tickets get the seats that are free.

Today: priority, then first come first served, and nobody is passed over: when the next ticket wants
more seats than are free, those behind it wait with it, or a large request would never be served.
Shares, bursts and reclaim belong here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from heapq import merge

from seatkeeper.server.domain.state import Ticket, service_key


def serve(
    stored: Iterable[Ticket],
    new: Sequence[Ticket],
    *,
    free: int,
    impatient: Container[str] = (),
) -> Iterator[Ticket]:
    """Yield the tickets to grant now, in order; together they want at most ``free`` seats.

    ``stored`` and ``new`` are both in the order of service already. ``impatient`` are the grant ids
    that would not wait: when they want too much, they hold nobody up.
    """
    waiting = merge(stored, new, key=service_key) if new else iter(stored)
    while free > 0:
        ticket = next(waiting, None)
        if ticket is None:
            return
        if ticket.seats > free:
            if ticket.grant_id in impatient:
                continue
            return
        free -= ticket.seats
        yield ticket
