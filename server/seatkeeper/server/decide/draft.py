"""A decision being made: the pool as read, and what has been decided of it so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from seatkeeper.server.decide.counting import counts_only, keeps_any
from seatkeeper.server.decide.moving import Moves
from seatkeeper.server.decide.overtaken import Overtaken
from seatkeeper.server.decide.watermarks import Watermarks
from seatkeeper.server.domain.commands import (
    Acquire,
    Command,
    Denied,
    Forced,
    Outcome,
    Refusal,
    TakeOver,
    WorkEnd,
)
from seatkeeper.server.domain.counted_once import SeatSum
from seatkeeper.server.domain.hold_back import HoldBack
from seatkeeper.server.domain.holds import Holds
from seatkeeper.server.domain.limits import Limits
from seatkeeper.server.domain.state import Grant, Guard, Instant, PoolState, Stay, Ticket
from seatkeeper.server.domain.watermark import Watermark
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
    taken_over_fences: list[int] = field(init=False, default_factory=list)
    """Of those that their holders have taken over in another session."""
    lent: dict[str, Grant] = field(init=False, default_factory=dict)
    """Grants that machines have from now on, as they are then, by id."""
    returned_fences: list[int] = field(init=False, default_factory=list)
    """Of those among ``released_fences`` that machines gave back before their day."""
    tickets_ended: list[str] = field(init=False, default_factory=list)
    stays: dict[str, Stay | None] = field(init=False, default_factory=dict)
    """What is to be said of seats that outlive a session, by grant id; None: nothing any more."""
    kept: list[Stay] = field(init=False, default_factory=list)
    """Those of them that are kept from now on."""
    kept_freed: list[Grant] = field(init=False, default_factory=list)
    """Seats that were kept, and are free, or held again."""
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
            + len(self.lent)
            + len(self.grants_ended)
            + len(self.tickets_ended)
            + len(self.stays)
        )


@dataclass(slots=True)
class Draft:
    """A decision being made: the pool as read, and what has been decided so far."""

    pool: PoolState
    now: Instant
    limits: Limits
    policy: Policy
    decision: Decision = field(init=False)
    fence: int = field(init=False)
    """The last that was given out."""
    number: int = field(init=False)
    """The last ticket's."""
    sum: SeatSum = field(init=False)
    """What is in use, as far as it is decided."""
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
    hold_back: HoldBack | None = field(init=False, default=None)
    """The gang that seats are kept free for from now on; None: as before."""
    holds: Holds = field(init=False)
    """What is said of grants that go on."""
    said: set[str] = field(init=False, default_factory=set)
    """Ids of those of which this decision says something else."""
    width: int = field(init=False)
    """Records that may be written where otherwise there is one."""
    lingering: set[str] = field(init=False, default_factory=set)
    """Grants among ``gone`` whose seats are not free."""
    is_closed: bool = field(init=False, default=False)
    """Whether it takes no more commands and serves no ticket: what it made is in no plan."""
    unkept: set[str] = field(init=False, default_factory=set)
    """Ids of kept seats that are free, for this decision."""

    def __post_init__(self) -> None:
        self.marks = Watermarks(self.pool)
        self.decision = Decision(with_usage(self.pool, self.now), self.now, self.marks.written)
        self.fence = self.pool.guard.fence
        self.number = self.pool.guard.ticket_number
        self.sum = self.pool.sum.branch()
        self.is_advisory = counts_only(self.pool.spec)
        self.moves = Moves(self.pool, self.decision.moved)
        self.overtaken = Overtaken(self.pool)
        self.holds = self.pool.guard.holds
        self.width = 2 if self.pool.stays or keeps_any(self.pool.spec) else 1

    @property
    def held(self) -> int:
        """How many seats are in use, as far as it is decided."""
        return self.sum.of()

    def fits(self, writes: int) -> bool:
        """Return whether so many writes more fit into one transaction."""
        more = (self.reserved + writes) * self.width
        return self.decision.writes + more <= self.limits.writes_max

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
        """Give a command its outcome, for when the decision is written."""
        self.decision.outcomes.append((command, outcome))

    def deny(self, command: Command, reason: Refusal, message: str) -> None:
        """Answer that a command is denied."""
        retry = RETRY_LATER if reason in RETRYABLE else None
        self.answer(command, Denied(command.grant_id, reason, message, retry))

    def existing(self, grant_id: str) -> Grant | Ticket | None:
        """Return what is under an id and goes on, lent or not; None: nothing."""
        if grant_id in self.gone:
            return None
        if (lent := self.decision.lent.get(grant_id)) is not None:
            return lent
        return self.pool.grants.get(grant_id) or self.pool.tickets.get(grant_id)

    def complete(self, command: Acquire | TakeOver) -> None:
        """Let in no late copy of a request that is denied."""
        session = command.session_id, command.lease_id
        self.marks.complete(*session, command.grant_id, recorded=False)

    def deny_not_yours(self, command: Command) -> None:
        """Deny what another session has asked for."""
        self.deny(command, Refusal.NOT_YOURS, "this grant id belongs to another session")

    def end_grant(self, grant: Grant) -> None:
        """Free the seats of a stored grant, for the next ticket."""
        self.gone.add(grant.grant_id)
        self.decision.grants_ended.append(grant.grant_id)
        self.sum.remove(grant.seats, grant.group)
        self.reserved += RELEASE_WRITES - 2
        if grant.grant_id in self.pool.stays:
            self.decision.stays[grant.grant_id] = None

    def let_linger(self, grant: Grant, stay: Stay) -> None:
        """End a stored grant whose seats are kept."""
        self.gone.add(grant.grant_id)
        self.lingering.add(grant.grant_id)
        self.decision.grants_ended.append(grant.grant_id)
        self.decision.stays[grant.grant_id] = stay
        self.decision.kept.append(stay)

    def free_kept(self, kept: Grant) -> None:
        """Keep seats no more: they are for the next ticket, or for the one that they were kept for."""
        self.unkept.add(kept.grant_id)
        self.sum.remove(kept.seats, kept.group)
        self.decision.stays[kept.grant_id] = None
        self.decision.kept_freed.append(kept)
        before = self.decision.kept
        self.decision.kept = [each for each in before if each.grant.grant_id != kept.grant_id]

    def kept(self, grant_id: str) -> Grant | None:
        """Return the seats that are kept under an id; None: there are none."""
        return None if grant_id in self.unkept else self.pool.kept.get(grant_id)

    @property
    def freed(self) -> set[str]:
        """Ids of all that ends, and of what holds no seats any more."""
        if not self.lingering and not self.unkept:
            return self.gone
        return (self.gone - self.lingering) | self.unkept

    def answer_again(self, denied: Denied) -> None:
        """Answer those who asked again for what ends now; the id may get another owner."""
        for command, asked_for in self.again:
            if asked_for == denied.grant_id:
                self.answer(command, denied)
        self.again = [entry for entry in self.again if entry[1] != denied.grant_id]

    def take_back(self, grant: Grant, lost: Forced) -> None:
        """Free the seats of a grant without its holder asking."""
        owner = grant.session_id, grant.lease_id
        self.decision.reclaimed_fences.append(grant.fence)
        self.end_grant(grant)
        if grant.borrow is not None:
            return  # no session is there to be notified
        self.marks.complete(*owner, grant.grant_id, recorded=True)
        self.marks.note_loss(*owner, lost)


def snapshot(draft: Draft) -> PoolSnapshot:
    """Return the pool as the commands have left it."""
    spec = draft.pool.spec
    stored = max(0, draft.limits.writes_max - draft.decision.writes) // 2
    asked = draft.asked.items()
    return PoolSnapshot(
        state=draft.pool,
        free=max(0, spec.open_seats - draft.held) if spec else 0,
        ticket_number=draft.number,
        # One more shows that something is left to serve.
        grants_max=len(asked) + stored + 1,
        ended=draft.freed,
        new=[ticket for _, ticket in draft.asked.values()],
        impatient={grant_id for grant_id, (each, _) in asked if not each.may_wait},
        sum=draft.sum,
    )
