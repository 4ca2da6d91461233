"""How long requests waited lately, for the rule that starts a burst. Pure.

Time is cut into slots, an eighth of the rule's time each. A decision counts each request that it
grants, or ends without a grant, in every slot in whose time it waited, and whether it had waited for
long by that slot's end. The counts are written with the guard. So they, and the tickets that there are,
say of each slot how many of those who waited in it did so for long: at any revision, on any node,
whatever its clock was before. Requests that ended with their sessions are not counted.

A clock that is behind counts in slots that are over, one that is ahead in slots to come. Both only move
when a burst begins.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from seatkeeper.core.burst_rule import BurstRule

SLOTS = 8
"""In each of so many slots in a row the wait must be long."""
SLOTS_KEPT = 2 * SLOTS
ONE_IN = 20
"""The 95th percentile is long where more than one in so many waited for long."""


@dataclass(frozen=True, slots=True)
class WaitCounts:
    """Requests that wait no more, by the slots in which they waited."""

    slot_millis: int = 0
    bound_millis: int = 0
    """What a long wait is."""
    slots: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """By the slot's number: how many requests, and how many of them had waited for long."""


NO_WAITS = WaitCounts()


def counting_for(rule: BurstRule) -> tuple[int, int]:
    """Return the length of a slot, and what a long wait is, by a rule."""
    return max(1, rule.within // SLOTS), rule.p95_wait


def counted_waits(
    before: WaitCounts, rule: BurstRule | None, waited: Iterable[tuple[int, int]]
) -> WaitCounts:
    """Return the counts with requests that wait no more: when each was made, and until when it waited.

    With another rule they begin anew; without one there are none.
    """
    if not rule:
        return NO_WAITS
    slot, bound = counting_for(rule)
    is_same = (before.slot_millis, before.bound_millis) == (slot, bound)
    slots = dict(before.slots) if is_same else {}
    changed, last = not is_same, 0
    for asked_at, until in waited:
        changed = True
        last = until // slot
        for number in range(max(asked_at // slot, last - SLOTS_KEPT + 1), last + 1):
            length = min((number + 1) * slot, until) - asked_at
            requests, long = slots.get(number, (0, 0))
            slots[number] = requests + 1, long + (length >= bound)
    if not changed:
        return before
    latest = last if changed and slots else 0
    kept = {n: slots[n] for n in sorted(slots) if abs(n - latest) < SLOTS_KEPT}
    return WaitCounts(slot, bound, kept)


def is_long(
    counts: WaitCounts, rule: BurstRule, waiting_since: Iterable[int], now: int
) -> bool:
    """Return whether the 95th percentile of waits was long in each of the last slots.

    ``waiting_since``: when each request that waits now was made.
    """
    slot, bound = counting_for(rule)
    is_same = (counts.slot_millis, counts.bound_millis) == (slot, bound)
    slots = counts.slots if is_same else {}
    since = sorted(waiting_since)
    return all(_is_long(*each) for each in _slots(slots, since, now // slot, slot, bound))


def _slots(
    slots: Mapping[int, tuple[int, int]], since: list[int], present: int, slot: int, bound: int
) -> Iterator[tuple[int, int]]:
    for number in range(present - SLOTS, present):
        requests, long = slots.get(number, (0, 0))
        end = (number + 1) * slot
        yield requests + bisect_right(since, end), long + bisect_right(since, end - bound)


def _is_long(requests: int, long: int) -> bool:
    return long * ONE_IN > requests
