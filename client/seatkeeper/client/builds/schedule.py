"""When a build starts, and whether it can be there in time. Pure: the time is given."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from seatkeeper.artifacts.estimate import Estimate
from seatkeeper.core.amounts import span
from seatkeeper.core.errors import DeadlineUnreachable, InvalidArgument
from seatkeeper.v1 import pool_service_pb2

DELAY_MAX = timedelta(days=1)
"""Longest that a build without a deadline waits for quiet hours; then it starts."""
_LENGTH = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|min|h|d)")
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}
_CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")


@dataclass(frozen=True)
class Hours:
    """Hours of each day, by this machine's clock; they may go over midnight."""

    begin: time
    end: time

    def have(self, now: datetime) -> bool:
        """Return whether ``now`` is among them."""
        at = now.time()
        if self.begin <= self.end:
            return self.begin <= at < self.end
        return at >= self.begin or at < self.end


@dataclass(frozen=True)
class Schedule:
    """When a build may start."""

    quiet: bool = False
    """Whether it waits until its pool is quiet."""
    hours: Hours | None = None


def parse_when(text: str) -> Schedule:
    """Return what ``now``, ``off-peak`` or ``22:00-06:00`` means. Raises `InvalidArgument`."""
    if text == "now":
        return Schedule()
    if text == "off-peak":
        return Schedule(quiet=True)
    ends = [_CLOCK.fullmatch(part.strip()) for part in text.split("-")]
    if len(ends) == 2 and ends[0] and ends[1] and ends[0][0] != ends[1][0]:
        begin, end = (time(int(each[1]), int(each[2])) for each in ends if each)
        return Schedule(hours=Hours(begin, end))
    raise InvalidArgument(
        f"{text!r} is no time to start at; write now, off-peak, or hours such as 22:00-06:00",
        field="when",
    )


def parse_deadline(text: str, now: datetime) -> datetime:
    """Return the moment that ``90m``, ``2h``, ``18:30`` or a date with a time means.

    A time without a date is the next such. Raises `InvalidArgument`.
    """
    if (length := _LENGTH.fullmatch(text.strip())) is not None:
        return now + timedelta(seconds=float(length[1]) * _UNITS[length[2]])
    if (clock := _CLOCK.fullmatch(text.strip())) is not None:
        at = now.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0)
        return at if at > now else at + timedelta(days=1)
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)
    except ValueError:
        raise InvalidArgument(
            f"{text!r} is no deadline; write a length such as 90m, a time such as 18:30, or "
            "2026-12-01T06:00",
            field="deadline",
        ) from None


def expected_wait(pool: pool_service_pb2.Pool) -> timedelta | None:
    """Return how long a request that came now would wait for a seat; None: unknown."""
    if pool.free > 0 and pool.queued == 0:
        return timedelta(0)
    if not pool.tickets or not pool.tickets[-1].HasField("estimate"):
        return None
    return pool.tickets[-1].estimate.ToTimedelta()


def is_quiet(pool: pool_service_pb2.Pool) -> bool:
    """Return whether no request waits, and at least half of the seats are free."""
    return pool.queued == 0 and pool.free > 0 and 2 * pool.free >= pool.spec.seats


def latest_start(
    now: datetime, deadline: datetime | None, estimate: Estimate | None
) -> datetime:
    """Return when a build starts at the latest, however busy its pool is."""
    if deadline is None:
        return now + DELAY_MAX
    needed = 0.0 if estimate is None else estimate.seat_seconds.high
    return max(now, deadline - timedelta(seconds=needed))


def may_start(
    schedule: Schedule, pool: pool_service_pb2.Pool, now: datetime, latest: datetime
) -> bool:
    """Return whether the build starts now."""
    if now >= latest:
        return True
    if schedule.hours is not None and not schedule.hours.have(now):
        return False
    return not schedule.quiet or is_quiet(pool)


def check_deadline(
    deadline: datetime, now: datetime, wait: timedelta | None, estimate: Estimate | None
) -> None:
    """Raise `DeadlineUnreachable` if the build is not expected to be there in time.

    What is unknown counts as nothing: then only a deadline that is over is refused.
    """
    left = deadline - now
    if left <= timedelta(0):
        raise DeadlineUnreachable(f"the deadline was {span(-left)} ago")
    build = timedelta(seconds=0 if estimate is None else estimate.seat_seconds.likely)
    if (wait or timedelta(0)) + build > left:
        waits = f" and the wait for a seat {span(wait)}" if wait else ""
        raise DeadlineUnreachable(
            f"the deadline is in {span(left)}, and the build is expected to take {span(build)}{waits}"
        )
