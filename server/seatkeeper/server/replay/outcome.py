"""What came of a replay: waits, seats used and idle, refusals, and who waited while others had more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from seatkeeper.server.domain import Instant, PoolSpec
from seatkeeper.server.replay.calendar import Written
from seatkeeper.server.replay.request import Request


@dataclass(frozen=True, slots=True)
class WaitTimes:
    """How long requests waited that got their seats, in seconds; all 0 where there are none."""

    mean: float = 0
    p50: float = 0
    p95: float = 0
    max: float = 0

    @classmethod
    def of(cls, millis: Sequence[int]) -> WaitTimes:
        """Return those of so many requests."""
        if not millis:
            return cls()
        ordered = sorted(millis)
        p50, p95 = (ordered[rank(percent, len(ordered))] / 1000 for percent in (50, 95))
        return cls(sum(ordered) / len(ordered) / 1000, p50, p95, ordered[-1] / 1000)


def rank(percent: int, count: int) -> int:
    """Return the place, from 0, of the value that so many percent do not exceed (nearest rank)."""
    return max(0, -(-count * percent // 100) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectOutcome:
    """What a project asked for, and what it got. Seat times are seconds times seats."""

    project: str
    requests: int
    served: int
    waiting: int
    """Those that wait still at the end."""
    refused: Mapping[str, int]
    """How many were refused, by the name of the reason."""
    waits: WaitTimes
    """Of those that were served."""
    reclaimed: int
    """Those of them whose seats were called back, and taken before their holds were over."""
    used: float
    """Seat time that it held."""
    above: float
    """Of that, what it held above its guarantee and that of all that it is a part of."""
    held_max: int
    waited: float
    """Seat time that its requests waited for seats."""
    held_back: float
    """Of that, the time in which its own limit, or its own work in progress, kept its next one."""
    waited_for: Mapping[str, float]
    """By other project: seat time that it waited while that one held so much above its guarantee."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A replay as a whole. Seat times are seconds times seats, from the first arrival to the end."""

    spec: PoolSpec
    began_at: Instant
    ended_at: Instant
    used: float
    idle: float
    idle_while_waited: float
    """Of that, while a request waited for seats: for more than were free."""
    lent: float
    """Seat time that was held out of the idle guarantees of others."""
    held_max: int
    waiting_max: int
    """Most requests that waited at once."""
    projects: Mapping[str, ProjectOutcome]
    """By name: all that are listed, and all that asked."""
    requests: Sequence[Request] = field(repr=False)
    """In the order of arrival; those that waited when it began come first."""
    waited_before: int = 0
    """How many of them waited when it began."""
    holders: Sequence[Request] = field(default=(), repr=False)
    """Who held seats when it began: part of what was used, and not of what was asked for."""
    written: Sequence[Written] = field(default=(), repr=False)
    """What was written of lots and windows, in order."""
    overdraft: float = 0
    """Seat time of seats beyond those in force that contracts allowed."""
    surplus: float = 0
    """Seat time held beyond these, while it drained; of an advisory pool, all beyond its seats."""
    kept: float = 0
    """Idle seat time that open windows kept for those whom they were for."""
    lots: Mapping[str, float] = field(default_factory=dict)
    """By lot: seat time that was held of it."""
    seats_least: int = 0
    """Fewest seats in force at once."""
    seats_most: int = 0

    @property
    def seconds(self) -> float:
        """How long it was."""
        return (self.ended_at - self.began_at) / 1000

    @property
    def waits(self) -> WaitTimes:
        """Those of all projects together."""
        return WaitTimes.of(
            [w for each in self.requests if (w := each.wait_millis) is not None]
        )

    @property
    def called_back(self) -> Mapping[str, int]:
        """How many grants ended before their holds were over, by the cause for which."""
        return Counter(
            each.reclaimed_for.value
            for each in (*self.holders, *self.requests)
            if each.reclaimed_for is not None
        )

    @property
    def marked(self) -> Mapping[tuple[str, bool], int]:
        """How many grants an advisory pool marked: by rule, and whether it would have refused."""
        marks = (each.mark for each in self.requests if each.mark is not None)
        return Counter((mark.rule, mark.is_refusal) for mark in marks)

    @property
    def reclaimed(self) -> int:
        """How many grants were called back, and ended before their holds were over."""
        return sum(each.is_reclaimed for each in (*self.holders, *self.requests))

    @property
    def refusals(self) -> Mapping[tuple[str, str], int]:
        """How many were refused, by the name of the reason and what the client is answered."""
        return Counter(
            (each.refusal.name, each.message) for each in self.requests if each.refusal
        )

    def keeps(self, percent: int, wait_millis: int, project: str | None = None) -> bool:
        """Return whether so many percent of the requests were served within a wait; of one project.

        One that was never served, for whatever reason, was not.
        """
        counted = [
            each.wait_millis
            for each in self.requests
            if project is None or each.arrival.project == project
        ]
        kept = sum(each is not None and each <= wait_millis for each in counted)
        return kept * 100 >= percent * len(counted)
