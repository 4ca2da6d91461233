"""What the holder believes of seats that may be called back. Pure: the time is passed in.

Theory of operation
-------------------
A reclaim is written to the store with a length: no node frees the seats sooner than so long after it
was written. The holder does not know when that was. It knows that, when a node last confirmed that the
seats were held and not called back, nothing was written yet; and that was after it had sent the request
for them, or the renewal that was answered so. So it may count on the seats

    until = (when that was SENT) + the reclaim's length - margin

and, while it knows of no reclaim, as long as a lease from then: the shortest reclaim is longer. That
needs no common clock, and holds whatever is lost or delayed on the way: an answer that does not come
moves nothing, and one from a node that knows less is no confirmation.

A grant that could not be called back may be so from some moment on, when an administrator says so. Its
holder is notified, and its notice is written only after a renewal has named the grant. So what counts
is when the holder learned of it: the renewal was sent later.

A reclaim may be withdrawn and another, shorter one be made. It is no shorter than a lease, too, so a
holder that renews its session and has no word on the seats counts on them for no longer than a lease
from when the latest renewal was sent that was answered with one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from seatkeeper.client.session.holding import MARGIN_SHARE, RENEW_SHARE, SessionView


@dataclass(frozen=True, slots=True)
class CalledBack:
    """A reclaim that the holder knows of."""

    within: float
    """Seconds from when it was written, which the holder knows only to be after ``confirmed_at``."""
    message: str
    """For whom, for people."""
    learned_at: float
    """When a node said so last."""


@dataclass(slots=True)
class Recall:
    """What is believed of one grant that may be called back."""

    ttl: float
    """Of the session, when the grant came."""
    margin: float
    confirmed_at: float
    """When the latest request was sent whose answer had the grant as held and not called back."""
    reported_at: float = field(init=False)
    """When the latest request was sent whose answer had the grant as held, called back or not."""
    is_unreported: bool = field(init=False, default=False)
    """Whether a renewal was answered since, without a word on the grant."""
    called: CalledBack | None = field(init=False, default=None)
    """None: it is not called back, as far as is known."""

    def __post_init__(self) -> None:
        self.reported_at = self.confirmed_at

    @classmethod
    def of(cls, view: SessionView, confirmed_at: float) -> Recall:
        """Begin: the grant came in the answer to a request that was sent at ``confirmed_at``."""
        return cls(view.ttl, min(view.margin, view.ttl * MARGIN_SHARE), confirmed_at)

    @property
    def until(self) -> float:
        """Until when the holder counts on the seats, however long the session lives."""
        if self.called is None:
            return self.confirmed_at + self.ttl - self.margin
        until = self.confirmed_at + self.called.within - self.margin
        # Without that, the session's own lease is no longer, and the notice is what it is.
        return (
            min(until, self.reported_at + self.ttl - self.margin)
            if self.is_unreported
            else until
        )

    @property
    def ends_at(self) -> float:
        """When another may have the seats, or a moment before."""
        return self.until + self.margin

    def confirm(self, sent_at: float) -> bool:
        """Note that a node had the grant as held and not called back; return whether it was called.

        One that was learned of after the request was sent stands: the answer may be older.
        """
        self.confirmed_at = max(self.confirmed_at, sent_at)
        self._reported(sent_at)
        if self.called is None or self.called.learned_at > sent_at:
            return False
        self.called = None
        return True

    def not_reported(self) -> None:
        """Note that a renewal was answered without a word on the grant."""
        self.is_unreported = True

    def call(
        self, within: float, message: str, now: float, *, sent_at: float | None = None
    ) -> bool:
        """Note that the seats are called back; return whether that is new.

        ``sent_at``: when the renewal was sent that was answered so; None: it was no answer.
        """
        is_new = self.called is None
        if sent_at is not None:
            self._reported(sent_at)
        # What is said again may be another one, of which an answer on its way does not know.
        self.called = CalledBack(within, message, now)
        return is_new

    def _reported(self, sent_at: float) -> None:
        self.reported_at, self.is_unreported = max(self.reported_at, sent_at), False


def is_fresh(view: SessionView, sent_at: float, now: float) -> bool:
    """Return whether a grant may be believed in at once, whose request was sent at ``sent_at``.

    Otherwise a renewal confirms it first: it may have been called back since, and be gone.
    """
    return now < sent_at + view.ttl * RENEW_SHARE
