"""What a file would break of what pools promise now: applied only where an administrator insists.

A lower number of seats breaks none: what is held stays held, and the surplus drains. But seats that a
window keeps *while it is open*, and guarantees that were covered, are counted on by others.
"""

from __future__ import annotations

from collections.abc import Iterator

from seatkeeper.core.amounts import count
from seatkeeper.core.instants import instant_shown
from seatkeeper.core.lots import PoolLots
from seatkeeper.core.projects import PoolPolicy, ProjectShare
from seatkeeper.core.reservation_messages import decode_reservations, decode_windows
from seatkeeper.core.reservations import Reservation, Window
from seatkeeper.core.rule_bursts import obstacle
from seatkeeper.v1 import pool_service_pb2 as pb


def broken(spec: pb.PoolSpec, pool: pb.Pool, seats: int, now_millis: int) -> Iterator[str]:
    """Yield the promises of a pool that do not hold any more once a specification is applied.

    ``seats``: those that are in force then.
    """
    is_advisory = spec.policy.counting.advisory
    windows = decode_windows(pool.spec.windows).open if not _counts_only(pool.spec) else {}
    there = {each.name: each for each in decode_reservations(pool.spec.policy.reservations)}
    wanted = {each.name: each for each in decode_reservations(spec.policy.reservations)}
    kept = 0
    for name, window in windows.items():
        if (was := there.get(name)) is None or window.ends <= now_millis:
            continue
        after = wanted.get(name) if not is_advisory else None
        if (why := _of_window(was, after, window)) is not None:
            yield why
        elif after is not None:
            kept += after.seats
    if kept > seats and seats < pool.spec.seats:
        yield (
            f"open windows keep {count(kept, 'seat')}, and {count(seats, 'seat')} "
            f"{'is' if seats == 1 else 'are'} left in force"
        )
    before, after_ = _guaranteed(pool.spec), _guaranteed(spec)
    if not is_advisory and 0 < seats < after_ and before <= pool.spec.seats:
        yield (
            f"{count(after_, 'seat')} are guaranteed, and {count(seats, 'seat')} "
            f"{'is' if seats == 1 else 'are'} left in force"
        )


def rule_note(before: PoolLots, after: PoolLots, now_millis: int) -> str:
    """Return why a rule for bursts will start none, if it is not for that already; empty: it may."""
    if not after.rule:
        return ""
    why, was = obstacle(after, now_millis), obstacle(before, now_millis)
    return f"the rule starts no burst then: {why}" if why and why != was else ""


def _of_window(was: Reservation, after: Reservation | None, window: Window) -> str | None:
    until = f"reservation {was.name}: its window is open until {instant_shown(window.ends)}"
    if after is None:
        return f"{until}, and {count(was.seats, 'seat')} for {was.who} would be kept no more"
    if after.when != was.when:
        return f"{until}, and it would close at once, as its times are others"
    if after.who != was.who:
        return f"{until}, and what is kept for {was.who} would be kept for {after.who}"
    if after.seats < was.seats:
        kept = f"it would keep {count(after.seats, 'seat')} for {was.who}"
        return f"{until}, and {kept}, and not {was.seats}"
    return None


def _guaranteed(spec: pb.PoolSpec) -> int:
    """Return the seats that are guaranteed in all."""
    policy = PoolPolicy(
        tuple(
            ProjectShare(project=each.project, guaranteed=each.guaranteed, parent=each.parent)
            for each in spec.policy.projects
        )
    )
    return sum(policy.guaranteed[name] for name in policy.parts.get("", ()))


def _counts_only(spec: pb.PoolSpec) -> bool:
    """Return whether a pool keeps nothing back, because it is advisory."""
    return spec.policy.counting.advisory
