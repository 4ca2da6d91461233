"""How many seats would be enough."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate

from seatkeeper.server.replay.demand import Arrival
from seatkeeper.server.replay.outcome import Outcome


@dataclass(frozen=True, slots=True)
class WaitBound:
    """So many percent of each project's requests are to be served within a wait."""

    percent: int
    wait_millis: int

    def is_kept(self, outcome: Outcome) -> bool:
        """Return whether every project that asked was served so; a refused request was not."""
        return all(
            outcome.keeps(self.percent, self.wait_millis, name) for name in outcome.projects
        )


def fewest_seats(
    play: Callable[[int], Outcome], bound: WaitBound, *, least: int = 1, most: int
) -> Outcome | None:
    """Return the replay with the fewest seats, from ``least`` to ``most``, that keeps a bound.

    None: ``most`` are not enough. With one seat fewer the bound is broken, or ``least`` allows no
    fewer: both were played. More seats may now and then make one request wait longer, so fewer still
    might keep the bound again; that is not looked for. Plays the logarithm of the range.
    """
    found = play(most)
    if not bound.is_kept(found):
        return None
    too_few = least - 1
    while found.spec.seats - too_few > 1:
        tried = play((too_few + found.spec.seats) // 2)
        if bound.is_kept(tried):
            found = tried
        else:
            too_few = tried.spec.seats
    return found


def seats_at_once(arrivals: Iterable[Arrival]) -> int:
    """Return how many seats the arrivals would hold at most if none of them waited; at least 1.

    With these, none waits but for a limit, or for its work. A hold of no time counts.
    """
    changes = sorted(
        change
        for each in arrivals
        for change in (
            (each.at, each.seats),
            (each.at + max(1, each.hold_millis), -each.seats),
        )
    )
    return max((1, *accumulate(seats for _, seats in changes)))
