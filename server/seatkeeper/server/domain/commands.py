"""What a pool can be asked, and what it answers."""

from __future__ import annotations

from dataclasses import field
from datetime import timedelta
from enum import Enum, auto

from seatkeeper.server.domain.attribution import Attribution, HasAttribution
from seatkeeper.server.domain.holds import Revoke
from seatkeeper.server.domain.immutable import immutable
from seatkeeper.server.domain.state import Grant, Instant, Ticket


@immutable
class Acquire(HasAttribution):
    """Seats are wanted. Asking again with the same id finds the ticket or grant of the first time."""

    grant_id: str
    session_id: str
    lease_id: int
    attribution: Attribution
    seats: int
    wait: timedelta | None = None
    """How long to wait before giving up; None: without limit."""
    may_wait: bool = True
    """False: be denied at once when no seat is free."""
    kept: bytes = field(default=b"", repr=False, compare=False)
    """What another node wants in the ticket, where that is more than this version knows."""
    heeds_within: timedelta | None = None
    """The client heeds reclaims, and learns of one within so long at most; None: it does not."""

    def ticket(self, number: int, now: Instant) -> Ticket:
        """Return the ticket that this request waits with."""
        return Ticket(
            grant_id=self.grant_id,
            session_id=self.session_id,
            lease_id=self.lease_id,
            attribution=self.attribution,
            seats=self.seats,
            number=number,
            queued_at=now,
            wait=self.wait,
            kept=self.kept,
            heeds_within=self.heeds_within,
        )


@immutable
class TakeOver:
    """A session wants the seats of a live grant, which its holder has in another session.

    Under a new id, at once or not at all. Asking again with the same id finds the grant of the first
    time.
    """

    grant_id: str
    """The new one."""
    session_id: str
    lease_id: int
    holder: str
    taken_id: str
    """The grant that ends."""
    host: str = ""
    heeds_within: timedelta | None = None


@immutable
class WorkEnd:
    """How the work of a grant ended, for those who wait to do the same."""

    failure: str = ""
    """The name of the error, one that would come again; empty: it is done."""
    message: str = ""
    """The same for people."""


@immutable
class Release:
    """A grant is given back, or a ticket given up.

    Also when there is neither, so that a late duplicate of its ``Acquire`` takes no effect.
    """

    grant_id: str
    session_id: str
    lease_id: int
    work_end: WorkEnd | None = None
    """None: nothing is said of the work, so the next one does it."""


@immutable
class ForcedEnd:
    """An administrator ends a ticket, or a grant, of another.

    Ends what was seen and nothing else: a ticket that has become a grant stays, and so does a grant
    with another fence.
    """

    grant_id: str
    session_id: str
    """Whose it is."""
    fence: int
    """The grant's; 0: it is a ticket."""
    reason: str
    """For the holder."""


@immutable
class Withdraw:
    """A waiting request leaves the queue, as another of its alternatives is granted elsewhere."""

    grant_id: str
    session_id: str
    """Whose it is."""
    granted_in: str
    """The pool of the other one."""


@immutable
class KeepFree:
    """Seats are kept free for a gang that has waited for long, in this pool of its."""

    grant_id: str
    session_id: str
    """Whose it is."""
    until: Instant


class To(Enum):
    """Where a ticket is moved to, if not before another one."""

    FIRST = auto()
    LAST = auto()


@immutable
class MoveTicket:
    """An administrator gives another's ticket another place. Moves what was seen and nothing else."""

    grant_id: str
    session_id: str
    """Whose it is."""
    to: To | str
    """Where to; a grant id: right before that ticket."""
    reason: str
    move_id: str
    """The same one decided again moves nothing."""


@immutable
class RevokeGrant:
    """An administrator calls another's grant back with a notice: that which was seen, and no other."""

    grant_id: str
    session_id: str
    """Whose it is."""
    fence: int
    revoke: Revoke


@immutable
class WithdrawRevoke:
    """An administrator takes back that a grant is called back."""

    grant_id: str
    session_id: str
    fence: int


@immutable
class ExtendGrant:
    """An administrator lets another's grant be held for longer than the pool's longest hold."""

    grant_id: str
    session_id: str
    fence: int
    extended: timedelta
    """How much longer, with all that was added before."""
    seen: timedelta
    """What was seen of that: it must be so still, or be `extended` already."""


@immutable
class ReportIdle:
    """A holder says for how long it has done nothing with its grant."""

    grant_id: str
    session_id: str
    fence: int
    idle_for: timedelta | None
    """None: it does something with it again."""


@immutable
class BorrowGrant:
    """A session gives its grant to a machine: that which was seen, and no other.

    The same one decided again changes nothing.
    """

    grant_id: str
    session_id: str
    fence: int
    length: timedelta
    machine_key: bytes
    machine: str
    """The key's thumbprint."""


@immutable
class ReturnGrant:
    """A machine gives its grant back; its signature was looked at. Also when there is nothing there."""

    grant_id: str
    session_id: str
    """None has it: empty."""
    fence: int


BorrowCommand = BorrowGrant | ReturnGrant
"""What is asked of seats that leave with machines."""
HoldCommand = RevokeGrant | WithdrawRevoke | ExtendGrant | ReportIdle
"""What is said of a grant that goes on."""
Administrative = ForcedEnd | MoveTicket | HoldCommand | Withdraw | KeepFree | BorrowCommand
"""Commands of administrators, a node's own, and about seats that machines borrow: no requests for
seats, and not decided elsewhere."""
Command = Acquire | TakeOver | Release | Administrative


class Refusal(Enum):
    """Why a command was denied; on the wire a ``DenialReason``."""

    POOL_NOT_FOUND = auto()
    TOO_MANY_SEATS = auto()
    NO_SEAT_FREE = auto()
    OVERLOADED = auto()
    FINISHED = auto()
    NOT_YOURS = auto()
    OTHER_TERMS = (
        auto()
    )  # the same id with other seats or attributes; INVALID_ARGUMENT on the wire
    SESSION_LOST = auto()
    UNAVAILABLE = auto()
    WORK_ENDED = auto()
    REMOVED = auto()
    NOT_ALLOWED = auto()
    TOO_MANY_TICKETS = auto()
    POOL_DRAINED = auto()
    UNKNOWN_COST_CLASS = auto()
    BORROW_REFUSED = auto()
    GRANTED_ELSEWHERE = auto()
    NOT_TAKEN_OVER = auto()


@immutable
class Granted:
    """Seats are held."""

    grant: Grant


@immutable
class Queued:
    """The request waits."""

    ticket: Ticket


@immutable
class Denied:
    """The command was denied; it holds nothing and waits for nothing."""

    grant_id: str
    reason: Refusal
    message: str
    retry_after: timedelta | None = None
    work_end: WorkEnd | None = None
    """With ``WORK_ENDED``."""


@immutable
class Released:
    """No grant or ticket of this id exists, and none will."""

    grant_id: str


@immutable
class Moved:
    """The ticket is where it was to be moved to."""

    ticket: Ticket


@immutable
class Noted:
    """What was said of a grant is written."""

    grant: Grant


@immutable
class Forced:
    """A grant was ended by force: what its holder receives. No outcome of a command of its own."""

    grant_id: str
    message: str
    is_reclaimed: bool = False
    """Whether it was called back before; otherwise an administrator ended it."""


Outcome = Granted | Queued | Denied | Released | Moved | Noted
