"""What a pool promises to projects: guarantees, limits and weights, in a tree. Pure.

Nodes decide by it, and who writes a pool's specification checks it by the same rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from seatkeeper.core.amounts import exact_seconds
from seatkeeper.core.borrowing import BorrowRule
from seatkeeper.core.count_once import HOST
from seatkeeper.core.counting import PLAIN, Counting
from seatkeeper.core.hold import HoldRule
from seatkeeper.core.pool_rules import NO_RULES, PoolRules
from seatkeeper.core.reclaim import ReclaimRule
from seatkeeper.core.reservations import Reservation
from seatkeeper.core.stay import StayRule

DEPTH_MAX = 4
"""Levels of projects, below the pool itself."""
PROJECTS_MAX = 500
WEIGHT_MAX = 1_000
POLICY_TIME_MIN = timedelta(seconds=1)
POLICY_TIME_MAX = timedelta(days=90)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectShare:
    """A project's part in a pool. One that a pool does not list has this with its defaults."""

    project: str
    guaranteed: int = 0
    """Seats that it gets before others do; while it does not use them, they are lent."""
    limit: int | None = None
    """Most seats that it may hold; None: all there are."""
    weight: int = 1
    """Beyond guarantees, seats go to projects in proportion to their weights."""
    parent: str = ""
    """The project that this one is a part of: its seats count there, too. Empty: none."""

    def __str__(self) -> str:
        """Return it for people: ``vision: guaranteed=4,weight=2``."""
        said = [f"guaranteed={self.guaranteed}"] if self.guaranteed else []
        said += [] if self.limit is None else [f"limit={self.limit}"]
        said += [f"weight={self.weight}"] if self.weight != 1 else []
        said += [f"parent={self.parent}"] if self.parent else []
        return f"{self.project}: {','.join(said) or 'weight=1'}"


@dataclass(frozen=True, slots=True)
class Overtaking:
    """How far smaller requests may go before a ticket that wants more seats than are free."""

    seats: int
    """Seats granted before any one ticket so, in all."""
    within: timedelta
    """A ticket that has waited so long is overtaken no more."""
    hold_back: timedelta | None = None
    """For how long at most seats are kept free for a gang that has; None: they are not."""

    def __str__(self) -> str:
        """Return it for people."""
        text = f"seats={self.seats},within={exact_seconds(self.within)}"
        return text + (
            f",hold_back={exact_seconds(self.hold_back)}" if self.hold_back is not None else ""
        )


@dataclass(frozen=True)
class PoolPolicy:
    """How a pool's seats are shared. Without projects, by priority and arrival alone."""

    projects: tuple[ProjectShare, ...] = ()
    """Each once, in the order in which they were given."""
    usage_half_life: timedelta | None = None
    """In which half of what a project has used is forgotten; None: only what is held counts."""
    overtaking: Overtaking | None = None
    """None: no ticket that is next is passed over, however many seats it wants."""
    reclaim: ReclaimRule | None = None
    """None: no seats are called back."""
    rules: PoolRules = NO_RULES
    """Who may use the pool, and how much each may have."""
    hold: HoldRule | None = None
    """How long seats may be held; None: as long as their holders like."""
    reservations: tuple[Reservation, ...] = ()
    """Seats that are kept for some in windows that come again and again; each name once."""
    counting: Counting = PLAIN
    """What requests cost, and whether the pool is advisory."""
    stay: StayRule | None = None
    """For how long seats are kept that were released or lost; None: they are free at once."""
    borrow: BorrowRule | None = None
    """How seats leave with machines; None: they do not."""
    count_once: tuple[str, ...] = ()
    """Grants of a project that have all of these in common count once; empty: each counts."""

    @cached_property
    def looks_at_hosts(self) -> bool:
        """Whether anything depends on the host that a request comes from."""
        if HOST in self.count_once:
            return True
        if self.borrow is not None and self.borrow.looks_at_hosts:
            return True
        return self.rules.looks_at_hosts or any(each.who.hosts for each in self.reservations)

    @cached_property
    def shares(self) -> Mapping[str, ProjectShare]:
        """The listed projects, by name."""
        return {share.project: share for share in self.projects}

    @cached_property
    def parts(self) -> Mapping[str, tuple[str, ...]]:
        """The listed projects directly within each; those within none are under the empty name."""
        parts: dict[str, list[str]] = {}
        for share in self.projects:
            parts.setdefault(share.parent, []).append(share.project)
        return {parent: tuple(names) for parent, names in parts.items()}

    @cached_property
    def guaranteed(self) -> Mapping[str, int]:
        """The seats guaranteed to each listed project: its own number, or more if its parts' are."""
        found: dict[str, int] = {}
        for share in sorted(self.projects, key=lambda share: -len(self.path(share.project))):
            within = sum(found[part] for part in self.parts.get(share.project, ()))
            found[share.project] = max(share.guaranteed, within)
        return found

    @cached_property
    def tightest(self) -> Mapping[str, ProjectShare]:
        """The lowest limit that the requests of a listed project are under: its own or one above it."""
        found: dict[str, ProjectShare] = {}
        for project in self.shares:
            limited = [
                each for each in map(self.share, self.path(project)) if each.limit is not None
            ]
            if limited:
                found[project] = min(limited, key=lambda share: share.limit or 0)
        return found

    def lines(self) -> list[str]:
        """Return it for people: each project, and the rest as far as it is set."""
        found = [*map(str, self.projects)]
        if self.usage_half_life is not None:
            found.append(f"usage half-life: {exact_seconds(self.usage_half_life)} s")
        if self.overtaking is not None:
            found.append(f"overtaking: {self.overtaking}")
        if self.reclaim is not None:
            found.append(f"reclaim: {self.reclaim}")
        if self.hold is not None:
            found.append(f"hold: {self.hold}")
        if self.stay is not None:
            found.append(f"stay: {self.stay}")
        if self.borrow is not None:
            found.append(f"borrow: {self.borrow}")
        if self.count_once:
            found.append(f"count once: {', '.join(self.count_once)}")
        found += map(str, self.reservations)
        return found + self.rules.lines() + self.counting.lines()

    def share(self, project: str) -> ProjectShare:
        """Return what a project gets, listed or not."""
        return self.shares.get(project) or ProjectShare(project=project)

    def path(self, project: str) -> tuple[str, ...]:
        """Return a project and those that it is a part of, the smallest first."""
        found = self._paths.get(project)
        return found if found is not None else tuple(self._up(project))

    @cached_property
    def _paths(self) -> Mapping[str, tuple[str, ...]]:
        return {project: tuple(self._up(project)) for project in self.shares}

    def _up(self, project: str) -> Iterator[str]:
        for _ in range(DEPTH_MAX + 1):  # a bound also for what was not validated
            if not project:
                return
            yield project
            found = self.shares.get(project)
            project = found.parent if found else ""


NO_POLICY = PoolPolicy()


def reclaim_faults(policy: PoolPolicy) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with when seats are called back: the field, empty for all of it, and why."""
    if policy.reclaim is None:
        return
    if not any(policy.guaranteed.values()):
        yield "", "no project has a guarantee that seats could be called back for"
    yield from policy.reclaim.faults()


PolicyFault = tuple[int, str, str]
"""What is wrong with a policy: the place of the project among the given, the field, and the reason."""


def policy_fault(policy: PoolPolicy, seats: int) -> PolicyFault | None:
    """Return the first of what is wrong with a policy for a pool of so many seats, or None."""
    return next(policy_faults(policy, seats), None)


def policy_faults(
    policy: PoolPolicy, seats: int, *, is_whole: bool = True
) -> Iterator[PolicyFault]:
    """Yield all that is wrong with a policy for a pool of so many seats.

    What follows from another fault is left out: sums are looked at in a tree that is one, and that
    ``is_whole``, with nothing left out that could not be read. A pool of 0 seats is closed for a while,
    and keeps guarantees that it cannot keep now.
    """
    found = not is_whole
    seen: set[str] = set()
    for place, share in enumerate(policy.projects):
        for fault in _faults_of(share, seats, seen):
            found = True
            yield (place, *fault)
        seen.add(share.project)
    for place, share in enumerate(policy.projects):
        if (fault_in_tree := _fault_in_tree(policy, share)) is not None:
            found = True
            yield (place, *fault_in_tree)
    if found:
        return
    top = sum(policy.guaranteed[name] for name in policy.parts.get("", ()))
    if seats and top > seats:
        last = max(
            place
            for place, share in enumerate(policy.projects)
            if policy.guaranteed[share.project]
        )
        yield (
            last,
            "guaranteed",
            f"guarantees sum to {top}, more than the pool has seats: {seats}",
        )


def _faults_of(share: ProjectShare, seats: int, seen: set[str]) -> Iterator[tuple[str, str]]:
    if share.project in seen:
        yield "project", f"{share.project} is listed twice"
    if not 1 <= share.weight <= WEIGHT_MAX:
        yield "weight", f"{share.weight} is not from 1 to {WEIGHT_MAX}"
    if share.guaranteed < 0:
        yield "guaranteed", f"{share.guaranteed} is under 0"
    if share.limit is not None and share.limit < 0:
        yield "limit", f"{share.limit} is under 0"
    elif share.limit is not None and share.limit < share.guaranteed:
        yield "limit", f"{share.limit} is under the {share.guaranteed} guaranteed seats"
    if seats and share.guaranteed > seats:
        yield "guaranteed", f"{share.guaranteed} is more than the pool has seats: {seats}"


def _fault_in_tree(policy: PoolPolicy, share: ProjectShare) -> tuple[str, str] | None:
    if share.parent and share.parent not in policy.shares:
        return "parent", f"no project {share.parent} is listed"
    path = policy.path(share.project)
    if share.project in path[1:]:
        circle = path[: path.index(share.project, 1) + 1]
        return "parent", f"{share.project} is a part of itself: {' in '.join(circle)}"
    if len(set(path)) < len(path):
        return None  # said of those that it is in
    if len(path) > DEPTH_MAX:
        return "parent", f"{share.project} is more than {DEPTH_MAX} levels deep"
    within = sum(policy.share(part).guaranteed for part in policy.parts.get(share.project, ()))
    if share.guaranteed and within > share.guaranteed:
        return (
            "guaranteed",
            f"its parts' guarantees sum to {within}, over its own {share.guaranteed}",
        )
    if share.limit is not None and within > share.limit:
        return (
            "limit",
            f"its parts' guarantees sum to {within}, over its limit of {share.limit}",
        )
    return None
