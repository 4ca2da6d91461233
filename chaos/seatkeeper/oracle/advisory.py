"""What one pool's history says of grants that an advisory pool has marked. Pure.

What is looked for, at every decision: a grant whose mark does not say how many of its seats are beyond
the capacity, as far as the decision could know what was held; one that is not marked although seats of
it are beyond, or the pool's rules do not let its holder in, or a project holds more than its limit by
it; and a mark of a pool that is not advisory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from seatkeeper.oracle.counted_once import seats_in_use
from seatkeeper.oracle.stored import StoredGrant, StoredShare, StoredTicket
from seatkeeper.oracle.stored_rules import StoredRules
from seatkeeper.v1 import pool_service_pb2

PATH_MAX = 10
"""Most projects that one is a part of; nodes allow four levels."""


class AdvisoryLedger:
    """Whether a pool is advisory at some revision, and whether its grants are marked as they should."""

    def __init__(self) -> None:
        self.is_on = False

    def note_spec(self, value: bytes) -> None:
        """Take a specification."""
        self.is_on = pool_service_pb2.PoolSpec.FromString(value).policy.counting.advisory

    def check(
        self,
        made: Sequence[StoredGrant],
        held: Iterable[StoredGrant],
        capacity: int,
        *,
        late: Iterable[StoredGrant | StoredTicket],
        rules: StoredRules,
        shares: Mapping[str, StoredShare],
    ) -> Iterator[str]:
        """Yield what is wrong with the grants of one decision.

        ``held``: all grants after it. ``late``: what had ended, and the decision may not have known of.
        """
        if not self.is_on:
            yield from (
                f"{each.grant_id} is marked, and the pool binds" for each in made if each.mark
            )
            return
        ids = {each.grant_id for each in made}
        before = [each for each in held if each.grant_id not in ids]
        unseen = [each for each in late if isinstance(each, StoredGrant)]
        for grant in sorted(made, key=lambda each: each.fence):
            few, many = (seats_in_use(each) for each in (before, [*before, *unseen]))
            few_after = seats_in_use([*before, grant])
            many_after = seats_in_use([*before, *unseen, grant])
            # The more the decision knew of, the less did it take, and the more was in use.
            least = min(many_after - many, max(0, few_after - capacity))
            most = min(few_after - few, max(0, many_after - capacity))
            if not least <= grant.seats_beyond <= most:
                said = f"{grant.grant_id} has {grant.seats_beyond} seats beyond the capacity"
                yield f"{said}, by its mark, and {least} to {most} are"
            takes = few_after > few and not grant.continues  # or its holder had them before
            before.append(grant)
            if grant.mark:
                continue
            if grant.seats_beyond or least:
                yield f"{grant.grant_id} is beyond the capacity, and not marked"
            if not rules.lets_in(grant):
                yield f"{grant.grant_id} is of {grant.holder}, not let in and not marked"
            for project in _over_limits(grant, before, shares) if takes else ():
                yield f"{grant.grant_id} takes {project} over its limit, and is not marked"


def _over_limits(
    grant: StoredGrant, held: Sequence[StoredGrant], shares: Mapping[str, StoredShare]
) -> Iterator[str]:
    for project in path_of(grant, shares):
        share = shares.get(project)
        if share is not None and share.limit is not None:
            seats = seats_in_use(each for each in held if project in path_of(each, shares))
            if seats > share.limit:
                yield project


def path_of(grant: StoredGrant, shares: Mapping[str, StoredShare]) -> list[str]:
    """Return a grant's project and those that it is a part of."""
    path = [grant.project]
    while (share := shares.get(path[-1])) and share.parent and len(path) < PATH_MAX:
        path.append(share.parent)
    return path
