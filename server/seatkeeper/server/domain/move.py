"""A ticket's place by an administrator's move, and the places between others. Pure.

A ticket is served by its number, unless it was moved: then as if it had another one, a fraction that no
other ticket of the pool has. So the order is a function of the tickets alone, and a move writes one.
"""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

from seatkeeper.server.domain.immutable import immutable

HALVINGS_MAX = 1_000
"""Most halvings of a place. Each move right before the same ticket may take one more, so more find room
there than are moved by hand; and a record stays small, by 125 bytes at most."""


@immutable
class Move:
    """What an administrator has made of a ticket's place, last."""

    place: Fraction
    """It is served as if it had this number. Its denominator is a power of two."""
    move_id: str
    """Of the command, so that it is not carried out twice."""
    reason: str
    moved_at: int
    """Unix milliseconds. For people."""


def place_between(low: int | Fraction, high: int | Fraction) -> Fraction | None:
    """Return the place with the fewest halvings between two; None: they are too near each other."""
    for halvings in range(HALVINGS_MAX + 1):
        scale = 1 << halvings
        above = floor(low * scale) + 1
        if above < high * scale:
            return Fraction(above, scale)
    return None


def place_before(high: int | Fraction, others: list[int | Fraction]) -> Fraction | None:
    """Return a place right before one: behind all ``others`` before it, and in its own number's range.

    Not before the number below it, so that among projects, whose places are compared where their shares
    are equal, the one that moves gains next to nothing. None: too many were moved there.
    """
    below = [each for each in others if each < high]
    return place_between(max([ceil(high) - 1, *below]), high)
