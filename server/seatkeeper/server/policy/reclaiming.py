"""Which lent seats are called back, and for whom.

A ticket that fits into the guarantee of its project, or of one that this is a part of, and that too few
seats are free for, may have seats called back that others hold beyond their guarantees. What is wanted
is worked out anew by every plan: what is called back already comes first, so that a notice stands while
it is needed, and is withdrawn when it is not.

What is never wanted: seats of a project that is within its guarantee then, seats that were held for
less than the minimum, more than the tickets need (of what begins to be called back for them none could
be left out), and any for a ticket that would not get enough, or would have given up before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from seatkeeper.server.domain import Cause, Grant, Instant, PoolPolicy, ReclaimRule, Ticket
from seatkeeper.server.policy.kept import Kept
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.policy.units import members_of, unit_of, units

HOUR = timedelta(hours=1)
RUNNING_MAX = 64
"""Most grants that are called back at a time."""
DUE_MAX = 64
"""Most tickets that seats are called back for at a time."""


@dataclass(frozen=True, slots=True)
class CallBack:
    """A grant whose seats are wanted back."""

    grant: Grant
    project: str
    """For whom: the project that is under its guarantee; empty for another cause."""
    cause: Cause = Cause.GUARANTEE
    notice: timedelta | None = None
    """None: that of the pool's reclaim rule."""
    reason: str = ""
    """What the holder reads of another cause."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be called back, and when that may be more although the pool stays the same."""

    grants: Sequence[CallBack]
    next_look: Instant | None


NOTHING_WANTED = Wanted((), None)


class Reclaiming:
    """One plan's look at what is lent."""

    def __init__(
        self,
        rule: ReclaimRule,
        policy: PoolPolicy,
        pool: PoolSnapshot,
        now: Instant,
        kept: Kept | None = None,
    ) -> None:
        self._rule = rule
        self._policy = policy
        self._pool = pool
        self._now = now
        self._kept = kept.copy() if kept is not None else None
        """What open windows keep back once the plan is carried out; None: none is open."""
        self._running = pool.state.guard.reclaims.running
        self._held: dict[str, int] = {}
        self._taken: set[str] = set()
        """Ids of the grants that are called back for the tickets so far."""
        self._by_project: dict[str, list[Grant]] = {}
        self._looks: list[Instant] = []
        """When what is too early now will not be."""
        recent = [
            at
            for at in pool.state.guard.reclaims.called_at
            if now - at < HOUR.total_seconds() * 1000
        ]
        # Under 0 once the rule allows fewer: what is called back already stands all the same.
        self._left = max(0, rule.hourly - len(recent))
        self._more_at = [Instant(min(recent) + _millis(HOUR))] if recent else []
        """When more than now may be called back, if that is ever."""

    def wanted(
        self, due: Iterable[tuple[Ticket, str]], held: dict[str, int], free: int
    ) -> Wanted:
        """Return what is to be called back.

        ``due``: the tickets that are next and within a guarantee, in order, and whose it is.
        ``held``: what projects and their parts hold once the plan is carried out; ``free``: the seats
        that are free then, under 0 while a lowered capacity drains.
        """
        self._held = dict(held)
        chosen: list[CallBack] = []
        for ticket, guaranteed in due:
            need = ticket.seats - free
            if self._kept is not None:
                need += self._kept.for_others(ticket)
                self._kept.use(ticket)
            if need > 0:
                most = RUNNING_MAX - sum(len(self._members(each.grant)) for each in chosen)
                found = self._enough(ticket, guaranteed, need, most)
                if found is None:
                    break  # those behind it do not get what it waits for
                chosen += [CallBack(grant, ticket.project) for grant in found]
                free += sum(grant.seats for grant in found)
            free -= ticket.seats
            for each in self._policy.path(ticket.project):
                self._held[each] = self._held.get(each, 0) + ticket.seats
        future = [at for at in self._looks if at > self._now]
        spare = free - (self._kept.in_all if self._kept is not None else 0)
        wanted = [
            replace(each, grant=member)
            for each in self._needed(chosen, spare)
            for member in self._members(each.grant)
        ]
        return Wanted(wanted, min(future, default=None))

    def _needed(self, chosen: Iterable[CallBack], spare: int) -> list[CallBack]:
        """Leave out what is too much, as a large grant was taken for a later ticket.

        But not what is called back already: who waits for that would wait for another notice.
        """
        needed = []
        for each in chosen:
            if not self._is_running(each.grant) and each.grant.seats <= spare:
                spare -= each.grant.seats
            else:
                needed.append(each)
        return needed

    def _enough(
        self, ticket: Ticket, guaranteed: str, need: int, most: int
    ) -> list[Grant] | None:
        """Take grants that have so many seats together, and return them; None: there are none."""
        shared = set(self._policy.path(guaranteed))
        taken: list[Grant] = []
        for grant in self._lent(guaranteed, shared):
            if not self._is_running(grant) and not self._may_begin(ticket, grant):
                continue
            taken.append(grant)
            self._count(grant, shared, -1)
            if sum(each.seats for each in taken) >= need:
                break
        else:
            self._put_back(taken, shared)
            return None
        # The last one was needed; of those before it, perhaps not all.
        for grant in list(reversed(taken[:-1])):
            if sum(each.seats for each in taken) - grant.seats >= need:
                taken.remove(grant)
                self._count(grant, shared, 1)
        called = [each.grant_id for unit in taken for each in self._members(unit)]
        new = sum(each not in self._running for each in called)
        if new > self._left:
            self._looks += self._more_at
        if len(called) > most or new > self._left:
            self._put_back(taken, shared)
            return None
        self._left -= new
        self._taken.update(grant.grant_id for grant in taken)
        return taken

    def _put_back(self, taken: Iterable[Grant], shared: set[str]) -> None:
        for grant in taken:
            self._count(grant, shared, 1)

    def _lent(self, guaranteed: str, shared: set[str]) -> Iterator[Grant]:
        """Yield grants beyond the guarantees of their projects, as seats are taken.

        Those called back already come first. Then: of the project that has most beyond its guarantee
        for its weight; of the lowest priority; the youngest.
        """
        yielded: set[str] = set()
        for grant_id in sorted(self._running, key=lambda each: self._running[each].number):
            grant = self._unit_of(grant_id)
            if grant is None or grant.grant_id in self._taken | yielded:
                continue
            if self._is_lent(grant, guaranteed, shared):
                yielded.add(grant.grant_id)
                yield grant
        places: dict[str, int] = {}
        while True:
            heads: list[tuple[float, int, int, Grant]] = []
            for project, grants in self._grants.items():
                place = places.get(project, 0)
                while place < len(grants) and (
                    grants[place].grant_id in yielded
                    or grants[place].grant_id in self._taken
                    or not self._is_lent(grants[place], guaranteed, shared)
                ):
                    place += 1
                places[project] = place
                if place < len(grants):
                    head = grants[place]
                    heads.append(
                        (-self._beyond(head, shared), head.priority, -head.fence, head)
                    )
            if not heads:
                return
            grant = min(heads, key=lambda head: head[:3])[3]
            yielded.add(grant.grant_id)
            yield grant

    @property
    def _grants(self) -> Mapping[str, Sequence[Grant]]:
        """The grants that may be called back, by project, in the order in which they are."""
        if not self._by_project:
            for grant in units(self._pool):
                if grant.heeds_within is not None:
                    self._by_project.setdefault(grant.project, []).append(grant)
            for grants in self._by_project.values():
                grants.sort(key=lambda grant: (grant.priority, -grant.fence))
        return self._by_project

    def _members(self, unit: Grant) -> Sequence[Grant]:
        return members_of(self._pool, unit)

    def _is_running(self, unit: Grant) -> bool:
        """Return whether all of it is called back already."""
        return all(each.grant_id in self._running for each in self._members(unit))

    def _unit_of(self, grant_id: str) -> Grant | None:
        """Return what stands for a grant that is called back; None: not all of that is."""
        grant = self._pool.state.grants.get(grant_id)
        if grant is None or grant_id in self._pool.ended:
            return None
        if not grant.group:
            return grant
        unit = unit_of(self._pool, grant.group)
        return unit if unit is not None and self._is_running(unit) else None

    def _is_lent(self, grant: Grant, guaranteed: str, shared: set[str]) -> bool:
        """Return whether the projects that it counts for keep their guarantees without it."""
        path = self._policy.path(grant.project)
        if guaranteed in path:
            return False
        if self._kept is not None and any(map(self._kept.is_for, self._members(grant))):
            return False  # what a window is open for would be kept again
        return all(
            self._held.get(each, 0) - grant.seats >= self._policy.guaranteed.get(each, 0)
            for each in path
            if each not in shared
        )

    def _beyond(self, grant: Grant, shared: set[str]) -> float:
        """Return what the largest part that it is in, and the asker is not, has too much."""
        unshared = [each for each in self._policy.path(grant.project) if each not in shared]
        if not unshared:  # its own seats, beside those of its parts
            parts = self._policy.parts.get(grant.project, ())
            within = sum(self._held.get(part, 0) for part in parts)
            return self._held.get(grant.project, 0) - within
        top = unshared[-1]
        beyond = self._held.get(top, 0) - self._policy.guaranteed.get(top, 0)
        return beyond / self._policy.share(top).weight

    def _may_begin(self, ticket: Ticket, grant: Grant) -> bool:
        """Return whether a grant may be called back for a ticket from now on."""
        at = grant.held_since + _millis(self._rule.minimum_hold)
        if at > self._now:
            self._looks.append(Instant(at))
            return False
        if ticket.wait is None or grant.heeds_within is None:
            return True
        ends = ticket.queued_at + _millis(ticket.wait)
        return ends >= self._now + _millis(self._rule.notice + grant.heeds_within)

    def _count(self, grant: Grant, shared: set[str], sign: int) -> None:
        for each in self._policy.path(grant.project):
            self._held[each] = self._held.get(each, 0) + sign * grant.seats


def _millis(time: timedelta) -> int:
    return time // timedelta(milliseconds=1)
