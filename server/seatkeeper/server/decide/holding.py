"""What is said of a grant while it is held, by administrators and by holders. Pure.

It is written with the pool's guard, and decides nothing by itself: the plans of later decisions call
grants back by it (``policy.holding``).
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from seatkeeper.server.decide.forced import NOTHING_THERE
from seatkeeper.server.domain import (
    Cause,
    Denied,
    ExtendGrant,
    Grant,
    Holds,
    Noted,
    PoolState,
    Refusal,
    ReportIdle,
    RevokeGrant,
    Ticket,
    WithdrawRevoke,
)
from seatkeeper.server.domain.commands import HoldCommand
from seatkeeper.server.domain.holds import EXTENDED_MAX, IDLE_MAX, REVOKES_MAX, span

NO_LONGEST = "the pool has no longest hold that it could be extended beyond"
EXTENDED_SINCE = "another has extended it since it was looked at"


def noted(
    command: HoldCommand, found: Grant | Ticket | None, pool: PoolState, holds: Holds
) -> tuple[Holds, Noted | Denied]:
    """Return what is said of grants after a command, and its outcome.

    ``holds``: what was said so far. The very value where nothing changes.
    """
    if isinstance(found, Ticket) and found.session_id == command.session_id:
        return holds, _differs(command, "it waits, and holds no seat")
    if not isinstance(found, Grant) or found.session_id != command.session_id:
        return holds, Denied(command.grant_id, Refusal.FINISHED, NOTHING_THERE)
    if found.fence != command.fence:
        return holds, _differs(command, f"it holds seats by now, under fence {found.fence}")
    if isinstance(command, RevokeGrant):
        after = _revoked(command, holds)
    elif isinstance(command, WithdrawRevoke):
        after = _withdrawn(command, pool, holds)
    elif isinstance(command, ExtendGrant):
        after = _extended(command, pool, holds)
    else:
        after = _idle(command, holds)
    if isinstance(after, str):
        return holds, _differs(command, after)
    return after, Noted(found)


def kept(
    holds: Holds, pool: PoolState, gone: Collection[str], made: Collection[Grant] = ()
) -> Holds:
    """Return what is said of grants that are there still: those of the view, and those ``made``."""
    if not holds:
        return holds
    said = holds.revokes.keys() | holds.extended.keys() | holds.idle.keys()
    new = {each.grant_id for each in made}
    return holds.of(
        {each for each in said if each in new or (each in pool.grants and each not in gone)}
    )


def _differs(command: HoldCommand, why: str) -> Denied:
    return Denied(command.grant_id, Refusal.OTHER_TERMS, why)


def _revoked(command: RevokeGrant, holds: Holds) -> Holds | str:
    new, known = command.revoke, holds.revokes.get(command.grant_id)
    if known is not None:
        if (known.reason, known.notice) == (new.reason, new.notice):
            return holds  # the same, sent again
        return (
            f"{known.by} calls it back already, with a notice of {span(known.notice)} "
            f"({known.reason}): withdraw that first, or free the seats at once"
        )
    if len(holds.revokes) >= REVOKES_MAX:
        return (
            f"{REVOKES_MAX} grants of the pool are called back by administrators: wait for one"
        )
    return holds.with_revoke(command.grant_id, new)


def _withdrawn(command: WithdrawRevoke, pool: PoolState, holds: Holds) -> Holds | str:
    if command.grant_id in holds.revokes:
        return holds.with_revoke(command.grant_id, None)
    running = pool.guard.reclaims.running.get(command.grant_id)
    if running is not None and running.cause is not Cause.REVOKED:
        return f"the pool's rules call it back, and no administrator (rule `{running.cause}`)"
    return holds


def _extended(command: ExtendGrant, pool: PoolState, holds: Holds) -> Holds | str:
    rule = pool.spec.policy.hold if pool.spec is not None else None
    if rule is None or rule.longest is None:
        return NO_LONGEST
    now = holds.extended.get(command.grant_id, timedelta(0))
    if now == command.extended:
        return holds  # the same, sent again
    if now != command.seen:
        return EXTENDED_SINCE
    if command.grant_id not in holds.extended and len(holds.extended) >= EXTENDED_MAX:
        return (
            f"{EXTENDED_MAX} grants of the pool are extended: wait until one of them has ended"
        )
    return holds.with_extended(command.grant_id, command.extended)


def _idle(command: ReportIdle, holds: Holds) -> Holds | str:
    known = holds.idle.get(command.grant_id)
    if command.idle_for is None:
        return holds if known is None else holds.with_idle(command.grant_id, None)
    if known is None and len(holds.idle) >= IDLE_MAX:
        return f"{IDLE_MAX} grants of the pool are idle"
    return holds.with_idle(command.grant_id, command.idle_for)
