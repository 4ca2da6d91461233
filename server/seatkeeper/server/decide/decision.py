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
from dataclasses import dataclass, field, replace
from datetime import timedelta

from seatkeeper.server.decide import holding, reclaimed
from seatkeeper.server.decide.counting import counted, counts_only, mark_of
from seatkeeper.server.decide.entering import Entering
from seatkeeper.server.decide.forced import not_as_seen, removed, taken_back
from seatkeeper.server.decide.marking import marked_grants, waits_after, with_grants
from seatkeeper.server.decide.moving import Moves
from seatkeeper.server.decide.overtaken import Overtaken
from seatkeeper.server.decide.possible import impossible, impossible_tickets
from seatkeeper.server.decide.watermarks import Watermarks
from seatkeeper.server.decide.weighing import asked_seats, unknown_class, weighed
from seatkeeper.server.decide.work import WorksBegun, waiting_for, work_ended
from seatkeeper.server.domain.advisory import AdvisoryMark
from seatkeeper.server.domain.commands import (
    Acquire,
    Administrative,
    Command,
    Denied,
    Forced,
    ForcedEnd,
    Granted,
    HoldCommand,
    MoveTicket,
    Outcome,
    Queued,
    Refusal,
    Release,
    Released,
    WorkEnd,
)
from seatkeeper.server.domain.gang import Gang
from seatkeeper.server.domain.holds import Holds
from seatkeeper.server.domain.limits import Limits
from seatkeeper.server.domain.state import (
    Grant,
    Guard,
    Instant,
    PoolSpec,
    PoolState,
    Ticket,
)
from seatkeeper.server.domain.watermark import Watermark
from seatkeeper.server.policy.by_pool import BY_POOL
from seatkeeper.server.policy.plan import Plan, Policy
from seatkeeper.server.policy.snapshot import PoolSnapshot
from seatkeeper.server.policy.usage import with_usage

RELEASE_WRITES = 4
"""Writes that a release may lead to: grant and watermark, then the next ticket and its grant."""
COMPLETING = {
    *(Refusal.FINISHED, Refusal.TOO_MANY_SEATS, Refusal.WORK_ENDED, Refusal.REMOVED),
    *(Refusal.NOT_ALLOWED, Refusal.TOO_MANY_TICKETS, Refusal.UNKNOWN_COST_CLASS),
}
"""Denials after which the id is completed: a late copy must not be let in when the pool has changed."""
RETRYABLE = {Refusal.OVERLOADED, Refusal.NO_SEAT_FREE, Refusal.POOL_DRAINED}
RETRY_LATER = timedelta(seconds=1)
COMPLETED_BEFORE = (
    "this grant id, or one made much later, is completed; ask again with a new one"
)
NOT_IN_TIME = "no seat became free in time"
RELEASED_BEFORE = "released before it was granted"
SESSION_ENDED = "the session has ended; open a new one"


@dataclass(slots=True)
class Decision:
    """What to write, and what to answer once it is written.

    ``deferred`` are the commands that did not fit into one transaction: decide again with them.
    ``unserved`` is true when tickets could have been served but did not fit.
    """

    guard: Guard
    decided_at: Instant
    marks: dict[str, Watermark]
    """By session."""
    grants: list[Grant] = field(init=False, default_factory=list)
    tickets: list[Ticket] = field(init=False, default_factory=list)
    moved: dict[str, Ticket] = field(init=False, default_factory=dict)
    """Tickets that an administrator has given another place, by grant id."""
    grants_ended: list[str] = field(init=False, default_factory=list)
    released_fences: list[int] = field(init=False, default_factory=list)
    """Of those grants that their holders gave back."""
    reclaimed_fences: list[int] = field(init=False, default_factory=list)
    """Of those that an administrator ended."""
    tickets_ended: list[str] = field(init=False, default_factory=list)
    outcomes: list[tuple[Command, Outcome]] = field(init=False, default_factory=list)
    deferred: list[Command] = field(init=False, default_factory=list)
    unserved: bool = field(init=False, default=False)
    is_reclaim: bool = field(init=False, default=False)
    """Whether other grants are called back than before, or something else was said of one: what is
    written with the guard."""

    @property
    def changes(self) -> bool:
        """Whether anything is to be written, if only the guard."""
        return self.is_reclaim or bool(self.writes)

    @property
    def writes(self) -> int:
        """Number of keys that change, the guard not counted."""
        return (
            len(self.grants)
            + len(self.tickets)
            + len(self.moved)
            + len(self.marks)
            + len(self.grants_ended)
            + len(self.tickets_ended)
        )


def decide(
    pool: PoolState,
    commands: Sequence[Command],
    now: Instant,
    limits: Limits,
    due: Iterable[Ticket] = (),
    *,
    policy: Policy = BY_POOL,
    over: Collection[int] = (),
) -> Decision:
    """Give up tickets, answer ``commands`` in order, and serve what ``policy`` plans.

    Tickets are given up that are ``due``, and those that can never be served. ``over``: the numbers of
    the reclaims whose notice is over; of these the seats are freed that are still wanted back.

    ``now`` is written down, and decides what the policy makes depend on it. ``due`` are tickets of the
    pool that have waited long enough, each once.
    Changes nothing: the decision says what to write. The same arguments give the same decision.
    """
    draft = _Draft(pool, now, limits, policy)
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
    for command in commands:
        draft.take(command)
    draft.end_works()
    if over:
        _free_reclaimed(draft, over)
    draft.serve_queue()
    draft.store_waiting()
    draft.decision.outcomes += draft.moves.outcomes(draft.served, draft.gone)
    guard = draft.decision.guard
    overtaken = draft.overtaken.waiting(draft.decision.tickets, draft.gone, draft.served)
    if overtaken or guard.overtaken:
        guard = replace(guard, overtaken=overtaken)
    reclaims = reclaimed.reclaims_after(pool, draft.plan, now, draft.gone)
    if reclaims is not pool.guard.reclaims:
        guard = replace(guard, reclaims=reclaims)
        draft.decision.is_reclaim = True
    if (holds := holding.kept(draft.holds, pool, draft.gone)) is not pool.guard.holds:
        guard = replace(guard, holds=holds)
        # What is left of grants that are gone is worth no write of its own.
        draft.decision.is_reclaim = draft.decision.is_reclaim or bool(draft.said)
    held, made = (pool.held, draft.held), draft.decision.grants
    counts = counted(guard.advisory, pool.spec, now, held=held, grants=made)
    if counts is not guard.advisory:
        guard = replace(guard, advisory=counts)
    draft.decision.guard = guard
    _mark(draft)
    return draft.decision


def _mark(draft: _Draft) -> None:
    """Mark what is granted with the lots that its seats come from, and count what it waited."""
    decision = draft.decision
    grants = marked_grants(draft.pool, decision.grants, draft.gone)
    if grants is not decision.grants:
        decision.grants = grants
        decision.outcomes = with_grants(decision.outcomes, grants)
    waits = waits_after(draft.pool, grants, draft.gone, draft.now)
    if waits is not decision.guard.waits:
        decision.guard = replace(decision.guard, waits=waits)


def _free_reclaimed(draft: _Draft, over: Collection[int]) -> None:
    """End the grants whose notice is over, as far as writes go, for those who are served next."""
    plan = draft.policy.plan(_snapshot(draft), draft.now)
    for grant in reclaimed.freed(draft.pool, plan, over, draft.said):
        if not draft.fits(RELEASE_WRITES):
            draft.decision.unserved = True
            return
        lost = reclaimed.taken_back(
            grant, draft.pool.guard.reclaims.running.get(grant.grant_id)
        )
        _take_back(draft, grant, lost)


def _take_back(draft: _Draft, grant: Grant, lost: Forced) -> None:
    """Free the seats of a grant without its holder asking."""
    owner = grant.session_id, grant.lease_id
    draft.decision.reclaimed_fences.append(grant.fence)
    draft.end_grant(grant)
    draft.marks.complete(*owner, grant.grant_id, recorded=True)
    draft.marks.note_loss(*owner, lost)


@dataclass(slots=True)
class _Draft:
    """A decision being made: the pool as read, and what has been decided so far."""

    pool: PoolState
    now: Instant
    limits: Limits
    policy: Policy
    decision: Decision = field(init=False)
    held: int = field(init=False)
    is_advisory: bool = field(init=False)
    """Whether seats beyond the capacity are granted, and marked."""
    reserved: int = field(init=False, default=0)
    """Writes that commands taken so far may still need."""
    asked: dict[str, tuple[Acquire, Ticket]] = field(init=False, default_factory=dict)
    """New requests, not stored yet, by grant id, in order of arrival."""
    again: list[tuple[Acquire, str]] = field(init=False, default_factory=list)
    """Requests that found a ticket: answered when the queue has been served."""
    gone: set[str] = field(init=False, default_factory=set)
    """Stored tickets and grants that this decision ends."""
    works_ended: dict[str, WorkEnd] = field(init=False, default_factory=dict)
    """By work key: what the holder says who releases now."""
    marks: Watermarks = field(init=False)
    served: dict[str, Grant] = field(init=False, default_factory=dict)
    moves: Moves = field(init=False)
    overtaken: Overtaken = field(init=False)
    plan: Plan | None = field(init=False, default=None)
    """What the policy wants, once it has planned."""
    holds: Holds = field(init=False)
    """What is said of grants that go on."""
    said: set[str] = field(init=False, default_factory=set)
    """Ids of those of which this decision says something else."""

    def __post_init__(self) -> None:
        self.marks = Watermarks(self.pool)
        self.decision = Decision(with_usage(self.pool, self.now), self.now, self.marks.written)
        self.held = self.pool.held
        self.is_advisory = counts_only(self.pool.spec)
        self.moves = Moves(self.pool, self.decision.moved)
        self.overtaken = Overtaken(self.pool)
        self.holds = self.pool.guard.holds

    def fits(self, writes: int) -> bool:
        return self.decision.writes + self.reserved + writes <= self.limits.writes_max

    def take(self, command: Command) -> None:
        """Apply one command, or defer it when the transaction is full."""
        need = 1 if isinstance(command, Acquire | MoveTicket) else RELEASE_WRITES
        if self.decision.deferred or not self.fits(need):
            self.decision.deferred.append(command)
        elif isinstance(command, Acquire):
            self._acquire(command)
        elif isinstance(command, Administrative):
            _administer(self, command)
        else:
            self._release(command)

    def give_up(self, ticket: Ticket) -> None:
        """End a ticket that has waited long enough."""
        self.gone.add(ticket.grant_id)
        self.decision.tickets_ended.append(ticket.grant_id)
        self.marks.complete(ticket.session_id, ticket.lease_id, ticket.grant_id, recorded=True)

    def note_denial(self, ticket: Ticket, reason: Refusal, message: str) -> None:
        """Write down why a ticket that was given up is denied."""
        retry = RETRY_LATER if reason in RETRYABLE else None
        denied = Denied(ticket.grant_id, reason, message, retry)
        self.marks.note_denial(ticket.session_id, ticket.lease_id, denied)

    def answer(self, command: Command, outcome: Outcome) -> None:
        self.decision.outcomes.append((command, outcome))

    def _deny(self, command: Command, reason: Refusal, message: str) -> None:
        retry = RETRY_LATER if reason in RETRYABLE else None
        self.answer(command, Denied(command.grant_id, reason, message, retry))

    def _acquire(self, command: Acquire) -> None:
        grant_id = command.grant_id
        if (earlier := self.asked.get(grant_id)) is not None:
            self._acquire_again(command, earlier[1])
            return
        if (found := self.existing(grant_id)) is not None:
            self._acquire_again(command, found)
            return
        if grant_id in self.gone and not self.marks.is_completed(command.session_id, grant_id):
            # Another session's until now. A transaction writes no key twice.
            self._deny_not_yours(command)
            return
        guard = self.decision.guard
        number = guard.ticket_number + 1
        ticket = weighed(self.pool.spec, command.ticket(number, self.now))
        if (refusal := self._refusal(command, ticket)) is not None:
            self._deny(command, *refusal)
            if refusal[0] in COMPLETING:
                self._complete(command)
            return
        self.decision.guard = _moved(guard, number=number)
        self.asked[grant_id] = (command, ticket)
        self.reserved += 1

    def _acquire_again(self, command: Acquire, found: Grant | Ticket) -> None:
        if found.session_id != command.session_id:
            self._deny_not_yours(command)
        elif command.session_id in self.pool.dead_sessions:
            self._deny(command, Refusal.SESSION_LOST, SESSION_ENDED)
        elif _terms(found) != _terms(command):
            self._deny(command, Refusal.OTHER_TERMS, _other_terms(found))
        elif isinstance(found, Grant):
            self.answer(command, Granted(found))
        else:
            self.again.append((command, found.grant_id))

    def existing(self, grant_id: str) -> Grant | Ticket | None:
        if grant_id in self.gone:
            return None
        return self.pool.grants.get(grant_id) or self.pool.tickets.get(grant_id)

    def _refusal(self, command: Acquire, ticket: Ticket) -> tuple[Refusal, str] | None:
        """Return why a new request, which would wait with a ticket, cannot be accepted, or None."""
        if (why := _impossible(self.pool.spec, ticket)) and self.pool.spec is None:
            return why
        if command.session_id in self.pool.dead_sessions:
            return Refusal.SESSION_LOST, SESSION_ENDED
        if why is not None:  # also of one whose ticket this decision has denied
            return why
        if self.marks.is_completed(command.session_id, command.grant_id):
            return self.marks.forced_answer(command) or (Refusal.FINISHED, COMPLETED_BEFORE)
        return None

    def _complete(self, command: Acquire) -> None:
        session = command.session_id, command.lease_id
        self.marks.complete(*session, command.grant_id, recorded=False)

    def _deny_not_yours(self, command: Command) -> None:
        self._deny(command, Refusal.NOT_YOURS, "this grant id belongs to another session")

    def _release(self, command: Release) -> None:
        grant_id, recorded = command.grant_id, False
        if (earlier := self.asked.get(grant_id)) is not None:
            if earlier[0].session_id != command.session_id:
                self._deny_not_yours(command)
                return
            del self.asked[grant_id]
            self.reserved -= 1
            self._deny(earlier[0], Refusal.FINISHED, RELEASED_BEFORE)
        elif (found := self.existing(grant_id)) is not None:
            if found.session_id != command.session_id:
                self._deny_not_yours(command)
                return
            recorded = True
            if isinstance(found, Grant):
                self.decision.released_fences.append(found.fence)
                self.end_grant(found)
                if command.work_end is not None and found.work_key:
                    self.works_ended[found.work_key] = command.work_end
            else:
                self.gone.add(grant_id)
                self.decision.tickets_ended.append(grant_id)
        self.answer_again(Denied(grant_id, Refusal.FINISHED, RELEASED_BEFORE))
        self.marks.complete(command.session_id, command.lease_id, grant_id, recorded=recorded)
        self.answer(command, Released(grant_id))

    def end_grant(self, grant: Grant) -> None:
        """Free the seats of a stored grant, for the next ticket."""
        self.gone.add(grant.grant_id)
        self.decision.grants_ended.append(grant.grant_id)
        self.held -= grant.seats
        self.reserved += RELEASE_WRITES - 2

    def answer_again(self, denied: Denied) -> None:
        """Answer those who asked again for what ends now; the id may get another owner."""
        for command, asked_for in self.again:
            if asked_for == denied.grant_id:
                self.answer(command, denied)
        self.again = [entry for entry in self.again if entry[1] != denied.grant_id]

    def end_works(self) -> None:
        """Answer those who wait for work that has ended, as far as writes go.

        The next of those that do not fit is granted, finds the work ended, and says so in its turn.
        """
        new = [ticket for _, ticket in self.asked.values()]
        for work_key, end in self.works_ended.items():
            for ticket in waiting_for(work_key, self.pool, self.gone, new):
                if not self.fits(2):
                    return
                self._end_work(ticket, work_ended(ticket, end))

    def _end_work(self, ticket: Ticket, denied: Denied) -> None:
        grant_id = ticket.grant_id
        if (asked := self.asked.pop(grant_id, None)) is not None:
            self.reserved -= 1
            self.answer(asked[0], denied)
            self.marks.complete(ticket.session_id, ticket.lease_id, grant_id, recorded=False)
        else:
            self.give_up(ticket)
            self.marks.note_denial(ticket.session_id, ticket.lease_id, denied)
        self.answer_again(denied)

    def serve_queue(self) -> None:
        """Turn tickets into grants, as the policy plans, while seats and writes last."""
        self.reserved = len(self.asked)
        pool = _snapshot(self)
        plan, free, works = self.policy.plan(pool, self.now), pool.free, WorksBegun(pool)
        self.plan = plan
        for ticket in plan.serve:
            is_new = ticket.grant_id in self.asked
            is_free = ticket.seats <= free or self.is_advisory
            if not is_free or not (is_new or self._is_stored(ticket)):
                return  # The policy is wrong, and no seat is granted that is not there.
            if not works.may_begin(ticket):
                continue
            if not is_new and not self.fits(2):
                self.decision.unserved = True
                return
            free -= ticket.seats
            self._grant(ticket, is_new=is_new)

    def _is_stored(self, ticket: Ticket) -> bool:
        """Return whether a stored ticket waits still, also for this decision."""
        return (
            ticket.grant_id in self.pool.tickets
            and ticket.grant_id not in self.gone
            and ticket.grant_id not in self.served
            and ticket.session_id not in self.pool.dead_sessions
        )

    def _grant(self, ticket: Ticket, *, is_new: bool) -> None:
        fence = self.decision.guard.fence + 1
        self.decision.guard = _moved(self.decision.guard, fence=fence)
        grant = Grant(
            grant_id=ticket.grant_id,
            session_id=ticket.session_id,
            lease_id=ticket.lease_id,
            attribution=ticket.attribution,
            seats=ticket.seats,
            fence=fence,
            asked_at=ticket.queued_at,
            granted_at=self.now,
            heeds_within=reclaimed.heeds_within(self.pool.spec, ticket),
            mark=_advisory_mark(self, ticket) if self.is_advisory else None,
        )
        self.held += grant.seats
        self.served[grant.grant_id] = grant
        self.decision.grants.append(grant)
        if self.plan is not None:
            self.overtaken.note(grant, self.plan.passed.get(grant.grant_id, ()))
        if is_new:
            command, _ = self.asked.pop(grant.grant_id)
            self.reserved -= 1
            self.answer(command, Granted(grant))
        else:
            self.decision.tickets_ended.append(grant.grant_id)

    def store_waiting(self) -> None:
        """Give a stored ticket to each request that still waits, and answer those asked again."""
        refused: dict[str, tuple[Refusal, str]] = {}
        entering = Entering(self.pool, self.limits, self.decision.tickets_ended)
        for grant_id, (command, ticket) in self.asked.items():
            if command.may_wait:
                if (full := entering.refusal(command)) is not None:
                    refused[grant_id] = full
                    self._deny(command, *full)
                    if full[0] in COMPLETING:
                        self._complete(command)
                    continue
                entering.add(command)
                self.decision.tickets.append(ticket)
                self.answer(command, Queued(ticket))
            elif self.decision.unserved:
                # A seat may be free: the queue was cut short by the size of the transaction.
                self.decision.deferred.append(command)
            else:
                self._deny(command, *_no_seat(self.pool.spec, self.plan, ticket))
                self._complete(command)
        for command, grant_id in self.again:
            if (grant := self.served.get(grant_id)) is not None:
                self.answer(command, Granted(grant))
            elif grant_id in refused:
                self._deny(command, *refused[grant_id])
            elif (asked := self.asked.get(grant_id)) is not None and asked[0].may_wait:
                self.answer(command, Queued(asked[1]))
            elif asked is not None and self.decision.unserved:
                self.decision.deferred.append(command)  # as the first of the two
            elif (stored := self.pool.tickets.get(grant_id)) is not None:
                self.answer(command, Queued(self.decision.moved.get(grant_id, stored)))
            else:
                self._deny(command, *_no_seat(self.pool.spec))


def _snapshot(draft: _Draft) -> PoolSnapshot:
    """Return the pool as the commands have left it."""
    spec = draft.pool.spec
    stored = max(0, draft.limits.writes_max - draft.decision.writes) // 2
    asked = draft.asked.items()
    return PoolSnapshot(
        state=draft.pool,
        free=max(0, spec.open_seats - draft.held) if spec else 0,
        ticket_number=draft.decision.guard.ticket_number,
        # One more shows that something is left to serve.
        grants_max=len(asked) + stored + 1,
        ended=draft.gone,
        new=[ticket for _, ticket in draft.asked.values()],
        impatient={grant_id for grant_id, (each, _) in asked if not each.may_wait},
    )


def _advisory_mark(draft: _Draft, ticket: Ticket) -> AdvisoryMark | None:
    """Return why a binding pool would not have granted a ticket now; None: it would have."""
    asked = draft.asked.get(ticket.grant_id)
    may_wait = asked is None or asked[0].may_wait
    return mark_of(draft.pool.spec, draft.plan, ticket, draft.held, may_wait=may_wait)


def _impossible(spec: PoolSpec | None, ticket: Ticket) -> tuple[Refusal, str] | None:
    """Return why the request of a ticket that is not stored yet can never be served, or None."""
    why = impossible(spec, ticket)
    if why is not None or spec is None or not ticket.attribution.cost_class:
        return why
    unknown = None if spec.policy.counting.is_advisory else unknown_class(spec, ticket)
    return None if unknown is None else (unknown[0], f"{unknown[1]}; name one of these")


def _other_terms(found: Grant | Ticket) -> str:
    seats, project, priority, named, gang = _terms(found)
    asked_before = f"{seats} seats for project {project} at priority {priority}"
    if named:
        asked_before += f" as {named}"
    if gang:
        asked_before += " with seats of " + " and ".join(each.pool for each in gang)
    return f"this grant id asked for {asked_before} before; ask for others under a new id"


def _administer(draft: _Draft, command: Administrative) -> None:
    """Take an administrator's command."""
    if isinstance(command, ForcedEnd):
        _end_by_force(draft, command)
        return
    if isinstance(command, HoldCommand):
        found = draft.existing(command.grant_id)
        before = draft.holds
        draft.holds, outcome = holding.noted(command, found, draft.pool, before)
        if draft.holds is not before:
            draft.said.add(command.grant_id)
        draft.answer(command, outcome)
        return
    guard = draft.decision.guard
    number = guard.ticket_number + 1
    if draft.moves.take(command, draft.gone, number, draft.now):
        draft.decision.guard = _moved(guard, number=number)


def _end_by_force(draft: _Draft, command: ForcedEnd) -> None:
    """End a ticket or a grant of another, if it still is what the administrator saw."""
    found = draft.existing(command.grant_id)
    was_forced = draft.marks.forced_answer(command) is not None
    if (denied := not_as_seen(command, found, was_forced=was_forced)) is not None:
        draft.answer(command, denied)
        return
    if found is not None and found.session_id == command.session_id:
        owner = found.session_id, found.lease_id
        if isinstance(found, Grant):
            _take_back(draft, found, taken_back(found, command.reason))
        else:
            answer = removed(found, command.reason)
            draft.give_up(found)
            draft.marks.note_denial(*owner, answer)
            draft.answer_again(answer)
    draft.answer(command, Released(command.grant_id))


def _moved(guard: Guard, *, fence: int = 0, number: int = 0) -> Guard:
    """Return a guard with a counter moved on; `dataclasses.replace` takes several times as long."""
    return Guard(
        fence or guard.fence,
        number or guard.ticket_number,
        guard.kept,
        guard.usage,
        guard.overtaken,
        guard.reclaims,
        guard.waits,
        guard.holds,
        guard.advisory,
    )


def _no_seat(
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
    if asked and asked.gang:
        return "its gang is granted when all of its seats are free; wait for them"
    if plan and asked and plan.hold_back(asked):
        if (why := plan.why(asked)) is not None:
            return f"{why}; wait, or try again later"
        if asked.work_key:
            return "another holder does, or is to do, the same work; wait for it, or try again later"
        return "the pool's policy grants this request no seat now; wait, or try again later"
    return f"no seat is free ({seats} in the pool); wait for one, or try again later"


def _terms(asked: Acquire | Grant | Ticket) -> tuple[int, str, int, str, Gang]:
    named = asked.attribution.cost_class
    return asked_seats(asked), asked.project, asked.priority, named, asked.gang
