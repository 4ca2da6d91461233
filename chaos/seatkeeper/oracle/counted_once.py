"""Whether grants that count once are those that the pool says, and what they take. Pure.

The seats in use are those of every grant by itself, and of each group those of its largest member, at
every revision, whatever has ended. A member that finds as many seats in its group takes none: it
passes those who wait, and no limit holds it back. What is looked for beside that: a grant that counts
once with others than the pool's rule says then, and one that joins a group whose seats are called
back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from seatkeeper.oracle.stored import StoredGrant, StoredTicket
from seatkeeper.v1 import pool_service_pb2

Shared = tuple[tuple[str, str], ...]


def seats_in_use(grants: Iterable[StoredGrant]) -> int:
    """Return how many seats these grants take together."""
    return sum(each.seats for each in standing(grants))


def standing(grants: Iterable[StoredGrant]) -> list[StoredGrant]:
    """Return the grants by themselves, and of each group the largest, or first, of its members."""
    found: list[StoredGrant] = []
    largest: dict[Shared, StoredGrant] = {}
    for each in grants:
        if not each.counts_once:
            found.append(each)
            continue
        there = largest.get(each.counts_once)
        if there is None or (-each.seats, each.fence) < (-there.seats, there.fence):
            largest[each.counts_once] = each
    return [*found, *largest.values()]


def newly_taken(
    made: Iterable[StoredGrant], before: Sequence[StoredGrant]
) -> dict[str, StoredGrant]:
    """Return of each grant what it takes that was not in use before it: seats, lots, overdraft.

    By its id, in the order of fences; no seats: nothing. ``before``: all else that there is.
    """
    members: dict[Shared, list[StoredGrant]] = {}
    for each in before:
        if each.counts_once:
            members.setdefault(each.counts_once, []).append(each)
    found: dict[str, StoredGrant] = {}
    for grant in sorted(made, key=lambda each: each.fence):
        if not grant.counts_once:
            found[grant.grant_id] = grant
            continue
        there = members.setdefault(grant.counts_once, [])
        found[grant.grant_id] = _beyond(grant, standing(there))
        there.append(grant)
    return found


def _beyond(grant: StoredGrant, largest: Sequence[StoredGrant]) -> StoredGrant:
    if not largest:
        return replace(grant, counts_once=())
    (first,) = largest
    had = {(name, at): seats for name, at, seats in first.lots}
    lots = tuple(
        (name, at, more)
        for name, at, seats in grant.lots
        if (more := seats - had.get((name, at), 0)) > 0
    )
    return replace(
        grant,
        seats=max(0, grant.seats - first.seats),
        lots=lots,
        overdraft=max(0, grant.overdraft - first.overdraft),
        counts_once=(),
    )


@dataclass(frozen=True, slots=True)
class Made:
    """The grants of a revision, by what they take."""

    before: Sequence[StoredGrant]
    """What there was beside them: all else that there is after it."""
    fresh: Sequence[StoredGrant]
    """All of them, with what they take that was not in use."""
    new: Sequence[StoredGrant]
    """Those that take seats, but for those that take over what was kept for them."""
    joining: Sequence[StoredGrant] = ()
    """Those that take none."""


class CountLedger:
    """What a pool says at some revision of which grants count once."""

    def __init__(self) -> None:
        self._named: tuple[str, ...] = ()
        self.any_shared = False
        """Whether grants have counted once: then what is out is no plain sum."""

    def split(
        self,
        made: Sequence[StoredGrant],
        held: Sequence[StoredGrant],
        late: Sequence[StoredGrant],
    ) -> Made:
        """Return the grants of a revision by what they take. ``held``: all after it.

        ``late``: what had ended, and the decision may have known nothing of.
        """
        new = [grant for grant in made if not grant.continues]
        if not self.is_on:
            return Made(held, made, new)
        ids = {grant.grant_id for grant in new}
        before = [grant for grant in held if grant.grant_id not in ids]
        takes = newly_taken(new, [*before, *late])
        # Who takes over what was kept takes nothing either, of what others of its group go on with.
        beside = [grant for grant in before if not grant.continues or grant not in made]
        taking_over = newly_taken((each for each in made if each.continues), [*beside, *late])
        takes_all = taking_over | takes
        fresh = [takes_all[each.grant_id] for each in made]
        found = list(takes.values())
        return Made(
            before,
            fresh,
            [each for each in found if each.seats],
            [each for each in found if not each.seats],
        )

    def note_spec(self, value: bytes) -> None:
        """Take a specification."""
        self._named = tuple(pool_service_pb2.PoolSpec.FromString(value).policy.count_once)

    @property
    def is_on(self) -> bool:
        """Whether grants count once, or new ones may."""
        return self.any_shared or bool(self._named)

    def shared(self, one: StoredGrant | StoredTicket) -> Shared:
        """Return what a request has in common with others by the rule; empty: nothing."""
        if not self._named or one.is_joint:
            return ()
        values = [("project", one.project)]
        labels = dict(one.labels)
        for name in self._named:
            known = {"holder": one.holder, "host": one.host}
            values.append((name, known.get(name) or labels.get(name.partition(":")[2], "")))
        return tuple(values) if all(value for _, value in values) else ()

    def takes_nothing(self, ticket: StoredTicket, there: Iterable[StoredGrant]) -> bool:
        """Return whether a request would take no seat beside these grants."""
        shared = self.shared(ticket)
        return bool(shared) and any(
            each.counts_once == shared and each.seats >= ticket.seats for each in there
        )

    def faults(
        self,
        made: Iterable[StoredGrant],
        taken_over: Mapping[str, StoredGrant],
        there: Sequence[StoredGrant],
        perhaps: Sequence[StoredGrant],
        called: Iterable[str],
    ) -> Iterator[str]:
        """Yield the new grants that count once with others than the rule says.

        ``taken_over``: what was kept, by id: the same grant made again is of the group that it had.
        ``there``: grants that go on; ``perhaps``: those that had ended, which the decision may not have
        known. ``called``: the ids of those whose seats were called back for another.
        """
        ids = set(called)
        certain = {each.counts_once for each in there if each.grant_id in ids}
        uncertain = {each.counts_once for each in perhaps if each.grant_id in ids}
        for grant in made:
            expected = self.shared(grant)
            if grant.continues and (kept := taken_over.get(grant.grant_id)) is not None:
                expected = kept.counts_once
                allowed = {expected}
            elif expected in certain:
                allowed = {()}
            else:
                allowed = {expected, ()} if expected in uncertain else {expected}
            if grant.counts_once not in allowed:
                yield f"{grant.grant_id} counts once by {grant.counts_once}, and not {expected}"
