"""Seats that outlive the session that held them: what a decision writes of them. Pure.

Where a pool keeps the seats of lost sessions, each grant is written together with a record without a
lease. When the lease ends, that record is all that is left: the seats are taken still, whatever any
node does. The next decision that sees it writes since when and until when they are kept; one that is
made when that time is over removes it, and with it the seats are free.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import timedelta

from seatkeeper.server.decide.counting import keeps_any
from seatkeeper.server.decide.draft import Draft
from seatkeeper.server.domain import Grant, Instant, PoolSpec, Stay, StayRule
from seatkeeper.server.policy.returning import may_return


@dataclass(frozen=True, slots=True)
class KeptEnds:
    """What a node knows of seats that no session holds."""

    over: Collection[str] = ()
    """Ids of kept seats whose time is over."""
    closed: Collection[str] = ()
    """Sessions that their clients closed, of those that left seats of which nothing is written yet."""
    unknown: Collection[str] = ()
    """Those of which it is not known whether they were: nothing is written of what they left."""


NOTHING_ENDS = KeptEnds()


def rule_of(spec: PoolSpec | None) -> StayRule | None:
    """Return by which rule seats of a pool are kept; None: they are not."""
    return spec.policy.stay if spec is not None and keeps_any(spec) else None


def beside(draft: Draft) -> None:
    """Have the grants that the decision makes written so that their seats outlive their sessions."""
    rule = rule_of(draft.pool.spec)
    if rule is None or not rule.outlives:
        return
    for grant in draft.decision.grants:
        draft.decision.stays[grant.grant_id] = Stay(grant)


def lingering(draft: Draft, grant: Grant) -> Stay | None:
    """Return how the seats of a grant are kept that its holder gives back; None: they are free.

    Those that are called back are for another. Those of a gang, or for work that has a key, are not
    asked for by a request like the one before.
    """
    rule, guard = rule_of(draft.pool.spec), draft.pool.guard
    if rule is None or rule.linger is None or grant.gang or grant.work_key:
        return None
    if grant.grant_id in guard.reclaims.running or grant.grant_id in draft.holds.revokes:
        return None
    return Stay(grant, draft.now, _after(draft.now, rule.linger), was_released=True)


def settle(draft: Draft, ends: KeptEnds) -> None:
    """Write of seats whose sessions were lost that they are kept, and free those whose time is over."""
    pool = draft.pool
    for grant_id, kept in pool.kept.items():
        if not draft.fits(1):
            draft.decision.unserved = True
            return
        stay = pool.stays[grant_id]
        if stay.until:
            if pool.spec is None or grant_id in ends.over:
                draft.free_kept(kept)
        elif kept.session_id in ends.unknown:
            continue
        elif (after := _lost(draft, stay, is_closed=kept.session_id in ends.closed)) is None:
            draft.free_kept(kept)
        else:
            draft.decision.stays[grant_id] = after
            draft.decision.kept.append(after)


def _lost(draft: Draft, stay: Stay, *, is_closed: bool) -> Stay | None:
    """Return how seats are kept whose session has ended; None: they are free."""
    if is_closed:
        return lingering(draft, stay.grant)
    rule = rule_of(draft.pool.spec)
    if rule is None:
        return None
    returns = may_return(draft.pool, stay)
    time = rule.after_loss if returns else rule.lock_delay
    if time is None:
        return None
    until = _after(draft.now, time)
    return replace(stay, since=draft.now, until=until, may_return=returns)


def _after(now: Instant, time: timedelta) -> Instant:
    return Instant(now + time // timedelta(milliseconds=1))
