"""What one pool's history says of seats that were called back. Pure.

What is looked for, at every decision: a reclaim of a grant that may not be called back, by a pool that
calls none back, for a project that does not wait, of one that would be under its guarantee then, sooner
than the grant was held for the minimum, or more of them in an hour than the pool allows; a reclaim with
another's number; one that was changed; and seats that were taken without one. Of other causes than a
guarantee: see ``holds``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.counted_once import seats_in_use
from seatkeeper.oracle.holds import GUARANTEE, RESERVATION, cause_faults, read_said
from seatkeeper.oracle.stored import PREFIX, StoredGrant, StoredShare, StoredTicket, located
from seatkeeper.oracle.windows import CallingWindow, read_calling
from seatkeeper.server.store import Change
from seatkeeper.v1 import pool_service_pb2, seat_pb2

HOUR_MILLIS = 3_600_000
LEVELS_MAX = 10
FOR_ANOTHER = (GUARANTEE, RESERVATION)


@dataclass(frozen=True, slots=True)
class StoredReclaim:
    """A grant that is called back, as the guard's record says."""

    number: int
    decided_at_millis: int
    within_millis: int
    project: str
    cause: int = GUARANTEE
    caused_at_millis: int = 0
    """Since when for this cause, where it was another before."""

    @property
    def notice(self) -> tuple[int, int, int]:
        """What stays as long as it runs, whatever the cause."""
        return self.number, self.decided_at_millis, self.within_millis


def read_reclaims(value: bytes) -> dict[str, StoredReclaim]:
    """Return the grants that are called back, by id, as a guard says."""
    record = state_pb2.GuardRecord.FromString(value)
    return {
        grant_id: StoredReclaim(
            *(each.number, each.decided_at_millis, each.within_millis, each.project),
            *(each.cause, each.caused_at_millis),
        )
        for grant_id, each in record.reclaims.items()
    }


def read_called_back(value: bytes) -> set[str]:
    """Return the grants that a watermark says were taken because they were called back."""
    lost = state_pb2.MarkRecord.FromString(value).lost
    return {each.grant_id for each in lost if each.reason == seat_pb2.LOST_REASON_RECLAIMED}


def count_reclaims(changes: Iterable[Change], prefix: str = PREFIX) -> tuple[int, int]:
    """Return how many grants were called back, and how many were taken at the end of their notice."""
    begun: set[tuple[str, int]] = set()
    taken = 0
    for pool, kind, _, change in located(changes, prefix):
        if change.entry is None:
            continue
        if kind == "marks":
            taken += len(read_called_back(change.entry.value))
        elif kind == "guard":
            begun |= {
                (pool, each.number) for each in read_reclaims(change.entry.value).values()
            }
    return len(begun), taken


class ReclaimLedger:
    """The reclaims of one pool at some revision, and what the next one says of them."""

    def __init__(self) -> None:
        self._rule = pool_service_pb2.ReclaimRule()
        self._hold = pool_service_pb2.HoldRule()
        self._calling: list[CallingWindow] = []
        self._said = state_pb2.GrantHolds()
        """Of single grants, by the guard of the revision before."""
        self._says = state_pb2.GrantHolds()
        self._running: dict[str, StoredReclaim] = {}
        self._number = 0
        self._called_at: list[int] = []
        self._decided: dict[str, StoredReclaim] | None = None
        self._taken: set[str] = set()
        self._lapsed: list[tuple[int, StoredGrant | StoredTicket]] = []

    @property
    def called_for_another(self) -> set[str]:
        """Ids of grants whose seats another is to have, before the decision at hand."""
        return {each for each, said in self._running.items() if said.cause in FOR_ANOTHER}

    def note_spec(self, value: bytes) -> None:
        """Take a specification."""
        policy = pool_service_pb2.PoolSpec.FromString(value).policy
        self._rule, self._hold = policy.reclaim, policy.hold
        self._calling = read_calling(value)

    def note_guard(self, value: bytes) -> None:
        """Take the guard of the revision at hand."""
        self._decided, self._says = read_reclaims(value), read_said(value)

    def note_mark(self, value: bytes) -> None:
        """Take a watermark of the revision at hand."""
        self._taken |= read_called_back(value)

    def settle(
        self,
        revision: int,
        view_revision: int,
        held: Mapping[str, StoredGrant],
        waiting: Iterable[StoredTicket],
        gone: Iterable[StoredGrant | StoredTicket],
        shares: Mapping[str, StoredShare],
        *,
        kept: Mapping[str, StoredGrant],
    ) -> Iterator[str]:
        """Check the revision at hand, and go on to the next; yield what is wrong.

        ``gone``: what it ended. ``view_revision``: up to which the decision knew of everything.
        ``kept``: seats that no session holds, and that are kept for those who had them: their projects
        have them, and they cannot be called back.
        """
        decided, taken = self._decided, self._taken
        self._decided, self._taken = None, set()
        if decided is None:
            self._lapsed += [(revision, each) for each in gone]
            return
        said, self._said = self._said, self._says
        self._lapsed = [(at, each) for at, each in self._lapsed if at > view_revision]
        for grant_id in taken:
            if grant_id not in self._running:
                yield f"{grant_id} was taken as if it had been called back"
        if not decided and not self._running:
            return
        known = dict(held)
        known |= {
            each.grant_id: each for _, each in self._lapsed if isinstance(each, StoredGrant)
        }
        asking = {each.project for each in waiting}
        asking |= {each.project for _, each in self._lapsed if isinstance(each, StoredTicket)}
        for grant_id, reclaim in sorted(decided.items(), key=lambda item: item[1].number):
            if (before := self._running.get(grant_id)) is not None:
                if before.notice != reclaim.notice:
                    yield f"the reclaim of {grant_id} was {before}, is {reclaim}"
                if before.cause != reclaim.cause:
                    yield from self._taken_over(grant_id, reclaim, known.get(grant_id), said)
                continue
            grant = known.get(grant_id)
            yield from self._begun(grant_id, reclaim, _since_first(grant, known), said)
            if reclaim.cause in FOR_ANOTHER:
                yield from _frees_nothing(grant, decided, held)
            if reclaim.cause != GUARANTEE:
                continue
            if reclaim.project not in asking:
                yield f"{grant_id} is called back for {reclaim.project}, which does not wait"
            yield from _under_guarantee(grant_id, decided, {**kept, **known}, shares)
        self._running = decided

    def _taken_over(
        self,
        grant_id: str,
        reclaim: StoredReclaim,
        grant: StoredGrant | None,
        said: state_pb2.GrantHolds,
    ) -> Iterator[str]:
        """Check a notice that goes on for another cause."""
        if reclaim.cause == GUARANTEE or grant is None:
            return
        # However long its notice is: it runs already.
        at, long = reclaim.caused_at_millis, 1 << 62
        calling = self._calling
        yield from cause_faults(reclaim.cause, at, long, grant, self._hold, said, calling)

    def _begun(
        self,
        grant_id: str,
        reclaim: StoredReclaim,
        grant: StoredGrant | None,
        said: state_pb2.GrantHolds,
    ) -> Iterator[str]:
        rule, at = self._rule, reclaim.decided_at_millis
        if reclaim.number <= self._number:
            yield f"reclaim {reclaim.number} of {grant_id} comes after {self._number}"
        self._number = max(self._number, reclaim.number)
        if grant is None:
            yield f"{grant_id} is called back, and is no grant"
            return
        if not grant.heeds_within_millis:
            yield f"{grant_id} is called back, and its client does not know that"
        if reclaim.cause != GUARANTEE:
            within = reclaim.within_millis
            calling = self._calling
            yield from cause_faults(reclaim.cause, at, within, grant, self._hold, said, calling)
            return
        if not rule.hourly:
            yield f"{grant_id} is called back, and the pool calls none back"
        recent = [each for each in self._called_at if at - each < HOUR_MILLIS]
        self._called_at = [*recent, at]
        if len(self._called_at) > rule.hourly:
            yield f"{grant_id} is called back as number {len(self._called_at)} in an hour"
        least = rule.notice.ToMilliseconds() + grant.heeds_within_millis
        if reclaim.within_millis < least:
            yield f"{grant_id} is called back within {reclaim.within_millis} ms, under {least}"
        if at - grant.held_since < rule.minimum_hold.ToMilliseconds():
            yield f"{grant_id} is called back {at - grant.held_since} ms after its grant"


def _since_first(
    grant: StoredGrant | None, known: Mapping[str, StoredGrant]
) -> StoredGrant | None:
    """Return a grant as held since the first of those with which it counts once."""
    if grant is None or not grant.counts_once:
        return grant
    since = min(
        each.held_since for each in known.values() if each.counts_once == grant.counts_once
    )
    return replace(grant, held_since=since)


def _frees_nothing(
    grant: StoredGrant | None,
    decided: Mapping[str, StoredReclaim],
    held: Mapping[str, StoredGrant],
) -> Iterator[str]:
    """Yield a grant that is called back, and whose seats another holds that is not."""
    if grant is None or not grant.counts_once:
        return
    for each in held.values():
        if each.counts_once == grant.counts_once and each.grant_id not in decided:
            yield f"{grant.grant_id} is called back, and {each.grant_id} has the same seats"
            return


def _under_guarantee(
    grant_id: str,
    decided: Mapping[str, StoredReclaim],
    known: Mapping[str, StoredGrant],
    shares: Mapping[str, StoredShare],
) -> Iterator[str]:
    """Yield the projects that would be under their guarantees without what is called back."""
    if (grant := known.get(grant_id)) is None:
        return
    asker = _path(decided[grant_id].project, shares)
    lent = {each for each, reclaim in decided.items() if reclaim.cause == GUARANTEE}
    for project in _path(grant.project, shares):
        if project in asker:
            return
        left = seats_in_use(
            each
            for each in known.values()
            if each.grant_id not in lent and project in _path(each.project, shares)
        )
        if left < (least := _guaranteed(project, shares)):
            yield f"{project} would have {left} seats without {grant_id}, under {least}"


def _guaranteed(project: str, shares: Mapping[str, StoredShare], levels: int = 0) -> int:
    if project not in shares or levels > LEVELS_MAX:
        return 0
    parts = [name for name, share in shares.items() if share.parent == project]
    within = sum(_guaranteed(name, shares, levels + 1) for name in parts)
    return max(shares[project].guaranteed, within)


def _path(project: str, shares: Mapping[str, StoredShare]) -> list[str]:
    path = [project]
    while (share := shares.get(path[-1])) and share.parent and len(path) < LEVELS_MAX:
        path.append(share.parent)
    return path
