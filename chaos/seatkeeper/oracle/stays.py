"""Whether seats that were released or lost were kept as a pool says, and for whom. Pure.

Stated a second time, as all here. Seats are kept at a revision where there is a record of them
(``stays``) and no grant of that id. They count as held. What is looked at: that a grant is written
together with such a record where its pool says so; that none is left behind by a decision without a
time; that one that is written stays as it is until it is gone; that none but the holder takes over what
is kept for it, and no more than that. With times, that none was free before its window was over, or
long after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from seatkeeper.internal.v1 import state_pb2
from seatkeeper.oracle.counted_once import newly_taken
from seatkeeper.oracle.stored import PREFIX, StoredGrant, StoredTicket, located, read_grant
from seatkeeper.oracle.taken_over import TakenOver
from seatkeeper.server.store import Change, Entry
from seatkeeper.v1 import pool_service_pb2

COMMIT_SECONDS = 2.0
"""How long a decision may be on its way into the store."""


@dataclass(frozen=True, slots=True)
class StoredStay:
    """A record of seats that outlive a session."""

    grant: StoredGrant
    since: int
    until: int
    """0: it is not written that they are kept."""
    was_released: bool
    may_return: bool

    @property
    def window(self) -> int:
        """For how long they are kept, in milliseconds."""
        return self.until - self.since


@dataclass(frozen=True, slots=True)
class StoredStayRule:
    """What a pool says of kept seats, in milliseconds; 0: nothing."""

    linger: int = 0
    resurrection: int = 0
    lock_delay: int = 0

    def windows(self, stay: StoredStay) -> tuple[int, ...]:
        """Return for how long seats may be kept that are kept as these are."""
        if stay.was_released:
            return (self.linger,)
        longer = max(self.resurrection, self.lock_delay)
        return (longer,) if stay.may_return else (self.lock_delay,)


def read_stay(grant_id: str, value: bytes) -> StoredStay:
    """Return what a record says."""
    record = state_pb2.StayRecord.FromString(value)
    return StoredStay(
        read_grant(grant_id, record.grant.SerializeToString()),
        record.since_millis,
        record.until_millis,
        record.cause == state_pb2.STAY_CAUSE_RELEASED,
        record.may_return,
    )


def read_stay_rule(value: bytes) -> StoredStayRule:
    """Return what a pool's specification says; an advisory pool keeps nothing."""
    policy = pool_service_pb2.PoolSpec.FromString(value).policy
    if policy.counting.advisory or not policy.HasField("stay"):
        return StoredStayRule()
    rule = policy.stay
    return StoredStayRule(
        *(each.ToMilliseconds() for each in (rule.linger, rule.resurrection, rule.lock_delay))
    )


@dataclass
class StayLedger:
    """What one pool keeps at a revision."""

    rule: StoredStayRule = field(default_factory=StoredStayRule)
    kept: dict[str, StoredGrant] = field(default_factory=dict)
    """Seats that no session holds, by grant id."""
    more: int = 0
    """How many more there are than before the latest revision."""
    _stays: dict[str, StoredStay] = field(default_factory=dict)
    _put: dict[str, StoredStay] = field(default_factory=dict)
    _gone: set[str] = field(default_factory=set)
    _taken_over: TakenOver = field(default_factory=TakenOver)

    def note_guard(self, value: bytes) -> None:
        """Take the guard that a decision wrote at the revision at hand."""
        self._taken_over.note_guard(value)

    def note(self, grant_id: str, change: Change) -> None:
        """Take a change of the revision at hand."""
        match change.entry:
            case None:
                self._gone.add(grant_id)
            case Entry(value=value):
                self._put[grant_id] = read_stay(grant_id, value)

    def settle(
        self,
        held: Mapping[str, StoredGrant],
        made: Collection[StoredGrant],
        gone: Iterable[StoredGrant | StoredTicket],
        *,
        is_decision: bool,
    ) -> Iterator[str]:
        """Apply the changes of a revision, and yield what is wrong with them.

        ``held``: all grants after it; ``made``: those of it; ``gone``: what was deleted at it.
        """
        ended = [each for each in gone if is_decision and isinstance(each, StoredGrant)]
        before, kept_before = dict(self._stays), dict(self.kept)
        for grant_id in self._gone:
            self._stays.pop(grant_id, None)
        self._stays |= self._put
        self.kept = {k: each.grant for k, each in self._stays.items() if k not in held}
        seats = (sum(g.seats for g in kept.values()) for kept in (self.kept, kept_before))
        self.more = next(seats) - next(seats)
        yield from self._not_put(made)
        moved = self._taken_over.of(made)
        yield from self._of_made(
            [each for each in made if each not in moved], kept_before, held
        )
        yield from self._taken_over.settle(made, ended)
        for grant_id, stay in self._put.items():
            was = before.get(grant_id)
            if grant_id in held:
                if stay.until or stay.grant.fence != held[grant_id].fence:
                    yield f"{grant_id} is held, and its seats are said to be kept"
            elif not stay.until:
                yield f"the seats of {grant_id} are kept, and until when is not written"
            elif stay.window not in self.rule.windows(stay):
                yield f"the seats of {grant_id} are kept for {stay.window} ms, not as the pool says"
            elif was is not None and was.until:
                yield f"the seats of {grant_id} were kept until {was.until}, are until {stay.until}"
        for grant_id in (each.grant_id for each in ended):
            if grant_id in self.kept and grant_id not in self._put:
                yield f"{grant_id} was ended by a decision, and its seats are left behind"
        self._put, self._gone = {}, set()

    def _of_made(
        self,
        made: Collection[StoredGrant],
        kept_before: Mapping[str, StoredGrant],
        held: Mapping[str, StoredGrant],
    ) -> Iterator[str]:
        """Look at what is granted, which may be what was kept."""
        taken = {k: each for k, each in kept_before.items() if k not in self.kept}
        for grant in made:
            if not grant.continues:
                if grant.grant_id in kept_before:
                    yield f"{grant.grant_id} was kept, and is granted a second time"
                continue
            theirs = [
                each
                for each in taken.values()
                if (each.holder, each.project) == (grant.holder, grant.project)
            ]
            if grant.continues not in {each.fence for each in theirs}:
                yield f"{grant.grant_id} takes over fence {grant.continues}, which was not kept for it"
            elif sum(each.seats for each in theirs) < self._takes(grant, made, held):
                yield f"{grant.grant_id} has more seats than were kept for it"

    def _not_put(self, made: Collection[StoredGrant]) -> Iterator[str]:
        """Yield the grants that end with their sessions where the pool says otherwise."""
        outlives = self.rule.resurrection or self.rule.lock_delay
        for grant in made:
            if outlives and grant.grant_id not in self._put:
                yield f"{grant.grant_id} ends with its session, and the pool says otherwise"

    def _takes(
        self,
        grant: StoredGrant,
        made: Collection[StoredGrant],
        held: Mapping[str, StoredGrant],
    ) -> int:
        """Return how many seats a grant takes beside those with which it counts once."""
        new = {each.grant_id for each in made}
        others = [each for each in held.values() if each.grant_id not in new]
        return newly_taken([grant], [*others, *self.kept.values()])[grant.grant_id].seats


def check_stays(
    changes: Iterable[Change],
    changed_at: Mapping[int, float],
    *,
    ahead: float,
    late: Callable[[float, float], float],
    now: float,
    changed_by: Callable[[int], float] | None = None,
    prefix: str = PREFIX,
) -> Iterator[str]:
    """Yield the seats that were kept for less than their pool says, or for much longer.

    ``changed_at``: when each revision came about, or not before that; ``changed_by``: not after that,
    where it is not known exactly. ``ahead``: by how many seconds clocks may differ.
    ``late(since, window)``: when seats must be free at the latest. ``now``: when one looks.
    """
    by = changed_by or changed_at.__getitem__
    held: set[tuple[str, str]] = set()
    began: dict[tuple[str, str], tuple[float, float]] = {}
    stays: dict[tuple[str, str], StoredStay] = {}
    by_revision: dict[int, list[tuple[str, str, str, Change]]] = {}
    for found in located(changes, prefix):
        by_revision.setdefault(found[3].revision, []).append(found)
    for revision, together in by_revision.items():
        at, before = changed_at[revision], dict(stays)
        forced: set[tuple[str, int]] = set()
        taken: Counter[tuple[str, str, str]] = Counter()
        for pool, kind, name, change in together:
            key, entry = (pool, name), change.entry
            if kind == "grants" and entry is not None:
                held.add(key)
                grant = read_grant(name, entry.value)
                if grant.continues:
                    taken[pool, grant.holder, grant.project] += 1
            elif kind == "grants":
                held.discard(key)
            elif kind == "stays" and entry is not None:
                stays[key] = read_stay(name, entry.value)
            elif kind == "stays":
                stays.pop(key, None)
            elif kind == "guard" and entry is not None:
                facts = state_pb2.DecisionFacts()
                facts.ParseFromString(state_pb2.GuardRecord.FromString(entry.value).facts)
                forced |= {(pool, fence) for fence in facts.reclaimed_fences}
        kept = {key for key in stays if key not in held}
        for key in kept - began.keys():
            began[key] = at, by(revision)
        for key in began.keys() - kept:
            (since, since_by), stay = began.pop(key), before[key]
            who = (key[0], stay.grant.holder, stay.grant.project)
            if not stay.until or (key[0], stay.grant.fence) in forced or taken[who]:
                continue
            # A release counts from when it was decided, which is a while before it is written.
            earlier = ahead + (COMMIT_SECONDS if stay.was_released else 0.0)
            if by(revision) < since + stay.window / 1000 - earlier:
                yield f"seats of {key[1]} in {key[0]} were kept from {since:.2f} to {at:.2f} only"
            if at > late(since_by, stay.window / 1000):
                yield f"seats of {key[1]} in {key[0]} were kept from {since:.2f} to {at:.2f}"
    for key, (since, since_by) in began.items():
        if now > late(since_by, stays[key].window / 1000):
            yield f"seats of {key[1]} in {key[0]} are kept since {since:.2f}"


def count_stays(changes: Iterable[Change], prefix: str = PREFIX) -> tuple[int, int]:
    """Return how often seats were kept, and how often they were taken over by those they were for."""
    kept = returned = 0
    for _, kind, name, change in located(changes, prefix):
        if change.entry is None:
            continue
        if kind == "stays":
            kept += bool(read_stay(name, change.entry.value).until)
        elif kind == "grants":
            returned += bool(read_grant(name, change.entry.value).continues)
    return kept, returned
