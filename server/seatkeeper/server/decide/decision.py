"""Decide what becomes of a pool: the one place where grants are made.

Theory of operation
-------------------
A decision is made on one node's view of a pool and takes effect only if no other node has decided
meanwhile (the commit compares the guard). It may therefore trust its view to hold every grant
and ticket that exists. It may hold some that no longer do: a lease that ended deletes its keys
without touching the guard. That only frees seats, so a decision on the fuller view is safe.

Every request goes through the queue, if only for the length of one decision: commands first add
and remove tickets and grants, then the policy plans over all that waits, and only what is still
waiting after that becomes a stored ticket. So "free seat, empty queue", "a release hands its seat
to the next" and "a capacity was raised" are one case. Which tickets are served is the policy's to
say (``policy.plan``); that no more is granted than is free is seen to here.

Before that, tickets that can never be served any more (``possible``) are denied. So they block no
ticket behind them, and their requests are answered when the pool has changed, not when the wait is
over.

What is never true: more seats granted than the capacity minus what is held in the view; two
grants with one fence; a grant made for an id that its session has completed. In which order
tickets are served is the policy's promise (``policy.by_pool``), not this module's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from seatkeeper.server.decide.administering import administer
from seatkeeper.server.decide.asking import acquire
from seatkeeper.server.decide.borrowing import free_due
from seatkeeper.server.decide.draft import NOT_IN_TIME, RELEASE_WRITES, Decision, Draft
from seatkeeper.server.decide.marking import marked_grants, with_grants
from seatkeeper.server.decide.new_guard import new_guard
from seatkeeper.server.decide.possible import impossible_tickets
from seatkeeper.server.decide.releasing import end_works, release
from seatkeeper.server.decide.serving import free_reclaimed, serve_queue
from seatkeeper.server.decide.staying import KeptEnds, beside, settle
from seatkeeper.server.decide.taking_over import take_over
from seatkeeper.server.decide.waiting import store_waiting
from seatkeeper.server.domain.commands import (
    Acquire,
    Administrative,
    Command,
    MoveTicket,
    Refusal,
    TakeOver,
)
from seatkeeper.server.domain.limits import Limits
from seatkeeper.server.domain.state import Instant, PoolState, Ticket
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.plan import Policy


def decide(
    pool: PoolState,
    commands: Sequence[Command],
    now: Instant,
    limits: Limits,
    due: Iterable[Ticket] = (),
    *,
    policy: Policy = BY_POOL,
    over: Collection[int] = (),
    kept: KeptEnds | None = None,
) -> Decision:
    """Give up tickets, answer ``commands`` in order, and serve what ``policy`` plans.

    Tickets are given up that are ``due``, and those that can never be served. ``over``: the numbers of
    the reclaims whose notice is over; of these the seats are freed that are still wanted back.

    ``kept``: what is known of the ends of kept seats, and of the sessions that left them; None: what is
    kept stays as it is.

    ``now`` is written down, and decides what the policy makes depend on it. ``due`` are tickets of the
    pool that have waited long enough, each once.
    Changes nothing: the decision says what to write. The same arguments give the same decision.
    """
    draft = Draft(pool, now, limits, policy)
    if pool.kept and kept is not None:
        settle(draft, kept)
    for ticket in due:
        if not draft.fits(2):
            draft.decision.unserved = True
            break
        draft.give_up(ticket)
        draft.note_denial(ticket, Refusal.NO_SEAT_FREE, NOT_IN_TIME)
    for ticket, reason, message in impossible_tickets(pool):
        if ticket.grant_id in draft.gone:
            continue
        if not draft.fits(2):
            draft.decision.unserved = True
            break
        draft.give_up(ticket)
        draft.note_denial(ticket, reason, message)
    free_due(draft)
    for command in commands:
        _take(draft, command)
    end_works(draft)
    if not draft.is_closed:
        if over:
            free_reclaimed(draft, over)
        serve_queue(draft)
    store_waiting(draft)
    decision = draft.decision
    decision.outcomes += draft.moves.outcomes(draft.served, draft.gone)
    decision.guard = new_guard(draft)
    grants = marked_grants(pool, decision.grants, draft.freed)
    if grants is not decision.grants:
        decision.grants = grants
        decision.outcomes = with_grants(decision.outcomes, grants)
    beside(draft)
    return decision


def _take(draft: Draft, command: Command) -> None:
    """Apply one command, or defer it when the transaction is full."""
    need = 1 if isinstance(command, Acquire | MoveTicket) else RELEASE_WRITES
    is_late = isinstance(command, TakeOver) and bool(draft.asked)
    if draft.decision.deferred or draft.is_closed or is_late or not draft.fits(need):
        draft.decision.deferred.append(command)
    elif isinstance(command, TakeOver):
        take_over(draft, command)
    elif isinstance(command, Acquire):
        acquire(draft, command)
    elif isinstance(command, Administrative):
        administer(draft, command)
    else:
        release(draft, command)
