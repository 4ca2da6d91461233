"""Whether windows of reservations were written, and their seats kept, as promised. Pure.

Stated a second time, as all here: without the service's code, and without time zones. When windows are
to be is for the specification's author to say; what is looked at is that each moves one way, is written
once and not before its time, and that no grant takes a seat that is kept for another.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from seatkeeper.oracle.counted_once import seats_in_use
from seatkeeper.oracle.stored import PREFIX, StoredGrant, StoredTicket, located
from seatkeeper.server.store import Change
from seatkeeper.v1 import pool_service_pb2 as pb

PLANNED, OPEN, CLOSED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class StoredWindow:
    """What is written of a window. Times are Unix milliseconds; None: there is none."""

    begins: int
    ends: int
    state: int
    opened_at: int | None
    closed_at: int | None
    schedule: bytes
    """When its reservation says that windows are."""
    notice_millis: int = field(default=0, compare=False)
    """How long the notice is with which it calls back what it lacks; 0: it does not."""

    @property
    def opens(self) -> int:
        """When it may open: where it calls back, by the notice and a minute earlier."""
        return self.begins - (self.notice_millis + 60_000 if self.notice_millis else 0)


@dataclass(frozen=True, slots=True)
class StoredReserved:
    """Seats that are kept at a revision, and for whom."""

    seats: int
    projects: tuple[re.Pattern[str], ...]
    holders: tuple[re.Pattern[str], ...]
    hosts: tuple[re.Pattern[str], ...] = ()

    def is_for(self, one: StoredGrant | StoredTicket) -> bool:
        """Return whether they are kept for the holder of a grant or a ticket."""
        named = [(self.projects, one.project), (self.holders, one.holder)]
        named += [(self.hosts, one.host)] if one.host else []
        return any(each.fullmatch(name) for patterns, name in named for each in patterns)


def read_windows(value: bytes) -> dict[str, StoredWindow]:
    """Return the windows of a pool's specification, by reservation."""
    spec = pb.PoolSpec.FromString(value)
    schedules = {
        each.name: each.schedule.SerializeToString(deterministic=True)
        for each in spec.policy.reservations
    }
    notices = {
        each.name: each.notice.ToMilliseconds()
        for each in spec.policy.reservations
        if each.HasField("notice")
    }
    found = {}
    for window in spec.windows.windows:
        opened, closed = (
            getattr(window, name).ToMilliseconds() if window.HasField(name) else None
            for name in ("opened_at", "closed_at")
        )
        found[window.reservation] = StoredWindow(
            window.begins_at.ToMilliseconds(),
            window.ends_at.ToMilliseconds(),
            max(0, window.state - 1),
            *(opened, closed, schedules.get(window.reservation, b"")),
            notices.get(window.reservation, 0),
        )
    return found


@dataclass(frozen=True, slots=True)
class CallingWindow:
    """An open window for which seats are called back."""

    reserved: StoredReserved
    notice_millis: int


def read_calling(value: bytes) -> list[CallingWindow]:
    """Return the open windows whose reservations call back what they lack."""
    reserved, spec = read_reserved(value), pb.PoolSpec.FromString(value)
    return [
        CallingWindow(reserved[each.name], each.notice.ToMilliseconds())
        for each in spec.policy.reservations
        if each.name in reserved and each.HasField("notice")
    ]


def read_reserved(value: bytes) -> dict[str, StoredReserved]:
    """Return what is kept by a pool's specification: of the reservations whose windows are open."""
    spec = pb.PoolSpec.FromString(value)
    is_open = {each.reservation for each in spec.windows.windows if each.state - 1 == OPEN}
    groups = {group.name: group.holders for group in spec.policy.rules.groups}
    return {
        each.name: StoredReserved(
            each.seats,
            tuple(map(_pattern, each.who.projects)),
            tuple(
                map(
                    _pattern,
                    [*each.who.holders, *(h for name in each.who.groups for h in groups[name])],
                )
            ),
            tuple(_pattern(host.lower()) for host in each.who.hosts),
        )
        for each in spec.policy.reservations
        if each.name in is_open
    }


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in text.split("*")), re.DOTALL)


@dataclass
class KeptSeats:
    """What is kept at a revision, grant by grant."""

    reserved: Mapping[str, StoredReserved] = field(default_factory=dict)
    left_before: dict[str, dict[str, int]] = field(default_factory=dict)
    """By grant of this revision: what was kept and not in use before it, by reservation."""

    def check(
        self, made: Sequence[StoredGrant], held: Iterable[StoredGrant], capacity: int
    ) -> Iterator[str]:
        """Yield the grants that took what was kept for others. ``held``: all, with those ``made``.

        ``capacity``: the seats in force, and those that contracts allow beyond them.
        """
        self.left_before = {}
        if not self.reserved:
            return
        new = {grant.grant_id for grant in made}
        there = [grant for grant in held if grant.grant_id not in new]
        for grant in sorted(made, key=lambda each: each.fence):
            left = {
                name: max(0, each.seats - seats_in_use(g for g in there if each.is_for(g)))
                for name, each in self.reserved.items()
            }
            self.left_before[grant.grant_id] = left
            free = capacity - seats_in_use(there)
            kept = sum(
                seats for name, seats in left.items() if not self.reserved[name].is_for(grant)
            )
            if kept and grant.seats > free - kept:
                yield (
                    f"{grant.grant_id} of {grant.holder}, project {grant.project}, got "
                    f"{grant.seats} of {free} free seats, of which {kept} were kept for others"
                )
            there.append(grant)

    def spared(self, grant: StoredGrant, passed: StoredTicket) -> int:
        """Return how many seats of a grant were kept for it, and not for one that it passed."""
        left = self.left_before.get(grant.grant_id, {})
        spared = sum(
            min(grant.seats, seats)
            for name, seats in left.items()
            if self.reserved[name].is_for(grant) and not self.reserved[name].is_for(passed)
        )
        return min(grant.seats, spared)


def check_windows(
    changes: Iterable[Change],
    unix_millis_at: Mapping[int, float],
    *,
    skew_millis: float,
    prefix: str = PREFIX,
) -> Iterator[str]:
    """Yield all that is wrong with what was written of windows.

    ``unix_millis_at``: when each revision came about, by true time. ``skew_millis``: how far a node's
    clock may be ahead of it, at most.
    """
    written: dict[str, dict[str, StoredWindow]] = {}
    for pool, kind, _, change in located(changes, prefix):
        if kind != "spec":
            continue
        windows = read_windows(change.entry.value) if change.entry is not None else {}
        before, latest = written.get(pool, {}), unix_millis_at[change.revision] + skew_millis
        for name, window in windows.items():
            was = before.get(name)
            if was is not None and was.schedule != window.schedule:
                was = None
            for fault in _faults(was, window, latest):
                yield f"{pool}, revision {change.revision}: window of {name} {fault}"
        written[pool] = windows


def _faults(was: StoredWindow | None, window: StoredWindow, latest: float) -> Iterator[str]:
    if window == was:
        return
    if was is not None and (window.begins, window.state) <= (was.begins, was.state):
        yield f"went from {was.begins}, state {was.state}, to {window.begins}, {window.state}"
    if was is not None and window.begins != was.begins:
        if window.begins < was.ends:
            yield f"begins at {window.begins}, before the one before it ends, at {was.ends}"
        if latest < was.ends:
            yield f"follows at {latest:.0f} at the latest one that ends at {was.ends}"
    for state, due, stamp in (
        (OPEN, window.opens, window.opened_at),
        (CLOSED, window.ends, window.closed_at),
    ):
        if window.state != state:
            continue
        if stamp is None or stamp < due:
            yield f"is in state {state} since {stamp}, before {due} by its writer's clock"
        if latest < due:
            yield f"is in state {state} at {latest:.0f} at the latest, before {due}"


def unwritten_windows(
    changes: Iterable[Change], now_millis: float, prefix: str = PREFIX
) -> Iterator[str]:
    """Yield the windows that were to be opened, or closed, by the end of a history, and were not."""
    last: dict[str, dict[str, StoredWindow]] = {}
    for pool, kind, _, change in located(changes, prefix):
        if kind == "spec":
            last[pool] = read_windows(change.entry.value) if change.entry is not None else {}
    for pool, windows in last.items():
        for name, window in windows.items():
            due = {PLANNED: window.begins, OPEN: window.ends}.get(window.state, now_millis)
            if due < now_millis:
                yield f"{pool}: window of {name} is in state {window.state}, and {due} is over"
