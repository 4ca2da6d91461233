"""Who waits: requests that are not served get a ticket, or are denied."""

from __future__ import annotations

from seatkeeper.server.decide.draft import COMPLETING, Draft
from seatkeeper.server.decide.entering import Entering
from seatkeeper.server.domain.commands import Granted, Queued, Refusal
from seatkeeper.server.domain.gang import is_choice
from seatkeeper.server.domain.state import PoolSpec, Ticket
from seatkeeper.server.policy.plan import Plan
from seatkeeper.server.policy.returning import kept_from
from seatkeeper.server.policy.snapshot import group_in


def store_waiting(draft: Draft) -> None:
    """Give a stored ticket to each request that still waits, and answer those asked again."""
    if not (draft.asked or draft.again):
        return
    refused: dict[str, tuple[Refusal, str]] = {}
    entering = Entering(draft.pool, draft.limits, draft.decision.tickets_ended)
    for grant_id, (command, ticket) in draft.asked.items():
        if command.may_wait:
            if (full := entering.refusal(command)) is not None:
                refused[grant_id] = full
                draft.deny(command, *full)
                if full[0] in COMPLETING:
                    draft.complete(command)
                continue
            entering.add(command)
            draft.decision.tickets.append(ticket)
            draft.answer(command, Queued(ticket))
        elif draft.decision.unserved or _joins_now(draft, ticket):
            # A seat may be free: the queue was cut short by the size of the transaction.
            draft.decision.deferred.append(command)
        else:
            reason, text = no_seat(draft.pool.spec, draft.plan, ticket)
            kept = kept_from(draft.pool, ticket.seats) if draft.pool.kept else None
            if kept is not None and reason is Refusal.NO_SEAT_FREE:
                text = f"{kept}; wait, or try again later"
            draft.deny(command, reason, text)
            draft.complete(command)
    for command, grant_id in draft.again:
        if (grant := draft.served.get(grant_id)) is not None:
            draft.answer(command, Granted(grant))
        elif grant_id in refused:
            draft.deny(command, *refused[grant_id])
        elif (asked := draft.asked.get(grant_id)) is not None and asked[0].may_wait:
            draft.answer(command, Queued(asked[1]))
        elif asked is not None and draft.decision.unserved:
            draft.decision.deferred.append(command)  # as the first of the two
        elif (stored := draft.pool.tickets.get(grant_id)) is not None:
            draft.answer(command, Queued(draft.decision.moved.get(grant_id, stored)))
        else:
            draft.deny(command, *no_seat(draft.pool.spec))


def _joins_now(draft: Draft, ticket: Ticket) -> bool:
    """Return whether a request counts once with what this decision grants: the next one knows that."""
    if draft.pool.spec is None or not draft.pool.spec.policy.count_once:
        return False
    group = group_in(draft.pool, ticket)
    return bool(group) and any(each.group == group for each in draft.served.values())


def no_seat(
    spec: PoolSpec | None, plan: Plan | None = None, asked: Ticket | None = None
) -> tuple[Refusal, str]:
    """Return why a request that does not wait gets no seat."""
    if spec is not None and spec.drain is not None:
        return (
            Refusal.POOL_DRAINED,
            f"{spec.drain}; wait until it is opened, or try again later",
        )
    return Refusal.NO_SEAT_FREE, _no_seat_free(spec, plan, asked)


def _no_seat_free(spec: PoolSpec | None, plan: Plan | None, asked: Ticket | None) -> str:
    seats = spec.seats if spec else 0
    if not seats:
        return "the pool is closed (0 seats); wait until it is opened, or try again later"
    if asked and is_choice(asked.gang):
        return (
            "one of several alternatives is granted when all are in their queues; wait for it"
        )
    if asked and asked.gang:
        return "its gang is granted when all of its seats are free; wait for them"
    if plan and asked and plan.hold_back(asked):
        if (why := plan.why(asked)) is not None:
            return f"{why}; wait, or try again later"
        if asked.work_key:
            return "another holder does, or is to do, the same work; wait for it, or try again later"
        return "the pool's policy grants this request no seat now; wait, or try again later"
    return f"no seat is free ({seats} in the pool); wait for one, or try again later"
