"""How long waiting clients went without a seat when something failed. Pure: it only compares times.

``Fault`` is what was so when it was affected, ``Served`` is a seat that a client got, and
``recovery`` pairs them. All times are seconds of one clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Served:
    """One seat, from the moment a client asked for it to the moment it had it."""

    client: int
    asked_at: float
    taken_at: float
    """When the client's ``acquire`` returned."""
    decided_at: float
    """When the node that granted it decided so: just before the commit, up to 1 ms too early."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A moment at which something was killed, paused or stopped, and who waited then."""

    at: float
    waiting: frozenset[int]
    """Clients that waited for a seat."""
    waiting_there: frozenset[int] = frozenset()
    """Those of them that waited at the node that was affected."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long it took, in seconds from the fault. A seat that never came counts as it is so far."""

    first_s: float
    """Until the first client that had waited got a seat that was granted after the fault."""
    there_s: float | None
    """The same of those that had waited at the node that was affected. None: none had, or what they
    waited for had all been granted before."""
    everyone_s: float
    """Until every client that had waited had got a seat."""
    unserved: int
    """How many of them had not by the end of the measurement."""

    @property
    def seconds(self) -> float:
        """The later of ``first_s`` and ``there_s``: the one figure that is reported of a fault."""
        return self.first_s if self.there_s is None else max(self.first_s, self.there_s)


def recovery(fault: Fault, served: Iterable[Served], now: float) -> Recovery:
    """Return what became of those who waited at the fault, as it is known at ``now``.

    ``served`` may hold seats of any time and any client, in any order. The seat that a client had
    asked for before the fault and got after it is the one that ends its wait.
    """
    ends = {
        each.client: each
        for each in served
        if each.client in fault.waiting and each.asked_at <= fault.at < each.taken_at
    }
    fresh = {
        client: each.taken_at for client, each in ends.items() if each.decided_at > fault.at
    }
    first = min(fresh.values(), default=now)
    there = [taken for client, taken in fresh.items() if client in fault.waiting_there]
    if fault.waiting_there - ends.keys():
        there.append(now)
    unserved = len(fault.waiting) - len(ends)
    last = now if unserved else max((each.taken_at for each in ends.values()), default=fault.at)
    return Recovery(
        first_s=first - fault.at,
        there_s=min(there) - fault.at if there else None,
        everyone_s=last - fault.at,
        unserved=unserved,
    )
