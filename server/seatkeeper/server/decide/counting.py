"""What an advisory pool grants and a binding one would not have granted: marked, and counted. Pure.

A mark says what was true when the grant was made: by which rule it would have waited, or been refused,
and how many of its seats are beyond the capacity. It stays as it was written. How long it would have
waited cannot be known: the others would have waited, too, and have held their seats later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from seatkeeper.server.decide.possible import never_served
from seatkeeper.server.decide.weighing import unknown_class
from seatkeeper.server.domain import Grant, Instant, PoolSpec, Ticket
from seatkeeper.server.domain.advisory import NEVER, AdvisoryCounts, AdvisoryMark
from seatkeeper.server.policy.advisory import never_served_by
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.rules import Reason, Rule

MESSAGE_MAX = 200
"""Most characters of what a mark says."""


def counts_only(spec: PoolSpec | None) -> bool:
    """Return whether a pool grants beyond its seats: it is advisory, and neither closed nor drained."""
    return spec is not None and spec.policy.counting.is_advisory and spec.open_seats > 0


def keeps_any(spec: PoolSpec | None) -> bool:
    """Return whether seats of a pool are kept after a release or a loss. An advisory one keeps none."""
    return (
        spec is not None
        and spec.policy.stay is not None
        and not spec.policy.counting.is_advisory  # closed and drained ones, too
    )


def mark_of(
    spec: PoolSpec | None,
    plan: Plan | None,
    ticket: Ticket,
    held: tuple[int, int],
    *,
    may_wait: bool,
) -> AdvisoryMark | None:
    """Return the mark of a grant; None: it needs none.

    ``held``: how many seats are before it, and with it. ``may_wait``: whether its request would have
    waited where it was not served.
    """
    if spec is None or plan is None or not counts_only(spec):
        return None
    beyond = _beyond(spec, held)
    before, _ = held
    if (why := _refused(spec, ticket)) is not None:
        return _mark(why, beyond, is_refusal=True)
    why = plan.would_wait(ticket)
    if beyond and (why is None or why.rule is Rule.SEATS):
        asked = "1 seat" if ticket.seats == 1 else f"{ticket.seats} seats"
        why = Reason(Rule.SEATS, f"it wants {asked}, and {before} of {spec.seats} were held")
    return None if why is None else _mark(why, beyond, is_refusal=not may_wait)


def mark_of_moved(
    spec: PoolSpec | None, ticket: Ticket, held: tuple[int, int]
) -> AdvisoryMark | None:
    """Return the mark of seats that their holder takes over; None: none. ``held``: as above.

    Nothing waited for them, and they were counted when they were first granted.
    """
    if spec is None or not counts_only(spec):
        return None
    beyond = _beyond(spec, held)
    if (why := _refused(spec, ticket)) is not None:
        return _mark(why, beyond, is_refusal=True)
    text = f"more seats than {spec.seats} are held, and some are taken over"
    return _mark(Reason(Rule.SEATS, text), beyond, is_refusal=False) if beyond else None


def _beyond(spec: PoolSpec, held: tuple[int, int]) -> int:
    """Return how many seats of a grant are beyond the capacity; ``held``: before it, and with it."""
    before, after = held
    return min(after - before, max(0, after - spec.seats))


def _mark(why: Reason, beyond: int, *, is_refusal: bool) -> AdvisoryMark:
    return AdvisoryMark(why.name, why.text[:MESSAGE_MAX], beyond, is_refusal)


def _refused(spec: PoolSpec, ticket: Ticket) -> Reason | None:
    """Return why a request would have been refused, whatever is held; None: it would not."""
    if (rule := never_served_by(spec, ticket)) is None:
        return None
    if rule is Rule.COST_CLASS and (unknown := unknown_class(spec, ticket)) is not None:
        return unknown[1]
    _, text = never_served(spec, ticket) or (None, "it would have been refused")
    return Reason(rule, text.partition(" (rule ")[0].partition(";")[0])


def counted(
    counts: AdvisoryCounts | None,
    spec: PoolSpec | None,
    now: Instant,
    *,
    held: tuple[int, int],
    grants: Iterable[Grant],
) -> AdvisoryCounts | None:
    """Return what a pool has counted after a decision that made ``grants``; None: nothing, ever.

    ``held``: before and after it, as far as it knew. A pool that is advisory no more keeps what it has
    counted; one that is so again begins anew.
    """
    if spec is None or not spec.policy.counting.is_advisory:
        if counts is None or counts.until:
            return counts
        return replace(counts, until=now, over_since=NEVER)
    if counts is None or counts.until:
        counts = AdvisoryCounts(now)
    marks = [grant.mark for grant in grants if grant.mark is not None]
    before, after = (max(0, each - spec.seats) for each in held)
    since, longest = counts.over_since, counts.over_longest
    if since and before:
        longest = max(longest, now - since)
    if not (since and before and after):
        since = now if after else NEVER
    refused = sum(mark.is_refusal for mark in marks)
    most = max(counts.seats_most, after if marks else 0)
    return AdvisoryCounts(
        counts.since,
        waited=counts.waited + len(marks) - refused,
        refused=counts.refused + refused,
        seats_most=most,
        over_since=since,
        over_longest=longest,
    )
