"""What open windows promise, said without the policy's code; and reservations that a seed draws."""

from __future__ import annotations

import random
from collections.abc import Iterable

from tests.policies.counted_once import each_once
from tests.policies.rules_kept import is_among

from seatkeeper.core.pool_rules import PoolRules, Who
from seatkeeper.core.reservations import Reservation, Schedule
from seatkeeper.server.domain import Grant, PoolSpec, Ticket

Asked = Grant | Ticket
FAR = Schedule("FREQ=DAILY", opens=4 * 60, closes=5 * 60)
"""Not while a seed runs: the windows that are in it are written beforehand."""


def drawn_reservations(
    rng: random.Random, seats: int, projects: bool
) -> tuple[Reservation, ...]:
    """Return reservations that a pool of so many seats can have; one seat stays for all."""
    if seats < 2:
        return ()
    whom = [Who(holders=("user-1*",)), Who(holders=("user-2", "user-3"))]
    if projects:
        whom += [Who(projects=("cv",)), Who(projects=("nlp", "asr"), holders=("user-1",))]
    return tuple(
        Reservation(f"night-{number}", rng.randint(1, seats - 1), rng.choice(whom), FAR)
        for number in range(rng.choice([1, 1, 2]))
    )


class KeptNow:
    """What is kept by the windows that are open by a specification, as grants are made."""

    def __init__(self, spec: PoolSpec | None, held: Iterable[Grant]) -> None:
        self._rules = spec.policy.rules if spec is not None else PoolRules()
        self._left: list[tuple[Reservation, int]] = []
        there = list(held)
        for each in spec.policy.reservations if spec is not None else ():
            if spec is not None and each.name in spec.windows.open:
                used = sum(g.seats for g in each_once(g for g in there if self.is_for(each, g)))
                self._left.append((each, max(0, each.seats - used)))

    def is_for(self, reservation: Reservation, one: Asked) -> bool:
        """Return whether one is among those whom a reservation is for."""
        return is_among(self._rules, reservation.who, one)

    def for_others(self, one: Asked) -> int:
        """Return the seats that are kept for others than one."""
        return sum(left for each, left in self._left if not self.is_for(each, one))

    def breach(self, grant: Grant, free: int) -> str:
        """Return what a grant took that was kept for others; empty: nothing."""
        kept = self.for_others(grant)
        if kept and grant.seats > free - kept:
            return f"{kept} of {free} free seats were kept for others"
        return ""

    def lets_pass(self, asked: Ticket, first: Ticket, free: int, *, is_behind: bool) -> bool:
        """Return whether one goes before another, as it takes only what is kept from that.

        ``is_behind``: the other waits behind one that is not served, whether it would fit or not.
        """
        if not is_behind and first.seats <= free - self.for_others(first):
            return False
        spared = sum(
            min(asked.seats, left)
            for each, left in self._left
            if self.is_for(each, asked) and not self.is_for(each, first)
        )
        return spared >= asked.seats

    def take(self, grant: Grant) -> None:
        """Count a grant."""
        self._left = [
            (each, max(0, left - grant.seats) if self.is_for(each, grant) else left)
            for each, left in self._left
        ]
