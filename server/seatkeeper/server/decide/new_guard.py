"""What a pool's guard says after a decision."""

from __future__ import annotations

from dataclasses import replace

from seatkeeper.server.decide import holding, reclaimed
from seatkeeper.server.decide.counting import counted
from seatkeeper.server.decide.draft import Draft
from seatkeeper.server.decide.marking import waits_after
from seatkeeper.server.domain.hold_back import HoldBack
from seatkeeper.server.domain.state import Guard


def new_guard(draft: Draft) -> Guard:
    """Return the guard to be written, once all is served.

    Notes in the decision when it is to be written for its own sake.
    """
    pool, decision = draft.pool, draft.decision
    guard = decision.guard
    if draft.fence != guard.fence or draft.number != guard.ticket_number:
        guard = _counted_on(guard, draft.fence, draft.number)
    overtaken = draft.overtaken.waiting(decision.tickets, draft.gone, draft.served)
    if overtaken or guard.overtaken:
        guard = replace(guard, overtaken=overtaken)
    # What a machine has from now on cannot be called back, whatever was planned before.
    not_there = draft.gone | decision.lent.keys() if decision.lent else draft.gone
    reclaims = reclaimed.reclaims_after(pool, draft.plan, draft.now, not_there)
    if reclaims is not pool.guard.reclaims:
        guard = replace(guard, reclaims=reclaims)
        decision.is_reclaim = True
    if (
        holds := holding.kept(draft.holds, pool, draft.gone, decision.grants)
    ) is not pool.guard.holds:
        guard = replace(guard, holds=holds)
        # What is left of grants that are gone is worth no write of its own.
        decision.is_reclaim = decision.is_reclaim or bool(draft.said)
    held, made = (pool.held, draft.held), decision.grants
    # Who takes seats over has not waited for them, nor made them more.
    new = [] if draft.is_closed else made
    counts = counted(guard.advisory, pool.spec, draft.now, held=held, grants=new)
    if counts is not guard.advisory:
        guard = replace(guard, advisory=counts)
    if draft.hold_back is not None:
        guard = replace(guard, hold_back=draft.hold_back)
        decision.is_reclaim = True
    elif guard.hold_back is not None:
        guard = _kept_until_now(guard, guard.hold_back, draft)
    waits = waits_after(pool, new, draft.gone, draft.now)
    return guard if waits is guard.waits else replace(guard, waits=waits)


def _kept_until_now(guard: Guard, kept: HoldBack, draft: Draft) -> Guard:
    """Return the guard with seats kept free for a gang until now, where it waits no more."""
    waits = kept.grant_id not in draft.gone and kept.grant_id not in draft.served
    if waits or draft.now >= kept.until:
        return guard
    return replace(guard, hold_back=replace(kept, until=max(kept.since, draft.now)))


def _counted_on(guard: Guard, fence: int, number: int) -> Guard:
    """Return a guard with other counters; `dataclasses.replace` takes several times as long."""
    return Guard(
        fence,
        number,
        guard.kept,
        guard.usage,
        guard.overtaken,
        guard.reclaims,
        guard.waits,
        guard.holds,
        guard.advisory,
        guard.hold_back,
    )
